from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.config import PRESETS
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.sampling.clip import centre_cut, clip_frames, fit_motion, sampling_memory
from svp_portrait.svp_models.sampling.decode import fit_portrait
from svp_portrait.svp_models.sampling.pipeline import SamplerOptions
from svp_portrait.svp_models.values import HeadMotion


def motion(frames: int, width: int = 60, height: int = 40, fps: float = 25.0) -> HeadMotion:
    start = torch.tensor([[20.0, 10], [20, 30], [40, 10], [40, 30], [25, 15], [35, 15], [30, 12], [30, 20]])
    return HeadMotion(start + torch.arange(frames, dtype=torch.float32)[:, None, None], width, height, fps)


@pytest.mark.parametrize(
    "frames, length, expected",
    [(10, "audio", 100), (10, "shortest", 10), (200, "shortest", 100), (1, "shortest", 100)],
)
def test_length_of_the_clip(frames, length, expected):
    assert clip_frames(4.0, motion(frames), 25.0, length) == expected
    assert clip_frames(4.0, torch.zeros(frames, 3, 8, 8), 25.0, length) == expected


def test_shortest_counts_time_not_frames():
    assert clip_frames(4.0, motion(60, fps=30.0), 25.0, "shortest") == 50


def test_unknown_length_is_named():
    with pytest.raises(PortraitError, match="'longest'.*audio, shortest"):
        clip_frames(4.0, motion(10), 25.0, "longest")


def test_points_stay_on_the_picture_that_is_cut():
    """A dot in the portrait and the keypoint on it land on the same pixel."""
    picture = torch.full((3, 40, 60), -1.0)
    picture[:, 10, 20] = 1.0
    cut = fit_portrait(picture, 40, 40)
    row, column = divmod(int(cut[0].argmax()), 40)
    fitted = fit_motion(motion(3), 3, 25.0, 40, 40)
    assert (fitted.width, fitted.height) == (40, 40)
    assert fitted.keypoints[0, 0].tolist() == [column, row]


def test_pictures_are_cut_alike_and_go_back_and_forth():
    pictures = torch.arange(3.0)[:, None, None, None].expand(3, 3, 40, 60)
    fitted = fit_motion(pictures, 7, 25.0, 40, 40)
    assert fitted.shape == (7, 3, 40, 40)
    assert fitted[:, 0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2]
    assert len(fit_motion(pictures[:1], 7, 25.0, 60, 40)) == 1


@pytest.mark.parametrize("wide, high", [(60, 40), (40, 60), (41, 41), (1000, 3)])
def test_the_cut_is_what_the_portrait_gets(wide, high):
    left, top, width, height = centre_cut(wide, high, 32, 32)
    assert width == height == min(wide, high) and left == (wide - width) // 2 and top == (high - height) // 2


def test_memory_grows_with_window_and_size():
    config = PRESETS["demo"]
    small = sampling_memory(config, SamplerOptions(window=4), 128, 128, 2)
    assert sampling_memory(config, SamplerOptions(window=8), 128, 128, 2) == 2 * small
    assert sampling_memory(config, SamplerOptions(window=4), 256, 128, 4) == 4 * small
