from __future__ import annotations

import math

import numpy as np
import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.resampling import one_euro, smooth_points


def test_without_speed_gain_it_is_a_first_order_low_pass():
    values = np.array([0.0, 1, 1, 1])
    share = 1 / (1 + 25 / (2 * math.pi * 2.0))
    assert np.allclose(one_euro(values, 25, 2.0, 0.0), [0, *(1 - (1 - share) ** k for k in (1, 2, 3))])


def test_two_steps_by_hand_with_speed():
    fps, cutoff, gain = 10.0, 1.0, 0.5

    def weight(f):
        return 1 / (1 + fps / (2 * math.pi * f))

    speed = weight(1.0) * 2.0 * fps  # the step of 2, per second, low-passed from 0
    first = weight(cutoff + gain * speed) * 2.0
    step = (2.0 - first) * fps
    second_speed = speed + weight(1.0) * (step - speed)
    second = first + weight(cutoff + gain * second_speed) * (2.0 - first)
    assert np.allclose(one_euro(np.array([0.0, 2, 2]), fps, cutoff, gain), [0, first, second])


def test_a_resting_point_stays_and_off_changes_nothing():
    still = np.full((20, 8, 2), 37.0, np.float32)
    assert np.allclose(smooth_points(still, 25, 1.0, 50), still)
    moving = np.random.default_rng(0).uniform(0, 100, (20, 8, 2)).astype(np.float32)
    assert np.array_equal(smooth_points(moving, 25, 0.0, 50), moving)


def test_trembling_shrinks_and_a_jump_is_not_delayed():
    generator = np.random.default_rng(0)
    path = np.concatenate([np.zeros(40), np.full(40, 60.0)])  # a jump of one face width
    points = (path + generator.normal(0, 1.0, 80))[:, None, None] * np.ones((1, 1, 2))
    smooth = smooth_points(points, 25, 0.5, 60.0)
    rest = slice(5, 35)
    assert smooth[rest].std() < 0.45 * points[rest].std()
    crossing = np.flatnonzero(smooth[:, 0, 0] > 30)[0]
    assert crossing in (39, 40, 41)  # frames; a filter run one way alone is later


def test_size_of_the_picture_does_not_matter():
    points = np.random.default_rng(0).normal(0, 3, (30, 8, 2))
    assert np.allclose(smooth_points(points * 4, 25, 0.5, 200), 4 * smooth_points(points, 25, 0.5, 50), atol=1e-3)


def test_wrong_strength_is_named():
    with pytest.raises(PortraitError, match="smoothing 1.5 at 25"):
        smooth_points(np.zeros((3, 8, 2)), 25, 1.5, 10)
