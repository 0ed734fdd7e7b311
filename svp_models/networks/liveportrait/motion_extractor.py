"""LivePortrait's motion extractor M: an image -> key points, expression and pose, by a ConvNeXt V2 (Woo et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-6  # of all norms
STEM = 4  # pixels per side of a cell of the first level


@dataclass(frozen=True)
class MotionExtractorConfig:
    """Sizes; the defaults (ConvNeXt V2 tiny) are those of the published weights."""

    num_kp: int = 21
    num_bins: int = 66
    depths: tuple[int, ...] = (3, 3, 9, 3)
    dims: tuple[int, ...] = (96, 192, 384, 768)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every cell: n c h w -> n c h w."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Channels compete by their norm over the image (Woo et al. 2023, eq. 1-3): n h w c -> n h w c."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(1, 1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True)  # n 1 1 c
        share = size / (size.mean(dim=-1, keepdim=True) + EPS)
        return self.gamma * (x * share) + self.beta + x


class ConvNeXtBlock(nn.Module):
    """7 x 7 depthwise convolution, then two linear layers on each cell, plus the input: n c h w -> n c h w."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.grn = GlobalResponseNorm(4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.dwconv(x).permute(0, 2, 3, 1))  # n h w c
        hidden = self.pwconv2(self.grn(functional.gelu(self.pwconv1(hidden))))
        return x + hidden.permute(0, 3, 1, 2)


class _Detector(nn.Module):
    def __init__(self, config: MotionExtractorConfig) -> None:
        super().__init__()
        dims, points = config.dims, 3 * config.num_kp
        self.downsample_layers = nn.ModuleList(
            [nn.Sequential(nn.Conv2d(3, dims[0], STEM, STEM), ChannelNorm(dims[0], eps=EPS))]
        )
        for narrow, wide in zip(dims[:-1], dims[1:], strict=True):
            self.downsample_layers.append(nn.Sequential(ChannelNorm(narrow, eps=EPS), nn.Conv2d(narrow, wide, 2, 2)))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ConvNeXtBlock(width) for _ in range(depth)))
            for width, depth in zip(dims, config.depths, strict=True)
        )
        self.norm = nn.LayerNorm(dims[-1], eps=EPS)
        self.fc_kp = nn.Linear(dims[-1], points)
        self.fc_scale = nn.Linear(dims[-1], 1)
        self.fc_pitch = nn.Linear(dims[-1], config.num_bins)
        self.fc_yaw = nn.Linear(dims[-1], config.num_bins)
        self.fc_roll = nn.Linear(dims[-1], config.num_bins)
        self.fc_t = nn.Linear(dims[-1], 3)
        self.fc_exp = nn.Linear(dims[-1], points)


class MotionExtractor(nn.Module):
    """images: n 3 H W, RGB in [0, 1] (256 x 256) -> by name: `kp` n 63, the points of the face at rest; `exp` n 63, their
    deformation; `t` n 3, shift; `scale` n 1; `pitch`, `yaw`, `roll` n 66, logits of angles (see `motion.keypoints`)."""

    def __init__(self, config: MotionExtractorConfig | None = None) -> None:
        super().__init__()
        self.config = config or MotionExtractorConfig()
        self.detector = _Detector(self.config)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        detector, hidden = self.detector, images
        for downsample, stage in zip(detector.downsample_layers, detector.stages, strict=True):
            hidden = stage(downsample(hidden))
        hidden = detector.norm(hidden.mean(dim=(2, 3)))  # n c
        return {
            "kp": detector.fc_kp(hidden),
            "exp": detector.fc_exp(hidden),
            "t": detector.fc_t(hidden),
            "scale": detector.fc_scale(hidden),
            "pitch": detector.fc_pitch(hidden),
            "yaw": detector.fc_yaw(hidden),
            "roll": detector.fc_roll(hidden),
        }
