"""The inputs of one clip, brought to one length, frame rate and size."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import PortraitError
from ..face.keypoints import resample_motion
from ..face.tracking import FaceTracker, track_face
from ..io.memory_map import FrameArray, ReorderedFrames
from ..media.audio import frame_count
from ..types import Audio, HeadMotion, Style

LENGTHS = ("audio", "shortest")
SMALLEST_PORTRAIT = 32  # pixels per side; below, there is no face to see


@dataclass(frozen=True)
class ClipInputs:
    """What is to be sampled, see `PortraitPipeline.prepare`.

    portrait_latent: 1 c h/8 w/8, unscaled; warped: from `warped_latents`, for the models that ask for it; motion: a
    HeadMotion or Head-Kps images f 3 H W in [0, 1], one per frame or a single one for all; style: None samples without the
    style layers; size: width, height in pixels of what is sampled: of the crops, for models that draw crops of the face;
    expression: f 68, an expression track (see `expression_track`), or None.
    """

    portrait_latent: Tensor
    audio: Audio
    motion: HeadMotion | FrameArray
    style: Style | None
    frames: int
    fps: float
    size: tuple[int, int]
    warped: FrameArray | None = None
    expression: Tensor | None = None


def still_motion(analyzer: FaceTracker | bytes | None, portrait: np.ndarray) -> HeadMotion:
    """The portrait's own head keypoints as a motion of one frame, which keeps the head still.

    analyzer: see `track_face`; portrait: 1 h w 3, uint8 RGB. A portrait without a face raises PortraitError.
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


def fit_portrait(image: Tensor, width: int, height: int) -> Tensor:
    """An image of any size -> 3 x height x width: cropped to the aspect around its centre, then resized with antialiasing.

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
    left, top, keep_wide, keep_high = centre_crop(wide, high, width, height)
    cut = image[:, top : top + keep_high, left : left + keep_wide].float()
    if (keep_high, keep_wide) == (height, width):
        return cut
    resized = F.interpolate(cut[None], (height, width), mode="bilinear", antialias=True)
    return resized[0].clamp(-1, 1)


def centre_crop(wide: int, high: int, width: int, height: int) -> tuple[int, int, int, int]:
    """The largest central part of a wide x high image with the aspect of width x height: left, top, width, height."""
    keep_wide = min(wide, max(1, math.floor(high * width / height + 0.5)))
    keep_high = min(high, max(1, math.floor(wide * height / width + 0.5)))
    return (wide - keep_wide) // 2, (high - keep_high) // 2, keep_wide, keep_high


def fit_motion(
    motion: HeadMotion | Tensor, frames: int, fps: float, width: int, height: int
) -> HeadMotion | FrameArray:
    """The head motion of every frame, cropped around the centre to the aspect of the frames, as `fit_portrait` does.

    motion: HeadMotion, or Head-Kps images f 3 h w in [0, 1] at the clip's own rate. One that is too short goes back and
    forth (ping-pong); images are not copied for it.
    """
    if isinstance(motion, HeadMotion):
        left, top, wide, high = centre_crop(motion.width, motion.height, width, height)
        moved = resample_motion(motion, frames, fps)
        corner = moved.keypoints.new_tensor([left, top])
        portrait = None if moved.portrait is None else moved.portrait - corner  # 8 2
        return HeadMotion(moved.keypoints - corner, wide, high, fps, moved.interpolated, portrait)
    left, top, wide, high = centre_crop(motion.shape[-1], motion.shape[-2], width, height)
    cut = motion[:frames, :, top : top + high, left : left + wide]  # f 3 high wide, no copy
    if not 1 < len(cut) < frames:
        return cut
    period = 2 * (len(cut) - 1)
    return ReorderedFrames(cut, [min(frame % period, period - frame % period) for frame in range(frames)])
