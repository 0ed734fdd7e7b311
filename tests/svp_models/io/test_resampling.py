from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.resampling import (
    frame_centre_positions,
    interpolate_missing,
    interpolate_rows,
    one_euro,
    ping_pong_positions,
    smooth_points,
)


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


def test_between_two_known_frames_movement_is_even_and_held_outside():
    points = np.full((6, 8, 2), np.nan, np.float32)  # what stands in missing frames means nothing
    points[1], points[4] = 10, 40
    filled, which = interpolate_missing(points, np.array([False, True, False, False, True, False]))
    assert which == (0, 2, 3, 5)
    assert np.allclose(filled[:, 3, 1], [10, 10, 20, 30, 40, 40]) and filled.dtype == np.float32


def test_a_gap_goes_on_as_the_points_moved():
    """By hand: speeds 3, 2 and 1 around a gap of 2; tangents are the harmonic means that PCHIP weighs by the distances."""
    points = np.array([0.0, 3, 99, 99, 9, 10])[:, None]
    filled, _ = interpolate_missing(points, np.array([True, True, False, False, True, True]))
    start, end = 12 / (7 / 3 + 5 / 2), 12 / (5 / 2 + 7 / 1)

    def cubic(share: float) -> float:
        a, b = share**2, share**3
        return 3 * (2 * b - 3 * a + 1) + 9 * (3 * a - 2 * b) + 3 * (start * (b - 2 * a + share) + end * (b - a))

    assert np.allclose(filled[:, 0], [0, 3, cubic(1 / 3), cubic(2 / 3), 9, 10], atol=1e-5)


def test_a_long_gap_never_leaves_the_span_between_its_ends():
    points = np.concatenate([np.arange(10) * 5.0, np.zeros(100), 50 - np.arange(10) * 5.0])[:, None]
    present = np.ones(120, bool)
    present[10:110] = False
    filled, _ = interpolate_missing(points, present)
    assert (filled[10:110] >= 45 - 1e-4).all() and (filled[10:110] <= 50 + 1e-4).all()


def test_no_face_at_all_is_an_error():
    with pytest.raises(PortraitError, match="none of the 4 frames"):
        interpolate_missing(np.zeros((4, 8, 2)), np.zeros(4, bool))


def test_one_known_frame_is_repeated():
    filled, which = interpolate_missing(np.array([[7.0], [1.0], [9.0]]), np.array([False, True, False]))
    assert filled.tolist() == [[1], [1], [1]] and which == (0, 2)


def test_rows_are_interpolated_linearly_in_their_own_type():
    rows = torch.tensor([[0.0, 10.0], [2.0, 20.0], [8.0, 0.0]])
    values = interpolate_rows(rows, torch.tensor([0.0, 0.5, 1.25, 2.0], dtype=torch.float64))
    assert values.tolist() == [[0, 10], [1, 15], [3.5, 15], [8, 0]] and values.dtype == torch.float32
    assert interpolate_rows(rows[:1], torch.zeros(3)).tolist() == [[0, 10]] * 3


def test_centres_of_frames_are_aligned():
    assert frame_centre_positions(4, 0.5, 2).tolist() == [0, 0.25, 0.75, 1]  # the ends repeat
    assert frame_centre_positions(2, 2.0, 4).tolist() == [0.5, 2.5]


def test_ping_pong_turns_at_both_ends():
    positions = torch.tensor([0.0, 1, 2, 2.5, 3, 4, 5])
    assert ping_pong_positions(positions, 3).tolist() == [0, 1, 2, 1.5, 1, 0, 1]
    assert ping_pong_positions(positions, 1).tolist() == [0] * 7
