"""The bent portraits a model starts from: whose keypoints are taken, and which models get any."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.checkpoints.native import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.drawing import draw_frames
from svp_portrait.svp_models.sampling.request import ClipRequest
from svp_portrait.svp_models.sampling.warp import portrait_keypoints, target_keypoints, warped_latents
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.values import HeadMotion


def with_warp(model):
    return replace(model, config=replace(model.config, unet=replace(model.config.unet, reference_warp=True)))


def test_other_models_get_none(model, clip):
    assert warped_latents(model, model.vae.encode, torch.zeros(3, 24, 32), clip.motion(2)) is None


def test_a_still_head_gives_the_portraits_own_latent(model, clip):
    picture = torch.rand(3, 24, 32) * 2 - 1
    made = warped_latents(with_warp(model), model.vae.encode, picture, clip.motion(1))
    with torch.no_grad():
        torch.testing.assert_close(made, model.vae.encode(picture[None]), atol=1e-3, rtol=1e-3)


def test_a_moving_head_gives_one_for_every_frame(model, clip):
    made = warped_latents(with_warp(model), model.vae.encode, torch.rand(3, 24, 32), clip.motion(19))
    assert made.shape == (19, 4, 3, 4) and not torch.equal(made[0], made[18])


def test_the_points_the_motion_was_fitted_to_come_first():
    own = torch.rand(8, 2) * 50
    motion = HeadMotion(own[None] + 4, 100, 80, 25.0, portrait=own)
    torch.testing.assert_close(portrait_keypoints(None, torch.zeros(3, 40, 50), motion), own / 2)


def test_else_the_analyser_looks_for_them():
    analyzer = load_model(BUILTIN_MODEL).face_analyzer
    clip = make_clip(speaker(4, "test"), "neutral", 1, 0, 0.04)
    picture = torch.from_numpy(clip.images[0]).permute(2, 0, 1).float() / 127.5 - 1
    drawn = torch.zeros(1, 3, 128, 128)
    found = portrait_keypoints(analyzer, picture, drawn)
    assert (found - torch.from_numpy(clip.head_keypoints[0])).norm(dim=-1).mean() < 3
    assert portrait_keypoints(analyzer, torch.zeros(3, 128, 128), drawn) is None


def test_targets_are_read_back_from_pictures(clip):
    motion = clip.motion(3)
    pictures = draw_frames(motion, range(3), 320, 240)
    torch.testing.assert_close(target_keypoints(pictures, 32, 24), motion.keypoints, atol=0.15, rtol=0)


def test_a_model_with_them_is_not_sampled_without(model, clip):
    request = ClipRequest(clip.latent, clip.audio, clip.motion(2), None, 2, 25.0, clip.size)
    with pytest.raises(PortraitError, match="'tiny' needs bent portraits"):
        request.check(with_warp(model))
    request.check(model)
    with pytest.raises(PortraitError, match="'tiny' takes no bent portraits"):
        replace(request, warped=torch.zeros(2, 4, 3, 4)).check(model)
