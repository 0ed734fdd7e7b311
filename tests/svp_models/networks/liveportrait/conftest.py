from __future__ import annotations

import pytest
import torch


@pytest.fixture
def close():
    """Asserts that a tensor is that of LivePortrait's own code, within 1e-5 of its size."""

    def check(ours: torch.Tensor, theirs: torch.Tensor) -> None:
        assert ours.shape == theirs.shape
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5

    return check
