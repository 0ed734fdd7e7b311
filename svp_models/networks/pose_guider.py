"""Pose guider: images of the head keypoints -> features added after the denoiser's first convolution (sec. 3.2)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from ..config import GuiderConfig


class PoseGuider(nn.Module):
    """A light convolutional network with the layout of V-Express' guider; each pair of neighbouring widths halves the size.

    The last convolution starts at zero, so that an untrained guider leaves the backbone unchanged.
    """

    def __init__(self, config: GuiderConfig, out_channels: int) -> None:
        super().__init__()
        widths = config.channels
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for channels, wider in pairwise(widths):
            self.blocks.append(nn.Conv2d(channels, channels, 3, padding=1))
            self.blocks.append(nn.Conv2d(channels, wider, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], out_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.get_parameter("bias"))

    def forward(self, images: Tensor) -> Tensor:
        """b f 3 H W in [0, 1] -> b f out H/8 W/8 (with the four widths of the presets)"""
        hidden = functional.silu(self.conv_in(images.flatten(0, 1)))  # (b f) c H W
        for block in self.blocks:
            hidden = functional.silu(block(hidden))
        return self.conv_out(hidden).unflatten(0, images.shape[:2])
