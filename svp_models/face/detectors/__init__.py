"""Ways to find faces, one file each, behind one interface (`face.detection.FaceBackend`)."""
