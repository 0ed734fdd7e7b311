"""Models that draw crops of the face: their inputs, their frames, and the joining with the portrait at its own resolution."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.config import FaceCropConfig
from svp_portrait.svp_models.diffusion.composition import compose_clip, face_ellipse, plan_composition
from svp_portrait.svp_models.diffusion.face_inputs import head_points
from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline, SamplerOptions, clip_noise
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.compose import crop_faces_upright
from svp_portrait.svp_models.face.portrait_face import PortraitFace, expression_track
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.synthetic.clips import make_clip, states_to_motion
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import Audio, HeadMotion, Motion

CONFIG = replace(PRESETS["demo256"], steps=1)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    networks, vae = build_networks(CONFIG).eval(), build_vae(CONFIG.vae).eval()
    return PortraitModel(CONFIG, networks, vae, None, "space")


@pytest.fixture(scope="module")
def clip():
    return make_clip(speaker(2, "test"), "surprised", 3, 5, 0.12, 25.0, 256)


@pytest.fixture(scope="module")
def motion(clip):
    points = torch.from_numpy(clip.head_keypoints)
    return HeadMotion(points, 256, 256, 25.0, portrait=points[0])


def image_of(clip, frame=0):
    return torch.from_numpy(clip.images[frame]).movedim(2, 0).float() / 127.5 - 1


def audio_of(clip):
    return Audio(torch.from_numpy(clip.audio)[None], 16000)


def test_inputs_are_crops(model, clip, motion):
    """The latents are those of the crops, and the keypoints lie in them as they lie in the frames."""
    pipeline = PortraitPipeline(model, encode=lambda images: images)
    inputs = pipeline.prepare(image_of(clip), audio_of(clip), motion, None, 3, 25.0, (256, 256))
    assert inputs.size == (112, 120) and inputs.warped.shape == (3, 3, 120, 112)
    placement = plan_composition(model, image_of(clip), motion, 3, 25.0, (112, 120), (256, 256)).placement
    torch.testing.assert_close(
        inputs.warped[:1], crop_faces_upright(image_of(clip)[None], placement)[:1], atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        inputs.motion.keypoints, torch.from_numpy(placement.points(clip.head_keypoints)).float(), atol=1e-3, rtol=0
    )


def test_the_pipeline_draws_crops_with_an_expression_track(model, clip, motion):
    track = expression_track(states_to_motion(clip.states, 25.0), 3, 25.0)
    assert np.allclose(track[:, :64], clip.states.expression) and np.allclose(track[:, 64:66], clip.states.blink)
    pipeline = PortraitPipeline(model)
    given = [image_of(clip), audio_of(clip), motion, None, 3, 25.0, (256, 256)]
    with torch.no_grad():
        torch.nn.init.normal_(model.networks.expression_projection.proj_out.weight, std=0.1)
    frames = [
        pipeline(pipeline.prepare(*given, expression=controls), 3, SamplerOptions(steps=1))
        for controls in (None, track)
    ]
    assert frames[0].shape == (3, 3, 120, 112)
    assert (frames[0] - frames[1]).abs().max() > 1e-4
    with pytest.raises(PortraitError, match="3 x 68"):
        pipeline.prepare(*given, expression=track[:2])


def test_true_crops_come_back_at_the_resolution_of_the_portrait(model, clip, motion):
    """A portrait twice as large: outside of the mask its own pixels bit by bit, inside the crop's."""
    portrait = torch.nn.functional.interpolate(image_of(clip)[None], scale_factor=2, mode="bilinear")[0]
    plan = plan_composition(model, portrait, motion, 3, 25.0, (112, 120), (256, 256))
    small = plan_composition(model, image_of(clip), motion, 3, 25.0, (112, 120), (256, 256))
    frames = torch.from_numpy(clip.images).movedim(3, 1).float() / 255
    faces = crop_faces_upright(frames, small.placement).movedim(1, 3)
    joined, masks = compose_clip(model, plan, faces, torch.ones(1, 120, 112), 0.05)
    assert joined.shape == (3, 512, 512, 3) and masks.shape == (3, 512, 512)
    warped, _, _ = plan.frames([0, 1, 2])
    outside = (masks == 0)[..., None].expand_as(joined)
    assert outside.float().mean() > 0.5
    torch.testing.assert_close(joined[outside], ((warped.movedim(1, 3) + 1) / 2)[outside], atol=1e-6, rtol=0)
    truth = torch.nn.functional.interpolate(frames, scale_factor=2, mode="bicubic").movedim(1, 3)
    inside = (masks == 1)[..., None].expand_as(joined)
    assert (joined[inside] - truth[inside]).abs().mean() < 0.01


def test_a_portrait_that_is_not_square_is_cut_as_the_sampler_cuts_it(model, clip, motion):
    wide = torch.nn.functional.pad(image_of(clip), (40, 40), mode="replicate")
    points = motion.keypoints + torch.tensor([40.0, 0.0])
    moved = HeadMotion(points, 336, 256, 25.0, portrait=points[0])
    plans = [
        plan_composition(model, image, given, 3, 25.0, (112, 120), (256, 256))
        for image, given in ((wide, moved), (image_of(clip), motion))
    ]
    assert torch.equal(plans[0].portrait, plans[1].portrait)
    np.testing.assert_allclose(plans[0].placement.matrices, plans[1].placement.matrices)


def test_whole_frames_of_other_models_are_joined_through_an_ellipse(model, clip, motion):
    plain = replace(model, config=replace(CONFIG, face_crop=FaceCropConfig()))
    plan = plan_composition(plain, image_of(clip), motion, 3, 25.0, (128, 128), (256, 256))
    faces = torch.ones(3, 128, 128, 3)
    joined, masks = compose_clip(plain, plan, faces, None, 0.05)
    landmarks = clip.landmarks[0].astype(int)
    assert masks[0, landmarks[57, 1], landmarks[57, 0]] > 0.9  # the lower lip
    assert masks[0, landmarks[37, 1], landmarks[37, 0]] > 0.9  # an eye
    assert masks[0, 8, 8] == 0 and joined[0, landmarks[30, 1], landmarks[30, 0]].min() > 0.99
    with pytest.raises(PortraitError, match="100 x 50 pixels"):
        plan_composition(plain, image_of(clip), motion, 3, 25.0, (100, 50), (256, 256))


def test_the_ellipse_turns_with_the_head(clip):
    mask = face_ellipse(clip.head_keypoints.astype(np.float64), 256, 256)
    assert mask.shape == (3, 1, 256, 256) and mask.max() == 1
    assert 0.08 < float(mask.mean()) < 0.3


def test_common_noise_is_the_same_in_all_frames():
    own, common, mixed = (clip_noise(40, (2, 8, 8), 3, common=share) for share in (0.0, 1.0, 0.5))
    assert torch.equal(own, clip_noise(40, (2, 8, 8), 3))
    assert torch.equal(common[0], common[39]) and float(common.std()) == pytest.approx(1, abs=0.15)
    between = torch.corrcoef(mixed.flatten(1))[0, 1:]
    assert float(between.mean()) == pytest.approx(0.5, abs=0.1)
    assert torch.equal(clip_noise(8, (2, 8, 8), 3, common=0.5), mixed[:8])


def test_an_expression_track_of_another_space_is_named():
    motion = Motion(torch.zeros(2, 3), torch.zeros(2, 2), torch.ones(2), torch.zeros(2, 63), 25.0, "liveportrait")
    with pytest.raises(PortraitError, match="63 numbers in the space liveportrait"):
        expression_track(motion, 2, 25.0)


def test_a_motion_that_does_not_know_the_portrait_gets_the_keypoints_of_its_face(model, clip, motion):
    """Those that were read with the landmarks, not those of another look with the model's analyser; known ones go first."""
    size = clip.images.shape[1]
    own = torch.from_numpy(clip.head_keypoints[0]).float() + 1.5
    face = PortraitFace(own, torch.from_numpy(clip.landmarks[0]).float(), torch.zeros(68))
    stranger = replace(motion, portrait=None)
    found = head_points(model, image_of(clip), stranger, face=face)
    assert torch.equal(found.portrait, own) and torch.equal(found.face.keypoints, own) and found.width == size
    known = replace(motion, portrait=own - 1.5)
    assert torch.equal(head_points(model, image_of(clip), known, face=face).portrait, own - 1.5)
