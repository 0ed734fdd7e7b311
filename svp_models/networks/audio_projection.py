"""Projections to tokens: of the audio features around a frame (sec. 3.2), a Perceiver resampler; and of an expression track."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import AudioConfig, UNetConfig
from .layers import GELU, Attention, FeedForward


class ResamplerLayer(nn.Module):
    """A layer of a Perceiver resampler: the tokens attend to the rows and to themselves."""

    def __init__(self, width: int, head_size: int, heads: int, mult: int) -> None:
        super().__init__()
        self.ln0 = nn.LayerNorm(width)
        self.ln1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, None, heads * head_size, out_bias=False)
        inner = int(width * mult)
        activation = GELU(width, inner, bias=False)
        self.ff = nn.Sequential(nn.LayerNorm(width), FeedForward(activation, inner, width, bias=False))

    def forward(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """rows: n k width; tokens: n t width -> n t width"""
        queries = self.ln1(tokens)
        tokens = self.attn(queries, torch.cat([self.ln0(rows), queries], dim=-2)) + tokens
        return self.ff(tokens) + tokens


class AudioProjection(nn.Module):
    """Learned queries read the rows of the window through layers of cross-attention; the rows get learned positions."""

    def __init__(self, config: AudioConfig, out_size: int) -> None:
        super().__init__()
        width = config.width or out_size
        # Initialised in place, so that `shapes_only` can skip it
        self.latents = nn.Parameter(torch.empty(1, config.tokens, width).normal_(std=width**-0.5))
        self.pos_emb = nn.Embedding(config.window, config.feature_size)
        self.proj_in = nn.Linear(config.feature_size, width)
        self.layers = nn.ModuleList(
            [ResamplerLayer(width, config.head_size, config.heads, config.feed_forward) for _ in range(config.layers)]
        )
        self.proj_out = nn.Linear(width, out_size)
        self.norm_out = nn.LayerNorm(out_size)

    def forward(self, windows: Tensor) -> Tensor:
        """n rows feature -> n tokens out_size"""
        positions = torch.arange(windows.shape[1], device=windows.device)
        hidden = self.proj_in(windows + self.pos_emb(positions))  # n rows width
        tokens = self.latents.to(hidden).expand(len(windows), -1, -1)
        for layer in self.layers:
            tokens = layer(hidden, tokens)
        return self.norm_out(self.proj_out(tokens))


class ExpressionProjection(nn.Module):
    """The numbers of an expression track -> tokens beside the audio's: 64 coefficients, both lids, gaze right and down.

    The tokens start at zero, so that an untrained projection changes nothing.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        width = config.cross_attention_dim
        self.tokens = config.expression_tokens
        self.proj_in = nn.Linear(config.expression_size, 4 * width)
        self.proj_out = nn.Linear(4 * width, self.tokens * width)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, controls: Tensor) -> Tensor:
        """... size -> ... tokens d"""
        return self.proj_out(functional.silu(self.proj_in(controls))).unflatten(-1, (self.tokens, -1))
