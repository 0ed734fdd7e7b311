"""The inputs of one clip at one length, frame rate and size, and what they must satisfy before anything is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import PortraitError
from ..face.keypoints import motion_at
from ..face.tracking import FaceTracker, track_face
from ..io.memory_map import FrameArray, ReorderedFrames
from ..media.audio import check_audio, frame_count
from ..model import PortraitModel
from ..types import Audio, HeadMotion, Style, StylePrior
from .latents import centre_cut

LENGTHS = ("audio", "shortest")
ASPECT_TOLERANCE = 0.01  # Head-Kps pictures may differ this much, or one pixel, from the frames' aspect


@dataclass(frozen=True)
class ClipInputs:
    """What is to be sampled, see `PortraitPipeline.prepare`.

    portrait_latent: 1 c h/8 w/8, unscaled; warped: from `warped_latents`, for the models that ask for it; motion: a
    HeadMotion or Head-Kps images f 3 H W in [0, 1], one per frame or a single one for all; style: None samples without the
    style layers; size: width, height in pixels.
    """

    portrait_latent: Tensor
    audio: Audio
    motion: HeadMotion | FrameArray
    style: Style | None
    frames: int
    fps: float
    size: tuple[int, int]
    warped: FrameArray | None = None

    def check(self, model: PortraitModel) -> None:
        """Raises PortraitError for the first thing that does not fit the model or the rest."""
        config = model.config
        width, height = self.size
        check_clip(self.frames, self.fps)
        check_size(width, height, config.vae.downscale)
        check_audio(self.audio)
        check_portrait(self.portrait_latent, config, width, height)
        check_motion(self.motion, config, self.frames, self.fps, self.size)
        check_warped(self.warped, config, self.portrait_latent, self.frames)
        if self.style is not None:
            check_style(self.style, model)


def still_motion(analyzer: FaceTracker | bytes | None, portrait: np.ndarray) -> HeadMotion:
    """The portrait's own head keypoints as a motion of one frame, which keeps the head still.

    analyzer: see `track_face`; portrait: 1 h w 3, uint8 RGB. A picture without a face raises PortraitError.
    """
    if analyzer is None:
        raise PortraitError(
            "this model has no face analyser, so the portrait's head keypoints cannot be found: connect face_analyzer (Load "
            "Face Analyzer), or a head_motion"
        )
    track = track_face(analyzer, portrait, "the portrait")
    keypoints = torch.from_numpy(track.head_keypoints[:1])  # 1 8 2
    return HeadMotion(keypoints, track.width, track.height, fps=1.0, portrait=keypoints[0])


def clip_length(seconds: float, motion: HeadMotion | Tensor, fps: float, length: str) -> int:
    """Frames of the clip. length `audio`: the whole audio; `shortest`: up to the end of the head motion, if that is sooner (a
    single frame of motion stands still and ends nothing)."""
    if length not in LENGTHS:
        raise PortraitError(f"length is {length!r}: choose one of {', '.join(LENGTHS)}")
    frames = frame_count(seconds, fps)
    if length == "audio" or len(motion) < 2:
        return frames
    rate = motion.fps if isinstance(motion, HeadMotion) else fps
    return min(frames, frame_count(len(motion) / rate, fps))


def fit_motion(
    motion: HeadMotion | Tensor, frames: int, fps: float, width: int, height: int
) -> HeadMotion | FrameArray:
    """The head motion of every frame, cropped around the centre to the aspect of the frames, as `fit_portrait` does.

    motion: HeadMotion, or Head-Kps pictures f 3 h w in [0, 1] at the clip's own rate. One that is too short goes back and
    forth (ping-pong); images are not copied for it.
    """
    if isinstance(motion, HeadMotion):
        left, top, wide, high = centre_cut(motion.width, motion.height, width, height)
        moved = motion_at(motion, frames, fps)
        corner = moved.keypoints.new_tensor([left, top])
        portrait = None if moved.portrait is None else moved.portrait - corner  # 8 2
        return HeadMotion(moved.keypoints - corner, wide, high, fps, moved.interpolated, portrait)
    left, top, wide, high = centre_cut(motion.shape[-1], motion.shape[-2], width, height)
    cut = motion[:frames, :, top : top + high, left : left + wide]  # f 3 high wide, no copy
    if not 1 < len(cut) < frames:
        return cut
    period = 2 * (len(cut) - 1)
    return ReorderedFrames(cut, [min(frame % period, period - frame % period) for frame in range(frames)])


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
            "frames of Head-Kps (or a single one, held still), or set 'length' to 'shortest'"
        )
    if isinstance(motion, HeadMotion):
        _check_keypoints(motion)
    else:
        _check_pictures(motion.frames if isinstance(motion, ReorderedFrames) else motion, size)


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
