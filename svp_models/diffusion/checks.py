"""What must hold before anything is sampled, and of what comes out. Errors name the numbers and the cure."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import PortraitError
from ..io.memory_map import FrameArray, ReorderedFrames, as_tensor
from ..media.audio import check_audio
from ..model import PortraitModel
from ..types import HeadMotion, Style, StylePrior
from .inputs import ClipInputs

ASPECT_TOLERANCE = 0.01  # Head-Kps images may differ this much, or one pixel, from the frames' aspect
LARGEST_LATENT = 1e6  # those of images stay below 100; an untrained model may reach thousands


def check_inputs(inputs: ClipInputs, model: PortraitModel) -> None:
    """Raises PortraitError for the first thing that does not fit the model or the rest."""
    config = model.config
    width, height = inputs.size
    check_clip(inputs.frames, inputs.fps)
    check_size(width, height, config.vae.downscale)
    check_audio(inputs.audio)
    check_portrait(inputs.portrait_latent, config, width, height)
    check_motion(inputs.motion, config, inputs.frames, inputs.fps, inputs.size)
    check_warped(inputs.warped, config, inputs.portrait_latent, inputs.frames)
    if inputs.style is not None:
        check_style(inputs.style, model)


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


def check_warped(warped: FrameArray | None, config: ModelConfig, portrait_latent: Tensor, frames: int) -> None:
    """Models with `reference_warp` have the warped portrait of every frame (or one for all), others have none."""
    if config.unet.reference_warp != (warped is not None):
        wants = "needs" if config.unet.reference_warp else "takes no"
        raise PortraitError(f"model {config.name!r} {wants} warped portraits: make them with `warped_latents`")
    if warped is not None and (warped.shape[1:] != portrait_latent.shape[1:] or len(warped) not in (1, frames)):
        raise PortraitError(
            f"the warped portraits have shape {tuple(warped.shape)}, {(frames, *portrait_latent.shape[1:])} is needed"
        )


def check_motion(
    motion: HeadMotion | FrameArray, config: ModelConfig, frames: int, fps: float, size: tuple[int, int]
) -> None:
    """One Head-Kps frame per frame (or a single one for all), finite, and of a shape that can be used."""
    if len(motion) not in (1, frames):
        raise PortraitError(
            f"{frames} frames at {fps:g} fps are asked, Head-Kps has {len(motion)}: trim the audio, give {frames} "
            "frames of Head-Kps (or a single one for all), or set 'length' to 'shortest'"
        )
    if isinstance(motion, HeadMotion):
        _check_keypoints(motion)
    else:
        _check_kps_images(as_tensor(motion.frames if isinstance(motion, ReorderedFrames) else motion), size)


def _check_keypoints(motion: HeadMotion) -> None:
    if tuple(motion.keypoints.shape[1:]) != (8, 2) or not torch.isfinite(motion.keypoints).all():
        raise PortraitError(
            f"the head motion has shape {tuple(motion.keypoints.shape)}: frames x 8 x 2 finite numbers are needed"
        )
    if motion.width < 1 or motion.height < 1:
        raise PortraitError(
            f"the head motion belongs to an image of {motion.width} x {motion.height}: both must be above 0"
        )


def _check_kps_images(images: Tensor, size: tuple[int, int]) -> None:
    if images.dim() != 4 or images.shape[1] != 3:
        raise PortraitError(f"Head-Kps images have shape {tuple(images.shape)}: frames x 3 x height x width is needed")
    high, wide = images.shape[-2:]
    if abs(wide * size[1] / size[0] - high) > max(1, ASPECT_TOLERANCE * high):
        raise PortraitError(
            f"Head-Kps images are {wide} x {high}, the frames {size[0]} x {size[1]}: render them in the frames' shape"
        )
    if not torch.isfinite(images).all():
        raise PortraitError("Head-Kps images hold numbers that are not finite: render them again")


def check_latents(latents: Tensor, first: int = 0, source: str = "they came out of a damaged model or VAE") -> None:
    """Raises PortraitError for the first frame whose latent is not that of an image. latents: f ...; first: the number of its first
    frame; source: what the cause may be."""
    for index, latent in enumerate(latents):
        largest = latent.detach().abs().amax().item()  # nan stays nan
        if not largest <= LARGEST_LATENT:
            what = "numbers that are not finite" if not math.isfinite(largest) else f"the number {largest:.3g}"
            raise PortraitError(
                f"the latents of frame {first + index} hold {what} (those of images stay below 100): {source}; "
                "load another file, or run in float32 if this one is whole"
            )


def check_pictures(images: Tensor, first: int = 0) -> None:
    """Raises PortraitError for the first image with a number that is not finite. images: f ...; first: its number."""
    for index, image in enumerate(images):
        if not torch.isfinite(image).all():
            raise PortraitError(
                f"frame {first + index} of the images holds numbers that are not finite: their source is damaged or "
                "overflows, look at the nodes before this one"
            )
