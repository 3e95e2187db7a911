"""What a run leaves on disk: pictures, videos and folders, nothing of it ever half-written."""
