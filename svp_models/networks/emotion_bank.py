"""Emotion bank: entries over the style space, to which an emotion's name and strength attend (after DICE-Talk, arXiv 2504.18087).

DICE-Talk quantises emotions into a codebook and lets conditions gather from it by attention. Here the entries are a codebook of
style codes, learnt as in VQ-VAE by moving averages (van den Oord et al. 2017, appendix A.1), and the attention answers with a
Gaussian over styles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import PortraitError
from ..io.strict_config import Checked, limited

NEUTRAL = 0  # the number of the emotion that any other is at strength 0
SMALLEST_COUNT = 1e-3  # of codes that an entry stands for
LOWEST, HIGHEST = -7.0, 3.0  # of the logarithm of a deviation, in the bank's unit


@dataclass(frozen=True)
class EmotionBankConfig(Checked):
    """emotions: their names, neutral first; style_size: of a style code; entries: of the bank; query_size: of the attention."""

    emotions: tuple[str, ...] = limited(least=2, most=100)
    style_size: int = limited(256, 1, 8192)
    entries: int = limited(64, 2, 4096)
    query_size: int = limited(32, 1, 1024)

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.emotions)) != len(self.emotions):
            raise PortraitError("emotions name one twice")


class EmotionBank(nn.Module):
    """Emotion and strength -> mean and deviation of the styles that show it.

    The query is a network of strength times the emotion's embedding, so that all emotions are the same at strength 0. Keys are
    linear in the entries; the weights of the attention mix the entries to the mean, and their own deviations to the deviation.
    """

    entries: Tensor
    counts: Tensor
    centre: Tensor
    unit: Tensor

    def __init__(self, config: EmotionBankConfig) -> None:
        super().__init__()
        self.config = config
        entries, size = config.entries, config.style_size
        self.register_buffer("entries", torch.zeros(entries, size))  # of codes, less the centre, over the unit
        self.register_buffer("counts", torch.ones(entries))  # how many codes of a batch an entry stands for
        self.register_buffer("centre", torch.zeros(size))
        self.register_buffer("unit", torch.ones(1))
        self.log_deviation = nn.Parameter(torch.zeros(entries, size))
        self.emotion = nn.Embedding(len(config.emotions), config.query_size)
        self.query = nn.Sequential(
            nn.Linear(config.query_size, 2 * config.query_size),
            nn.GELU(),
            nn.Linear(2 * config.query_size, config.query_size),
        )
        self.key = nn.Linear(size, config.query_size, bias=False)

    def attention(self, emotion: Tensor, strength: Tensor) -> Tensor:
        """emotion n (numbers), strength n -> weights of the entries, n k; rows sum to 1."""
        felt = strength * (emotion != NEUTRAL)
        query = self.query(felt[:, None] * self.emotion(emotion))
        return (query @ self.key(self.entries).T / math.sqrt(self.config.query_size)).softmax(-1)

    def forward(self, emotion: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """emotion n (numbers in the order of the config), strength n, 0 neutral to 1 full -> mu n d_s, sigma n d_s"""
        weights = self.attention(emotion, strength)
        mu = self.centre + self.unit * (weights @ self.entries)
        variances = (2 * self.log_deviation.clamp(LOWEST, HIGHEST)).exp()
        return mu, self.unit * (weights @ variances).sqrt()

    @torch.no_grad()
    def start(self, codes: Tensor, generator: torch.Generator) -> None:
        """Begins with entries among the codes n d_s, chosen far apart: k-means++ (Arthur & Vassilvitskii 2007)."""
        self.centre.copy_(codes.mean(0))
        self.unit.copy_((codes - self.centre).std().clamp(min=1e-6)[None])
        codes = (codes - self.centre) / self.unit
        chosen = [int(torch.randint(len(codes), (1,), generator=generator))]
        nearest = (codes - codes[chosen[0]]).square().sum(1)
        while len(chosen) < len(self.entries):
            chosen.append(int(torch.multinomial(nearest.clamp(min=1e-12), 1, generator=generator)))
            nearest = torch.minimum(nearest, (codes - codes[chosen[-1]]).square().sum(1))
        self.entries.copy_(codes[chosen])
        self.counts.fill_(1.0)

    def nearest(self, codes: Tensor) -> Tensor:
        """codes n d_s -> the numbers of the entries that are nearest, n"""
        return torch.cdist((codes - self.centre) / self.unit, self.entries).argmin(1)

    @torch.no_grad()
    def update(self, codes: Tensor, decay: float) -> float:
        """Moves the entries towards the means of the codes n d_s that are nearest to them, and returns the mean squared distance
        of the codes from their entries, in the bank's unit. An entry that stands for none is moved to the code farthest off."""
        scaled = (codes - self.centre) / self.unit
        distances, owner = torch.cdist(scaled, self.entries).min(1)
        shares = nn.functional.one_hot(owner, len(self.entries)).to(scaled)  # n k
        found = shares.sum(0)
        sums = self.entries * self.counts[:, None] * decay + (1 - decay) * (shares.T @ scaled)
        self.counts.mul_(decay).add_(found, alpha=1 - decay)
        self.entries.copy_(sums / self.counts[:, None].clamp(min=SMALLEST_COUNT))
        for entry in (self.counts < SMALLEST_COUNT).nonzero().flatten().tolist():
            farthest = int(distances.argmax())
            self.entries[entry], self.counts[entry] = scaled[farthest], 1.0
            distances[farthest] = 0.0
        return float(distances.square().mean())
