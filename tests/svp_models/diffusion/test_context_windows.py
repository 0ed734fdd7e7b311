from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from svp_portrait.svp_models.diffusion.context_windows import blend_weights, completed_frames, frame_windows
from svp_portrait.svp_models.errors import PortraitError


def test_windows_by_hand():
    assert frame_windows(1, 4, 1) == [[0]]
    assert frame_windows(4, 4, 1) == [[0, 1, 2, 3]]
    assert frame_windows(5, 4, 1) == [[0, 1, 2, 3], [1, 2, 3, 4]]
    assert frame_windows(7, 4, 1) == [[0, 1, 2, 3], [3, 4, 5, 6]]
    assert frame_windows(8, 4, 0) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert frame_windows(9, 4, 2) == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [5, 6, 7, 8]]


@pytest.mark.parametrize(("window", "overlap"), [(1, 0), (2, 1), (4, 0), (4, 3), (7, 2), (24, 6)])
def test_windows_cover_every_frame_and_stay_in_the_clip(window, overlap):
    for frames in range(1, 4 * window + 3):
        windows = frame_windows(frames, window, overlap)
        assert sorted({each for part in windows for each in part}) == list(range(frames))
        assert all(len(part) == min(window, frames) for part in windows)
        assert all(part == list(range(part[0], part[0] + len(part))) for part in windows)
        shared = [before[-1] - after[0] + 1 for before, after in pairwise(windows)]
        assert all(overlap <= each < window for each in shared)
        assert len(windows) == 1 or len(windows) == -(-(frames - window) // (window - overlap)) + 1


@pytest.mark.parametrize(("frames", "window", "overlap"), [(0, 4, 1), (5, 4, 4), (5, 4, 5), (5, 4, -1), (5, 0, 0)])
def test_impossible_windows(frames, window, overlap):
    with pytest.raises(PortraitError):
        frame_windows(frames, window, overlap)


def test_average_counts():
    windows = frame_windows(9, 4, 2)  # frames 0 1 in one window, 2 3 4 in two, 5 in three, 6 7 in two, 8 in one
    shares = blend_weights(windows, 9)
    assert shares[0].tolist() == [1, 1, 0.5, 0.5]
    assert shares[1].tolist() == pytest.approx([0.5, 0.5, 0.5, 1 / 3])
    assert shares[2].tolist() == pytest.approx([0.5, 1 / 3, 0.5, 0.5])
    assert shares[3].tolist() == pytest.approx([1 / 3, 0.5, 0.5, 1])


def test_triangular_shares_fade():
    shares = blend_weights(frame_windows(6, 4, 2), 6, "triangular")
    assert shares[0].tolist() == pytest.approx([1, 1, 2 / 3, 1 / 3])
    assert shares[1].tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1])


@pytest.mark.parametrize("blend", ["average", "triangular"])
def test_shares_sum_to_one_on_every_frame(blend):
    for frames in range(1, 30):
        windows = frame_windows(frames, 6, 2)
        total = torch.zeros(frames)
        for index, share in zip(windows, blend_weights(windows, frames, blend), strict=True):
            total[index] += share
        torch.testing.assert_close(total, torch.ones(frames))


def test_a_single_window_has_shares_of_exactly_one():
    for blend in ("average", "triangular"):
        assert blend_weights([[0, 1, 2, 3, 4]], 5, blend)[0].tolist() == [1, 1, 1, 1, 1]


def test_unknown_blend():
    with pytest.raises(PortraitError, match="unknown blend 'cubic'"):
        blend_weights([[0]], 1, "cubic")


@pytest.mark.parametrize(
    ("frames", "window", "overlap"), [(1, 4, 1), (4, 4, 1), (11, 4, 1), (7, 4, 2), (70, 12, 9), (8, 3, 0)]
)
def test_every_frame_is_completed_once_by_its_last_window(frames, window, overlap):
    windows = frame_windows(frames, window, overlap)
    completed = [range(frames)[completed_frames(windows, number, frames)] for number in range(len(windows))]
    assert [frame for part in completed for frame in part] == list(range(frames))
    for number, part in enumerate(completed):
        assert all(number == max(index for index, window in enumerate(windows) if frame in window) for frame in part)
