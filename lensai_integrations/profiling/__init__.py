"""Images as the camera or the file delivered them: of any size and colour mode, one at a time, in whatever process."""
