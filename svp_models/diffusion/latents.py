"""Portrait -> latent and latents -> frames, through the model's VAE."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import PortraitError

SMALLEST_PORTRAIT = 32  # pixels per side; below, there is no face to see
LARGEST_LATENT = 1e6  # those of pictures stay below 100; an untrained model may reach thousands


def fit_portrait(image: Tensor, width: int, height: int) -> Tensor:
    """A picture of any size -> 3 x height x width: cut to the aspect around its centre, then resized with antialiasing.

    image: 3 h w in [-1, 1], which the result keeps to.
    """
    if image.dim() != 3 or image.shape[0] != 3:
        raise PortraitError(
            f"the portrait has shape {tuple(image.shape)}: 3 x height x width (red, green, blue) is needed"
        )
    high, wide = image.shape[-2:]
    if min(high, wide) < SMALLEST_PORTRAIT:
        raise PortraitError(
            f"the portrait is {wide} x {high} pixels: at least {SMALLEST_PORTRAIT} x {SMALLEST_PORTRAIT} are needed"
        )
    if not torch.isfinite(image).all():
        raise PortraitError("the portrait holds numbers that are not finite: load it again")
    left, top, keep_wide, keep_high = centre_cut(wide, high, width, height)
    cut = image[:, top : top + keep_high, left : left + keep_wide].float()
    if (keep_high, keep_wide) == (height, width):
        return cut
    resized = F.interpolate(cut[None], (height, width), mode="bilinear", antialias=True)
    return resized[0].clamp(-1, 1)


def centre_cut(wide: int, high: int, width: int, height: int) -> tuple[int, int, int, int]:
    """The largest central part of a wide x high picture with the aspect of width x height: left, top, width, height."""
    keep_wide = min(wide, max(1, math.floor(high * width / height + 0.5)))
    keep_high = min(high, max(1, math.floor(wide * height / width + 0.5)))
    return (wide - keep_wide) // 2, (high - keep_high) // 2, keep_wide, keep_high


def check_latents(latents: Tensor, first: int = 0, source: str = "they came out of a damaged model or VAE") -> None:
    """Raises PortraitError for the first frame whose latent is no picture's. latents: f ...; first: the number of its first
    frame; source: what the cause may be."""
    for index, latent in enumerate(latents):
        largest = latent.detach().abs().amax().item()  # nan stays nan
        if not largest <= LARGEST_LATENT:
            what = "numbers that are not finite" if not math.isfinite(largest) else f"the number {largest:.3g}"
            raise PortraitError(
                f"the latents of frame {first + index} hold {what} (those of pictures stay below 100): {source}; "
                "load another file, or run in float32 if this one is whole"
            )


def check_pictures(images: Tensor, first: int = 0) -> None:
    """Raises PortraitError for the first picture with a number that is not finite. images: f ...; first: its number."""
    for index, image in enumerate(images):
        if not torch.isfinite(image).all():
            raise PortraitError(
                f"frame {first + index} of the pictures holds numbers that are not finite: what they come from is damaged or "
                "overflows, look at the nodes before this one"
            )


def decode_latents(
    vae: nn.Module, latents: Tensor, chunk: int = 8, progress: Callable[[int, int], None] | None = None
) -> Iterator[Tensor]:
    """Unscaled latents f c h w -> frames in chunks of up to `chunk`: n 3 H W in [-1, 1], float32 on the CPU."""
    if chunk < 1:
        raise PortraitError(f"frames are decoded {chunk} at a time: at least 1 is needed")
    like = next(vae.parameters())
    done = 0
    for part in latents.split(chunk):
        with torch.no_grad():  # entered anew for every chunk: a generator must not hold it while its caller runs
            frames = vae.decode(part.to(like)).float().cpu().clamp(-1, 1)  # n 3 H W
        done += len(part)
        if progress is not None:
            progress(done, len(latents))
        yield frames
