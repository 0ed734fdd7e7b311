"""The warped portraits a model starts from: whose keypoints are taken, and which models get any."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.diffusion.checks import check_inputs
from svp_portrait.svp_models.diffusion.inputs import ClipInputs
from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline, SamplerOptions
from svp_portrait.svp_models.diffusion.warped_reference import portrait_keypoints, target_keypoints, warped_latents
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detectors.built_in import BuiltInBackend
from svp_portrait.svp_models.face.keypoints import draw_head_frames
from svp_portrait.svp_models.face.tracking import FaceTracker
from svp_portrait.svp_models.io.memory_map import ReorderedFrames
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import HeadMotion


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


def test_frames_alike_are_bent_once(model, clip):
    motion, encoded = clip.motion(3), []
    back_and_forth = replace(motion, keypoints=motion.keypoints[[0, 1, 2, 1, 0, 1]])

    def encode(frames):
        encoded.append(len(frames))
        return model.vae.encode(frames)

    picture = torch.rand(3, 24, 32) * 2 - 1
    made = warped_latents(with_warp(model), encode, picture, back_and_forth)
    assert made.shape == (6, 4, 3, 4) and encoded == [3]
    torch.testing.assert_close(made[:], warped_latents(with_warp(model), encode, picture, motion)[[0, 1, 2, 1, 0, 1]])


def test_pictures_that_go_back_and_forth_are_read_once(clip):
    pictures = draw_head_frames(clip.motion(3), range(3), 320, 240)
    found = target_keypoints(ReorderedFrames(pictures, [0, 1, 2, 1]), 32, 24)
    assert torch.equal(found, target_keypoints(pictures, 32, 24)[[0, 1, 2, 1]])


def test_the_points_the_motion_was_fitted_to_come_first():
    own = torch.rand(8, 2) * 50
    motion = HeadMotion(own[None] + 4, 100, 80, 25.0, portrait=own)
    torch.testing.assert_close(portrait_keypoints(None, torch.zeros(3, 40, 50), motion), own / 2)


@pytest.mark.parametrize("tracked", [False, True])
def test_else_the_analyser_looks_for_them(tracked):
    """The model's own, as it is stored or as the backend of a face tracker."""
    own = load_model(BUILTIN_MODEL).face_analyzer
    analyzer = FaceTracker(BuiltInBackend(own)) if tracked else own
    clip = make_clip(speaker(4, "test"), "neutral", 1, 0, 0.04)
    picture = torch.from_numpy(clip.images[0]).permute(2, 0, 1).float() / 127.5 - 1
    drawn = torch.zeros(1, 3, 128, 128)
    found = portrait_keypoints(analyzer, picture, drawn)
    assert (found - torch.from_numpy(clip.head_keypoints[0])).norm(dim=-1).mean() < 3
    assert portrait_keypoints(analyzer, torch.zeros(3, 128, 128), drawn) is None


def test_points_that_nobody_knows_are_the_first_frames(model, clip, caplog):
    """The model has no analyser: a picture of the head held still is the portrait itself, and a warning says why."""
    picture = torch.rand(3, 24, 32) * 2 - 1
    pictures = draw_head_frames(clip.motion(1), [0], 320, 240)
    made = warped_latents(with_warp(model), model.vae.encode, picture, pictures)
    with torch.no_grad():
        torch.testing.assert_close(made, model.vae.encode(picture[None]), atol=1e-3, rtol=1e-3)
    assert "the motion's first frame stand in" in caplog.text


@pytest.mark.parametrize("drawn", [False, True])
def test_progress_and_cancelling(model, clip, drawn):
    """Frames of pictures are read first (a fifth of the bar), then all are warped and encoded, 16 at a time."""
    motion, picture = clip.motion(40), torch.rand(3, 24, 32)
    given = draw_head_frames(motion, range(40), 320, 240) if drawn else motion
    seen, encoded = [], []

    def encode(frames):
        encoded.append(len(frames))
        return model.vae.encode(frames)

    warped_latents(with_warp(model), encode, picture, given, lambda done, total: seen.append(done / total))
    warped = [0.2 + 0.8 * each / 40 for each in (16, 32, 40)]
    assert seen == pytest.approx([0.08, 0.16, 0.2, *warped] if drawn else warped, abs=1e-4)
    assert encoded == [16, 16, 8]

    def stop(done, total):
        raise InterruptedError

    encoded.clear()
    with pytest.raises(InterruptedError):
        warped_latents(with_warp(model), encode, picture, given, stop)
    assert encoded == ([] if drawn else [16])


def test_targets_are_read_back_from_pictures(clip):
    motion = clip.motion(3)
    pictures = draw_head_frames(motion, range(3), 320, 240)
    torch.testing.assert_close(target_keypoints(pictures, 32, 24), motion.keypoints, atol=0.15, rtol=0)


def test_pictures_that_cannot_be_read_are_filled_in(clip):
    motion = clip.motion(5)
    pictures = draw_head_frames(motion, range(5), 320, 240)
    pictures[[0, 2]] = 0
    found = target_keypoints(pictures, 32, 24)
    torch.testing.assert_close(found[1:], motion.keypoints[1:], atol=0.15, rtol=0)  # the motion is even
    assert torch.equal(found[0], found[1])
    assert bool(target_keypoints(torch.zeros(2, 3, 24, 32), 32, 24).isnan().all())


def test_a_model_with_them_is_not_sampled_without(model, clip):
    request = ClipInputs(clip.latent, clip.audio, clip.motion(2), None, 2, 25.0, clip.size)
    with pytest.raises(PortraitError, match="'tiny' needs warped portraits"):
        check_inputs(request, with_warp(model))
    check_inputs(request, model)
    with pytest.raises(PortraitError, match="'tiny' takes no warped portraits"):
        check_inputs(replace(request, warped=torch.zeros(2, 4, 3, 4)), model)


def test_previews_of_a_residual_model_rest_on_the_warped_portrait_of_their_frames(model, clip):
    """Eleven frames in windows of four: every frame's own warped portrait is in its preview, as it is in the result."""
    residual = with_warp(replace(model, config=replace(model.config, residual=True)))
    warped = 10 * torch.randn(11, 4, 3, 4, generator=torch.Generator().manual_seed(0))
    inputs = ClipInputs(clip.latent, clip.audio, clip.motion(11), None, 11, 25.0, clip.size, warped)
    pipeline, seen = PortraitPipeline(residual), []
    conditions = pipeline.encode_conditions(inputs)
    latents = pipeline.denoise(
        inputs, conditions, 0, SamplerOptions(steps=1), on_latents=lambda step, first, x0: seen.append((first, x0))
    )
    assert [first for first, _ in seen] == [0, 3, 6, 7]
    torch.testing.assert_close(torch.cat([x0 for _, x0 in seen]), latents, rtol=1e-4, atol=1e-4)
