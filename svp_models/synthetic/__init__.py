"""Procedural talking heads with exact ground truth: faces rendered from parameters, and their speech and motion."""
