"""Face detectors behind one interface (`face.detection.FaceBackend`)."""
