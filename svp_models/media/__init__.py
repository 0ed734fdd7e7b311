"""Audio, images and video: read and written."""
