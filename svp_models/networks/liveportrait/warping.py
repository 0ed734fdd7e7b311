"""LivePortrait's warping module W: moves the feature volume from the source's key points to the driving ones.

The dense motion network of face-vid2vid (Wang et al. 2021): every key point proposes a shift of the whole volume, a mask
blends the proposals, and an occlusion map dims what the source does not show. Points are x, y, z in [-1, 1], right, down, in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from .layers import ConvBlock, DownBlock, UpBlock

KEYPOINT_VARIANCE = 0.01  # of the Gaussian around a key point
THIRD_SLOPE = 0.01


@dataclass(frozen=True)
class DenseMotionConfig:
    """Sizes of the dense motion network; the defaults are those of the published weights."""

    num_kp: int = 21
    feature_channel: int = 32  # of the volume
    reshape_depth: int = 16  # of the volume
    compress: int = 4  # channels that are warped for each key point
    block_expansion: int = 32
    max_features: int = 1024
    num_blocks: int = 5
    estimate_occlusion_map: bool = True

    @property
    def channels_in(self) -> int:
        """A heatmap and the warped features for each key point and the background."""
        return (self.num_kp + 1) * (self.compress + 1)

    @property
    def widths(self) -> list[int]:
        """Channels of the hourglass after each halving, from 1 on; at 0 those of the last enlarged map."""
        return [min(self.max_features, self.block_expansion * 2**level) for level in range(self.num_blocks + 1)]


@dataclass(frozen=True)
class WarpingConfig:
    """channels: of the warped features, 256 in the published weights."""

    channels: int = 256
    dense_motion: DenseMotionConfig = DenseMotionConfig()


class Warp(NamedTuple):
    """warped: n c h w; deformation: n d h w 3, where in the source volume every cell comes from, x y z in [-1, 1];
    occlusion_map: n 1 h w in [0, 1], None where the network has none."""

    warped: Tensor
    deformation: Tensor
    occlusion_map: Tensor | None


class _Encoder(nn.Module):
    def __init__(self, config: DenseMotionConfig) -> None:
        super().__init__()
        widths = [config.channels_in, *config.widths[1:]]
        self.down_blocks = nn.ModuleList(
            DownBlock(widths[level], widths[level + 1], dims=3) for level in range(config.num_blocks)
        )


class _Decoder(nn.Module):
    def __init__(self, config: DenseMotionConfig) -> None:
        super().__init__()
        widths, blocks, out = config.widths, config.num_blocks, config.widths[0] + config.channels_in
        # All but the deepest map have the encoder's map of their size beside them.
        self.up_blocks = nn.ModuleList(
            UpBlock((1 if level == blocks - 1 else 2) * widths[level + 1], widths[level], dims=3)
            for level in reversed(range(blocks))
        )
        self.conv = nn.Conv3d(out, out, 3, padding=1)
        self.norm = nn.BatchNorm3d(out)


class Hourglass(nn.Module):
    """A U-Net over volumes that halves height and width only: n c d h w -> n (c0 + c) d h w."""

    def __init__(self, config: DenseMotionConfig) -> None:
        super().__init__()
        self.encoder = _Encoder(config)
        self.decoder = _Decoder(config)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for block in self.encoder.down_blocks:
            maps.append(block(maps[-1]))
        hidden = maps.pop()
        for block in self.decoder.up_blocks:
            hidden = torch.cat([block(hidden), maps.pop()], dim=1)
        return self.decoder.norm(self.decoder.conv(hidden)).relu()


class DenseMotionNetwork(nn.Module):
    """feature: 1 or n, c d h w; keypoints: n k 3 each -> deformation n d h w 3, occlusion map n 1 h w or None."""

    def __init__(self, config: DenseMotionConfig) -> None:
        super().__init__()
        self.hourglass = Hourglass(config)
        channels = config.widths[0] + config.channels_in
        self.mask = nn.Conv3d(channels, config.num_kp + 1, 7, padding=3)
        self.compress = nn.Conv3d(config.feature_channel, config.compress, 1)
        self.norm = nn.BatchNorm3d(config.compress)
        self.occlusion = None
        if config.estimate_occlusion_map:
            self.occlusion = nn.Conv2d(channels * config.reshape_depth, 1, 7, padding=3)

    def forward(
        self, feature: Tensor, driving_keypoints: Tensor, source_keypoints: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        frames = len(driving_keypoints)
        feature = self.norm(self.compress(feature)).relu()
        grid = coordinate_grid(feature.shape[2:], like=feature)  # d h w 3
        # Position 0 is the background, which stays where it is.
        shifts = functional.pad(source_keypoints - driving_keypoints, (0, 0, 1, 0))  # n 1+k 3
        sparse_motion = grid + shifts[:, :, None, None, None]  # n 1+k d h w 3
        hidden = torch.cat(
            [self._heatmaps(grid, driving_keypoints, source_keypoints), self._warp_sparsely(feature, sparse_motion)],
            dim=2,
        )  # n 1+k 1+c d h w
        hidden = self.hourglass(hidden.flatten(1, 2))
        mask = self.mask(hidden).softmax(dim=1)  # n 1+k d h w
        deformation = (sparse_motion * mask[..., None]).sum(dim=1)
        if self.occlusion is None:
            return deformation, None
        return deformation, self.occlusion(hidden.reshape(frames, -1, *hidden.shape[3:])).sigmoid()

    def _warp_sparsely(self, feature: Tensor, sparse_motion: Tensor) -> Tensor:
        """The compressed features moved as each key point proposes: n 1+k c d h w."""
        frames, proposals = sparse_motion.shape[:2]
        copies = feature[:, None].expand(frames, proposals, -1, -1, -1, -1).flatten(0, 1)
        return functional.grid_sample(copies, sparse_motion.flatten(0, 1), align_corners=False).unflatten(
            0, (frames, proposals)
        )

    def _heatmaps(self, grid: Tensor, driving: Tensor, source: Tensor) -> Tensor:
        """Gaussians of the driving points minus those of the source's, 0 for the background: n 1+k 1 d h w."""
        maps = gaussians(grid, driving) - gaussians(grid, source)
        return functional.pad(maps, (0, 0, 0, 0, 0, 0, 1, 0))[:, :, None]


class WarpingNetwork(nn.Module):
    """feature_3d: 1 or n, C D h w, of the source; keypoints: n k 3 each -> `Warp`."""

    def __init__(self, config: WarpingConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or WarpingConfig()
        dense = config.dense_motion
        self.dense_motion_network = DenseMotionNetwork(dense)
        self.third = ConvBlock(dense.feature_channel * dense.reshape_depth, config.channels, slope=THIRD_SLOPE)
        self.fourth = nn.Conv2d(config.channels, config.channels, 1)

    def forward(self, feature_3d: Tensor, driving_keypoints: Tensor, source_keypoints: Tensor) -> Warp:
        source_keypoints = source_keypoints.expand_as(driving_keypoints)
        deformation, occlusion_map = self.dense_motion_network(feature_3d, driving_keypoints, source_keypoints)
        volume = feature_3d.expand(len(driving_keypoints), -1, -1, -1, -1)
        volume = functional.grid_sample(volume, deformation, align_corners=False)  # n C D h w
        warped = self.fourth(self.third(volume.flatten(1, 2)))  # n c h w
        if occlusion_map is not None:
            warped = warped * occlusion_map
        return Warp(warped, deformation, occlusion_map)


def coordinate_grid(size: torch.Size, like: Tensor) -> Tensor:
    """Coordinates of the cells of a volume, d h w 3 in the order x y z, the first cell at -1 and the last at 1."""
    axes = [torch.arange(n, dtype=like.dtype, device=like.device) * 2 / (n - 1) - 1 for n in size]
    z, y, x = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([x, y, z], dim=-1)


def gaussians(grid: Tensor, keypoints: Tensor) -> Tensor:
    """exp(-|p - x|^2 / (2 v)) of every cell p and key point x: d h w 3, n k 3 -> n k d h w."""
    distance = (grid - keypoints[:, :, None, None, None]).square().sum(dim=-1)
    return torch.exp(-0.5 / KEYPOINT_VARIANCE * distance)
