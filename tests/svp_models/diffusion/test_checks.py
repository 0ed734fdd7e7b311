from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.diffusion.checks import (
    check_clip,
    check_latents,
    check_motion,
    check_pictures,
    check_portrait,
    check_size,
)
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.types import HeadMotion


@pytest.mark.parametrize(("frames", "fps"), [(0, 25), (-3, 25), (5, 0), (5, float("nan")), (5, float("inf"))])
def test_impossible_clips(frames, fps):
    with pytest.raises(PortraitError):
        check_clip(frames, fps)


def test_size_names_the_nearest():
    check_size(8, 128, 8)
    with pytest.raises(PortraitError, match="130 x 125 is not a multiple of 8 pixels: the nearest is 128 x 128"):
        check_size(130, 125, 8)
    with pytest.raises(PortraitError, match="the nearest is 8 x 16"):
        check_size(0, 12, 8)


def test_portrait_latent(model):
    check_portrait(torch.zeros(1, 4, 3, 4), model.config, 32, 24)
    with pytest.raises(PortraitError, match=r"\(1, 4, 4, 4\), \(1, 4, 3, 4\) is needed for 32 x 24"):
        check_portrait(torch.zeros(1, 4, 4, 4), model.config, 32, 24)
    with pytest.raises(PortraitError, match="not finite"):
        check_portrait(torch.full((1, 4, 3, 4), torch.nan), model.config, 32, 24)


@pytest.mark.parametrize("frames", [1, 5])
def test_fitting_motions(model, clip, frames):
    check_motion(clip.motion(frames), model.config, 5, 25, clip.size)
    check_motion(torch.zeros(frames, 3, 48, 64), model.config, 5, 25, clip.size)
    check_motion(torch.zeros(frames, 3, 26, 34), model.config, 5, 25, clip.size)  # 25.5 high, cut to whole pixels


@pytest.mark.parametrize(
    ("motion", "message"),
    [
        (torch.zeros(4, 3, 24, 32), "5 frames at 25 fps are asked, Head-Kps has 4"),
        (torch.zeros(0, 3, 24, 32), "Head-Kps has 0"),
        (torch.zeros(5, 1, 24, 32), r"\(5, 1, 24, 32\)"),
        (torch.zeros(5, 3, 32, 32), "32 x 32, the frames 32 x 24"),
        (torch.full((5, 3, 24, 32), torch.nan), "not finite"),
        (HeadMotion(torch.zeros(6, 8, 2), 32, 24, 25.0), "Head-Kps has 6"),
        (HeadMotion(torch.zeros(5, 7, 2), 32, 24, 25.0), r"\(5, 7, 2\)"),
        (HeadMotion(torch.full((5, 8, 2), torch.nan), 32, 24, 25.0), "finite"),
        (HeadMotion(torch.zeros(5, 8, 2), 0, 24, 25.0), "0 x 24"),
    ],
)
def test_unusable_motions(model, clip, motion, message):
    with pytest.raises(PortraitError, match=message):
        check_motion(motion, model.config, 5, 25, clip.size)


def test_other_keypoints(model, clip):
    config = replace(model.config, keypoints="vexpress3")
    check_motion(clip.motion(5), config, 5, 25, clip.size)
    check_motion(torch.zeros(5, 3, 24, 32), config, 5, 25, clip.size)
    with pytest.raises(PortraitError, match="keypoints is 'mesh478': it must be one of head8, vexpress3"):
        replace(model.config, keypoints="mesh478")


def test_the_first_latent_that_is_no_picture_is_named():
    latents = torch.zeros(5, 4, 2, 2)
    check_latents(latents + 1000)
    latents[3, 1, 0, 1] = 1e30
    with pytest.raises(
        PortraitError, match=r"the latents of frame 13 hold the number 1e\+30 .*: the cause; load another file"
    ):
        check_latents(latents, 10, "the cause")
    latents[1, 0, 0, 0] = float("nan")
    with pytest.raises(PortraitError, match="the latents of frame 11 hold numbers that are not finite"):
        check_latents(latents, 10)


def test_the_first_image_that_is_not_finite_is_named():
    pictures = torch.zeros(5, 2, 2, 3)
    check_pictures(pictures)
    pictures[2, 0, 0, 0] = float("inf")
    with pytest.raises(PortraitError, match="frame 102 of the images"):
        check_pictures(pictures, 100)
