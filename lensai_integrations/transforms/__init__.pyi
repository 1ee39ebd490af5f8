from .profile_images import ProfileImages as ProfileImages
