"""Small mergeable summaries of streams: numpy, datasketches and the array API, no framework and no files."""
