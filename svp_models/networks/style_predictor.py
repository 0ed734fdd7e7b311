"""A small diffusion over style codes given a voice and a portrait (Ma et al. 2023, DreamTalk, sec. 3.3), by flow matching.

Of the voice it knows the prosody alone (`media.prosody`): what is said tells nothing of a style, and few voices are easily learnt
by heart.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import MAX_CHANNELS
from ..io.strict_config import Checked, limited
from ..media.prosody import PROSODY_SIZE
from .motion_generators.kdtalker import sinusoids

LEVEL_WAVES = 64
LEVEL_UNIT = 1000.0
PROSODY_LIMIT = (
    4.0  # of a prosody's numbers, in standard deviations: beyond what was heard in training nothing is known
)


@dataclass(frozen=True)
class StylePredictorConfig(Checked):
    """Sizes. inner: of all layers; layers: blocks of the denoiser; dropout: in them and on the prosody."""

    prosody_size: int = limited(PROSODY_SIZE, 1, MAX_CHANNELS)
    style_size: int = limited(128, 1, MAX_CHANNELS)
    portrait_size: int = limited(64, 1, MAX_CHANNELS)
    inner: int = limited(256, 1, MAX_CHANNELS)
    layers: int = limited(3, 1, 64)
    dropout: float = limited(0.2, 0, 1, below=True)


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
    prosody_mean: Tensor
    prosody_spread: Tensor

    def __init__(self, config: StylePredictorConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.style_size))
        self.register_buffer("spread", torch.ones(config.style_size))
        self.register_buffer("prosody_mean", torch.zeros(config.prosody_size))
        self.register_buffer("prosody_spread", torch.ones(config.prosody_size))
        self.voice = nn.Sequential(
            nn.Linear(config.prosody_size, config.inner),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.inner, config.inner),
        )
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

    def encode(self, prosody: Tensor, portrait: Tensor | None = None, given: Tensor | None = None) -> Tensor:
        """Prosody of a voice b k and portrait b p -> the condition b c. given: b, False where the portrait is unknown."""
        face = self.no_portrait.expand(len(prosody), -1)
        if portrait is not None:
            known = self.portrait(portrait)
            face = known if given is None else torch.where(given[:, None], known, face)
        heard = ((prosody - self.prosody_mean) / self.prosody_spread).clamp(-PROSODY_LIMIT, PROSODY_LIMIT)
        return self.voice(heard) + face

    def forward(self, noisy: Tensor, level: Tensor, condition: Tensor) -> Tensor:
        """noisy: b d_s; level: b -> b d_s"""
        condition = functional.silu(condition + self.level(sinusoids(level * LEVEL_UNIT, LEVEL_WAVES).to(noisy)))
        hidden = self.style_in(noisy)
        for block in self.blocks:
            hidden = block(hidden, condition)
        return self.style_out(hidden)
