from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detection import build_track, choose_faces
from svp_portrait.svp_models.face.detectors.built_in import BuiltInBackend, FaceAnalyzer


def test_it_gives_what_the_analyser_gives():
    onnx = load_model(BUILTIN_MODEL).face_analyzer
    frames = np.random.default_rng(0).integers(0, 255, (3, 40, 56, 3), dtype=np.uint8)
    track = FaceAnalyzer(onnx).analyze(frames)
    found = list(BuiltInBackend(onnx).detect(frames))
    assert [len(each) == 1 for each in found] == track.present.tolist()
    again = build_track(choose_faces(found), 56, 40)
    for name in ("boxes", "landmarks", "head_keypoints", "expression", "pose", "five_points"):
        value = getattr(again, name)
        assert value is None or np.array_equal(value[track.present], getattr(track, name)[track.present])
    assert np.allclose(track.five_points[:, 2:], track.landmarks[:, [30, 48, 54]])


def test_wrong_frames_are_named():
    onnx = load_model(BUILTIN_MODEL).face_analyzer
    with pytest.raises(PortraitError, match="must be uint8 of shape"):
        list(BuiltInBackend(onnx).detect(np.zeros((2, 8, 8, 4), np.uint8)))
