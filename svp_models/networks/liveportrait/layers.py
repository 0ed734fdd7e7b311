"""Convolution blocks that LivePortrait's networks share, for images (2-D) and for feature volumes (3-D)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

CONVOLUTIONS = {2: nn.Conv2d, 3: nn.Conv3d}
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
    """Height and width of a volume doubled (nearest), then a block."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest"))


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
