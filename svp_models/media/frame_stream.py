"""Frames of a clip read one at a time and as often as needed, from a file or from images: memory does not grow with the clip."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from io import BytesIO
from itertools import islice
from typing import ClassVar

import numpy as np
from torch import Tensor

from ..errors import PortraitError
from ..optional_deps import cv2
from ..types import Audio
from .audio import audio_segment, check_audio, decode_audio
from .container import Source
from .video import as_rate, iter_frames, rate_and_origin, resample_frames, seconds_of


@dataclass(frozen=True)
class FrameStream:
    """A clip of frames h w 3, uint8 RGB, all of one size. It can be iterated like an array n h w 3, but not indexed; every
    iteration reads from the beginning.

    read: an iterator over the frames. count: the number of frames, of a file what its header says, which may be wrong. fps:
    None where it is not known. read_floats: the same frames as float32 in [0, 1], where they are not from bytes.
    """

    read: Callable[[], Iterator[np.ndarray]]
    width: int
    height: int
    count: int
    fps: float | None = None
    read_floats: Callable[[], Iterator[np.ndarray]] | None = None
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

    def images(self) -> Iterator[np.ndarray]:
        """An iterator over the frames, h w 3, float32 in [0, 1]."""
        if self.read_floats is not None:
            return self.read_floats()
        return (frame.astype(np.float32) / 255 for frame in self.read())


Frames = np.ndarray | FrameStream


@dataclass(frozen=True)
class FrameSelection:
    """A selection of the frames of a clip, in this order: resampled to frame_rate (0: its own), `skip` left out, every `every`th
    of the rest, at most `cap` of these (0: all). width, height: of the frames; one of them 0 keeps the aspect, both 0 the size;
    with both, the frames are scaled to cover that size and cropped at the centre.
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
        """Width and height of the selected frames, from frames of width x height."""
        if not (self.width or self.height):
            return width, height
        return (
            self.width or max(1, round(width * self.height / height)),
            self.height or max(1, round(height * self.width / width)),
        )

    def count(self, frames: int) -> int:
        """The number of selected frames out of `frames` at the selected rate."""
        count = max(0, math.ceil((frames - self.skip) / self.every))
        return min(count, self.cap) if self.cap else count


ALL_FRAMES = FrameSelection()


def file_stream(
    source: Source, start: float = 0.0, seconds: float = 0.0, selection: FrameSelection = ALL_FRAMES
) -> FrameStream:
    """A video file from `start` seconds on, `seconds` of it (0: to its end)."""
    file_rate, _ = rate_and_origin(source)
    rate, length = selection.rate(file_rate), seconds_of(source)
    read = partial(_file_frames, source, start, seconds, rate, selection)
    first = next(read(), None)
    if first is None:
        raise PortraitError(
            f"{_name(source)}: nothing is left after {start:g} s and {selection.skip} frames of {length:.1f} s: skip less of it"
        )
    length = min(length - start, seconds) if seconds else length - start
    return FrameStream(
        read,
        first.shape[1],
        first.shape[0],
        max(1, selection.count(round(length * rate))),
        float(rate / selection.every),
    )


def _file_frames(
    source: Source, start: float, seconds: float, rate: Fraction, selection: FrameSelection
) -> Iterator[np.ndarray]:
    frames = iter_frames(
        source,
        rate,
        selection.cap or None,
        start=start,
        seconds=seconds,
        skip=selection.skip,
        every=selection.every,
        size=_covering_size(selection),
    )
    return (_centre(frame, selection) for frame in frames)


def image_stream(images: Tensor, fps: float | None = None, selection: FrameSelection = ALL_FRAMES) -> FrameStream:
    """Images n h w 3 in [0, 1], converted when they are read."""
    count, height, width = images.shape[:3]
    numbers: list[int] = list(range(count))
    if fps is not None:
        stored, rate = as_rate(fps), selection.rate(fps)
        timed = ((number / stored, 1 / stored, number) for number in numbers)
        numbers = list(islice(resample_frames(timed, rate), selection.skip, None, selection.every))
        numbers, fps = numbers[: selection.cap or None], float(rate / selection.every)
    if not numbers:
        raise PortraitError(f"nothing is left of {count} frames after {selection.skip}: skip less of them")
    width, height = selection.size(width, height)
    floats = partial(_image_frames, images, numbers, selection)

    def read() -> Iterator[np.ndarray]:
        return ((frame.clip(0, 1) * 255).round().astype(np.uint8) for frame in floats())

    return FrameStream(read, width, height, len(numbers), fps, floats)


def _image_frames(images: Tensor, numbers: list[int], selection: FrameSelection) -> Iterator[np.ndarray]:
    size = _covering_size(selection)
    for number in numbers:
        frame = images[number].detach().cpu().float().numpy()
        wanted = size(frame.shape[1], frame.shape[0])
        if wanted != (frame.shape[1], frame.shape[0]):
            shrinks = wanted[0] < frame.shape[1]
            frame = cv2.resize(frame, wanted, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC).clip(0, 1)
        yield _centre(frame, selection)


def _covering_size(selection: FrameSelection) -> Callable[[int, int], tuple[int, int]]:
    """The smallest size with the aspect of the frame that covers the selected one."""

    def size(width: int, height: int) -> tuple[int, int]:
        wide, high = selection.size(width, height)
        scale = max(wide / width, high / height)
        return max(wide, round(width * scale)), max(high, round(height * scale))

    return size


def _centre(frame: np.ndarray, selection: FrameSelection) -> np.ndarray:
    wide, high = selection.size(frame.shape[1], frame.shape[0])
    left, top = (frame.shape[1] - wide) // 2, (frame.shape[0] - high) // 2
    return frame[top : top + high, left : left + wide]


def file_audio(source: Source, start: float = 0.0, seconds: float = 0.0) -> Audio | None:
    """The audio of a video file from `start` seconds after its first frame on, `seconds` of it; None where it has none."""
    audio = decode_audio(source, rate_and_origin(source)[1])
    if audio is None or not audio.waveform.shape[-1]:
        return None
    check_audio(audio, _name(source))
    return audio_segment(audio, start, seconds)


def _name(source: Source) -> str:
    return "the video" if isinstance(source, BytesIO) else str(source)
