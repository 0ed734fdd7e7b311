"""Metrics as free functions, and the evaluation of the built-in model."""
