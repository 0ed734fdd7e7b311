"""What a sampling request must satisfy before anything is computed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..checkpoints.native import PortraitModel
from ..config import ModelConfig
from ..errors import PortraitError
from ..io.frames import Repeated, Rows
from ..values import HeadMotion, Style, StylePrior

ASPECT_TOLERANCE = 0.01  # Head-Kps pictures may differ this much, or one pixel, from the frames' aspect


def check_clip(frames: int, fps: float) -> None:
    """At least one frame, at a frame rate above 0."""
    if frames < 1:
        raise PortraitError(f"{frames} frames are asked: at least 1 is needed; is the audio empty?")
    if not (math.isfinite(fps) and fps > 0):
        raise PortraitError(f"fps is {fps}: it must be above 0")


def check_size(width: int, height: int, multiple: int) -> None:
    """Both sides positive multiples of `multiple` pixels; the message names the nearest size."""
    if width < multiple or height < multiple or width % multiple or height % multiple:
        nearest = [max(multiple, multiple * math.floor(side / multiple + 0.5)) for side in (width, height)]
        raise PortraitError(
            f"size {width} x {height} is not a multiple of {multiple} pixels: "
            f"the nearest is {nearest[0]} x {nearest[1]}"
        )


def check_portrait(latent: Tensor, config: ModelConfig, width: int, height: int) -> None:
    """The latent has the channels of the model and the size of the frames: 1 c h w."""
    down = config.vae.downscale
    expected = (1, config.vae.latent_channels, height // down, width // down)
    if tuple(latent.shape) != expected:
        raise PortraitError(
            f"the portrait's latent has shape {tuple(latent.shape)}, {expected} is needed for {width} x {height}: "
            "encode the portrait at that size with this model's VAE"
        )
    if not torch.isfinite(latent).all():
        raise PortraitError("the portrait's latent holds numbers that are not finite: check the portrait")


def check_style(style: Style | StylePrior, model: PortraitModel) -> None:
    """Raises PortraitError unless the style was made by this model's extractor."""
    if style.style_space != model.style_space:
        raise PortraitError(
            f"the style was made in style space {style.style_space!r}, the model reads {model.style_space!r}: extract "
            "the style again with this model, or load the model the style was made with"
        )
    numbers = style.codes if isinstance(style, Style) else torch.stack([style.mu, style.sigma])
    if numbers.dim() != 2 or len(numbers) < 1 or numbers.shape[-1] != model.config.style.style_size:
        raise PortraitError(
            f"the style has shape {tuple(numbers.shape)}, the model reads codes of {model.config.style.style_size} "
            "numbers: extract the style again with this model"
        )
    if not torch.isfinite(numbers).all():
        raise PortraitError("the style holds numbers that are not finite: extract it again")


def check_warped(warped: Rows | None, config: ModelConfig, portrait_latent: Tensor, frames: int) -> None:
    """Models with `reference_warp` have the bent portrait of every frame (or one, held), others have none."""
    if config.unet.reference_warp != (warped is not None):
        wants = "needs" if config.unet.reference_warp else "takes no"
        raise PortraitError(f"model {config.name!r} {wants} bent portraits: make them with `warped_latents`")
    if warped is not None and (warped.shape[1:] != portrait_latent.shape[1:] or len(warped) not in (1, frames)):
        raise PortraitError(
            f"the bent portraits have shape {tuple(warped.shape)}, {(frames, *portrait_latent.shape[1:])} is needed"
        )


def check_motion(
    motion: HeadMotion | Rows, config: ModelConfig, frames: int, fps: float, size: tuple[int, int]
) -> None:
    """One Head-Kps frame per frame (or a single one, held), finite, and of a shape that can be used."""
    if len(motion) not in (1, frames):
        raise PortraitError(
            f"{frames} frames at {fps:g} fps are asked, Head-Kps has {len(motion)}: trim the audio, give {frames} "
            "frames of Head-Kps (or a single one, held still), or set 'length' to 'shortest'"
        )
    if isinstance(motion, HeadMotion):
        _check_keypoints(motion)
    else:
        _check_pictures(motion.rows if isinstance(motion, Repeated) else motion, size)


def _check_keypoints(motion: HeadMotion) -> None:
    if tuple(motion.keypoints.shape[1:]) != (8, 2) or not torch.isfinite(motion.keypoints).all():
        raise PortraitError(
            f"the head motion has shape {tuple(motion.keypoints.shape)}: frames x 8 x 2 finite numbers are needed"
        )
    if motion.width < 1 or motion.height < 1:
        raise PortraitError(
            f"the head motion belongs to a picture of {motion.width} x {motion.height}: both must be above 0"
        )


def _check_pictures(pictures: Tensor, size: tuple[int, int]) -> None:
    if pictures.dim() != 4 or pictures.shape[1] != 3:
        raise PortraitError(
            f"Head-Kps pictures have shape {tuple(pictures.shape)}: frames x 3 x height x width is needed"
        )
    high, wide = pictures.shape[-2:]
    if abs(wide * size[1] / size[0] - high) > max(1, ASPECT_TOLERANCE * high):
        raise PortraitError(
            f"Head-Kps pictures are {wide} x {high}, the frames {size[0]} x {size[1]}: render them in the frames' shape"
        )
    if not torch.isfinite(pictures).all():
        raise PortraitError("Head-Kps pictures hold numbers that are not finite: render them again")
