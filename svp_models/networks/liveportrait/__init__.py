"""LivePortrait's networks (Guo et al. 2024): appearance, motion, warping, generator, stitching; parameter names of the published files."""
