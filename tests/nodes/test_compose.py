"""Compose Portrait: faces over the portrait at its own resolution."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.nodes.compose import SVPComposePortrait
from svp_portrait.nodes.types import LoadedModel
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import HeadMotion


@pytest.fixture(scope="module")
def model():
    config = PRESETS["demo256"]
    networks, vae = build_networks(config).eval(), build_vae(config.vae).eval()
    return LoadedModel.of(PortraitModel(config, networks, vae, None, "space"))


@pytest.fixture(scope="module")
def clip():
    return make_clip(speaker(5, "test"), "sad", 3, 1, seconds=0.08, size=256)


@pytest.fixture(scope="module")
def portrait(clip):
    images = torch.from_numpy(clip.images[:1]).float() / 255
    return torch.nn.functional.interpolate(images.movedim(3, 1), scale_factor=2, mode="bilinear").movedim(1, 3)


@pytest.fixture(scope="module")
def motion(clip):
    points = torch.from_numpy(clip.head_keypoints)
    return HeadMotion(points, 256, 256, 25.0, portrait=points[0])


def test_white_faces_lie_on_the_portrait(model, portrait, motion, clip):
    faces = torch.ones(2, 120, 112, 3)
    images, mask = SVPComposePortrait.execute(model, portrait, faces, 0.0, 0.06, 0, 0, motion).args
    assert images.shape == (2, 512, 512, 3) and mask.shape == (2, 512, 512)
    x, y = (2 * clip.landmarks[0, 30]).astype(int)  # the tip of the nose
    assert mask[0, y, x] > 0.5
    outside = (mask == 0)[..., None].expand_as(images)
    torch.testing.assert_close(
        images[0][outside[0]], portrait[0][outside[0]], atol=2e-3, rtol=0
    )  # frame 0 stands still


def test_a_mask_of_ones_takes_the_faces(model, portrait, motion, clip):
    faces = torch.zeros(2, 120, 112, 3)
    images, mask = SVPComposePortrait.execute(
        model, portrait, faces, 25.0, 0.0, 256, 256, motion, torch.ones(1, 120, 112)
    ).args
    x, y = (2 * clip.landmarks[1, 30]).astype(int)
    assert mask[1, y, x] == 1 and images[1, y, x].max() == 0
    assert float(mask.mean()) == pytest.approx(112 * 120 / 256**2, abs=0.02)


def test_mistakes_are_named(model, portrait, motion):
    faces = torch.zeros(2, 120, 112, 3)
    with pytest.raises(PortraitError, match="crops of 112 x 120"):
        SVPComposePortrait.execute(model, portrait, torch.zeros(2, 100, 112, 3), 25.0, 0.06, 0, 0, motion)
    with pytest.raises(PortraitError, match="3 masks of 112 x 120 pixels and 2 faces"):
        SVPComposePortrait.execute(model, portrait, faces, 25.0, 0.06, 0, 0, motion, torch.ones(3, 120, 112))
    with pytest.raises(PortraitError, match="no face analyser"):
        SVPComposePortrait.execute(model, portrait, faces, 25.0, 0.06, 0, 0)


def test_a_stop_ends_the_work(model, portrait, motion, monkeypatch):
    def stop(done, total):
        if done > total / 5:
            raise InterruptedError

    monkeypatch.setattr("svp_portrait.nodes.host.progress", lambda: stop)
    with pytest.raises(InterruptedError):
        SVPComposePortrait.execute(model, portrait, torch.zeros(40, 120, 112, 3), 25.0, 0.06, 0, 0, replace(motion))
