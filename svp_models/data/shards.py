"""Shards: tar files in WebDataset's convention whose bytes depend on their content alone, and the codecs of their members.

webdataset's own TarWriter does not tell where a member begins, and the bytes of existing data sets differ from what it writes.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from ..errors import PortraitError
from ..io.files import whole_file
from ..io.strict_config import config_from_dict, json_value
from ..media.container import OPTIONS
from ..media.writer import VideoWriter
from ..optional_deps import av, reformatter
from ..synthetic.speakers import SPLITS
from ..types import Audio
from .manifest import Manifest, SampleEntry, ShardEntry, open_manifest
from .schema import FPS, GOP, SAMPLE_RATE, ClipInfo, ClipLabels, ClipMotion, OutputOptions

BLOCK = tarfile.BLOCKSIZE  # 512
END = 2 * BLOCK  # of zeros, after the last member
MEGABYTE = 10**6
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class TarWriter:
    """Context manager: a tar that appears under its name when the block ends well, and leaves nothing behind otherwise.

    bytes, sha256: of what has been written so far; after the block, of the whole file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def __enter__(self) -> TarWriter:
        self._whole = whole_file(self.path)
        self._file = self._whole.__enter__().open("wb")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._write(bytes(END))
            self._file.close()
        except OSError as failed:
            self._file.close()
            self._whole.__exit__(type(failed), failed, failed.__traceback__)
            raise self._failure(failed) from failed
        self._whole.__exit__(kind, error, trace)

    def add(self, name: str, data: bytes) -> tuple[int, int]:
        """Appends a member; returns (first byte in the file, number of bytes)."""
        header = tarfile.TarInfo(name)
        header.size, header.mode = len(data), 0o644
        try:
            self._write(header.tobuf(tarfile.USTAR_FORMAT))
            start = self.bytes
            self._write(data)
            self._write(bytes(-len(data) % BLOCK))
        except OSError as failed:
            raise self._failure(failed) from failed
        return start, len(data)

    def add_sample(self, key: str, members: Iterable[tuple[str, bytes]]) -> dict[str, tuple[int, int]]:
        """Appends all members of a sample, (extension, bytes) -> (first byte, number of bytes) by extension."""
        return {extension: self.add(f"{key}.{extension}", data) for extension, data in members}

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    def _failure(self, error: OSError) -> Exception:
        if error.errno not in FULL_DISK:
            return error
        return PortraitError(
            f"{self.path}: the disk is full after {self.bytes / MEGABYTE:.1f} MB of it ({error.strerror}): free some space and "
            "repeat the command, it resumes where it stopped"
        )


def member_bytes(sizes: Iterable[int]) -> int:
    """Bytes that members of these sizes take in a tar."""
    return sum(BLOCK + size + -size % BLOCK for size in sizes)


def packed(samples: Iterable[SampleEntry], output: OutputOptions) -> Iterator[list[SampleEntry]]:
    """Samples in the order of their keys' hashes, as many to a shard as fit; one that is too large has a shard to itself."""
    full = output.shard_mb * MEGABYTE
    shard: list[SampleEntry] = []
    used = END
    for sample in sorted(samples, key=lambda sample: blake2b(sample.key.encode()).digest()):
        more = member_bytes(size for _, size in sample.members.values())
        if shard and (used + more > full or len(shard) == output.shard_clips):
            yield shard
            shard, used = [], END
        shard.append(sample)
        used += more
    if shard:
        yield shard


def write_shards(folder: Path, samples: list[tuple[str, Path, SampleEntry]], output: OutputOptions) -> list[ShardEntry]:
    """Copies samples (split, their tar, their entry for it) into the shards of a folder."""
    written = []
    for split in SPLITS:
        paths = {entry.key: path for of, path, entry in samples if of == split}
        entries = [entry for of, _, entry in samples if of == split]
        for number, group in enumerate(packed(entries, output)):
            name = f"{split}-{number:06}.tar"
            moved = []
            with TarWriter(folder / name) as tar:
                for entry in group:
                    members = list(read_members(paths[entry.key], entry))
                    moved.append(SampleEntry(**{**vars(entry), "members": tar.add_sample(entry.key, members)}))
            written.append(ShardEntry(name, split, tar.bytes, tar.sha256, tuple(moved)))
    return written


def read_members(path: Path, entry: SampleEntry) -> Iterator[tuple[str, bytes]]:
    """(extension, bytes) of every member of a sample in a tar."""
    with path.open("rb") as file:
        for extension, (start, size) in entry.members.items():
            file.seek(start)
            data = file.read(size)
            if len(data) != size:
                raise PortraitError(
                    f"{path}: {entry.key}.{extension} has {len(data)} of {size} bytes: the file is cut off, remove it and repeat"
                )
            yield extension, data


# One thread: the bytes that x264 writes depend on the number of threads.
X264 = {"g": str(GOP), "keyint_min": str(GOP), "sc_threshold": "0", "threads": "1"}
# The exceptions of numpy and zipfile for damaged or malicious arrays.
ARRAY_ERRORS = (
    *(ValueError, TypeError, OSError, EOFError, KeyError, MemoryError, NotImplementedError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, SyntaxError),
)
FULL_SCALE = 32768  # of 16-bit audio


def encode_video(frames: np.ndarray, crf: int, scratch: Path) -> bytes:
    """Frames n h w 3 (uint8 RGB, even sides) -> MP4. scratch: a folder for the file while it is written."""
    path = scratch / "clip.mp4"
    try:
        with VideoWriter(path, frames.shape[2], frames.shape[1], FPS, crf=crf or None, x264=X264) as writer:
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
            stream.thread_type = "SLICE"  # frame threads would decode far too many frames
            if start:
                container.seek(round(start * ticks), stream=stream)
            convert = reformatter.VideoReformatter()
            found: list[np.ndarray] = []
            for frame in container.decode(stream):
                index = round(frame.pts / ticks)
                if index >= start + count:
                    break
                if index >= start:
                    image = convert.reformat(frame, format="rgb24", interpolation="BICUBIC", threads=1)
                    found.append(image.to_ndarray())
    except (av.error.FFmpegError, ArithmeticError, IndexError, TypeError) as error:  # no frames, or no time stamps
        raise PortraitError(
            f"a video member of {len(data)} bytes cannot be decoded ({error}): check the data"
        ) from error
    if len(found) != count:
        raise PortraitError(f"{len(found)} of {count} frames from {start} could be decoded: check the data")
    return np.stack(found)


def encode_audio(samples: np.ndarray) -> bytes:
    """Audio (mono, 16 kHz, float32, clipped to [-1, 1]) -> FLAC of 16 bits."""
    fixed = np.rint(np.clip(samples, -1, 1) * (FULL_SCALE - 1)).astype(np.int16)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(fixed[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for item in (frame, None):  # None flushes the encoder
            for packet in stream.encode(item):
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
    return Audio(torch.from_numpy(fixed / (FULL_SCALE - 1)), SAMPLE_RATE)


def encode_labels(labels: ClipLabels) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: array for name, array in vars(labels).items() if array is not None})
    return buffer.getvalue()


def decode_labels(data: bytes) -> ClipLabels:
    """A `labels.npz`; no pickle is read."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return ClipLabels(**{name: stored[name] for name in stored.files})
    except ARRAY_ERRORS as error:
        raise PortraitError(f"a labels member of {len(data)} bytes cannot be read ({error}): check the data") from error


def encode_motion(motion: ClipMotion) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **vars(motion))
    return buffer.getvalue()


def decode_motion(data: bytes) -> ClipMotion:
    """A `motion.npz`; no pickle is read."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return ClipMotion(**{name: stored[name] for name in stored.files})
    except ARRAY_ERRORS as error:
        raise PortraitError(f"a motion member of {len(data)} bytes cannot be read ({error}): check the data") from error


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


__all__ = [
    "Manifest",
    "SampleEntry",
    "ShardEntry",
    "decode_audio",
    "decode_features",
    "decode_frames",
    "decode_info",
    "decode_labels",
    "decode_motion",
    "open_manifest",
    "read_member",
]

NAME_BYTES = 100  # of a USTAR header


def read_member(folder: Path | str, shard: ShardEntry, sample: SampleEntry, extension: str) -> bytes:
    """The bytes of one member, for example `labels.npz`. folder: Manifest.folder.

    A shard that is missing, cut off or not the one that the manifest describes raises PortraitError.
    """
    if extension not in sample.members:
        raise PortraitError(
            f"{sample.key} has no {extension}, only {', '.join(sample.members)}: prepare the data with it"
        )
    path, (start, size) = Path(folder) / shard.name, sample.members[extension]
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno()).st_size
            if start + size <= found:  # checked before a false manifest can allocate memory
                file.seek(start - BLOCK)
                block = file.read(BLOCK + size)
    except FileNotFoundError as error:
        raise PortraitError(f"{path}: the shard is missing: copy it again") from error
    if start + size > found or len(block) < BLOCK + size:
        raise PortraitError(
            f"{path}: it is cut off, {found} of {shard.bytes} bytes are there, {sample.key}.{extension} ends at "
            f"{start + size}: copy it again"
        )
    name = block[:NAME_BYTES].rstrip(b"\0").decode("ascii", "replace")
    if name != f"{sample.key}.{extension}":
        raise PortraitError(
            f"{path}: at byte {start - BLOCK} is {name[:60]!r}, not {sample.key}.{extension}: shard and manifest are of "
            "different preparations, copy both again"
        )
    return block[BLOCK:]
