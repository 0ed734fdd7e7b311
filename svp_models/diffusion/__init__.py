"""Sampling: from a portrait, a voice, a head motion and a style to latents, and from latents to frames."""
