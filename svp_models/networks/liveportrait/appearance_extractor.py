"""LivePortrait's appearance feature extractor F: an image -> a volume of features (Guo et al. 2024, sec. 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from .layers import ConvBlock, DownBlock, ResidualVolumeBlock


@dataclass(frozen=True)
class AppearanceConfig:
    """Sizes; the defaults are those of the published weights. The volume's depth is max_features / reshape_channel."""

    image_channel: int = 3
    block_expansion: int = 64  # channels at full resolution
    num_down_blocks: int = 2
    max_features: int = 512
    reshape_channel: int = 32  # channels of the volume
    num_resblocks: int = 6

    @property
    def widths(self) -> list[int]:
        """Channels at full resolution and after each halving."""
        return [min(self.max_features, self.block_expansion * 2**level) for level in range(self.num_down_blocks + 1)]


class AppearanceExtractor(nn.Module):
    """images: n 3 H W, RGB in [0, 1] (256 x 256) -> volume: n C D H/4 W/4 (32 x 16 x 64 x 64)."""

    def __init__(self, config: AppearanceConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AppearanceConfig()
        widths = config.widths
        self.first = ConvBlock(config.image_channel, config.block_expansion)
        self.down_blocks = nn.ModuleList(
            DownBlock(widths[level], widths[level + 1]) for level in range(config.num_down_blocks)
        )
        self.second = nn.Conv2d(widths[-1], config.max_features, 1)
        self.resblocks_3d = nn.Sequential()
        for index in range(config.num_resblocks):
            self.resblocks_3d.add_module(f"3dr{index}", ResidualVolumeBlock(config.reshape_channel))

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(images)  # n 64 H W
        for block in self.down_blocks:
            hidden = block(hidden)
        hidden = self.second(hidden)  # n (C D) H/4 W/4
        return self.resblocks_3d(hidden.unflatten(1, (self.config.reshape_channel, -1)))
