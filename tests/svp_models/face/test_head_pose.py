from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.affine import fit_affine_camera, fit_rotation
from svp_portrait.svp_models.face.head_pose import (
    FIVE_POINTS_3D,
    LOWER_HEIGHT,
    TEMPLATE,
    UPPER_HEIGHT,
    face_edges,
    pose_from_five_points,
    pose_from_rotation,
    pupils_in_box,
    template_on_pupils,
)

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


EYES_LEVEL = np.array([[100.0, 120], [160, 120]])


def turned(points: np.ndarray, degrees: float) -> np.ndarray:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[cos, sin], [-sin, cos]])


def test_the_template_is_a_frontal_head():
    assert np.allclose(TEMPLATE[4:6], [(-0.5, 0), (0.5, 0)], atol=1e-9)
    assert np.allclose(TEMPLATE[[0, 1, 4, 8]] * (-1, 1), TEMPLATE[[2, 3, 5, 9]])  # symmetric
    assert TEMPLATE[0, 0] < TEMPLATE[1, 0] < TEMPLATE[4, 0]  # edges outside of the eyes
    assert TEMPLATE[6, 1] < 0 < TEMPLATE[7, 1] < TEMPLATE[8, 1]  # bridge, eyes, nose tip, mouth from top to bottom


@pytest.mark.parametrize("angle", [0.0, 20.0, -35.0])
def test_the_fit_keeps_the_pupils_and_turns_with_them(angle):
    pupils = turned(EYES_LEVEL, angle)
    head, five = template_on_pupils(pupils)
    assert np.allclose(head[4:6], pupils) and np.allclose(five[:2], pupils)
    level, _ = template_on_pupils(EYES_LEVEL)
    assert np.allclose(head, turned(level, angle))
    assert np.isclose(np.linalg.norm(head[0] - head[2]), 60 * (TEMPLATE[2, 0] - TEMPLATE[0, 0]))


def test_a_box_places_the_pupils():
    left, right = pupils_in_box(np.array([10.0, 20, 210, 220]))
    assert np.allclose((left + right) / 2, (110, 98)) and np.allclose(right - left, (71, 0))


@pytest.mark.parametrize("angle", [0.0, 25.0])
def test_edges_are_where_the_outline_crosses_their_heights(angle):
    # a face as a wedge: at height y below the eyes it is 100 - y wide on each side
    heights = np.linspace(-10, 90, 17)
    right = np.stack([100 - heights, heights], axis=1)
    five = np.array([[-30.0, 0], [30, 0], [0, 30], [-20, 60], [20, 60]])
    shuffled = np.random.default_rng(1).permutation(right)
    found = face_edges(turned(shuffled * (-1, 1), angle), turned(shuffled, angle), turned(five, angle))
    upper, lower = UPPER_HEIGHT * 60, LOWER_HEIGHT * 60
    expected = [[upper - 100, upper], [lower - 100, lower], [100 - upper, upper], [100 - lower, lower]]
    assert np.allclose(found, turned(np.array(expected), angle))
    assert 0 < upper < lower < 60


def test_a_profile_has_edges_too():
    """Seen from the side the far outline crosses the middle of the eyes: both sides still give their points."""
    five = np.array([[-3.0, 0], [3, 0], [20, 30], [0, 60], [4, 60]])
    near, far = np.array([[-70.0, -20], [-60, 40], [-10, 90]]), np.array([[-1.0, -20], [-2, 40], [-10, 90]])
    left_upper, left_lower, right_upper, right_lower = face_edges(near, far, five)
    assert np.allclose([left_upper[1], left_lower[1]], [right_upper[1], right_lower[1]])
    assert -70 < left_upper[0] < left_lower[0] < right_lower[0] < right_upper[0] < 0


def test_eyes_on_one_spot_are_refused():
    with pytest.raises(PortraitError, match="one spot"):
        face_edges(np.zeros((2, 2)), np.ones((2, 2)), np.full((5, 2), 3.0))


def test_what_lies_behind_the_eyes_looks_nearer_together():
    """Seen from 60 cm: the edges of the face lie 5.48 cm behind the eyes, the tip of the nose 4.12 cm before them."""
    assert np.isclose(TEMPLATE[2, 0], 7.74 / 6.3 * 60 / 65.48)
    assert np.isclose(TEMPLATE[7, 1], (2.62 + 0.46) / 6.3 * 60 / 55.88)


def test_an_edge_beyond_the_end_of_a_side_is_that_end():
    five = np.array([[-30.0, 0], [30, 0], [0, 30], [-20, 60], [20, 60]])
    right = np.array([[80.0, 20], [70, 30]])  # the lower height is at 60 times LOWER_HEIGHT
    assert UPPER_HEIGHT * 60 < 20 and LOWER_HEIGHT * 60 > 30
    assert np.allclose(face_edges(right * (-1, 1), right, five), [[-80, 20], [-70, 30], [80, 20], [70, 30]])
