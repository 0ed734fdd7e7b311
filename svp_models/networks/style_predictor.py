"""A small diffusion over style codes given a voice and a portrait (Ma et al. 2023, DreamTalk, sec. 3.3), by flow matching."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import MAX_CHANNELS, MAX_ROWS
from ..io.strict_config import Checked, limited
from .motion_generators.kdtalker import sinusoids

LEVEL_WAVES = 64
LEVEL_UNIT = 1000.0
KERNEL = 5
LEAST_VARIANCE = 1e-6


@dataclass(frozen=True)
class StylePredictorConfig(Checked):
    """Sizes. width: of the voice encoder; voice_layers: its convolutions; inner, layers: of the denoiser; dropout: in both."""

    audio_size: int = limited(1920, 1, MAX_ROWS)
    style_size: int = limited(128, 1, MAX_CHANNELS)
    portrait_size: int = limited(64, 1, MAX_CHANNELS)
    width: int = limited(96, 1, MAX_CHANNELS)
    voice_layers: int = limited(3, 0, 64)
    inner: int = limited(256, 1, MAX_CHANNELS)
    layers: int = limited(3, 1, 64)
    dropout: float = limited(0.2, 0, 1, below=True)


class VoiceEncoder(nn.Module):
    """Audio features -> what they are like over the whole clip: mean and deviation over time, b n A -> b 2w."""

    def __init__(self, config: StylePredictorConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.audio_size, config.width)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(config.width, config.width, KERNEL, padding=KERNEL // 2) for _ in range(config.voice_layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in range(config.voice_layers))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, voice: Tensor) -> Tensor:
        hidden = self.proj(voice)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            found = convolution(functional.silu(norm(hidden)).transpose(1, 2)).transpose(1, 2)
            hidden = hidden + self.dropout(found)
        deviation = (hidden.var(dim=1, unbiased=False) + LEAST_VARIANCE).sqrt()
        return torch.cat([hidden.mean(dim=1), deviation], dim=-1)


class StyleBlock(nn.Module):
    """x + layers behind a norm that the condition scales and shifts, b d."""

    def __init__(self, config: StylePredictorConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.inner, elementwise_affine=False)
        self.modulation = nn.Linear(config.inner, 2 * config.inner)
        self.layers = nn.Sequential(
            nn.Linear(config.inner, config.inner),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.inner, config.inner),
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition).chunk(2, dim=-1)
        return x + self.layers(self.norm(x) * (1 + scale) + shift)


class StylePredictor(nn.Module):
    """Noisy style codes -> the direction to the clean ones, see `motion.flow_matching`; codes on the scale of `standardize`."""

    mean: Tensor
    spread: Tensor

    def __init__(self, config: StylePredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.style_size))
        self.register_buffer("spread", torch.ones(config.style_size))
        self.voice = VoiceEncoder(config)
        self.voice_out = nn.Sequential(nn.Linear(2 * config.width, config.inner), nn.SiLU())
        self.portrait = nn.Linear(config.portrait_size, config.inner)
        self.no_portrait = nn.Parameter(torch.zeros(config.inner))
        self.level = nn.Sequential(
            nn.Linear(LEVEL_WAVES, config.inner), nn.SiLU(), nn.Linear(config.inner, config.inner)
        )
        self.style_in = nn.Linear(config.style_size, config.inner)
        self.blocks = nn.ModuleList(StyleBlock(config) for _ in range(config.layers))
        self.style_out = nn.Linear(config.inner, config.style_size)

    def standardize(self, codes: Tensor) -> Tensor:
        """Style codes -> the scale that the network works on, ... d_s."""
        return (codes - self.mean) / self.spread

    def restore(self, codes: Tensor) -> Tensor:
        """Back from it, ... d_s."""
        return codes * self.spread + self.mean

    def encode(self, voice: Tensor, portrait: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        """Voice b n A and portrait b p -> the condition b c. given: b, False where the portrait is unknown."""
        face = self.no_portrait.expand(len(voice), -1)
        if portrait is not None:
            known = self.portrait(portrait)
            face = known if given is None else torch.where(given[:, None], known, face)
        return self.voice_out(self.voice(voice)) + face

    def forward(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """noisy: b d_s; level: b -> b d_s"""
        condition = functional.silu(condition + self.level(sinusoids(level * LEVEL_UNIT, LEVEL_WAVES).to(noisy)))
        hidden = self.style_in(noisy)
        for block in self.blocks:
            hidden = block(hidden, condition)
        return self.style_out(hidden)
