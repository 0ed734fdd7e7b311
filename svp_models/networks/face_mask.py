"""The mask that joins a generated face with the warped portrait around it: where one has to differ from the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import ResnetBlock

FOLD = 4  # pixels per cell and side in which the mask is computed
GROUPS = 8
INITIAL = 1.0  # of the logits: an untrained mask is mostly open


class FaceMask(nn.Module):
    """Warped and generated crop -> mask from 0, the portrait stays, to 1. It is smooth: cells of 4 pixels, interpolated."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(9 * FOLD**2, width, 3, padding=1)
        self.blocks = nn.ModuleList([ResnetBlock(width, width, None, GROUPS) for _ in range(2)])
        self.norm_out = nn.GroupNorm(GROUPS, width)
        self.conv_out = nn.Conv2d(width, 1, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.constant_(self.conv_out.get_parameter("bias"), INITIAL)

    def forward(self, warped: Tensor, generated: Tensor) -> Tensor:
        """n 3 H W in [-1, 1] both -> n 1 H W in [0, 1]"""
        pair = torch.cat([warped, generated, (generated - warped).abs()], dim=1)
        hidden = self.conv_in(functional.pixel_unshuffle(pair, FOLD))  # n c H/4 W/4
        for block in self.blocks:
            hidden = block(hidden)
        logits = self.conv_out(functional.silu(self.norm_out(hidden)))
        return functional.interpolate(logits, scale_factor=FOLD, mode="bilinear", align_corners=False).sigmoid()
