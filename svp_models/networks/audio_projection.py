"""Audio projection: a window of audio features around a frame -> a few tokens (sec. 3.2), a Perceiver resampler."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import AudioConfig
from .layers import ResamplerLayer


class AudioProjection(nn.Module):
    """Learned queries read the rows of the window (with learned positions) through layers of cross-attention."""

    def __init__(self, config: AudioConfig, out_size: int) -> None:
        super().__init__()
        width = config.width or out_size
        # Drawn in place: see `shapes_only`
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
        places = torch.arange(windows.shape[1], device=windows.device)
        hidden = self.proj_in(windows + self.pos_emb(places))  # n rows width
        tokens = self.latents.to(hidden).expand(len(windows), -1, -1)
        for layer in self.layers:
            tokens = layer(hidden, tokens)
        return self.norm_out(self.proj_out(tokens))
