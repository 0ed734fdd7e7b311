"""LivePortrait's generator G: warped features -> image, by residual blocks with SPADE norms (Park et al. 2019).

The published weights carry spectral norm; a trained one is a constant factor, which loading folds into the weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..layers import convolve_enlarged

SLOPE = 0.2  # of the leaky ReLUs
MIDDLE_BLOCKS = 6
SHUFFLE = 2  # factor of the last enlargement


@dataclass(frozen=True)
class SpadeConfig:
    """Sizes; the defaults are those of the published weights.

    channels: of the warped features; out_channels: before the last convolution; hidden: of the modulating convolutions;
    upscale: whether the image has twice the size of the last block's map (512 x 512) or the same.
    """

    channels: int = 256
    out_channels: int = 64
    hidden: int = 128
    upscale: bool = True


class SpadeNorm(nn.Module):
    """Scale and shift of normalized values, which convolutions make of the features: n c h w, n k h' w' -> n c h w.

    h and w are h' and w' or a whole multiple of them, to which the features are enlarged by nearest neighbour.
    """

    def __init__(self, channels: int, features: int, hidden: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(features, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, normal: Tensor, features: Tensor) -> Tensor:
        hidden = self.hidden(features, normal.shape[-1])
        return torch.addcmul(self.mlp_beta(hidden), normal, self.scale(hidden))

    def hidden(self, features: Tensor, side: int) -> Tensor:
        """What scale and shift are made of, `side` cells wide."""
        conv, relu = cast(nn.Conv2d, self.mlp_shared[0]), self.mlp_shared[1]
        factor = side // features.shape[-1]
        return relu(conv(features) if factor == 1 else convolve_enlarged(features, conv, factor))

    def scale(self, hidden: Tensor) -> Tensor:
        """1 + gamma."""
        gamma = self.mlp_gamma
        assert gamma.bias is not None, "mlp_gamma is built with a bias"
        return functional.conv2d(hidden, gamma.weight, gamma.bias + 1, padding=1)


class SpadeResnetBlock(nn.Module):
    """Two convolutions behind SPADE norms, plus the input: n c h w -> n channels fh fw, f the factor of enlargement."""

    def __init__(self, channels_in: int, channels: int, features: int, hidden: int, factor: int = 1) -> None:
        super().__init__()
        self.factor = factor
        middle = min(channels_in, channels)
        self.conv_0 = nn.Conv2d(channels_in, middle, 3, padding=1)
        self.conv_1 = nn.Conv2d(middle, channels, 3, padding=1)
        self.norm_0 = SpadeNorm(channels_in, features, hidden)
        self.norm_1 = SpadeNorm(middle, features, hidden)
        self.conv_s = self.norm_s = None
        if channels_in != channels:
            self.conv_s = nn.Conv2d(channels_in, channels, 1, bias=False)
            self.norm_s = SpadeNorm(channels_in, features, hidden)

    def forward(self, x: Tensor, features: Tensor) -> Tensor:
        normal = self._enlarged(functional.instance_norm(x))  # repeated cells change neither mean nor variance
        hidden = self.conv_0(functional.leaky_relu(self.norm_0(normal, features), SLOPE))
        hidden = functional.instance_norm(hidden)
        hidden = self.conv_1(functional.leaky_relu(self.norm_1(hidden, features), SLOPE))
        return self._shortcut(x, normal, features) + hidden

    def _shortcut(self, x: Tensor, normal: Tensor, features: Tensor) -> Tensor:
        conv, norm = self.conv_s, self.norm_s
        if conv is None or norm is None:
            return self._enlarged(x)
        hidden = norm.hidden(features, normal.shape[-1])
        # No activation lies between the shift and the 1 x 1 convolution: together they are one convolution of fewer channels.
        mix, beta = conv.weight[:, :, 0, 0], norm.mlp_beta
        assert beta.bias is not None, "mlp_beta is built with a bias"
        shift = functional.conv2d(
            hidden, torch.einsum("om,mkyx->okyx", mix, beta.weight), torch.mv(mix, beta.bias), padding=1
        )
        return shift + conv(normal * norm.scale(hidden))

    def _enlarged(self, x: Tensor) -> Tensor:
        return x if self.factor == 1 else functional.interpolate(x, scale_factor=float(self.factor), mode="nearest")


class SpadeGenerator(nn.Module):
    """warped: n c h w (256 x 64 x 64) -> images: n 3 8h 8w (512 x 512), RGB in [0, 1]."""

    def __init__(self, config: SpadeConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SpadeConfig()
        features, hidden = config.channels, config.hidden
        self.fc = nn.Conv2d(features, 2 * features, 3, padding=1)
        for index in range(MIDDLE_BLOCKS):
            self.add_module(f"G_middle_{index}", SpadeResnetBlock(2 * features, 2 * features, features, hidden))
        self.up_0 = SpadeResnetBlock(2 * features, features, features, hidden, factor=2)
        self.up_1 = SpadeResnetBlock(features, config.out_channels, features, hidden, factor=2)
        if config.upscale:
            self.conv_img: nn.Module = nn.Sequential(
                nn.Conv2d(config.out_channels, 3 * SHUFFLE**2, 3, padding=1), nn.PixelShuffle(SHUFFLE)
            )
        else:
            self.conv_img = nn.Conv2d(config.out_channels, 3, 3, padding=1)

    def forward(self, warped: Tensor) -> Tensor:
        hidden = self.fc(warped)
        for index in range(MIDDLE_BLOCKS):
            hidden = self.get_submodule(f"G_middle_{index}")(hidden, warped)
        for block in (self.up_0, self.up_1):
            hidden = block(hidden, warped)
        return self.conv_img(functional.leaky_relu(hidden, SLOPE)).sigmoid()
