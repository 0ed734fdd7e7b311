"""Frames from any video file: upright, square pixels, at a constant frame rate, together with their audio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import PortraitError
from ..optional_deps import av, reformatter
from ..types import Audio
from .audio import check_audio, decode_audio, fit_audio
from .container import MAX_JUMP_SECONDS, Source, open_media, video_stream

if TYPE_CHECKING:
    from av.video.stream import VideoStream

FALLBACK_RATE = Fraction(25)  # files that name no rate at all
HD_LINES = 720  # untagged video from here up is BT.709, below BT.601, as players assume
COLORSPACE_UNSPECIFIED = 2
NO_FRAMES = "the video holds 0 frames: choose a clip with at least one frame"
CLOCK_FUZZ = 1e-4  # seconds: times of frames are fractions, limits are not
Item = TypeVar("Item")
Size = Callable[[int, int], tuple[int, int]]


@dataclass(frozen=True)
class Video:
    """A decoded clip. frames: n h w 3, uint8 RGB; frame i is at i / fps seconds, sample 0 of the audio at frame 0."""

    frames: np.ndarray
    fps: float
    audio: Audio | None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def seconds(self) -> float:
        return len(self.frames) / self.fps


def load_video(path: str | Path, fps: float | None = None, max_frames: int | None = None) -> Video:
    """A whole clip with its audio (None without a track). fps None keeps the rate of the file; another rate resamples by time
    stamps. A clip shortened by `max_frames` has its audio shortened to the same length."""
    frames = list(iter_frames(path, fps, max_frames))
    rate, origin = rate_and_origin(path)
    rate = as_rate(fps) if fps is not None else rate
    audio = decode_audio(path, origin)
    if audio is not None and audio.waveform.shape[-1] == 0:
        audio = None  # a track that holds nothing
    if audio is not None:
        check_audio(audio, str(path))
        if max_frames is not None and len(frames) == max_frames:
            audio = fit_audio(audio, min(audio.seconds, len(frames) / float(rate)))
    return Video(np.stack(frames), float(rate), audio)  # n h w 3


def iter_frames(
    path: Source,
    fps: float | Fraction | None = None,
    max_frames: int | None = None,
    *,
    start: float = 0.0,
    seconds: float = 0.0,
    skip: int = 0,
    every: int = 1,
    size: Size | None = None,
) -> Iterator[np.ndarray]:
    """The frames one by one, h w 3, uint8 RGB, at a constant rate (that of the file if fps is None).

    Output frame i is the frame on the screen at the middle of its time, (i + 0.5) / fps after the first frame. There
    are round(seconds x fps) of them. Rotation and mirroring tags of the file are applied, pixels are made square.

    start, seconds: the range after the first frame (seconds 0: to the end); of its frames `skip` are left out, and every
    `every`th of the rest is returned. size: a function (width, height) of the upright frames -> the output size.
    """
    if max_frames is not None and max_frames < 1:
        raise PortraitError(f"max_frames is {max_frames}: it must be at least 1")
    wanted = as_rate(fps) if fps is not None else None
    with open_media(path) as container:
        stream = _require_video(video_stream(container), path)
        stream.thread_type = "SLICE"  # threads by frame lose the error of a truncated file
        rate = wanted or stream_rate(stream)
        decoded = ((_start(frame), _duration(frame, stream), frame) for frame in container.decode(stream))
        convert = _Converter(stream, size)
        count = 0
        frames = resample_frames(_between(decoded, start, seconds), rate, path)
        for frame in islice(frames, skip, None, every):
            yield convert(frame)
            count += 1
            if count == max_frames:
                return
    if count == 0 and not (start or skip):
        raise PortraitError(f"{path}: {NO_FRAMES}")


def _between(
    timed: Iterator[tuple[Fraction | None, Fraction, Item]], start: float, seconds: float
) -> Iterator[tuple[Fraction | None, Fraction, Item]]:
    """The items of (start in seconds or None, duration, item) from `start` seconds after the first one on, for `seconds`."""
    first, end = None, Fraction(0)
    low, high = start - CLOCK_FUZZ, start + seconds - CLOCK_FUZZ
    for begins, duration, item in timed:
        first = (begins or Fraction(0)) if first is None else first
        at = begins - first if begins is not None else end
        end = at + duration
        if seconds and at >= high:
            return
        if at >= low:
            yield begins, duration, item


def resample_frames(
    timed: Iterator[tuple[Fraction | None, Fraction, Item]], rate: Fraction, path: Source = "video"
) -> Iterator[Item]:
    """Items at a constant rate from (start in seconds or None for unknown, duration in seconds, item) in display order.

    Output i is the latest item that starts at or before the middle of its time, (i + 0.5) / rate after the first item.
    """
    index, current, first, end = 0, None, None, Fraction(0)
    for start, duration, item in timed:
        first = (start or Fraction(0)) if first is None else first
        begins = start - first if start is not None else end
        if begins - end > MAX_JUMP_SECONDS:
            raise PortraitError(
                f"{path}: the time stamps jump by {float(begins - end):.0f} s after frame {index}: "
                "convert the video to a constant frame rate"
            )
        while current is not None and (index + Fraction(1, 2)) / rate < begins:
            yield current[0]
            index += 1
        current, end = (item,), begins + duration
    if current is not None:
        for _ in range(index, max(1, int(end * rate + Fraction(1, 2)))):
            yield current[0]


def as_rate(fps: float | Fraction) -> Fraction:
    """The frame rate as an exact fraction: 29.97002997 is 30000/1001, 29.97 is 2997/100."""
    rate = Fraction(fps).limit_denominator(100_000) if np.isfinite(float(fps)) else Fraction(0)
    if rate <= 0:
        raise PortraitError(f"the frame rate is {fps}: it must be above 0, for example 25")
    return rate


def stream_rate(stream: VideoStream) -> Fraction:
    """Frames per second of a stream. The nominal rate where the average is within 2 % of it (the average suffers from a
    last frame of odd length or a frame dropped in recording), else the average: the rate really varies."""
    average, nominal = stream.average_rate, stream.guessed_rate
    if average and nominal and abs(nominal - average) <= average / 50:
        return nominal
    return average or nominal or FALLBACK_RATE


def rate_and_origin(path: Source) -> tuple[Fraction, float]:
    """The file's frame rate and the time stamp of its first decodable frame in seconds."""
    with open_media(path) as container:
        stream = _require_video(video_stream(container), path)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise PortraitError(f"{path}: {NO_FRAMES}")
        return stream_rate(stream), float(_start(frame) or 0)


def seconds_of(path: Source) -> float:
    """The length of the video track in the header; 0 where it is not there."""
    with open_media(path) as container:
        stream = _require_video(video_stream(container), path)
        if stream.duration and stream.time_base:
            return float(stream.duration * stream.time_base)
        if stream.frames:
            return float(stream.frames / stream_rate(stream))
        return (container.duration or 0) / av.time_base


def _require_video(stream: VideoStream | None, path: Source) -> VideoStream:
    if stream is None:
        raise PortraitError(f"{path}: there is no video stream: choose a video file, this one has only other data")
    return stream


def _start(frame: av.VideoFrame) -> Fraction | None:
    return frame.pts * frame.time_base if frame.pts is not None and frame.time_base else None


def _duration(frame: av.VideoFrame, stream: VideoStream) -> Fraction:
    return frame.duration * frame.time_base if frame.duration and frame.time_base else 1 / stream_rate(stream)


class _Converter:
    """libav frame -> upright RGB array of the first frame's size; a repeated frame is converted once."""

    def __init__(self, stream: VideoStream, size: Size | None = None) -> None:
        self._stream, self._output_size = stream, size
        self._reformatter = reformatter.VideoReformatter()  # reused: a new one costs more than a small frame
        self._size: tuple[int, int] | None = None
        self._orientation = (1, 0, 0, 1)
        self._last: tuple[av.VideoFrame, np.ndarray] | None = None

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        if self._last is None or self._last[0] is not frame:
            self._last = (frame, self._convert(frame))
        return self._last[1]

    def _convert(self, frame: av.VideoFrame) -> np.ndarray:
        if self._size is None:
            aspect = self._stream.sample_aspect_ratio or Fraction(1)
            self._size = (max(1, round(frame.width * aspect)), frame.height)
            # Read once: a frame whose side data was read stays in memory until the next garbage collection.
            self._orientation = _orientation(frame, self._stream)
            if self._output_size is not None:
                swapped = _swaps_axes(self._orientation)
                shown = self._output_size(*(self._size[::-1] if swapped else self._size))
                self._size = shown[::-1] if swapped else shown
        untagged = frame.colorspace == COLORSPACE_UNSPECIFIED and not frame.format.is_rgb
        image = self._reformatter.reformat(
            frame,
            width=self._size[0],
            height=self._size[1],
            format="rgb24",
            src_colorspace=reformatter.Colorspace.ITU709 if untagged and frame.height >= HD_LINES else None,
            interpolation="BICUBIC",
            threads=1,
        ).to_ndarray()  # h w 3
        return upright(image, self._orientation)


def _orientation(frame: av.VideoFrame, stream: VideoStream) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the display matrix: a pixel at (x, y) is shown at (a x + c y, b x + d y), y down."""
    entries: Any = frame.side_data  # PyAV's types name motion vectors only
    for side_data in entries:
        if side_data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, _, _, _, _ = np.frombuffer(side_data, np.int32).tolist()
            return a, b, c, d
    tag = {key.lower(): value for key, value in stream.metadata.items()}.get("rotate", "0")  # degrees clockwise
    quarters = round(float(tag) / 90) % 4 if tag.lstrip("-").replace(".", "", 1).isdigit() else 0
    return ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))[quarters]


def _swaps_axes(orientation: tuple[int, int, int, int]) -> bool:
    """Whether width and height are swapped."""
    a, b, c, d = orientation
    return abs(b) + abs(c) > abs(a) + abs(d)


def upright(image: np.ndarray, orientation: tuple[int, int, int, int]) -> np.ndarray:
    """The image (h w 3) rotated in quarter turns and mirrored by the display matrix (a, b, c, d)."""
    a, b, c, d = orientation
    if _swaps_axes(orientation):
        image, a, d = image.transpose(1, 0, 2), c, b  # w h 3: x and y are swapped
    image = image[:, ::-1] if a < 0 else image
    image = image[::-1] if d < 0 else image
    return np.ascontiguousarray(image)
