"""Warp Portrait: a portrait that follows a motion by warping alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.nodes.compose import SVPWarpPortrait
from svp_portrait.nodes.types import LoadedModel
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, PORTRAIT_MODEL, load_model
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.warp import warp_to_keypoints
from svp_portrait.svp_models.synthetic.clips import make_clip, neutral_portrait, states_to_motion
from svp_portrait.svp_models.synthetic.performance import EMOTIONS
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import HeadMotion

SIZE = 256
MOUTH, EYES = slice(48, 68), [*range(17, 27), *range(36, 48)]


@pytest.fixture(scope="module")
def model():
    return LoadedModel.of(load_model(BUILTIN_MODEL))


@pytest.fixture(scope="module")
def clip():
    return make_clip(speaker(2, "test"), "angry", 2, 3, 0.4, 25.0, SIZE)


@pytest.fixture(scope="module")
def neutral():
    return neutral_portrait(speaker(2, "test"), SIZE)


@pytest.fixture(scope="module")
def portrait(neutral):
    return torch.from_numpy(neutral.images).float() / 255


def head_of(clip, neutral):
    points, own = torch.from_numpy(clip.head_keypoints), torch.from_numpy(neutral.head_keypoints[0])
    return HeadMotion(points, SIZE, SIZE, 25.0, portrait=own)


def psnr(found, truth, clip, part):
    """In the box of some landmarks, dB."""
    errors = []
    for image, true, points in zip(found, truth, clip.landmarks[:, part], strict=True):
        left, top = (points.min(axis=0) - 3).astype(int)
        right, bottom = (points.max(axis=0) + 3).astype(int)
        errors.append(float((image - true)[top:bottom, left:right].square().mean()))
    return -10 * np.log10(np.mean(errors))


def test_it_speaks_as_the_speaker_does(model, clip, neutral, portrait):
    """Nearer to the true frames than the portrait warped to the head alone, with what the face analyser finds."""
    head, truth = head_of(clip, neutral), torch.from_numpy(clip.images).float() / 255
    motion = states_to_motion(clip.states, 25.0)
    images, fps = SVPWarpPortrait.execute(portrait, motion, 1.0, False, 0.0, model, None, head).args
    assert images.shape == (len(motion), SIZE, SIZE, 3) and fps == 25
    rigid = warp_to_keypoints(portrait[0].movedim(2, 0), head.portrait, head.keypoints).movedim(1, 3)
    for part, least in ((MOUTH, 0.7), (EYES, 1.0)):
        assert psnr(images, truth, clip, part) > psnr(rigid, truth, clip, part) + least
    assert (images - truth).square().mean() < (rigid - truth).square().mean()


def test_faces_come_nearer_to_the_true_frames(model):
    """Than the portrait warped to the head alone, with what the face analyser finds; on average over people and emotions."""
    gains = {"mouth": [], "eyes": []}
    errors = []
    for index, emotion in enumerate(EMOTIONS):
        clip, neutral = (
            make_clip(speaker(index, "test"), emotion, 2, 3, 0.4, 25.0, SIZE),
            neutral_portrait(speaker(index, "test"), SIZE),
        )
        portrait, truth = (torch.from_numpy(item.images).float() / 255 for item in (neutral, clip))
        head, motion = head_of(clip, neutral), states_to_motion(clip.states, 25.0)
        images, fps = SVPWarpPortrait.execute(portrait, motion, 1.0, False, 0.0, model, None, head).args
        assert images.shape == (len(motion), SIZE, SIZE, 3) and fps == 25
        rigid = warp_to_keypoints(portrait[0].movedim(2, 0), head.portrait, head.keypoints).movedim(1, 3)
        for name, part in (("mouth", MOUTH), ("eyes", EYES)):
            gains[name].append(psnr(images, truth, clip, part) - psnr(rigid, truth, clip, part))
        errors.append(float((images - truth).square().mean() / (rigid - truth).square().mean()))
    assert np.mean(gains["mouth"]) > 0.4 and np.mean(gains["eyes"]) > 1.0, gains
    assert np.mean(errors) < 1, errors


def test_the_motion_moves_the_head_too(model, clip, portrait):
    motion = states_to_motion(clip.states, 25.0)
    still = SVPWarpPortrait.execute(portrait, motion, 0.0, False, 0.0, model).args[0]
    torch.testing.assert_close(still[0], portrait[0], atol=0.05, rtol=0)
    turned = motion.angles.clone()
    turned[:, 0] += torch.linspace(0, 15, len(turned))
    moved = type(motion)(turned, motion.shift, motion.scale, motion.expression, 25.0, motion.space)
    found = SVPWarpPortrait.execute(portrait, moved, 0.0, False, 0.0, model).args[0]
    assert (found[-1] - still[-1]).abs().mean() > 2 * (found[0] - still[0]).abs().mean()


def test_rate_paint_and_strength(model, clip, portrait):
    motion = states_to_motion(clip.states, 25.0)
    half, fps = SVPWarpPortrait.execute(portrait, motion, 1.0, True, 12.5, model).args
    assert len(half) == len(motion) // 2 and fps == 12.5
    painted, bare, twice = (
        SVPWarpPortrait.execute(portrait, motion, strength, paint, 0.0, model).args[0]
        for strength, paint in ((1.0, True), (1.0, False), (2.0, False))
    )
    torch.testing.assert_close(painted[::2], half, atol=1e-4, rtol=0)
    assert not torch.equal(painted, bare)  # somewhere the mouth opens
    assert (twice - portrait).abs().mean() > (bare - portrait).abs().mean()


def test_mistakes_are_named(model, clip, portrait):
    motion = states_to_motion(clip.states, 25.0)
    with pytest.raises(PortraitError, match="connect model .* or face_analyzer"):
        SVPWarpPortrait.execute(portrait, motion, 1.0, True, 0.0)
    wide = HeadMotion(torch.from_numpy(clip.head_keypoints), 512, 256, 25.0)
    with pytest.raises(PortraitError, match="picture of 512 x 256 pixels, the portrait has 256 x 256"):
        SVPWarpPortrait.execute(portrait, motion, 1.0, True, 0.0, model, None, wide)
    with pytest.raises(PortraitError, match="no face"):
        SVPWarpPortrait.execute(torch.zeros_like(portrait), motion, 1.0, True, 0.0, model)
    other = type(motion)(motion.angles, motion.shift, motion.scale, torch.zeros(len(motion), 63), 25.0, "liveportrait")
    with pytest.raises(PortraitError, match="63 numbers in the space liveportrait"):
        SVPWarpPortrait.execute(portrait, other, 1.0, True, 0.0, model)


def test_a_model_that_knows_what_stays_keeps_the_background_still(clip, neutral, portrait):
    """Where the head is not, frames are nearer to the portrait than with a model that has no such network."""
    head, motion = head_of(clip, neutral), states_to_motion(clip.states, 25.0)
    frames = [
        SVPWarpPortrait.execute(portrait, motion, 1.0, True, 0.0, LoadedModel.of(load_model(path)), None, head).args[0]
        for path in (BUILTIN_MODEL, PORTRAIT_MODEL)
    ]
    corners = [images[:, 60:120, :24] - portrait[:, 60:120, :24] for images in frames]
    moved, still = (float(part.abs().mean()) for part in corners)
    assert still < 0.5 * moved, (still, moved)
