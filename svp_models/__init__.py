"""Everything that computes; knows nothing of ComfyUI."""
