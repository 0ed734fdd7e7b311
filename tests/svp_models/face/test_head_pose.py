from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.face.affine import fit_affine_camera, fit_rotation
from svp_portrait.svp_models.face.head_pose import FIVE_POINTS_3D, pose_from_five_points, pose_from_rotation

POSES = [(0, 0, 0), (25, 0, 0), (-30, 5, 0), (0, 20, 0), (10, -15, 12), (5, 10, -25)]


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rz(-roll) Ry(yaw) Rx(pitch) from the textbook, angles in degrees."""
    x, y, z = np.radians([pitch, yaw, -roll])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


@pytest.mark.parametrize("pose", POSES)
def test_angles_come_back_from_rotations(pose):
    turned = rotation(*pose)
    assert np.allclose(pose_from_rotation(turned), pose, atol=1e-4)
    points = np.random.default_rng(0).normal(size=(10, 3))
    assert np.allclose(fit_rotation(points, 3 * points @ turned.T + (1, 2, 3)), turned)


@pytest.mark.parametrize("pose", POSES)
def test_pose_from_five_points_of_a_seen_head(pose):
    seen = (FIVE_POINTS_3D @ rotation(*pose).T)[:, :2] * 80 * (1, -1) + (200, 300)
    assert np.allclose(pose_from_five_points(seen), pose, atol=1e-3)


def test_signs_are_those_of_the_picture():
    seen = FIVE_POINTS_3D[:, :2] * 80 * (1, -1)
    right, down = seen.copy(), seen.copy()
    right[2, 0] += 10  # nose tip
    down[2, 1] += 10
    clockwise = seen @ np.array([[np.cos(0.2), np.sin(0.2)], [-np.sin(0.2), np.cos(0.2)]])
    assert clockwise[1, 1] > clockwise[0, 1]  # the image-right eye is the lower one
    assert pose_from_five_points(right)[0] > 5
    assert pose_from_five_points(down)[1] > 5
    assert np.isclose(pose_from_five_points(clockwise)[2], np.degrees(0.2), atol=1e-3)


def test_camera_scale_and_shift():
    points = FIVE_POINTS_3D[:, :2] * 70 + (5, 6)
    camera = fit_affine_camera(np.stack([points, points]), FIVE_POINTS_3D)  # 2 4 2
    assert np.allclose(camera, [[70, 0], [0, 70], [0, 0], [5, 6]], atol=1e-6)
