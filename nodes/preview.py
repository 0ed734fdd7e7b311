"""Pictures of the clip beside the progress bar while it is sampled, where the host wants them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..svp_models.checkpoints.native import PortraitModel
from .host import ProgressBar, latent_formats, latent_preview

SHARE = 0.02  # of the time that pictures may take
PAUSE = 0.2  # seconds between two pictures at least

Draw = Callable[[Tensor], Any]  # an unscaled latent 1 c h w -> what the host's progress bar takes as a picture


class PictureBar:
    """A node's progress bar: called as (done, total), a chance to cancel every time; `show` puts a picture beside it."""

    def __init__(self) -> None:
        self._bar = ProgressBar(1)
        self._at = (0, 1)

    def __call__(self, done: int, total: int) -> None:
        self._at = (done, total)
        self._bar.update_absolute(done, total)

    def show(self, picture: Any) -> None:
        self._bar.update_absolute(*self._at, picture)


class Preview:
    """Takes the sampler's clean latents and shows one frame of them now and then: however slow the drawing is, it takes no more
    than SHARE of the time. Each picture is of the frames that were sampled last, so a long clip runs by."""

    def __init__(self, show: Callable[[Any], None], draw: Draw, clock: Callable[[], float] = time.monotonic) -> None:
        self._show, self._draw, self._clock = show, draw, clock
        self._next = -float("inf")  # when the next picture is due

    def __call__(self, step: int, first: int, clean: Tensor) -> None:
        """clean: n c h w, unscaled, of the frames from `first` on."""
        begin = self._clock()
        if begin < self._next:
            return
        middle = len(clean) // 2
        self._show(self._draw(clean[middle : middle + 1]))
        end = self._clock()
        self._next = end + max(PAUSE, (end - begin) / SHARE)


def preview(bar: PictureBar, model: PortraitModel) -> Preview | None:
    """What shows the sampler's latents on the bar; None where the host shows none (`--preview-method none`)."""
    if latent_preview is None or latent_preview.args.preview_method is latent_preview.LatentPreviewMethod.NoPreviews:
        return None
    draw = drawn_by_vae(model) if model.config.vae.kind == "portrait" else drawn_by_host(model)
    return None if draw is None else Preview(bar.show, draw)


def drawn_by_vae(model: PortraitModel) -> Draw:
    """The pack's small VAE is quick enough for a true picture; it runs where it lies, so that no model is moved for it."""

    @torch.no_grad()
    def draw(latent: Tensor) -> Any:
        picture = model.vae.decode(latent.to(next(model.vae.parameters())))[0].float()  # 3 H W in [-1, 1]
        image = latent_preview.preview_to_image(picture.movedim(0, -1))
        return ("JPEG", image, latent_preview.MAX_PREVIEW_RESOLUTION)

    return draw


def drawn_by_host(model: PortraitModel) -> Draw | None:
    """Latents of Stable Diffusion 1.5's VAE, as the host draws them for its own samplers."""
    device = next(model.networks.denoiser.parameters()).device
    previewer = latent_preview.get_previewer(device, latent_formats.SD15(model.config.vae.scale))
    if previewer is None:
        return None
    return lambda latent: previewer.decode_latent_to_preview_image("JPEG", latent.to(device) * model.config.vae.scale)
