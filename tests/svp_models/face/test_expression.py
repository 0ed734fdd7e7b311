from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.affine import transform_points
from svp_portrait.svp_models.face.detection import FaceDetection, build_track
from svp_portrait.svp_models.face.expression import deep3d_alignment, pose_from_angles, predict_expression
from svp_portrait.svp_models.face.head_pose import FIVE_POINTS_3D

FRONTAL = FIVE_POINTS_3D[:, :2] * (1, -1)  # y down, decimetres


class Brightness(nn.Module):
    """Tells the mean of each crop's red channel."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, images):
        mean = images[:, :1].mean(dim=(2, 3)) + self.bias
        return {"expression": mean.expand(-1, 64), "angle": mean.expand(-1, 3)}


def track(present=(True, False, True)):
    five = (FRONTAL * 60 + (50, 40)).astype(np.float32)
    faces = [FaceDetection(np.zeros(4), np.zeros((8, 2)), five) if each else None for each in present]
    return build_track(faces, 100, 80)


@pytest.mark.parametrize("scale", [40.0, 300.0])
def test_the_standard_face_comes_to_the_middle_at_102_pixels_a_decimetre(scale):
    matrix = deep3d_alignment(FRONTAL * scale + (500, 300))
    assert np.allclose(transform_points(FRONTAL * scale + (500, 300), matrix), FRONTAL * 102 + 112, atol=1e-6)


def test_a_tilted_head_stays_tilted():
    tilted = FRONTAL @ np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    assert np.allclose(transform_points(tilted * 50, deep3d_alignment(tilted * 50)), tilted * 102 + 112, atol=1e-6)


def test_coefficients_of_the_frames_that_show_the_face():
    frames = np.stack([np.full((80, 100, 3), value, np.uint8) for value in (255, 9, 0)])
    calls = []
    expression, pose = predict_expression(
        Brightness(), frames, track(), lambda done, total: calls.append((done, total))
    )
    assert expression.shape == (3, 64) and pose.shape == (3, 3) and calls == [(2, 2)]
    covered = 100 * 80 * (102 / 60) ** 2 / 224**2  # the rest of the crop is outside of the frame
    assert np.allclose(expression[0], covered, rtol=0.02) and not expression[1:].any()


def test_the_networks_angles_in_degrees():
    assert np.allclose(pose_from_angles(np.radians([[10.0, 20, 30]])), [[20, 10, -30]])


def test_what_does_not_fit_is_named():
    with pytest.raises(PortraitError, match="2 frames and a track of 3 frames: analyse the same frames again"):
        predict_expression(Brightness(), np.zeros((2, 80, 100, 3), np.uint8), track())
    with pytest.raises(PortraitError, match="one spot"):
        deep3d_alignment(np.full((5, 2), 7.0))
    broken = Brightness()
    broken.bias.data.fill_(torch.nan)
    with pytest.raises(PortraitError, match="frames 0, 2 is not finite"):
        predict_expression(broken, np.zeros((3, 80, 100, 3), np.uint8), track())
