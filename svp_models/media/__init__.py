"""Sound and video in and out."""
