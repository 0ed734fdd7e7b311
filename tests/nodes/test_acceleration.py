"""Accelerate: a model with other settings beside the one that stays as it is, and the sampler that follows them."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from svp_portrait.nodes.acceleration import SVPAccelerate
from svp_portrait.nodes.sampler import SVPSampler
from svp_portrait.nodes.types import LoadedModel
from svp_portrait.svp_models.diffusion.acceleration import EXACT, PRESETS, Acceleration
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS as MODELS

DEFAULTS = asdict(EXACT)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    config = MODELS["demo"]
    networks = build_networks(config).eval()
    for weight in networks.parameters():  # those that start at zero too
        torch.nn.init.normal_(weight, std=0.05)
    return LoadedModel.of(PortraitModel(config, networks, build_vae(config.vae).eval(), None, "space"))


def accelerate(model: LoadedModel, preset: str, **settings) -> LoadedModel:
    (found,) = SVPAccelerate.execute(model, preset, **(DEFAULTS | settings)).args
    return found


def test_the_input_model_stays_as_it_is(model):
    fast = accelerate(model, "fast")
    assert fast.acceleration == PRESETS["fast"] and model.acceleration == EXACT
    assert fast.portrait is model.portrait and fast.denoising_handle is model.denoising_handle
    assert accelerate(fast, "exact").acceleration == EXACT


def test_custom_takes_the_settings(model):
    settings = {
        "cache_every": 4,
        "cache_layers": 2,
        "taylor_order": 1,
        "parallel_steps": True,
        "foreground_every": 2,
        "drop_reference": "down",
        "guidance_start": 0.1,
        "guidance_end": 0.6,
        "guidance_similarity": 0.98,
        "even_windows": True,
    }
    assert accelerate(model, "custom", **settings).acceleration == Acceleration(**settings)


@pytest.mark.parametrize(
    ("preset", "settings", "message"),
    [
        ("fast", {"cache_every": 3}, "preset is fast and cache_every 3: choose the preset custom"),
        ("exact", {"even_windows": True}, "preset is exact and even_windows True"),
        ("custom", {"cache_layers": 2}, "cache_layers is 2 and cache_every 1"),
        ("custom", {"taylor_order": 1}, "taylor_order is 1 and cache_every 1"),
        ("custom", {"cache_every": 2, "cache_layers": 3}, "this model has 2 layers, choose 1 to 2"),
        ("custom", {"guidance_start": 0.7, "guidance_end": 0.3}, "the start must come before the end"),
    ],
)
def test_contradictions_are_one_line(model, preset, settings, message):
    with pytest.raises(PortraitError, match=message) as caught:
        accelerate(model, preset, **settings)
    assert "\n" not in str(caught.value)


def test_the_sampler_follows_the_settings(model):
    class Vae:
        def encode(self, images: torch.Tensor) -> torch.Tensor:
            return model.portrait.vae.encode(images.movedim(3, 1) * 2 - 1)

    portrait, motion = torch.rand(1, 64, 64, 3), torch.rand(1, 64, 64, 3)
    audio = {"waveform": torch.randn(1, 1, 3200), "sample_rate": 16000}  # five frames
    given = (Vae(), portrait, audio, 3, 4, 2.0, "euler", 1.0, 1.0, 1.0, 25.0, 0, -1, 64, 64, "audio", motion)
    exact, again, fast = (
        SVPSampler.execute(accelerate(model, preset), *given).args[0]["samples"]
        for preset in ("exact", "exact", "fast")
    )
    assert torch.equal(exact, again) and exact.shape == fast.shape
    assert 0 < (fast - exact).abs().max() and fast.isfinite().all()
