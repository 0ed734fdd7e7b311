"""Convolution blocks that LivePortrait's networks share, for images (2-D) and for feature volumes (3-D).

Enlarged volumes are convolved from the small ones, as `networks.layers.convolve_enlarged` does it with maps.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
# Weights of three taps -> weights of the two cells that the first and the last output of a doubled cell meet.
FIRST_LAST = ((1, 0, 0), (0, 1, 1)), ((1, 1, 0), (0, 0, 1))
# Of all volumes together: below it the convolution takes less time than the preparation of its weights.
FEWEST_CELLS = 1024
BATCH_NORMS = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


class ConvBlock(nn.Module):
    """3 x 3 (x 3) convolution, batch norm, leaky ReLU: n c ... -> n channels ... of the same size.

    slope: of the negative side of the activation; 0 is ReLU.
    """

    def __init__(self, channels_in: int, channels: int, dims: int = 2, slope: float = 0.0) -> None:
        super().__init__()
        self.conv = CONVOLUTIONS[dims](channels_in, channels, 3, padding=1)
        self.norm = BATCH_NORMS[dims](channels)
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.norm(self.conv(x)), self.slope)


class DownBlock(ConvBlock):
    """A block and average pooling of height and width by 2; the depth of a volume stays."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = super().forward(x)
        return functional.avg_pool2d(hidden, 2) if hidden.dim() == 4 else functional.avg_pool3d(hidden, (1, 2, 2))


class UpBlock(ConvBlock):
    """Height and width of a volume doubled (nearest), then a block.

    fewest_cells: of all volumes together, from which the doubled one is not made for its convolution.
    """

    conv: nn.Conv3d
    fewest_cells: float = FEWEST_CELLS

    def forward(self, x: Tensor) -> Tensor:
        if len(x) * x[0, 0].numel() < self.fewest_cells:
            return super().forward(functional.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest"))
        return functional.leaky_relu(self.norm(convolve_doubled_volume(x, self.conv)), self.slope)


class ResidualVolumeBlock(nn.Module):
    """x + two 3 x 3 x 3 convolutions behind batch norm and ReLU: n c d h w -> n c d h w."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1)
        self.norm1 = nn.BatchNorm3d(channels)
        self.norm2 = nn.BatchNorm3d(channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(self.norm1(x).relu())
        return x + self.conv2(self.norm2(hidden).relu())


def convolve_doubled_volume(x: Tensor, conv: nn.Conv3d) -> Tensor:
    """conv(x with height and width doubled), a 3 x 3 x 3 convolution with a border of 1 zero: n c d h w -> n o d 2h 2w."""
    weight, bias = conv.weight, conv.bias
    edges = torch.tensor(FIRST_LAST, dtype=weight.dtype, device=weight.device)
    kernels = torch.einsum("pay,qbx,oczyx->pqoczab", edges, edges, weight).flatten(0, 2)
    n, _, d, h, w = x.shape
    found = functional.conv3d(x, kernels, None if bias is None else bias.repeat(4), padding=1)
    found = found.unflatten(1, (2, 2, -1))  # n p q o d h+1 w+1
    out = x.new_empty(n, weight.shape[0], d, h, 2, w, 2)
    for i in (0, 1):
        for j in (0, 1):
            out[:, :, :, :, i, :, j] = found[:, i, j, :, :, i : i + h, j : j + w]
    return out.flatten(5, 6).flatten(3, 4)
