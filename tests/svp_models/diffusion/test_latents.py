from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.diffusion.latents import check_latents, check_pictures, decode_latents, fit_portrait
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


def test_a_fitting_picture_is_left_alone():
    image = torch.rand(3, 64, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(fit_portrait(image, 48, 64), image)


def test_the_centre_is_kept():
    image = torch.full((3, 64, 128), -1.0)
    image[:, :, 32:96] = 1  # exactly the central square
    assert torch.equal(fit_portrait(image, 64, 64), torch.ones(3, 64, 64))
    assert torch.equal(fit_portrait(image.transpose(1, 2), 32, 32), torch.ones(3, 32, 32))


def test_downscaling_averages_areas():
    stripes = torch.ones(3, 128, 128)
    stripes[:, :, ::2] = -1
    assert fit_portrait(stripes, 32, 32)[:, 4:-4, 4:-4].abs().max() < 0.1


@pytest.mark.parametrize(("high", "wide"), [(33, 57), (57, 33), (512, 32), (1000, 999), (40, 400)])
def test_every_shape_fits(high, wide):
    image = torch.rand(3, high, wide, generator=torch.Generator().manual_seed(0)) * 2 - 1
    fitted = fit_portrait(image, 40, 32)
    assert fitted.shape == (3, 32, 40) and fitted.abs().max() <= 1


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 1, 1), "the portrait is 1 x 1 pixels: at least 32 x 32"),
        (torch.zeros(4, 64, 64), r"shape \(4, 64, 64\)"),
        (torch.zeros(64, 64), r"shape \(64, 64\)"),
        (torch.full((3, 64, 64), torch.nan), "not finite"),
    ],
)
def test_unusable_portraits(image, message):
    with pytest.raises(PortraitError, match=message):
        fit_portrait(image, 64, 64)


def test_decode_in_chunks():
    latents = torch.linspace(-1, 1, 7)[:, None, None, None].expand(7, 3, 2, 4)
    vae, seen = Halver(), []
    chunks = list(decode_latents(vae, latents, 3, lambda done, total: seen.append((done, total))))
    assert vae.batches == [3, 3, 1] and seen == [(3, 7), (6, 7), (7, 7)]
    frames = torch.cat(chunks)
    assert frames.shape == (7, 3, 16, 32) and not frames.requires_grad
    torch.testing.assert_close(frames[:, 0, 0, 0], (torch.linspace(-1, 1, 7) * 2).clamp(-1, 1))


def test_decode_leaves_gradients_as_its_caller_has_them():
    frames = decode_latents(Halver(), torch.zeros(4, 3, 2, 2), 2)
    next(frames)
    assert torch.is_grad_enabled()


def test_decode_is_lazy_and_cancellable():
    def stop(done, total):
        raise Cancelled

    vae = Halver()
    frames = decode_latents(vae, torch.zeros(4, 3, 2, 2), 2, stop)
    assert vae.batches == []
    with pytest.raises(Cancelled):
        next(frames)
    assert vae.batches == [2]


def test_decode_needs_a_chunk():
    with pytest.raises(PortraitError, match="0 at a time"):
        list(decode_latents(Halver(), torch.zeros(4, 3, 2, 2), 0))


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


def test_the_first_picture_that_is_not_finite_is_named():
    pictures = torch.zeros(5, 2, 2, 3)
    check_pictures(pictures)
    pictures[2, 0, 0, 0] = float("inf")
    with pytest.raises(PortraitError, match="frame 102 of the pictures"):
        check_pictures(pictures, 100)
