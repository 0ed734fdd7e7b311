"""The windows of a clip shared among processes, of one machine or several, that `accelerate launch` or `torchrun` has started.

Every process has the whole clip in its own storage and computes a share of the windows in every step; the sums of all shares are the
same everywhere. Without such processes, one computes all windows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from ..io.memory_map import MappedFrames, blocks

BACKEND = "gloo"  # the frames of a clip are on the CPU


@contextmanager
def joined_processes() -> Iterator[bool]:
    """Joins the processes that were started together, if there are several. Gives whether this is the first one, which writes."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield _rank() == 0
        return
    dist.init_process_group(BACKEND)
    try:
        yield _rank() == 0
    finally:
        dist.destroy_process_group()


def process_count() -> int:
    """How many processes share the windows; 1 where they were not started together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def own_windows(count: int) -> range:
    """Which of `count` windows this process computes: neighbours, as many as any other process, or one fewer."""
    first, last = (count * number // process_count() for number in (_rank(), _rank() + 1))
    return range(first, last)


def add_up(frames: torch.Tensor | MappedFrames) -> None:
    """Puts the sum over all processes in the place of the frames (n ..., float32 on the CPU) of each."""
    for block in blocks(len(frames)):
        part = frames[block].contiguous()
        dist.all_reduce(part)
        frames[block] = part


def least(value: float) -> float:
    """The least of the values of all processes."""
    if process_count() == 1:
        return value
    found = torch.tensor(value, dtype=torch.float64)
    dist.all_reduce(found, dist.ReduceOp.MIN)
    return float(found)


def _rank() -> int:
    return dist.get_rank() if process_count() > 1 else 0
