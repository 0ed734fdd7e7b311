"""Arrays with a row per frame of a clip: in memory, or memory-mapped once they are large. Both are indexed as tensors are.

The file behind a mapped array has no name: it takes room on the disk until nothing uses the array any more, however the
work ends.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
import sys
import tempfile
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import PortraitError

Index: TypeAlias = "Sequence[int] | slice"

BLOCK = 32  # frames processed at a time where a whole clip is gone through
MAPPING = "svp_mapping"  # attribute of a tensor that lies in a file: its mmap


class MappedFrames:
    """frames x ... on the CPU, memory-mapped, zeros at first. Reading gives copies, and no page stays in memory for them."""

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, folder: str | None) -> None:
        self.shape, self.dtype = torch.Size(shape), dtype
        self._folder = folder or tempfile.gettempdir()
        size = math.prod(shape) * dtype.itemsize
        os.makedirs(self._folder, exist_ok=True)
        free = shutil.disk_usage(self._folder).free
        if free < size:
            raise self._full(f"{free / 1e6:.0f} MB are free")
        with tempfile.TemporaryFile(prefix="svp-", dir=self._folder) as file:
            try:
                _allocate(file.fileno(), size)
            except OSError as error:
                raise self._full(error.strerror or str(error)) from error
            self._map = mmap.mmap(file.fileno(), size)  # keeps the file open
        self._tensor = torch.frombuffer(self._map, dtype=dtype).view(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> Tensor:
        frames = self._tensor[index].clone()
        _drop_pages(self._map)
        return frames

    def __setitem__(self, index: Index, frames: Tensor) -> None:
        self._tensor[index] = frames.detach().to("cpu", self.dtype)
        _drop_pages(self._map)

    def tensor(self) -> Tensor:
        """All frames as a tensor whose memory is the file, see `release`."""
        setattr(self._tensor, MAPPING, self._map)
        return self._tensor

    def _full(self, reason: str) -> PortraitError:
        size = math.prod(self.shape) * self.dtype.itemsize
        return PortraitError(
            f"{len(self)} frames of the clip need {size / 1e6:.0f} MB in {self._folder} ({reason}): free disk space there or "
            "sample a shorter clip"
        )


@dataclass(frozen=True)
class ReorderedFrames:
    """A view of frames in another order, any of them repeated: frame i is frames[order[i]]."""

    frames: Tensor | MappedFrames
    order: Sequence[int]

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.order), *self.frames.shape[1:]))

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, index: Index) -> Tensor:
        numbers = range(*index.indices(len(self))) if isinstance(index, slice) else index
        return self.frames[[self.order[number] for number in numbers]]


FrameArray: TypeAlias = "Tensor | MappedFrames | ReorderedFrames"


@dataclass(frozen=True)
class Storage:
    """Where arrays of a clip are put: up to `budget` bytes each in memory, larger ones in a file in `folder` (None: the
    system's temp folder)."""

    folder: str | None = None
    budget: int = 32 * 2**20

    def zeros(self, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor | MappedFrames:
        """frames x ... of zeros."""
        if math.prod(shape) * dtype.itemsize <= self.budget:
            return torch.zeros(tuple(shape), dtype=dtype)
        return MappedFrames(shape, dtype, self.folder)

    def free(self) -> int:
        """Free bytes where files go."""
        folder = self.folder or tempfile.gettempdir()
        os.makedirs(folder, exist_ok=True)
        return shutil.disk_usage(folder).free


IN_MEMORY = Storage(budget=sys.maxsize)


def as_tensor(frames: Tensor | MappedFrames) -> Tensor:
    """All frames as one tensor, without a copy."""
    return frames if isinstance(frames, Tensor) else frames.tensor()


def release(tensor: Tensor) -> None:
    """Gives back the memory that reading a mapped tensor has taken; the next use reads the file again. Other tensors stay as
    they are, and so do all on a system without that call."""
    mapping = getattr(tensor, MAPPING, None)
    if mapping is not None:
        _drop_pages(mapping)


def broadcast(frames: FrameArray, index: Index) -> Tensor:
    """Some frames of a clip, where a single row stands for every frame."""
    if len(frames) > 1:
        return frames[index]
    count = index.stop - index.start if isinstance(index, slice) else len(index)
    return frames[:1].expand(count, *frames.shape[1:])


def blocks(frames: int, size: int = BLOCK) -> list[slice]:
    """The frames of a clip, up to `size` at a time."""
    return [slice(start, min(start + size, frames)) for start in range(0, frames, size)]


def first_equal(frames: Iterable[Hashable]) -> list[int]:
    """For every frame the number of the first one that equals it."""
    first: dict[Hashable, int] = {}
    return [first.setdefault(frame, number) for number, frame in enumerate(frames)]


def _allocate(file: int, size: int) -> None:
    """Makes the file that long; a full disk raises here and not when a page is written."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    zeros = bytes(2**20)
    for start in range(0, size, len(zeros)):
        os.write(file, zeros[: size - start])


def _drop_pages(mapping: mmap.mmap) -> None:
    if hasattr(mmap, "MADV_DONTNEED"):
        mapping.madvise(mmap.MADV_DONTNEED)
