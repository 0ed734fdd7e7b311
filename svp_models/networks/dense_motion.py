"""The network that corrects how a spline moves a portrait: which pixels stay where they are, and how far the others are off."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import Downsample, ResnetBlock, Upsample

FOLD = 2  # pixels per cell and side in which the network computes
GROUPS = 8
INPUTS, OUTPUTS = 8, 3
INITIAL = -4.0  # of the logits: an untrained network leaves the spline nearly as it is


class DenseMotion(nn.Module):
    """A U-Net of three levels. n 8 S S: portrait and warped portrait in [-1, 1], displacement in x and y -> n 3 S S: corrections of
    x and y in [-1, 1], and the share of 0 to 1 of a pixel that stays. S: a multiple of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.conv_in = nn.Conv2d(INPUTS * FOLD**2, width, 3, padding=1)
        self.down_blocks = nn.ModuleList([ResnetBlock(size, size, None, GROUPS) for size in widths])
        self.downsamplers = nn.ModuleList(
            [Downsample(*pair) for pair in zip(widths[:-1], widths[1:], strict=True)]  # fine to coarse
        )
        self.middle = ResnetBlock(widths[-1], widths[-1], None, GROUPS)
        self.upsamplers = nn.ModuleList([Upsample(*pair) for pair in zip(widths[1:], widths[:-1], strict=True)])
        self.up_blocks = nn.ModuleList([ResnetBlock(2 * size, size, None, GROUPS) for size in widths[:-1]])
        self.norm_out = nn.GroupNorm(GROUPS, width)
        self.conv_out = nn.Conv2d(width, OUTPUTS * FOLD**2, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        bias = torch.tensor([0.0, 0.0, INITIAL]).repeat_interleave(FOLD**2)
        self.conv_out.bias = nn.Parameter(bias)

    def forward(self, pictures: Tensor) -> Tensor:
        """n 8 S S -> n 3 S S"""
        hidden = self.conv_in(functional.pixel_unshuffle(pictures, FOLD))
        skips = []
        for level, block in enumerate(self.down_blocks):
            if level:
                hidden = self.downsamplers[level - 1](hidden)
            hidden = block(hidden)
            skips.append(hidden)
        hidden = self.middle(hidden)
        for level in reversed(range(len(self.up_blocks))):
            hidden = self.up_blocks[level](torch.cat([self.upsamplers[level](hidden), skips[level]], dim=1))
        maps = self.conv_out(functional.silu(self.norm_out(hidden)))
        maps = functional.pixel_shuffle(maps, FOLD).float()
        return torch.cat([maps[:, :2].tanh(), maps[:, 2:].sigmoid()], dim=1)
