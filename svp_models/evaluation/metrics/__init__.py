"""Metrics as free functions on frames, landmarks, series, features, audio and style codes."""
