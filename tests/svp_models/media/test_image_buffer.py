"""IMAGE of any number of frames: in memory, in a file, or refused before anything is made."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.media import images as module
from svp_portrait.svp_models.media.images import ImageBuffer


def filled(rows: torch.Tensor, count: int, folder: str) -> torch.Tensor:
    images = ImageBuffer(count, rows.shape[1:], folder)
    for row in rows:
        images.add(row)
    return images.tensor()


@pytest.mark.parametrize("limit", [0, 2**30])
@pytest.mark.parametrize("count", [3, 20, 50])
def test_rows_come_back_in_memory_and_from_a_file(tmp_path, monkeypatch, limit, count):
    monkeypatch.setattr(module, "MAX_IN_MEMORY", limit)
    rows = torch.rand(20, 4, 5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(filled(rows, count, str(tmp_path / "temp")), rows)  # whatever was expected
    assert not list((tmp_path / "temp").iterdir())  # a file without a name


def test_what_fits_nowhere_is_refused_with_numbers(tmp_path):
    with pytest.raises(
        PortraitError, match=r"1000000 frames of 4096 x 4096 pixels take 201326.6 GB .* GB of memory and .* GB of disk"
    ):
        ImageBuffer(1_000_000, (4096, 4096, 3), str(tmp_path))


def test_a_full_disk_is_no_matter_where_memory_is_free(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_IN_MEMORY", 0)
    monkeypatch.setattr(module, "SPARE", 0)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda folder: SimpleNamespace(free=0))
    rows = torch.rand(2, 4, 5, 3)
    assert torch.equal(filled(rows, 2, str(tmp_path)), rows)
    monkeypatch.setattr(module, "free_memory", lambda: 100.0)
    with pytest.raises(PortraitError, match="0.0 GB of memory and 0.0 GB of disk"):
        ImageBuffer(2, (4, 5, 3), str(tmp_path))
