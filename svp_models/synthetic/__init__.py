"""Procedural talking heads with exact ground truth: faces drawn from parameters, and what moves them."""
