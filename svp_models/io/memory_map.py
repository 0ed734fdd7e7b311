"""What belongs to every frame of a clip: in memory, or in a file without a name once it is too large for that.

Latents, tokens and bent portraits are read and written a few frames at a time, so only those few need to be in memory. A
file without a name takes room on the disk until nothing uses it any more, however the work ends.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import PortraitError

Index: TypeAlias = "Sequence[int] | slice"

BLOCK = 32  # frames read or written at a time where a whole clip is gone through
MAPPING = "svp_mapping"  # attribute of a tensor that lies in a file: its mmap


class FileRows:
    """Rows x ... like a tensor on the CPU, in a file without a name; it has to be written before it is read."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, folder: str | None) -> None:
        self.shape, self.dtype = torch.Size(shape), dtype
        self._row_bytes = math.prod(self.shape[1:]) * dtype.itemsize
        self._folder = folder or tempfile.gettempdir()
        size = len(self) * self._row_bytes
        os.makedirs(self._folder, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < size:
            raise self._full(f"{free / 1e6:.0f} MB are free")
        self._file = tempfile.TemporaryFile(prefix="svp-", dir=self._folder, buffering=0)
        self._file.truncate(size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> Tensor:
        """The rows of some frames, n x ..., as a tensor of its own."""
        wanted = listed(index, len(self))
        result = torch.empty((len(wanted), *self.shape[1:]), dtype=self.dtype)
        memory = _bytes_of(result)
        for at, row, count in _runs(wanted):
            self._file.seek(row * self._row_bytes)
            part = memory[at * self._row_bytes : (at + count) * self._row_bytes]
            while len(part):
                part = part[self._file.readinto(part) :]
        return result

    def __setitem__(self, index: Index, rows: Tensor) -> None:
        wanted = listed(index, len(self))
        memory = _bytes_of(rows.detach().to("cpu", self.dtype).expand(len(wanted), *self.shape[1:]).contiguous())
        for at, row, count in _runs(wanted):
            self._file.seek(row * self._row_bytes)
            part = memory[at * self._row_bytes : (at + count) * self._row_bytes]
            try:
                while len(part):
                    part = part[self._file.write(part) :]
            except OSError as error:
                raise self._full(error.strerror or str(error)) from error

    def tensor(self) -> Tensor:
        """All rows as a tensor whose memory is the file: its pages are read when they are used, see `release`."""
        mapping = mmap.mmap(self._file.fileno(), 0)
        tensor = torch.frombuffer(mapping, dtype=self.dtype).view(self.shape)  # keeps the mapping alive
        setattr(tensor, MAPPING, mapping)
        return tensor

    def _full(self, reason: str) -> PortraitError:
        return PortraitError(
            f"{len(self)} frames of the clip need {len(self) * self._row_bytes / 1e6:.0f} MB in {self._folder} ({reason}): "
            "free disk space there or sample a shorter clip"
        )


@dataclass(frozen=True)
class Repeated:
    """Frames that are rows of another, each as often as wanted: frame i is row order[i]."""

    rows: Tensor | FileRows
    order: Sequence[int]

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.order), *self.rows.shape[1:]))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: Index) -> Tensor:
        return self.rows[[self.order[each] for each in listed(index, len(self))]]


Rows: TypeAlias = "Tensor | FileRows | Repeated"


@dataclass(frozen=True)
class Storage:
    """Where the rows of a clip are kept: up to `budget` bytes of each kind in memory, else in a file in `folder` (None: the
    system's folder for such files)."""

    folder: str | None = None
    budget: int = 32 * 2**20

    def rows(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor | FileRows:
        """Rows x ... to be written."""
        if math.prod(shape) * dtype.itemsize <= self.budget:
            return torch.empty(tuple(shape), dtype=dtype)
        return FileRows(shape, dtype, self.folder)


IN_MEMORY = Storage(budget=sys.maxsize)


def whole(rows: Tensor | FileRows) -> Tensor:
    """All rows as a tensor, without a copy."""
    return rows if isinstance(rows, Tensor) else rows.tensor()


def release(tensor: Tensor) -> None:
    """Gives memory back that the reading of such a tensor has taken; the next use reads the file again. Others stay as they
    are, and so do all where the system has no such call."""
    mapping = getattr(tensor, MAPPING, None)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)


def held(rows: Rows, index: Index) -> Tensor:
    """The rows of some frames of a clip, where a single row holds for all of them."""
    if len(rows) > 1:
        return rows[index]
    count = index.stop - index.start if isinstance(index, slice) else len(index)
    return rows[:1].expand(count, *rows.shape[1:])


def blocks(frames: int, size: int = BLOCK) -> list[slice]:
    """The frames of a clip in pieces of up to `size`."""
    return [slice(start, min(start + size, frames)) for start in range(0, frames, size)]


def first_alike(frames: Iterable[Hashable]) -> list[int]:
    """For every frame the first one that equals it."""
    first: dict[Hashable, int] = {}
    return [first.setdefault(each, number) for number, each in enumerate(frames)]


def listed(index: Index, rows: int) -> Sequence[int]:
    """The row numbers that an index stands for."""
    return range(*index.indices(rows)) if isinstance(index, slice) else index


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Neighbouring rows together: place in `numbers`, first row, how many."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            yield start, numbers[start], end - start
            start = end


def _bytes_of(tensor: Tensor) -> memoryview:
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
