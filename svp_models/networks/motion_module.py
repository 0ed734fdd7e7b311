"""Temporal layer: self-attention along the frames of every cell, laid out as AnimateDiff's motion module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from einops import rearrange
from torch import Tensor, nn

from ..errors import PortraitError
from .attention import add_feed_forward, sinusoidal_positions
from .layers import attention, feed_forward

PLACES = "places"  # what positions are called in a model file


class TemporalBlock(nn.Module):
    """Two temporal self-attentions and a feed-forward on n f c, each behind its norm and with a residual."""

    def __init__(self, channels: int, heads: int, positions: int) -> None:
        super().__init__()
        self.positions = positions
        self.register_buffer("places", None, persistent=False)  # positions as a file of weights has them: 2 positions c
        self.attention_blocks = nn.ModuleList([attention(channels, heads) for _ in range(2)])
        self.norms = nn.ModuleList([nn.LayerNorm(channels) for _ in range(2)])
        self.ff = feed_forward(channels)
        self.ff_norm = nn.LayerNorm(channels)

    def forward(self, hidden: Tensor) -> Tensor:
        """n f c -> n f c"""
        frames, channels = hidden.shape[1:]
        if frames > self.positions:
            raise PortraitError(
                f"a window of {frames} frames is longer than the {self.positions} frame positions of the temporal "
                f"layers: set window to {self.positions} or less"
            )
        if self.places is None:
            places = [sinusoidal_positions(frames, channels, hidden)] * 2
        else:
            places = self.places[:, :frames].to(hidden)
        for norm, attend, place in zip(self.norms, self.attention_blocks, places, strict=True):
            hidden = hidden + attend(norm(hidden) + place)
        return add_feed_forward(hidden, self.ff_norm, self.ff)


class MotionModule(nn.Module):
    """Temporal transformer with a residual; its output starts at zero, so frames are independent until it is trained."""

    def __init__(self, channels: int, heads: int, groups: int, positions: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        inner = heads * (channels // heads)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(inner, heads, positions)])
        self.proj_out = nn.Linear(inner, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, images: Tensor, frames: int) -> Tensor:
        """(b f) c h w -> (b f) c h w"""
        height, width = images.shape[-2:]
        hidden = self.norm(images)  # every frame by itself: the statistics do not depend on the window
        hidden = self.proj_in(rearrange(hidden, "(b f) c h w -> (b h w) f c", f=frames))
        for block in self.transformer_blocks:
            hidden = block(hidden)
        return images + rearrange(self.proj_out(hidden), "(b h w) f c -> (b f) c h w", h=height, w=width)


def kept_positions(network: nn.Module) -> dict[str, Tensor]:
    """The positions that its temporal layers have from a file of weights, by name; those that are computed are none of them."""
    found = {
        f"{name}.{PLACES}": each.places for name, each in network.named_modules() if isinstance(each, TemporalBlock)
    }
    return {name: places for name, places in found.items() if places is not None}


def keep_positions(network: nn.Module, positions: Mapping[str, Tensor], path: Path | str) -> None:
    """Gives temporal layers positions from a file, see `kept_positions`; what does not fit them raises PortraitError."""
    blocks = {f"{name}.{PLACES}": each for name, each in network.named_modules() if isinstance(each, TemporalBlock)}
    for name, places in positions.items():
        shape = (2, blocks[name].positions, blocks[name].ff_norm.normalized_shape[0]) if name in blocks else None
        if tuple(places.shape) != shape:
            raise PortraitError(
                f"{path}: {name} has shape {list(places.shape)}, {list(shape or ())} is needed: file and config differ"
            )
        blocks[name].places = places
