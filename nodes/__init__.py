"""Nodes for ComfyUI: thin nodes, the host or its stub, and the entry of the command line."""
