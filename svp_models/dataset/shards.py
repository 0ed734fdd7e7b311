"""Tar files in WebDataset's convention whose bytes depend on their content alone, and the packing of clips into them."""

from __future__ import annotations

import errno
import hashlib
import tarfile
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from types import TracebackType

from ..errors import PortraitError
from ..io.files import whole_file
from ..synthetic.sentences import SPLITS
from .manifest import SampleEntry, ShardEntry
from .options import OutputOptions

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
        """Appends a member; returns (its first byte in the file, its number of bytes)."""
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
        """Appends all members of a sample, (ending, bytes); returns their places by ending."""
        return {ending: self.add(f"{key}.{ending}", data) for ending, data in members}

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.bytes += len(data)

    def _failure(self, error: OSError) -> Exception:
        if error.errno not in FULL_DISK:
            return error
        return PortraitError(
            f"{self.path}: the disk is full after {self.bytes / MEGABYTE:.1f} MB of it ({error.strerror}): free some space and "
            "repeat the command, it goes on where it stopped"
        )


def member_bytes(sizes: Iterable[int]) -> int:
    """Bytes that members of these sizes take in a tar."""
    return sum(BLOCK + size + -size % BLOCK for size in sizes)


def packed(samples: Iterable[SampleEntry], output: OutputOptions) -> Iterator[list[SampleEntry]]:
    """Samples in the order of their keys' hashes, as many to a shard as fit; one that is too large has a shard to itself."""
    full = output.shard_mb * MEGABYTE
    shard: list[SampleEntry] = []
    used = END
    for sample in sorted(samples, key=lambda each: blake2b(each.key.encode()).digest()):
        more = member_bytes(size for _, size in sample.members.values())
        if shard and (used + more > full or len(shard) == output.shard_clips):
            yield shard
            shard, used = [], END
        shard.append(sample)
        used += more
    if shard:
        yield shard


def write_shards(folder: Path, samples: list[tuple[str, Path, SampleEntry]], output: OutputOptions) -> list[ShardEntry]:
    """Copies samples (split, tar they are in, their place there) into the shards of a folder."""
    written = []
    for split in SPLITS:
        places = {entry.key: path for of, path, entry in samples if of == split}
        entries = [entry for of, _, entry in samples if of == split]
        for number, group in enumerate(packed(entries, output)):
            name = f"{split}-{number:06}.tar"
            moved = []
            with TarWriter(folder / name) as tar:
                for entry in group:
                    members = list(read_members(places[entry.key], entry))
                    moved.append(SampleEntry(**{**vars(entry), "members": tar.add_sample(entry.key, members)}))
            written.append(ShardEntry(name, split, tar.bytes, tar.sha256, tuple(moved)))
    return written


def read_members(path: Path, entry: SampleEntry) -> Iterator[tuple[str, bytes]]:
    """(ending, bytes) of every member of a sample in a tar."""
    with path.open("rb") as file:
        for ending, (start, size) in entry.members.items():
            file.seek(start)
            data = file.read(size)
            if len(data) != size:
                raise PortraitError(
                    f"{path}: {entry.key}.{ending} has {len(data)} of {size} bytes: the file is cut off, remove it and repeat"
                )
            yield ending, data
