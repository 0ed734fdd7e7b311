"""Training of every part of the built-in model on drawn talking heads."""
