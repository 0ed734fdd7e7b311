"""Pictures beside the progress bar: when they come, what they show, and that they take a bounded share of the time."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from svp_portrait.nodes import host as module
from svp_portrait.nodes.host import MAX_TIME_FRACTION, MIN_INTERVAL, Preview, PreviewBar, preview
from svp_portrait.svp_models.config import ModelConfig, UNetConfig, VaeConfig


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("cost", [0.0, 0.001, 0.05, 2.0])
def test_pictures_take_a_bounded_share_of_the_time(cost):
    clock, drawn = Clock(), []

    def draw(latent):
        clock.now += cost
        drawn.append(clock.now)
        return latent

    watch = Preview(lambda picture: None, draw, clock)
    for step in range(20_000):
        watch(step, 0, torch.zeros(4, 1, 1, 1))
        clock.now += 0.01  # of work
    assert len(drawn) > 1 and min(b - a for a, b in pairwise(drawn)) >= MIN_INTERVAL - 1e-9
    assert (len(drawn) - 1) * cost <= MAX_TIME_FRACTION * (clock.now - 100)


def test_the_picture_is_of_the_frames_just_sampled():
    shown = []
    watch = Preview(shown.append, lambda latent: latent, iter(range(100)).__next__)
    watch(0, 32, torch.arange(5.0)[:, None, None, None])
    watch(0, 64, torch.tensor([7.0])[:, None, None, None])
    assert [each.flatten().tolist() for each in shown] == [[2.0]]  # the second came too soon


def test_the_bar_keeps_its_place_when_a_picture_comes(monkeypatch):
    told = []
    bar = SimpleNamespace(update_absolute=lambda *given: told.append(given))
    monkeypatch.setattr(module, "ProgressBar", lambda total: bar)
    pictures = PreviewBar()
    pictures(3, 10)
    pictures.set_preview("picture")
    assert told == [(3, 10), (3, 10, "picture")]


def host_previews(method: str, **more):
    """As much of the host's `latent_preview` as is read."""
    methods = SimpleNamespace(NoPreviews="none", Latent2RGB="latent2rgb")
    given = {"args": SimpleNamespace(preview_method=method), "LatentPreviewMethod": methods}
    return SimpleNamespace(MAX_PREVIEW_RESOLUTION=512, **given, **more)


def a_model(kind: str):
    class Vae(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))

        def decode(self, latents):
            assert latents.dtype == torch.float64  # as the VAE is held
            return (latents * self.gain).mean(1, keepdim=True).expand(-1, 3, -1, -1)

    config = ModelConfig("x", vae=VaeConfig(kind=kind, scale=0.5), unet=UNetConfig())
    return SimpleNamespace(config=config, vae=Vae(), networks=SimpleNamespace(denoiser=torch.nn.Linear(1, 1)))


def test_there_are_none_where_nobody_looks(monkeypatch):
    assert preview(PreviewBar(), a_model("portrait")) is None  # the stand-in
    monkeypatch.setattr(module, "latent_preview", host_previews("none"))
    assert preview(PreviewBar(), a_model("portrait")) is None


def test_the_small_vae_draws_a_true_picture(monkeypatch):
    seen = []
    told = host_previews("latent2rgb", preview_to_image=lambda picture: seen.append(picture) or "image")
    monkeypatch.setattr(module, "latent_preview", told)
    draw = module.vae_previewer(a_model("portrait"))
    assert draw(torch.full((1, 4, 2, 3), 0.25)) == ("JPEG", "image", 512)
    assert seen[0].shape == (2, 3, 3) and torch.equal(seen[0], torch.full((2, 3, 3), 0.25))


def test_the_host_draws_latents_it_knows(monkeypatch):
    seen = []

    class Previewer:
        def decode_latent_to_preview_image(self, kind, latent):
            seen.append((kind, latent))
            return "picture"

    told = host_previews("latent2rgb", get_previewer=lambda device, known: Previewer() if known == "sd15 0.5" else None)
    monkeypatch.setattr(module, "latent_preview", told)
    monkeypatch.setattr(module, "latent_formats", SimpleNamespace(SD15=lambda scale: f"sd15 {scale}"))
    watch = preview(SimpleNamespace(set_preview=lambda picture: seen.append(picture)), a_model("sd15"))
    watch(0, 0, torch.full((3, 4, 2, 2), 4.0))
    assert seen[0][0] == "JPEG" and torch.equal(seen[0][1], torch.full((1, 4, 2, 2), 2.0)) and seen[1] == "picture"
