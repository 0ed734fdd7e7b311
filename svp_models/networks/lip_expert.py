"""Whether lips and voice are in step, for a speaking style: two encoders whose embeddings agree where they are (Prajwal et al. 2020;
style-aware as in Ma et al. 2023, DreamTalk, sec. 3.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import MAX_CHANNELS, MAX_ROWS
from ..io.strict_config import Checked, limited

KERNEL = 5


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
