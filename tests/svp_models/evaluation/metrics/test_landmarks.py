import numpy as np
import pytest

from svp_portrait.svp_models.evaluation.metrics.landmarks import (
    MOUTH,
    blink_rate,
    blinks,
    keypoint_error,
    landmark_distance,
    landmark_distance_256,
    landmark_distances,
    lid_opening,
    lower_lip_drop,
    mouth_opening,
)


def test_mouth_opening_is_measured_in_eye_distances():
    landmarks = np.zeros((1, 68, 2))
    landmarks[0, 62], landmarks[0, 66] = (5, 10), (5, 14)
    landmarks[0, 36], landmarks[0, 45] = (0, 0), (8, 0)
    assert mouth_opening(landmarks)[0] == pytest.approx(0.5)


def test_keypoint_error_is_a_fraction_of_the_width():
    assert keypoint_error(np.full((2, 8, 2), (3.0, 4.0)), np.zeros((2, 8, 2)), 100) == pytest.approx(0.05)


def test_landmark_distance_of_a_known_shift():
    true = np.random.default_rng(0).uniform(0, 512, (5, 68, 2))
    true[:, 36], true[:, 45] = (100, 100), (220, 260)  # 200 pixels apart
    assert landmark_distance(true, true) == landmark_distance_256(true, true, 512) == 0
    assert landmark_distance(true + (6, 8), true) == pytest.approx(10 / 200)
    assert landmark_distance_256(true + (6, 8), true, 512) == pytest.approx(5)
    assert landmark_distances(true + (6, 8), true).tolist() == pytest.approx([10] * 5)


def test_the_mouth_has_its_own_distance():
    true = np.zeros((2, 68, 2))
    true[:, 36], true[:, 45] = (0, 0), (100, 0)
    open_mouth = true.copy()
    open_mouth[:, 57] += (0, 20)
    assert landmark_distance(open_mouth, true, MOUTH) == pytest.approx(0.2 / 20)
    assert landmark_distance(open_mouth, true) == pytest.approx(0.2 / 68)


def test_the_lower_lip_drops_from_the_nose():
    points = np.zeros((1, 68, 2))
    points[0, 36], points[0, 45] = (0, 0), (10, 0)
    points[0, 33], points[0, 66] = (5, 8), (5, 14)
    assert lower_lip_drop(points).tolist() == pytest.approx([0.6])


def eyes(opening):
    """Landmarks of eyes 20 wide that are open by so many of that width: n -> n 68 2."""
    points = np.zeros((len(opening), 68, 2))
    for outer, inner, upper, lower, x in ((36, 39, (37, 38), (41, 40), 0), (45, 42, (44, 43), (46, 47), 60)):
        points[:, outer], points[:, inner] = (x, 0), (x + 20, 0)
        for index in upper:
            points[:, index, 0], points[:, index, 1] = x + 10, -10 * opening
        for index in lower:
            points[:, index, 0], points[:, index, 1] = x + 10, 10 * opening
    return points


def test_lid_opening_is_the_aspect_ratio_of_the_eyes():
    assert lid_opening(eyes(np.array([0.0, 0.3]))).tolist() == pytest.approx([0, 0.3])


def test_blinks_are_short_closures():
    opening = np.full(250, 0.3)
    opening[50:54] = 0.02
    opening[120:125] = 0.1
    opening[160:163] = 0.2  # not shut
    opening[200:230] = 0.0  # longer than half a second: asleep
    assert blinks(lid_opening(eyes(opening)), 25) == [50, 120]
    assert blink_rate(opening, 25) == pytest.approx(2 * 6)  # in 10 s
    assert blink_rate(np.zeros(0), 25) == 0
