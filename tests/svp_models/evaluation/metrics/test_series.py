import numpy as np
import pytest

from svp_portrait.svp_models.evaluation.metrics.series import (
    beat_alignment,
    correlation,
    jitter,
    lagged_correlation,
    largest_change,
    motion_beats,
    onsets,
    pose_diversity,
    roughest_frames,
    seam_ratio,
    second_differences,
)


def test_lag_of_a_delayed_series_is_found():
    series = np.random.default_rng(1).normal(size=60)
    late = np.concatenate([np.zeros(3), series[:-3]])
    curve = lagged_correlation(late, series, 5)
    assert np.argmax(curve) - 5 == 3
    assert curve[8] == pytest.approx(1)


def test_correlation_of_a_constant_or_of_too_few_is_zero():
    assert correlation(np.ones(5), np.arange(5)) == correlation(np.arange(5), np.ones(5)) == 0
    assert correlation(np.ones(1), np.ones(1)) == 0
    rounded = 0.05 + 5e-6 * np.random.default_rng(0).standard_normal(40)  # as read from a picture that stands still
    assert correlation(rounded, np.arange(40)) == 0 and correlation(0.05 + 0.01 * np.arange(40), np.arange(40)) > 0.99
    assert lagged_correlation(np.arange(3.0), np.arange(3.0), 5)[[0, 5, 10]].tolist() == pytest.approx([0, 1, 0])


def test_largest_change_is_that_of_neighbours():
    assert largest_change(np.array([[0.0, 0], [3, 4], [3, 4], [0, 4]])) == pytest.approx(5)
    assert largest_change(np.ones((1, 4))) == 0


def test_second_differences_of_a_bend_in_closed_form():
    line = np.arange(10.0)[:, None] * (3, 4)
    bent = line.copy()
    bent[5:] += (6, 8)
    assert second_differences(line).tolist() == [0] * 10
    assert second_differences(bent).tolist() == [0, 0, 0, 0, 10, 10, 0, 0, 0, 0]
    assert jitter(bent) == pytest.approx(20 / 8)
    assert second_differences(np.stack([line, bent], axis=1)).tolist()[5] == 5  # the mean over the points
    assert jitter(line[:2]) == 0


def test_seams_are_found_where_they_were_planted():
    rng = np.random.default_rng(0)
    smooth = np.cumsum(np.cumsum(rng.normal(0, 0.01, (96, 6)), axis=0), axis=0)
    seamed = smooth.copy()
    seamed[24:] += 1
    seamed[72:] -= 1
    rough = second_differences(seamed)
    assert roughest_frames(rough, 4) == [23, 24, 71, 72]
    assert seam_ratio(rough, [24, 48, 72]) > 20
    assert seam_ratio(second_differences(smooth), [24, 48, 72]) == pytest.approx(1, abs=0.5)


def test_a_seam_ratio_without_joins_or_motion_is_one():
    assert seam_ratio(np.zeros(9), [4]) == seam_ratio(np.ones(9), []) == 1


def test_beat_alignment_in_closed_form():
    assert beat_alignment([10, 30], [10, 33]) == pytest.approx((1 + np.exp(-0.5)) / 2)  # 3 frames are one sigma
    assert beat_alignment([], [3]) == beat_alignment([3], []) == 0


def test_beats_of_a_head_and_of_a_voice():
    time = np.arange(100)
    angles = np.stack([10 * np.cos(2 * np.pi * time / 40), 0 * time, 0 * time], axis=1)  # it pauses every 20 frames
    assert motion_beats(angles).tolist() == [20, 40, 60, 80]
    energy = np.zeros(100)
    energy[30:40], energy[70:75] = 1.0, 0.5
    assert onsets(energy).tolist() == [30, 70]
    assert onsets(np.zeros(5)).tolist() == motion_beats(np.zeros((1, 3))).tolist() == []


def test_pose_diversity_is_the_spread_of_the_angles():
    angles = np.array([[3.0, 0, 0], [-3.0, 0, 6]])
    assert pose_diversity(angles) == pytest.approx((3 + 0 + 3) / 3)
