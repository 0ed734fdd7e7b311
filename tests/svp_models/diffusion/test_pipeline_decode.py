"""The last stage of the pipeline: latents -> frames, a few at a time."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline
from svp_portrait.svp_models.errors import Cancelled, PortraitError


class Halver(torch.nn.Module):
    """A VAE stand-in: latents are the mean of 8 x 8 pixels; decoding doubles the values and repeats the cells."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.batches: list[int] = []

    def encode(self, images):
        return torch.nn.functional.avg_pool2d(images, 8) * self.weight

    def decode(self, latents):
        self.batches.append(len(latents))
        return latents.repeat_interleave(8, 2).repeat_interleave(8, 3) * 2 * self.weight


def decoder(vae) -> PortraitPipeline:
    return PortraitPipeline(SimpleNamespace(vae=vae))


def test_decode_in_chunks():
    latents = torch.linspace(-1, 1, 7)[:, None, None, None].expand(7, 3, 2, 4)
    vae, seen = Halver(), []
    chunks = list(decoder(vae).decode(latents, 3, lambda done, total: seen.append((done, total))))
    assert vae.batches == [3, 3, 1] and seen == [(3, 7), (6, 7), (7, 7)]
    frames = torch.cat(chunks)
    assert frames.shape == (7, 3, 16, 32) and not frames.requires_grad
    torch.testing.assert_close(frames[:, 0, 0, 0], (torch.linspace(-1, 1, 7) * 2).clamp(-1, 1))


def test_decode_leaves_gradients_as_its_caller_has_them():
    frames = decoder(Halver()).decode(torch.zeros(4, 3, 2, 2), 2)
    next(frames)
    assert torch.is_grad_enabled()


def test_decode_is_lazy_and_cancellable():
    def stop(done, total):
        raise Cancelled

    vae = Halver()
    frames = decoder(vae).decode(torch.zeros(4, 3, 2, 2), 2, stop)
    assert vae.batches == []
    with pytest.raises(Cancelled):
        next(frames)
    assert vae.batches == [2]


def test_decode_needs_a_chunk():
    with pytest.raises(PortraitError, match="0 at a time"):
        list(decoder(Halver()).decode(torch.zeros(4, 3, 2, 2), 0))
