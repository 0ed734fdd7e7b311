"""Portrait, sound and head motion of a request brought to one length, one frame rate and one picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.audio_encoder import check_audio_encoder
from ..checkpoints.native import PortraitModel
from ..errors import PortraitError
from ..face.keypoints import motion_at
from ..face.tracking import FaceTracker, track_face
from ..io.frames import IN_MEMORY, Repeated, Rows, Storage
from ..io.progress import Progress
from ..media.audio import check_audio, frame_count
from ..values import Audio, HeadMotion, Style
from .checks import check_clip, check_size, check_style
from .decode import centre_cut, fit_portrait
from .request import ClipRequest
from .warp import Encode, warped_latents

LENGTHS = ("audio", "shortest")


def prepare_clip(
    model: PortraitModel,
    encode: Encode,
    portrait: Tensor,
    audio: Audio,
    motion: HeadMotion | Tensor,
    style: Style | None,
    frames: int,
    fps: float,
    size: tuple[int, int],
    progress: Progress | None = None,
    storage: Storage = IN_MEMORY,
) -> ClipRequest:
    """Everything cut and encoded for `sample_portrait`.

    portrait: 3 h w in [-1, 1] of any size; motion: of any length, rate and picture; encode: frames n 3 h w in [-1, 1] ->
    unscaled latents n c h/8 w/8; size: width, height in pixels. progress(done, total) is called for every few frames that
    are bent and encoded, for the models that take them so, and may raise to stop the work; storage: where those are kept.
    """
    check_size(*size, model.config.vae.downscale)
    check_clip(frames, fps)
    check_audio(audio)
    check_audio_encoder(model.config, model.audio_encoder)
    if style is not None:
        check_style(style, model)
    motion = fit_motion(motion, frames, fps, *size)
    picture = fit_portrait(portrait, *size)
    latent = encode(picture[None]).float().cpu()
    warped = warped_latents(model, encode, picture, motion, progress, storage)
    return ClipRequest(latent, audio, motion, style, frames, fps, size, warped)


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


def clip_frames(seconds: float, motion: HeadMotion | Tensor, fps: float, length: str) -> int:
    """Frames of the clip. length `audio`: all of the sound; `shortest`: up to the end of the head motion, if that is
    sooner (a single frame of motion is held and ends nothing)."""
    if length not in LENGTHS:
        raise PortraitError(f"length is {length!r}: choose one of {', '.join(LENGTHS)}")
    frames = frame_count(seconds, fps)
    if length == "audio" or len(motion) < 2:
        return frames
    rate = motion.fps if isinstance(motion, HeadMotion) else fps
    return min(frames, frame_count(len(motion) / rate, fps))


def fit_motion(motion: HeadMotion | Tensor, frames: int, fps: float, width: int, height: int) -> HeadMotion | Rows:
    """The head motion of each frame, cut around the centre to the aspect of the frames, as `fit_portrait` cuts.

    motion: HeadMotion, or Head-Kps pictures f 3 h w in [0, 1] at the clip's own rate. One that is too short goes back and
    forth (ping-pong); pictures are not copied for it.
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
    return Repeated(cut, [min(each % period, period - each % period) for each in range(frames)])
