"""Motion generators behind one interface: a voice -> a motion of exactly as many frames as the voice has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from ..errors import PortraitError
from ..io.progress import Progress
from ..media.audio import check_audio, frame_count, to_mono, warn_if_silent
from ..types import Audio, Motion
from .keypoints import KeypointMotion
from .mix import resample

SAMPLE_RATE = 16000  # Hz, of the voice that generators hear
FPS = 25  # of the public generators
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS


@dataclass(frozen=True)
class GenerateOptions:
    """How a motion is made; -1 and 0 stand for what the generator itself uses.

    seed: of the noise. steps: of the sampling, 0 its own. guidance: by the audio, -1 its own; generators without guidance take
    no notice. overlap: frames that neighbouring windows share, -1 its own, 0 none. smoothing: whether the generator's own
    smoothing of finished motions is applied.
    """

    seed: int = 0
    steps: int = 0
    guidance: float = -1.0
    overlap: int = -1
    smoothing: bool = True


class MotionGenerator(Protocol):
    """Networks that make motions from voices.

    name: for messages. networks: all of them, which the caller brings to a device; noise is drawn on the CPU, so that seeds
    mean the same everywhere. fps: of its motions. needs_face: whether it has to know the portrait.
    """

    @property
    def name(self) -> str: ...

    @property
    def networks(self) -> nn.Module: ...

    @property
    def fps(self) -> float: ...

    @property
    def needs_face(self) -> bool: ...

    def generate(
        self,
        voice: Tensor,
        frames: int,
        options: GenerateOptions,
        face: KeypointMotion | None = None,
        progress: Progress | None = None,
    ) -> Motion:
        """A motion of `frames` frames at `fps` from mono audio at 16 kHz, which may be shorter or longer.

        face: the portrait's, one frame with its points at rest. progress: (windows done, windows in all).
        """
        ...


def generate_motion(
    generator: MotionGenerator,
    audio: Audio,
    fps: float = FPS,
    options: GenerateOptions | None = None,
    face: KeypointMotion | None = None,
    progress: Progress | None = None,
) -> Motion:
    """The motion of a voice at any frame rate, with as many frames as any other clip of this voice."""
    check_audio(audio)
    warn_if_silent(audio)
    if not fps > 0:
        raise PortraitError(f"fps is {fps}: it must be above 0")
    frames = frame_count(audio.seconds, fps)
    step = generator.fps / fps  # of its frames to one of the result
    own = math.ceil((frames - 1) * step - 1e-6) + 1
    motion = generator.generate(to_mono(audio, SAMPLE_RATE), own, options or GenerateOptions(), face, progress)
    return motion if motion.fps == fps else resample(motion, frames, fps, "hold")


def fade_in(frames: int) -> Tensor:
    """Weights of a window that begins, over the frames it shares with the one before: frames 1, above 0 and below 1.

    Slope and curvature are 0 at both ends (6 u^5 - 15 u^4 + 10 u^3), so that the fade adds no corner of its own.
    """
    u = torch.arange(1, frames + 1)[:, None] / (frames + 1)
    return u**3 * (10 - 15 * u + 6 * u**2)
