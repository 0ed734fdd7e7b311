"""The networks, one file each; shapes in every docstring."""
