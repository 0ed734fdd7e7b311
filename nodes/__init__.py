"""The face to ComfyUI: thin nodes, the host or its stand-in, and the command line's entry."""
