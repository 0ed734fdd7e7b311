from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.analyzer import FaceTrack
from svp_portrait.svp_models.face.tracking import expression_of, track_face


def test_a_model_without_analyser_says_what_to_do():
    with pytest.raises(PortraitError, match="no face analyser, so the style clip.*built-in model"):
        track_face(None, np.zeros((1, 8, 8, 3), np.uint8), "the style clip")


def test_expressions_of_missing_frames_lie_between():
    expression = np.zeros((3, 64), np.float32)
    expression[2] = 2.0
    expression[1] = 99.0  # means nothing: no face there
    track = FaceTrack(
        boxes=np.zeros((3, 4), np.float32),
        landmarks=np.zeros((3, 68, 2), np.float32),
        head_keypoints=np.zeros((3, 8, 2), np.float32),
        expression=expression,
        pose=np.zeros((3, 6), np.float32),
        present=np.array([True, False, True]),
        width=8,
        height=8,
    )
    filled = expression_of(track)
    assert filled.dtype == torch.float32 and torch.equal(filled[1], torch.ones(64))
