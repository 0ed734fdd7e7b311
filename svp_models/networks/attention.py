"""Spatial transformer: self -> reference -> audio -> style -> feed-forward (sec. 3.2), named as diffusers names it.

Sinusoidal positions, shared by the temporal layers and the style extractor.

Building networks whose weights come from a file: neither memory nor time is spent on random ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .conditions import AS_TRAINED, ConditionWeights
from .layers import attention, feed_forward

AT_ONCE = 2**22  # numbers that a feed-forward layer is given at once


@dataclass(frozen=True)
class BlockKind:
    """Which layers a UNet's blocks have beside those of Stable Diffusion."""

    reference: bool = False
    style: bool = False
    style_width: int = 0  # of the style attention inside; 0: as wide as the block, which is the most
    motion: bool = False


@dataclass(frozen=True)
class BlockContext:
    """What one pass through a UNet hands to all of its transformer blocks.

    frames: f, images are folded as (b f); tokens: (b f) n d, audio; style: (b f) n d or None; reference: the bank to read, one
    b x tokens x channels per block; bank: the list a ReferenceNet's blocks append to, None in the denoiser; temporal: whether
    the temporal layers take part.
    """

    frames: int
    tokens: Tensor
    style: Tensor | None = None
    weights: ConditionWeights = AS_TRAINED
    reference: tuple[Tensor, ...] = ()
    bank: list[Tensor] | None = None
    temporal: bool = True


def add_feed_forward(hidden: Tensor, norm: nn.LayerNorm, layer: nn.Module) -> Tensor:
    """hidden + layer(norm(hidden)) for n t c, a bounded number of tokens at a time.

    Inside, the layer holds sixteen numbers for one of its input: all tokens at once would set the peak of a whole step.
    """
    parts = hidden.flatten(0, 1).split(max(1, AT_ONCE // hidden.shape[-1]))
    return torch.cat([part + layer(norm(part)) for part in parts]).view_as(hidden)


class TransformerBlock(nn.Module):
    """One transformer block on tokens (b f) t c; `index` is its place in the reference bank, set by the UNet."""

    def __init__(self, channels: int, heads: int, context: int, kind: BlockKind) -> None:
        super().__init__()
        self.index = 0
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = attention(channels, heads)
        if kind.reference:
            self.reference_norm = nn.LayerNorm(channels)
            self.reference_attn = attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = attention(channels, heads, context)
        if kind.style:
            self.style_norm = nn.LayerNorm(channels)
            self.style_attn = attention(channels, heads, context, kind.style_width)
            # Zero output: before stage 3 the style layers change nothing.
            nn.init.zeros_(self.style_attn.to_out[0].weight)
            nn.init.zeros_(self.style_attn.to_out[0].bias)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = feed_forward(channels)

    def forward(self, hidden: Tensor, context: BlockContext) -> Tensor:
        """(b f) t c -> (b f) t c"""
        hidden = hidden + self.attn1(self.norm1(hidden))
        if context.reference:
            hidden = hidden + self._reference(hidden, context) * context.weights.reference
        normed = self.norm2(hidden)
        if context.bank is not None:
            context.bank.append(normed)
        hidden = hidden + self.attn2(normed, context.tokens) * context.weights.audio
        if context.style is not None:
            # z_s = z_a + CrossAttn(Q(z_a), K(s), V(s)) (5)
            hidden = hidden + self.style_attn(self.style_norm(hidden), context.style) * context.weights.style
        return add_feed_forward(hidden, self.norm3, self.ff)

    def _reference(self, hidden: Tensor, context: BlockContext) -> Tensor:
        # All frames of a clip ask the same portrait: as one long row of queries its keys and values are made once.
        frames, (tokens, channels) = context.frames, hidden.shape[1:]
        queries = self.reference_norm(hidden).view(-1, frames * tokens, channels)  # b (f t) c
        return self.reference_attn(queries, context.reference[self.index]).view(-1, tokens, channels)


class SpatialTransformer(nn.Module):
    """GroupNorm, 1x1 convolution in, one transformer block over the cells of each image, 1x1 convolution out, residual."""

    def __init__(self, channels: int, heads: int, context: int, groups: int, kind: BlockKind) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        inner = heads * (channels // heads)  # as diffusers has it where the heads do not divide the channels
        self.proj_in = nn.Conv2d(channels, inner, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(inner, heads, context, kind)])
        self.proj_out = nn.Conv2d(inner, channels, 1)

    def forward(self, images: Tensor, context: BlockContext) -> Tensor:
        """(b f) c h w -> (b f) c h w"""
        height, width = images.shape[-2:]
        hidden = self.proj_in(self.norm(images)).flatten(2).transpose(1, 2)  # (b f) (h w) c
        for block in self.transformer_blocks:
            hidden = block(hidden.contiguous(), context)
        hidden = hidden.transpose(1, 2).unflatten(2, (height, width))  # (b f) c h w
        return images + self.proj_out(hidden)


def sinusoidal_positions(length: int, channels: int, like: Tensor) -> Tensor:
    """length x channels in the dtype and on the device of `like`: sine on even channels, cosine on odd ones.

    Computed anew at every call, in float32, so that no checkpoint has to carry (and round) a table.
    """
    steps = torch.arange(length, dtype=torch.float32, device=like.device)
    rates = torch.exp(
        torch.arange(0, channels, 2, dtype=torch.float32, device=like.device) * (-math.log(1e4) / channels)
    )
    angles = torch.outer(steps, rates)  # length channels/2
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like.dtype)


class _Unfilled(TorchFunctionMode):
    """Leaves out the draws of normal numbers. Without memory behind them they are nothing, yet they bring in torch's compiler,
    whose import takes 3 s."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within, tensors have a shape and a type and nothing else: torch's device `meta`."""
    with torch.device("meta"), _Unfilled():
        yield
