"""KDTalker's denoiser: noisy motion, audio and a still face -> noise (Yang et al. 2025, sec. 3.3); parameter names of its file.

A motion frame is 70 numbers: scale, yaw, pitch, roll, t 3, exp 63, standardised (`motion.generators`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-5
PERIOD = 10000  # of the slowest wave of a timestep
MOST_DISTANCE = 128  # frames; further ones share the last bucket
LEADING = 2  # tokens before the frames: the face at rest and the reference motion


@dataclass(frozen=True)
class KDTalkerConfig:
    """Sizes; the defaults are those of the published weights. rotary: frequencies of the rotary embedding."""

    channels: int = 70
    dim: int = 768
    layers: int = 6
    heads: int = 12
    head_dim: int = 64
    audio_dim: int = 512
    time_dim: int = 256
    buckets: int = 32
    rotary: int = 6


class TokenNorm(nn.Module):
    """Layer norm of tokens b n c; scale and shift have the shape 1 1 c in the file."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        return functional.layer_norm(x, x.shape[-1:], eps=EPS) * self.gamma + self.beta


class _Block(nn.Module):
    """Linear layer, norm with the condition's scale and shift, SiLU. Without a condition there is no norm either, though
    the file has its parameters."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Linear(dim, dim)
        self.norm = TokenNorm(dim)

    def forward(self, x: Tensor, scale_shift: tuple[Tensor, Tensor] | None = None) -> Tensor:
        x = self.proj(x)
        if scale_shift is not None:
            scale, shift = scale_shift
            x = self.norm(x) * (scale + 1) + shift
        return functional.silu(x)


class ConditionBlock(nn.Module):
    """x + two blocks, the first under the condition: b n c, b n k -> b n c."""

    def __init__(self, dim: int, condition: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(condition, 2 * dim))
        self.block1 = _Block(dim)
        self.block2 = _Block(dim)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.mlp(condition).chunk(2, dim=-1)
        return x + self.block2(self.block1(x, (scale, shift)))


class RotaryEmbedding(nn.Module):
    """Turns pairs of neighbouring channels by position x frequency (Su et al. 2021); channels without a frequency stay."""

    def __init__(self, frequencies: int) -> None:
        super().__init__()
        rates = [PERIOD ** (-index / frequencies) for index in range(frequencies)]
        self.freqs = nn.Parameter(torch.tensor(rates), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """... n d -> ... n d"""
        turned, rest = x.split([2 * len(self.freqs), x.shape[-1] - 2 * len(self.freqs)], dim=-1)
        angles = torch.outer(torch.arange(x.shape[-2], device=x.device, dtype=x.dtype), self.freqs)  # n pairs
        even, odd = turned.unflatten(-1, (-1, 2)).unbind(dim=-1)
        cos, sin = angles.cos(), angles.sin()
        turned = torch.stack([even * cos - odd * sin, odd * cos + even * sin], dim=-1).flatten(-2)
        return torch.cat([turned, rest], dim=-1)


class _Attention(nn.Module):
    def __init__(self, config: KDTalkerConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.to_qkv = nn.Linear(config.dim, 3 * inner, bias=False)
        self.proj = nn.Linear(inner, config.dim)
        self.rotary_emb = RotaryEmbedding(config.rotary)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """x: b n c; bias: heads n n, added to the scores."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.to_qkv(x).chunk(3, dim=-1))
        q, k = self.rotary_emb(q), self.rotary_emb(k)  # b heads n d
        hidden = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        return self.proj(hidden.transpose(1, 2).flatten(2))


class _PreNorm(nn.Module):
    def __init__(self, config: KDTalkerConfig) -> None:
        super().__init__()
        self.fn = _Attention(config)
        self.norm = TokenNorm(config.dim)


class TemporalAttention(nn.Module):
    """x + self-attention over time behind a norm: b n c -> b n c."""

    def __init__(self, config: KDTalkerConfig) -> None:
        super().__init__()
        self.fn = _PreNorm(config)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + self.fn.fn(self.fn.norm(x), bias)


class RelativePositionBias(nn.Module):
    """A number for each head and distance; far distances share buckets (Raffel et al. 2020): n -> heads n n."""

    def __init__(self, buckets: int, heads: int) -> None:
        super().__init__()
        self.buckets = buckets
        self.relative_attention_bias = nn.Embedding(buckets, heads)

    def forward(self, length: int, device: torch.device) -> Tensor:
        positions = torch.arange(length, device=device)
        distance = positions[:, None] - positions  # query minus key
        half = self.buckets // 2  # for keys before, and for keys after the query
        exact = half // 2
        far = exact + (
            (distance.abs().float() / exact).clamp(min=1).log() / math.log(MOST_DISTANCE / exact) * (half - exact)
        ).long().clamp(max=half - 1 - exact)
        bucket = torch.where(distance.abs() < exact, distance.abs(), far) + half * (distance < 0)
        return self.relative_attention_bias(bucket).permute(2, 0, 1)


class KDTalkerNetwork(nn.Module):
    """Predicts the noise in a motion.

    noisy: b f 70; timesteps: b, 0 to 999; audio: b f 512; canonical: b 70, seven zeros and the points of the face at rest;
    reference: b 70, the motion before the first frame -> b f 70.
    """

    def __init__(self, config: KDTalkerConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or KDTalkerConfig()
        self.time_mlp = nn.Sequential(
            nn.Identity(),  # where the file counts the sinusoids
            nn.Linear(config.dim, config.time_dim),
            nn.SiLU(),
            nn.Linear(config.time_dim, config.time_dim),
        )
        self.input_projection = nn.Linear(config.channels, config.dim)
        self.time_rel_pos_bias = RelativePositionBias(config.buckets, config.heads)
        condition = config.audio_dim + config.time_dim
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    ConditionBlock(config.dim, condition),
                    ConditionBlock(config.dim, condition),
                    TemporalAttention(config),
                ]
            )
            for _ in range(config.layers)
        )
        self.output_projection = nn.Linear(config.dim, config.channels)

    def forward(self, noisy: Tensor, timesteps: Tensor, audio: Tensor, canonical: Tensor, reference: Tensor) -> Tensor:
        tokens = torch.cat([canonical[:, None], reference[:, None], noisy], dim=1)  # b 2+f 70
        time = self.time_mlp(sinusoids(timesteps, self.config.dim).to(noisy))  # b t
        time = time[:, None].expand(-1, tokens.shape[1], -1)
        condition = torch.cat([time, functional.pad(audio, (0, 0, LEADING, 0))], dim=-1)
        bias = self.time_rel_pos_bias(tokens.shape[1], noisy.device)
        hidden = self.input_projection(tokens)
        layers: list[Any] = list(self.layers)
        for block1, block2, attention in layers:
            hidden = attention(block2(block1(hidden, condition), condition), bias)
        return self.output_projection(hidden)[:, LEADING:]


def sinusoids(timesteps: Tensor, channels: int) -> Tensor:
    """Sines, then cosines of waves whose last one has the period 2 pi x 10000: b -> b channels, float32."""
    half = channels // 2
    exponents = torch.arange(half, device=timesteps.device, dtype=torch.float32) * -(math.log(PERIOD) / (half - 1))
    angles = timesteps[:, None].float() * exponents.exp()
    return torch.cat([angles.sin(), angles.cos()], dim=-1)
