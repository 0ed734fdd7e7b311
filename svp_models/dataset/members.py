"""The members of a sample as bytes and back: the same values always give the same bytes."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch

from ..config_file import config_from_dict, json_value
from ..errors import PortraitError
from ..libraries import av, reformatter
from ..media.source import OPTIONS
from ..media.writer import VideoWriter
from ..values import Audio
from .format import FPS, GOP, SAMPLE_RATE, ClipInfo, ClipLabels

# One thread: how x264 shares out its work shows in what it writes.
X264 = {"g": str(GOP), "keyint_min": str(GOP), "sc_threshold": "0", "threads": "1"}
# What numpy and zipfile say to damaged or made-up arrays.
ARRAY_ERRORS = (
    *(ValueError, TypeError, OSError, EOFError, KeyError, MemoryError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, SyntaxError),
)
FULL = 32768  # of 16-bit sound


def encode_video(frames: np.ndarray, crf: int, scratch: Path) -> bytes:
    """Frames n h w 3 (uint8 RGB, even sides) -> MP4. scratch: a folder for the file while it is written."""
    path = scratch / "clip.mp4"
    try:
        with VideoWriter(path, frames.shape[2], frames.shape[1], FPS, crf=crf, x264=X264, lossless=crf == 0) as writer:
            writer.write(frames)
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def decode_frames(data: bytes, start: int = 0, count: int | None = None) -> np.ndarray:
    """Frames start .. start + count - 1 (None: all from there) of a `video.mp4`: n h w 3, uint8 RGB.

    Decoding begins at the key frame before, at most GOP - 1 frames earlier.
    """
    try:
        with av.open(io.BytesIO(data), options=OPTIONS) as container:
            stream = container.streams.video[0]
            total = stream.frames
            count = total - start if count is None else count
            if not (0 <= start and 0 < count and start + count <= total):
                raise PortraitError(f"frames {start} to {start + count - 1} of a clip of {total} frames: choose others")
            ticks = 1 / (FPS * stream.time_base)  # of a frame
            stream.thread_type = "SLICE"  # threads by frame would decode far ahead of what is wanted
            if start:
                container.seek(round(start * ticks), stream=stream)
            convert = reformatter.VideoReformatter()
            found: list[np.ndarray] = []
            for frame in container.decode(stream):
                index = round(frame.pts / ticks)
                if index >= start + count:
                    break
                if index >= start:
                    picture = convert.reformat(frame, format="rgb24", interpolation="BICUBIC", threads=1)
                    found.append(picture.to_ndarray())
    except (av.error.FFmpegError, ArithmeticError, IndexError, TypeError) as error:  # no pictures, or no time stamps
        raise PortraitError(
            f"a video member of {len(data)} bytes cannot be decoded ({error}): check the data"
        ) from error
    if len(found) != count:
        raise PortraitError(f"{len(found)} of {count} frames from {start} could be decoded: check the data")
    return np.stack(found)


def encode_audio(samples: np.ndarray) -> bytes:
    """Sound (mono, 16 kHz, float32, clipped to [-1, 1]) -> FLAC of 16 bits."""
    fixed = np.rint(np.clip(samples, -1, 1) * (FULL - 1)).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(fixed[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for each in (frame, None):
            for packet in stream.encode(each):
                container.mux(packet)
    return buffer.getvalue()


def decode_audio(data: bytes) -> Audio:
    """An `audio.flac` as 1 x samples at 16 kHz."""
    try:
        with av.open(io.BytesIO(data), options=OPTIONS) as container:
            stream = container.streams.audio[0]
            if (stream.rate, stream.channels, stream.format.name) != (SAMPLE_RATE, 1, "s16"):
                raise PortraitError(
                    f"an audio member has {stream.channels} channels of {stream.format.name} at {stream.rate} Hz, one of 16 bits "
                    f"at {SAMPLE_RATE} is needed: check the data"
                )
            chunks = [np.zeros((1, 0), np.int16), *(frame.to_ndarray() for frame in container.decode(stream))]
    except (av.error.FFmpegError, IndexError) as error:
        raise PortraitError(
            f"an audio member of {len(data)} bytes cannot be decoded ({error}): check the data"
        ) from error
    fixed = np.concatenate(chunks, axis=1).astype(np.float32)
    return Audio(torch.from_numpy(fixed / (FULL - 1)), SAMPLE_RATE)


def encode_labels(labels: ClipLabels) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{each.name: getattr(labels, each.name) for each in fields(labels)})
    return buffer.getvalue()


def decode_labels(data: bytes) -> ClipLabels:
    """A `labels.npz`; no pickle is read."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return ClipLabels(**{name: stored[name] for name in stored.files})
    except ARRAY_ERRORS as error:
        raise PortraitError(f"a labels member of {len(data)} bytes cannot be read ({error}): check the data") from error


def encode_info(info: ClipInfo) -> bytes:
    return json.dumps(asdict(info), sort_keys=True, ensure_ascii=False).encode()


def decode_info(data: bytes) -> ClipInfo:
    """A sample's `json`."""
    try:
        return config_from_dict(ClipInfo, json_value(data, "JSON"), "json member")
    except PortraitError as error:
        raise PortraitError(f"a json member of {len(data)} bytes cannot be read ({error}): check the data") from error


def encode_features(features: np.ndarray) -> bytes:
    """Rows x F -> `features.npy`, float16."""
    buffer = io.BytesIO()
    np.save(buffer, features.astype(np.float16), allow_pickle=False)
    return buffer.getvalue()


def decode_features(data: bytes) -> np.ndarray:
    """A `features.npy`: rows x F, float16."""
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
        if not (
            isinstance(found, np.ndarray) and found.ndim == 2 and found.dtype == np.float16 and np.isfinite(found).all()
        ):
            raise ValueError("rows of float16 that are all finite numbers are needed")
        return found
    except ARRAY_ERRORS as error:
        raise PortraitError(
            f"a features member of {len(data)} bytes cannot be read ({error}): check the data"
        ) from error
