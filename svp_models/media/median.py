"""Median filter over space and time: takes single flickering pixels out of a clip (V-Express' last step before encoding)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor


def median_filter(frames: Tensor) -> Tensor:
    """f c h w -> f c h w of the same type: the median of the 3 x 3 x 3 values around each; edges are reflected."""
    return torch.stack(list(median_filtered(frames)))


def median_filtered(frames: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same frame by frame (c h w each), with three of them in memory at a time."""
    source = iter(frames)
    current, following = next(source, None), next(source, None)
    if current is None:
        return
    if following is None:  # a clip of one frame is its own neighbour
        yield _median(current, current, current)
        return
    before = following
    for coming in source:
        yield _median(before, current, following)
        before, current, following = current, following, coming
    yield _median(before, current, following)
    yield _median(current, following, current)


def _median(before: Tensor, current: Tensor, following: Tensor) -> Tensor:
    height, width = current.shape[-2:]
    rows, columns = _reflected(height), _reflected(width)
    around = torch.stack([before, current, following], dim=-1)[:, rows][:, :, columns]  # c h+2 w+2 3
    patches = around.unfold(1, 3, 1).unfold(2, 3, 1).flatten(3)  # c h w 27
    return patches.median(dim=-1).values


def _reflected(length: int) -> list[int]:
    """Places of a line with one more at each end, reflected at the outermost: 1 0 1 2 ... n-1 n-2."""
    inner = min(1, length - 1)
    return [inner, *range(length), length - 1 - inner]
