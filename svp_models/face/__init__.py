"""Faces in frames: finding them, their head keypoints, drawing and retargeting these."""
