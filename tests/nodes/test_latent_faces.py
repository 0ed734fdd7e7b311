"""Face crops on their way through the graph: Combine Video puts what Portrait Sampler drew back onto the portrait."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from svp_portrait.nodes.compose import SVPComposePortrait
from svp_portrait.nodes.host import Vae
from svp_portrait.nodes.sampler import SVPSampler
from svp_portrait.nodes.types import FACES, LoadedModel
from svp_portrait.nodes.video import image_chunks
from svp_portrait.svp_models.checkpoints.model_file import FACE_ANALYZER
from svp_portrait.svp_models.cli.core_nodes import audio_to_host
from svp_portrait.svp_models.face.detectors.built_in import BuiltInBackend
from svp_portrait.svp_models.face.tracking import FaceTracker
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.synthetic.clips import make_clip, states_to_motion
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import Audio, HeadMotion

WIDGETS = {
    "seed": 3, "steps": 1, "cfg": -1.0, "scheduler": "euler", "reference_weight": 1.0, "audio_weight": 1.0, "style_weight": 1.0,
    "fps": 0.0, "window": 0, "overlap": -1, "length": "shortest",
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded():
    torch.manual_seed(0)
    unet = replace(PRESETS["demo256"].unet, block_out_channels=(16, 16, 16))
    config = replace(PRESETS["demo256"], unet=unet)
    networks, vae = build_networks(config).eval(), build_vae(config.vae).eval()
    return LoadedModel.of(PortraitModel(config, networks, vae, None, "space")), Vae(vae, config.vae)


@pytest.fixture(scope="module")
def clip():
    return make_clip(speaker(6, "test"), "happy", 3, 1, seconds=0.12, size=256, version=2)


@pytest.fixture(scope="module")
def motion(clip):
    points = torch.from_numpy(clip.head_keypoints)
    return HeadMotion(points, 256, 256, 25.0, portrait=points[0])


def sampled(loaded, clip, motion, side, width=0, height=0, **more):
    """The portrait at `side` pixels and the sampler's LATENT."""
    planes = torch.from_numpy(clip.images[:1]).movedim(3, 1).float() / 255
    portrait = functional.interpolate(planes, (side, side), mode="bilinear", antialias=True).movedim(1, 3)
    audio = audio_to_host(Audio(torch.from_numpy(clip.audio)[None], 16000))
    given = {"width": width, "height": height, "motion": states_to_motion(clip.states, 25.0), **more}
    latent, _ = SVPSampler.execute(*loaded, portrait=portrait, audio=audio, head_motion=motion, **WIDGETS, **given).args
    return portrait, latent


@pytest.mark.parametrize(("side", "asked", "shown"), [(256, 0, 256), (512, 0, 512), (1100, 0, 1024), (512, 256, 256)])
def test_a_video_shows_whole_frames(loaded, clip, motion, side, asked, shown):
    """As large as the portrait, or as it was asked for; outside of the face the first frame is the portrait itself."""
    portrait, latent = sampled(loaded, clip, motion, side, asked, asked)
    assert latent["samples"].shape == (3, 64, 15, 14)
    frames = torch.cat(list(image_chunks(None, latent, loaded[1])))
    assert frames.shape == (3, shown, shown, 3)
    if side == shown:
        corner = slice(0, side // 8)
        torch.testing.assert_close(frames[0][corner, corner], portrait[0][corner, corner], atol=2e-3, rtol=0)


def test_an_analyser_of_photographs_finds_the_face_that_is_warped(loaded, clip, motion, caplog):
    """A model whose own analyser finds nobody warps the portrait to the head alone; with one that does, lips and lids move too."""
    _, unknown = sampled(loaded, clip, motion, 512)
    assert "the portrait's landmarks are not known" in caplog.text
    _, known = sampled(loaded, clip, motion, 512, face_analyzer=FaceTracker(BuiltInBackend(FACE_ANALYZER.read_bytes())))
    assert len(unknown[FACES].plan.points) == len(known[FACES].plan.points) == 3
    frames = [torch.cat(list(image_chunks(None, latent, loaded[1]))) for latent in (unknown, known)]
    plan = known[FACES].plan.points
    mouth = plan.face.landmarks[48:68]
    assert plan.face.landmarks.amax() > 256  # in pixels of the portrait, which is larger than the frames
    left, top, right, bottom = (int(value) for value in (*mouth.amin(0), *mouth.amax(0)))
    changed = (frames[0] - frames[1]).abs().mean(dim=(0, 3))
    assert changed[top:bottom, left:right].mean() > 5 * changed[:60].mean()


def test_the_node_compose_portrait_gives_the_same(loaded, clip, motion):
    portrait, latent = sampled(loaded, clip, motion, 512)
    frames = torch.cat(list(image_chunks(None, latent, loaded[1])))
    faces = loaded[1].decode(latent["samples"])
    assert faces.shape == (3, 120, 112, 3)
    motions = {"head_motion": motion, "motion": states_to_motion(clip.states, 25.0)}
    composed, _ = SVPComposePortrait.execute(loaded[0], portrait, faces, 0.0, 0.06, 0, 0, **motions).args
    torch.testing.assert_close(frames, composed, atol=1e-5, rtol=0)


def test_a_latent_that_another_node_has_cut_is_shown_as_it_is(loaded, clip, motion):
    _, latent = sampled(loaded, clip, motion, 256)
    cut = {**latent, "samples": latent["samples"][:2]}
    assert torch.cat(list(image_chunks(None, cut, loaded[1]))).shape == (2, 120, 112, 3)
    plain = {name: value for name, value in latent.items() if name != FACES}
    assert torch.cat(list(image_chunks(None, plain, loaded[1]))).shape == (3, 120, 112, 3)
