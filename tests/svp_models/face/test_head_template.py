from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.head_pose import (
    LOWER_HEIGHT,
    TEMPLATE,
    UPPER_HEIGHT,
    face_edges,
    pupils_in_box,
    template_on_pupils,
)
from svp_portrait.svp_models.face.keypoints import five_points_from_68

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


def test_five_points_of_68():
    landmarks = np.random.default_rng(0).uniform(0, 100, (3, 68, 2))
    five = five_points_from_68(landmarks)
    assert five.shape == (3, 5, 2)
    assert np.allclose(five[:, 0], landmarks[:, 36:42].mean(axis=1)) and np.allclose(five[:, 2], landmarks[:, 30])
    assert np.allclose(five[:, 3:], landmarks[:, [48, 54]])


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
