"""Arrays of a clip: the same in memory and memory-mapped, and gone with the last that uses them."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io import memory_map as module
from svp_portrait.svp_models.io.memory_map import (
    MappedFrames,
    ReorderedFrames,
    Storage,
    as_tensor,
    blocks,
    broadcast,
    first_equal,
    release,
)

needs_proc = pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="looks into Linux' /proc")
INDICES = ([3], [4, 5, 6], [9, 0, 1, 1, 8, 7], list(range(10)), slice(2, 5), slice(None), slice(7, 20))


def in_file(tensor: torch.Tensor, folder: Path) -> MappedFrames:
    rows = Storage(str(folder), budget=0).zeros(tensor.shape, tensor.dtype)
    assert isinstance(rows, MappedFrames)
    rows[:] = tensor
    return rows


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def mapped_bytes(file: str) -> int:
    """Bytes of this process's memory that are pages of such a file."""
    found, total = False, 0
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0] and ":" not in line.split()[0]:
            found = file in line
        elif found and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_file_reads_like_a_tensor(tmp_path, dtype):
    numbers = torch.randn(10, 3, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows = in_file(numbers, tmp_path)
    assert rows.shape == numbers.shape and rows.dtype == dtype and len(rows) == 10
    for index in INDICES:
        assert torch.equal(rows[index], numbers[index])


def test_a_file_is_written_like_a_tensor(tmp_path):
    numbers = torch.zeros(10, 2, 2)
    rows = in_file(numbers, tmp_path)
    for number, index in enumerate(([3], [4, 5, 6], [9, 0, 1], slice(2, 5), slice(8, 20)), start=1):
        part = torch.full((len(numbers[index]), 2, 2), float(number))
        rows[index] = numbers[index] = part
    rows[[7, 6]] = numbers[[7, 6]] = torch.arange(8.0).reshape(2, 2, 2).transpose(1, 2)
    rows[:2] = numbers[:2] = torch.full((1, 2, 2), 9.0)
    assert torch.equal(rows[:], numbers)


def test_the_whole_is_a_tensor_without_a_copy(tmp_path):
    numbers = torch.randn(10, 3, 2, generator=torch.Generator().manual_seed(0))
    rows = in_file(numbers, tmp_path)
    tensor = as_tensor(rows)
    assert torch.equal(tensor, numbers)
    rows[[4]] = torch.ones(1, 3, 2)
    assert torch.equal(tensor[4], torch.ones(3, 2))
    assert as_tensor(numbers) is numbers


@needs_proc
def test_nothing_is_left_when_nobody_uses_it(tmp_path):
    gc.collect()  # what other tests have left to be closed
    before = open_files()
    rows = in_file(torch.ones(10, 3), tmp_path)
    tensor = as_tensor(rows)
    assert open_files() > before and list(tmp_path.iterdir()) == []  # a file without a name
    del rows
    part = tensor[2:4]
    del tensor
    gc.collect()
    assert torch.equal(part, torch.ones(2, 3))
    del part
    gc.collect()
    assert open_files() == before


@needs_proc
def test_memory_that_reading_has_taken_is_given_back(tmp_path):
    tensor = as_tensor(in_file(torch.ones(1024, 1024), tmp_path))  # 4 MiB
    name = str(tmp_path)
    assert tensor.sum() == 1024**2 and mapped_bytes(name) > 3 * 2**20
    release(tensor)
    assert mapped_bytes(name) < 2**20
    assert tensor.sum() == 1024**2
    release(torch.ones(3))  # nothing to give


def test_the_budget_decides(tmp_path):
    storage = Storage(str(tmp_path), budget=240)
    assert isinstance(storage.zeros((10, 3, 2)), torch.Tensor)
    assert isinstance(storage.zeros((10, 3, 2), torch.float64), MappedFrames)
    assert isinstance(storage.zeros((11, 3, 2)), MappedFrames)


def test_a_full_disk_is_told_with_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 5_000_000}))
    with pytest.raises(PortraitError, match=f"2000000 frames .* 8 MB in {tmp_path} .5 MB are free.*shorter"):
        Storage(str(tmp_path), budget=0).zeros((2_000_000, 1))


def test_repeated_rows():
    rows = torch.arange(6.0).reshape(3, 2)
    repeated = ReorderedFrames(rows, [0, 1, 2, 1, 0])
    assert len(repeated) == 5 and repeated.shape == (5, 2)
    assert torch.equal(repeated[:], rows[[0, 1, 2, 1, 0]])
    assert torch.equal(repeated[[4, 3]], rows[[0, 1]])
    assert torch.equal(repeated[2:], rows[[2, 1, 0]])


@pytest.mark.parametrize("index", [[2, 0, 1], slice(1, 4)])
def test_a_single_row_is_held(index):
    assert torch.equal(broadcast(torch.full((1, 2), 5.0), index), torch.full((3, 2), 5.0))
    assert torch.equal(broadcast(torch.arange(4.0), index), torch.arange(4.0)[index])


def test_blocks_and_equal_frames():
    assert blocks(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert first_equal("abcbad") == [0, 1, 2, 1, 0, 5]
