"""Temporal layer: self-attention along the frames of every cell, laid out as AnimateDiff's motion module."""

from __future__ import annotations

from diffusers.models.attention import FeedForward
from einops import rearrange
from torch import Tensor, nn

from ..errors import PortraitError
from .attention import attention
from .positions import sinusoidal_positions


class TemporalBlock(nn.Module):
    """Two temporal self-attentions and a feed-forward on n f c, each behind its norm and with a residual."""

    def __init__(self, channels: int, heads: int, positions: int) -> None:
        super().__init__()
        self.positions = positions
        self.attention_blocks = nn.ModuleList([attention(channels, heads) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(2)])
        self.ff = FeedForward(channels, activation_fn="geglu")
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, hidden: Tensor) -> Tensor:
        """n f c -> n f c"""
        frames, channels = hidden.shape[1:]
        if frames > self.positions:
            raise PortraitError(
                f"a window of {frames} frames is longer than the {self.positions} frame positions of the temporal "
                f"layers: set window to {self.positions} or less"
            )
        place = sinusoidal_positions(frames, channels, hidden)
        for norm, attend in zip(self.norms, self.attention_blocks, strict=True):
            hidden = hidden + attend(norm(hidden) + place)
        return hidden + self.ff(self.ff_norm(hidden))


class MotionModule(nn.Module):
    """Temporal transformer with a residual; its output starts at zero, so frames are independent until it is trained."""

    def __init__(self, channels: int, heads: int, groups: int, positions: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        self.proj_in = nn.Linear(channels, channels)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(channels, heads, positions)])
        self.proj_out = nn.Linear(channels, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, images: Tensor, frames: int) -> Tensor:
        """(b f) c h w -> (b f) c h w"""
        height, width = images.shape[-2:]
        normed = self.norm(images)  # every frame by itself: the statistics do not depend on the window
        hidden = self.proj_in(rearrange(normed, "(b f) c h w -> (b h w) f c", f=frames))
        for block in self.transformer_blocks:
            hidden = block(hidden)
        return images + rearrange(self.proj_out(hidden), "(b h w) f c -> (b f) c h w", h=height, w=width)
