"""Training of every part of the built-in model on synthetic talking heads."""
