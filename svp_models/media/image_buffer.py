"""IMAGE of many frames, made one at a time: in memory, or in a file without a name once it is too large for that."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from ..errors import PortraitError
from ..io.frames import FileRows, whole
from ..io.progress import Progress
from .stream import FrameStream

IN_MEMORY = 2 * 2**30  # bytes up to which pictures are in memory
SPARE = 2**30  # bytes of disk and memory that are left to others
MEMORY = Path("/proc/meminfo")


class Pictures:
    """Rows h w c (or h w) to be filled in order, about `count` of them; refused at once where there is no room for so many.

    folder: where the file is, None for the system's folder for such files.
    """

    def __init__(
        self, count: int, shape: tuple[int, ...], folder: str | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        self._shape, self._dtype, self._folder = tuple(shape), dtype, folder
        self._rows = self._room(max(1, count))
        self._filled = 0

    def add(self, row: Tensor) -> None:
        if self._filled == len(self._rows):  # the header of a file promised fewer
            larger = self._room(self._filled + max(8, self._filled // 4))
            for start in range(0, self._filled, 8):
                rows = slice(start, min(start + 8, self._filled))
                larger[rows] = self._rows[rows]
            self._rows = larger
        self._rows[self._filled : self._filled + 1] = row[None]
        self._filled += 1

    def tensor(self) -> Tensor:
        """All that were added: n x ..."""
        rows = whole(self._rows)
        return rows if self._filled == len(rows) else rows[: self._filled]

    def _room(self, count: int) -> Tensor | FileRows:
        shape = (count, *self._shape)
        size = math.prod(shape) * self._dtype.itemsize
        folder = self._folder or tempfile.gettempdir()
        os.makedirs(folder, exist_ok=True)
        disk, memory = shutil.disk_usage(folder).free - SPARE, free_memory() - SPARE
        if size <= min(IN_MEMORY, max(memory, 0)):
            return torch.empty(shape, dtype=self._dtype)
        if size <= disk:
            return FileRows(shape, self._dtype, self._folder)
        if size <= memory:
            return torch.empty(shape, dtype=self._dtype)
        raise PortraitError(
            f"{count} frames of {self._shape[1]} x {self._shape[0]} pixels take {size / 1e9:.1f} GB as pictures, and there are "
            f"{max(memory, 0) / 1e9:.1f} GB of memory and {max(disk, 0) / 1e9:.1f} GB of disk in {folder}: make fewer or smaller "
            "frames"
        )


def pictures_of(stream: FrameStream, folder: str | None = None, progress: Progress | None = None) -> Tensor:
    """The frames of a stream as IMAGE. progress(frames done, frames in all), which may raise to stop."""
    pictures = Pictures(len(stream), (stream.height, stream.width, 3), folder)
    for done, picture in enumerate(stream.pictures(), start=1):
        pictures.add(torch.from_numpy(picture))
        if progress is not None:
            progress(min(done, len(stream)), len(stream))
    return pictures.tensor()


def free_memory() -> float:
    """Bytes of memory that can be taken without others losing theirs; infinite where the system does not say."""
    if MEMORY.is_file():
        lines = dict(line.split(":", 1) for line in MEMORY.read_text().splitlines() if ":" in line)
        if "MemAvailable" in lines:
            return 1024 * float(lines["MemAvailable"].split()[0])
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE")
    return math.inf
