"""Temporal layer: self-attention along the frames of every cell, laid out as AnimateDiff's motion module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from einops import rearrange
from torch import Tensor, nn

from ..errors import PortraitError
from .attention import add_feed_forward, sinusoidal_encoding
from .foreground import Region
from .layers import add, attention, feed_forward

STORED_ENCODING = "places"  # name of the positional encoding in model files


class TemporalBlock(nn.Module):
    """Two temporal self-attentions and a feed-forward on n f c, each after its norm and with a residual."""

    positional_encoding: Tensor | None

    def __init__(self, channels: int, heads: int, positions: int) -> None:
        super().__init__()
        self.positions = positions  # longest window in frames
        # 2 positions c, one encoding per attention, where a weight file brings its own (rounded) ones; None: computed
        self.register_buffer("positional_encoding", None, persistent=False)
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
        if self.positional_encoding is None:
            encodings = sinusoidal_encoding(frames, channels, hidden).expand(2, -1, -1)
        else:
            encodings = self.positional_encoding[:, :frames].to(hidden)
        for norm, attend, encoding in zip(self.norms, self.attention_blocks, encodings, strict=True):
            hidden = add(attend(add(norm(hidden), encoding)), hidden)
        return add_feed_forward(hidden, self.ff_norm, self.ff)


class MotionModule(nn.Module):
    """Temporal transformer with a residual; its output starts at zero, so that frames are independent until it is trained."""

    def __init__(self, channels: int, heads: int, groups: int, positions: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        inner = heads * (channels // heads)
        self.proj_in = nn.Linear(channels, inner)
        self.transformer_blocks = nn.ModuleList([TemporalBlock(inner, heads, positions)])
        self.proj_out = nn.Linear(inner, channels)
        nn.init.zeros_(self.proj_out.weight)
        nn.init.zeros_(self.proj_out.bias)

    def forward(self, images: Tensor, frames: int, region: Region | None = None) -> Tensor:
        """(b f) c h w -> (b f) c h w. region: the cells that are computed and returned."""
        hidden = self.norm(images)  # per frame, so that the statistics do not depend on the window
        if region is not None:
            hidden, images = (maps[:, :, region[0], region[1]] for maps in (hidden, images))
        height, width = images.shape[-2:]
        hidden = self.proj_in(rearrange(hidden, "(b f) c h w -> (b h w) f c", f=frames))
        for block in self.transformer_blocks:
            hidden = block(hidden)
        hidden = rearrange(self.proj_out(hidden), "(b h w) f c -> (b f) c h w", h=height, w=width)
        return images + hidden


def stored_encodings(network: nn.Module) -> dict[str, Tensor]:
    """Positional encodings that temporal layers have from a weight file, by name; computed ones are left out."""
    encodings = {name: block.positional_encoding for name, block in _temporal_blocks(network).items()}
    return {name: encoding for name, encoding in encodings.items() if encoding is not None}


def set_encodings(network: nn.Module, encodings: Mapping[str, Tensor], path: Path | str) -> None:
    """Gives temporal layers the positional encodings of a file, named as in `stored_encodings`.

    A name or shape that does not fit the network raises PortraitError.
    """
    blocks = _temporal_blocks(network)
    for name, encoding in encodings.items():
        shape = (2, blocks[name].positions, blocks[name].ff_norm.normalized_shape[0]) if name in blocks else None
        if tuple(encoding.shape) != shape:
            raise PortraitError(
                f"{path}: {name} has shape {list(encoding.shape)}, {list(shape or ())} is needed: file and config differ"
            )
        blocks[name].positional_encoding = encoding


def _temporal_blocks(network: nn.Module) -> dict[str, TemporalBlock]:
    """The temporal blocks by the name of their positional encoding in a model file."""
    modules = network.named_modules()
    return {f"{name}.{STORED_ENCODING}": module for name, module in modules if isinstance(module, TemporalBlock)}
