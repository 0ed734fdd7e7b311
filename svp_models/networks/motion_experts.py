"""Networks that judge motions: whether lips and voice are in step for a speaking style, and which named movements a head makes.

The lip expert has two encoders whose embeddings agree where lips and voice do (Prajwal et al. 2020; style-aware as in Ma et al.
2023, DreamTalk, sec. 3.2). The movement detector is made of convolutions over time and gives a class to every frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import MAX_CHANNELS, MAX_ROWS
from ..io.strict_config import Checked, limited

KERNEL = 5
POSE_UNITS = (4.0, 2.5, 2.5, 0.012, 0.010, 0.02)  # of yaw, pitch, roll in degrees, shift x and y, scale
DETECTOR_WIDTH, DILATIONS = 48, (1, 2, 4, 8, 12)


@dataclass(frozen=True)
class LipExpertConfig(Checked):
    """Sizes. lips: columns of the expression that speech moves; width: of both encoders."""

    lips: tuple[int, ...] = limited(low=0, high=MAX_CHANNELS, most=MAX_CHANNELS)
    audio_size: int = limited(1920, 1, MAX_ROWS)
    style_size: int = limited(128, 1, MAX_CHANNELS)
    width: int = limited(96, 1, MAX_CHANNELS)
    layers: int = limited(3, 1, 64)


class LipExpert(nn.Module):
    """Expression b n e, voice b n A, style b d_s -> b n, above 0 where a frame's lips are in step (a logit)."""

    def __init__(self, config: LipExpertConfig) -> None:
        super().__init__()
        self.config = config
        self.lips_in = nn.Linear(len(config.lips), config.width)
        self.style_in = nn.Linear(config.style_size, config.width)
        self.voice_in = nn.Linear(config.audio_size, config.width)
        self.lips, self.voice = _encoder(config), _encoder(config)
        self.scale, self.bias = nn.Parameter(torch.tensor(5.0)), nn.Parameter(torch.tensor(0.0))

    def forward(self, expression: Tensor, voice: Tensor, style: Tensor) -> Tensor:
        moved = expression[..., list(self.config.lips)]
        lips = self.lips((self.lips_in(moved) + self.style_in(style)[:, None]).transpose(1, 2))
        heard = self.voice(self.voice_in(voice).transpose(1, 2))
        return functional.cosine_similarity(lips, heard, dim=1) * self.scale + self.bias


def _encoder(config: LipExpertConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(config.layers):
        layers += [nn.SiLU(), nn.Conv1d(config.width, config.width, KERNEL, padding=KERNEL // 2)]
    return nn.Sequential(*layers)


class MovementDetector(nn.Module):
    """Poses b n 6 (25 frames a second, as in synthetic.identity.FaceStates) -> scores of the classes, b n k; class 0 is none."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 2 * len(POSE_UNITS)
        for dilation in DILATIONS:
            padding = dilation * (KERNEL // 2)
            layers += [
                nn.Conv1d(
                    channels, DETECTOR_WIDTH, KERNEL, padding=padding, dilation=dilation, padding_mode="replicate"
                ),
                nn.BatchNorm1d(DETECTOR_WIDTH),
                nn.SiLU(),
            ]
            channels = DETECTOR_WIDTH
        self.layers = nn.Sequential(*layers)
        self.out = nn.Conv1d(DETECTOR_WIDTH, classes, 1)

    def forward(self, pose: Tensor) -> Tensor:
        centred = (pose - pose.mean(dim=1, keepdim=True)) / pose.new_tensor(POSE_UNITS)
        speed = torch.diff(centred, dim=1, prepend=centred[:, :1]) * 5
        return self.out(self.layers(torch.cat([centred, speed], dim=-1).transpose(1, 2))).transpose(1, 2)
