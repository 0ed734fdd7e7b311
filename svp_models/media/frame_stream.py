"""Frames of a clip read one at a time and as often as wanted, from a file or from pictures: memory does not grow with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from torch import Tensor

from ..errors import PortraitError
from ..optional_deps import cv2
from ..types import Audio
from .audio import check_audio, decode_audio
from .video import as_rate, iter_frames, rate_and_origin, resample_frames, seconds_of

Source = str | Path | BytesIO


@dataclass(frozen=True)
class FrameStream:
    """A clip of frames h w 3, uint8 RGB, all of one size. It can be gone through like an array of them, n h w 3, but not
    indexed; every time it is read from the beginning.

    read: its frames anew. count: how many there are, of a file what its header says, which may be wrong. fps: None where
    nobody knows. unrounded: the same frames as float32 in [0, 1], where they are not from bytes.
    """

    read: Callable[[], Iterator[np.ndarray]]
    width: int
    height: int
    count: int
    fps: float | None = None
    unrounded: Callable[[], Iterator[np.ndarray]] | None = None
    dtype: ClassVar[np.dtype] = np.dtype(np.uint8)
    ndim: ClassVar[int] = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.count, self.height, self.width, 3

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.read()

    def counted(self) -> FrameStream:
        """The same with the true number of frames."""
        return replace(self, count=sum(1 for _ in self.read()))

    def pictures(self) -> Iterator[np.ndarray]:
        """The frames anew, h w 3, float32 in [0, 1]."""
        if self.unrounded is not None:
            return self.unrounded()
        return (frame.astype(np.float32) / 255 for frame in self.read())


Frames = np.ndarray | FrameStream


@dataclass(frozen=True)
class Selection:
    """Which frames of a clip, in this order: brought to frame_rate (0: its own), `skip` left out, every `every`th of the
    rest, `cap` of these at most (0: all). width, height: of the frames; one of them 0 keeps the aspect, both 0 the size; both
    given, the frames are scaled until they fill it and what is too much is cut off on both sides.
    """

    frame_rate: float = 0.0
    skip: int = 0
    every: int = 1
    cap: int = 0
    width: int = 0
    height: int = 0

    def rate(self, own: float | Fraction) -> Fraction:
        """Frames per second before `every`."""
        return as_rate(self.frame_rate or own)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the frames that come out of frames of width x height."""
        if not (self.width or self.height):
            return width, height
        return (
            self.width or max(1, round(width * self.height / height)),
            self.height or max(1, round(height * self.width / width)),
        )

    def count(self, frames: int) -> int:
        """Of so many frames at the wanted rate."""
        chosen = max(0, math.ceil((frames - self.skip) / self.every))
        return min(chosen, self.cap) if self.cap else chosen


ALL = Selection()


def file_stream(source: Source, start: float = 0.0, seconds: float = 0.0, chosen: Selection = ALL) -> FrameStream:
    """A video file from `start` seconds on, `seconds` of it (0: to its end)."""
    own, _ = rate_and_origin(source)
    rate, length = chosen.rate(own), seconds_of(source)
    read = partial(_file_frames, source, start, seconds, rate, chosen)
    first = next(read(), None)
    if first is None:
        raise PortraitError(
            f"{_name(source)}: nothing is left after {start:g} s and {chosen.skip} frames of {length:.1f} s: skip less of it"
        )
    length = min(length - start, seconds) if seconds else length - start
    return FrameStream(
        read, first.shape[1], first.shape[0], max(1, chosen.count(round(length * rate))), float(rate / chosen.every)
    )


def _file_frames(
    source: Source, start: float, seconds: float, rate: Fraction, chosen: Selection
) -> Iterator[np.ndarray]:
    frames = iter_frames(
        source,
        rate,
        chosen.cap or None,
        start=start,
        seconds=seconds,
        skip=chosen.skip,
        every=chosen.every,
        size=_covering(chosen),
    )
    return (_middle(frame, chosen) for frame in frames)


def picture_stream(pictures: Tensor, fps: float | None = None, chosen: Selection = ALL) -> FrameStream:
    """Pictures n h w 3 in [0, 1], converted when they are read."""
    count, height, width = pictures.shape[:3]
    numbers: list[int] = list(range(count))
    if fps is not None:
        own, rate = as_rate(fps), chosen.rate(fps)
        timed = ((number / own, 1 / own, number) for number in numbers)
        numbers = list(islice(resample_frames(timed, rate), chosen.skip, None, chosen.every))
        numbers, fps = numbers[: chosen.cap or None], float(rate / chosen.every)
    if not numbers:
        raise PortraitError(f"nothing is left of {count} frames after {chosen.skip}: skip less of them")
    width, height = chosen.size(width, height)
    unrounded = partial(_picture_frames, pictures, numbers, chosen)

    def read() -> Iterator[np.ndarray]:
        return ((frame.clip(0, 1) * 255).round().astype(np.uint8) for frame in unrounded())

    return FrameStream(read, width, height, len(numbers), fps, unrounded)


def _picture_frames(pictures: Tensor, numbers: list[int], chosen: Selection) -> Iterator[np.ndarray]:
    size = _covering(chosen)
    for number in numbers:
        frame = pictures[number].detach().cpu().float().numpy()
        wanted = size(frame.shape[1], frame.shape[0])
        if wanted != (frame.shape[1], frame.shape[0]):
            shrinks = wanted[0] < frame.shape[1]
            frame = cv2.resize(frame, wanted, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC).clip(0, 1)
        yield _middle(frame, chosen)


def _covering(chosen: Selection) -> Callable[[int, int], tuple[int, int]]:
    """The size, of the frame's own aspect, that holds the wanted one."""

    def size(width: int, height: int) -> tuple[int, int]:
        wide, high = chosen.size(width, height)
        scale = max(wide / width, high / height)
        return max(wide, round(width * scale)), max(high, round(height * scale))

    return size


def _middle(frame: np.ndarray, chosen: Selection) -> np.ndarray:
    wide, high = chosen.size(frame.shape[1], frame.shape[0])
    left, top = (frame.shape[1] - wide) // 2, (frame.shape[0] - high) // 2
    return frame[top : top + high, left : left + wide]


def file_audio(source: Source, start: float = 0.0, seconds: float = 0.0) -> Audio | None:
    """The sound of a video file from `start` seconds after its first frame on, `seconds` of it; None where it has none."""
    audio = decode_audio(source, rate_and_origin(source)[1])
    if audio is None or not audio.waveform.shape[-1]:
        return None
    check_audio(audio, _name(source))
    return part_of(audio, start, seconds)


def part_of(audio: Audio, start: float, seconds: float) -> Audio | None:
    """The sound from `start` seconds on, `seconds` of it (0: to its end); None where nothing is left."""
    first = round(start * audio.sample_rate)
    last = first + round(seconds * audio.sample_rate) if seconds else None
    part = audio.waveform[:, first:last]
    return Audio(part, audio.sample_rate) if part.shape[-1] else None


def _name(source: Source) -> str:
    return "the video" if isinstance(source, BytesIO) else str(source)
