"""Attention around the face alone (decoupled foreground attention, arXiv:2509.00052): what it adds elsewhere is used again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor, nn

Box: TypeAlias = tuple[float, float, float, float]  # top, bottom, left, right as shares of the picture
Region: TypeAlias = tuple[slice, slice]  # rows and columns of a map


@dataclass
class Foreground:
    """Attention of one batch, whose pictures all have the face in `box`.

    reuse: a pass computes attention for the cells in the box, and elsewhere adds what `added` has from the last pass over all
    cells; else the pass runs over all cells and stores. layers: those that do so, None for all; the others run over all cells in
    every pass. added: layer -> n c h w; a layer that has nothing there runs over all cells too.
    """

    box: Box
    reuse: bool = False
    layers: frozenset[nn.Module] | None = None
    added: dict[nn.Module, Tensor] = field(default_factory=dict)

    def region(self, height: int, width: int) -> Region:
        """The cells of a map that the box touches."""
        top, bottom, left, right = self.box
        rows = slice(math.floor(top * height), math.ceil(bottom * height))
        return rows, slice(math.floor(left * width), math.ceil(right * width))

    def run(self, layer: nn.Module, images: Tensor, attend: Callable[[Region | None], Tensor]) -> Tensor:
        """What the layer makes of images n c h w. attend: the layer on them, over all cells or in a region."""
        if self.layers is not None and layer not in self.layers:
            return attend(None)
        added = self.added.get(layer)
        if not self.reuse or added is None or len(added) != len(images):
            result = attend(None)
            self.added[layer] = result - images
            return result
        region = self.region(*images.shape[-2:])
        result = images + added
        result[:, :, region[0], region[1]] = attend(region)
        return result
