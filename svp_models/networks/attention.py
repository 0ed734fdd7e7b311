"""Attention blocks of the UNets (sec. 3.2), named as diffusers names them, and sinusoidal positional encodings.

A spatial block runs self -> reference -> audio -> style attention and a feed-forward layer on the cells of each image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .conditions import AS_TRAINED, UNPREPARED, ConditionKeys, ConditionWeights
from .foreground import Foreground, Region
from .layers import Attention, KeysValues, add, attention, feed_forward

FEED_FORWARD_CHUNK = 2**22  # input values that a feed-forward layer processes at once
CPU_TOKENS = 1024  # the same on the CPU, in tokens: few enough for its cache, enough for products of matrices


def sinusoidal_encoding(length: int, channels: int, like: Tensor) -> Tensor:
    """Sinusoidal positional encoding, length x channels: sine on even channels, cosine on odd ones.

    like: gives dtype and device. It is computed in float32 at every call, so that no checkpoint stores (and rounds) a table.
    """
    positions = torch.arange(length, dtype=torch.float32, device=like.device)
    rates = torch.exp(
        torch.arange(0, channels, 2, dtype=torch.float32, device=like.device) * (-math.log(1e4) / channels)
    )
    angles = torch.outer(positions, rates)  # length channels/2
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like.dtype)


@dataclass(frozen=True)
class AttentionConfig:
    """Which attention layers a UNet's blocks have in addition to Stable Diffusion's."""

    reference: bool = False
    style: bool = False
    style_width: int = 0  # inner width of the style attention; 0: the block's own width, which is the maximum
    motion: bool = False


@dataclass(frozen=True)
class BlockContext:
    """Inputs that all transformer blocks of one UNet pass share.

    frames: f, images are folded as (b f); tokens: (b f) n d, audio; style: (b f) n d, or b n d for all frames of a clip, or None;
    reference: the bank to read, one b x tokens x channels per block; where these three are shorter, the first clips have zeros
    there; keys: what the blocks have made of them before, which they read instead; bank: the list that a ReferenceNet's blocks
    append to, None in the denoiser; temporal: whether the temporal layers run; foreground: where attention runs, None for
    everywhere.
    """

    frames: int
    tokens: Tensor
    style: Tensor | None = None
    weights: ConditionWeights = AS_TRAINED
    style_serves: int = 1  # successive images that a row of the style is for
    reference: tuple[Tensor, ...] = ()
    keys: ConditionKeys = UNPREPARED
    bank: list[Tensor] | None = None
    temporal: bool = True
    foreground: Foreground | None = None


def add_feed_forward(fresh: Tensor, norm: nn.LayerNorm, layer: nn.Module) -> Tensor:
    """fresh + layer(norm(fresh)) for n t c; where no gradient is wanted in its place, in chunks of tokens.

    The layer holds twelve values inside for one of its input: all tokens at once would set the memory peak of a step.
    """
    if torch.is_grad_enabled():
        return fresh + layer(norm(fresh))
    on_cpu, channels = fresh.device.type == "cpu", fresh.shape[-1]
    for chunk in fresh.view(-1, channels).split(CPU_TOKENS if on_cpu else max(1, FEED_FORWARD_CHUNK // channels)):
        chunk.add_(layer(norm(chunk)))
    return fresh


def add_attention(fresh: Tensor, norm: nn.LayerNorm, layer: Attention, given: KeysValues, weight: float) -> Tensor:
    """fresh + weight * layer(norm(fresh), given), in the place of fresh where no gradient is wanted. fresh: n t c; given: keys and
    values for n rows, or for fewer, the last ones: the first have zero tokens, to which attention is a constant."""
    first = len(fresh) - given.rows * given.serves
    parts = []
    if first:
        parts.append(add(fresh[:first], layer.to_nothing(fresh) * weight))
    if given.rows:
        rest = fresh[first:]
        # All rows that share their keys are one long row of queries.
        queries = norm(rest).reshape(given.rows, -1, rest.shape[-1])
        parts.append(add(rest, weighted(layer.attend(queries, given), weight).view_as(rest)))
    if torch.is_grad_enabled():
        return torch.cat(parts) if len(parts) > 1 else parts[0]
    return fresh


def weighted(fresh: Tensor, weight: float) -> Tensor:
    """weight * fresh, in place of it where no gradient is wanted."""
    if weight == 1:
        return fresh
    return fresh * weight if torch.is_grad_enabled() else fresh.mul_(weight)


class TransformerBlock(nn.Module):
    """One transformer block on tokens (b f) t c; the UNet sets `index`, its position in the reference bank."""

    def __init__(self, channels: int, heads: int, context: int, config: AttentionConfig) -> None:
        super().__init__()
        self.index = 0
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = attention(channels, heads)
        if config.reference:
            self.reference_norm = nn.LayerNorm(channels)
            self.reference_attn = attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.attn2 = attention(channels, heads, context)
        if config.style:
            self.style_norm = nn.LayerNorm(channels)
            self.style_attn = attention(channels, heads, context, config.style_width)
            # Zero output: before stage 3 the style layers change nothing.
            for parameter in self.style_attn.to_out[0].parameters():
                nn.init.zeros_(parameter)
        self.norm3 = nn.LayerNorm(channels)
        self.ff = feed_forward(channels)

    def forward(self, hidden: Tensor, context: BlockContext, others: Tensor | None = None) -> Tensor:
        """(b f) t c -> (b f) t c. others: (b f) k c, all tokens of the images, which `hidden` attends to where it has some of them."""
        weights, cells = context.weights, hidden.shape[1]
        hidden = add(self.attn1(self.norm1(hidden), None if others is None else self.norm1(others)), hidden)
        looks = weights.reference and self.index not in weights.without_reference
        if (context.reference or context.keys.reference) and looks:
            reference = self._of(context.keys.reference) or self.reference_keys(
                context.reference[self.index], cells, context.frames
            )
            hidden = add_attention(hidden, self.reference_norm, self.reference_attn, reference, weights.reference)
        if context.bank is not None:
            context.bank.append(self.norm2(hidden))
        if weights.audio:
            audio = self._of(context.keys.audio) or self.audio_keys(context.tokens, cells)
            hidden = add_attention(hidden, self.norm2, self.attn2, audio, weights.audio)
        if context.style is not None and weights.style:
            # z_s = z_a + CrossAttn(Q(z_a), K(s), V(s)) (5)
            style = self._of(context.keys.style) or self.style_keys(context.style, cells, context.style_serves)
            hidden = add_attention(hidden, self.style_norm, self.style_attn, style, weights.style)
        return add_feed_forward(hidden, self.norm3, self.ff)

    def reference_keys(self, bank: Tensor, cells: int, frames: int) -> KeysValues:
        """Keys and values of the portrait's features b k c, once for all frames of a clip."""
        return self.reference_attn.keys_values(bank, cells * frames, frames)

    def audio_keys(self, tokens: Tensor, cells: int) -> KeysValues:
        """Keys and values of the audio tokens (b f) k d."""
        return self.attn2.keys_values(tokens, cells)

    def style_keys(self, tokens: Tensor, cells: int, serves: int) -> KeysValues:
        """Keys and values of style tokens n k d, of which one row is for `serves` successive images."""
        return self.style_attn.keys_values(tokens, cells * serves, serves)

    def _of(self, keys: tuple[KeysValues, ...]) -> KeysValues | None:
        return keys[self.index] if keys else None


class SpatialTransformer(nn.Module):
    """GroupNorm, 1x1 convolution in, one transformer block over the cells of each image, 1x1 convolution out, residual."""

    def __init__(self, channels: int, heads: int, context: int, groups: int, config: AttentionConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, channels, eps=1e-6)
        inner = heads * (channels // heads)  # as in diffusers where the heads do not divide the channels
        self.proj_in = nn.Conv2d(channels, inner, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(inner, heads, context, config)])
        self.proj_out = nn.Conv2d(inner, channels, 1)

    def forward(self, images: Tensor, context: BlockContext, region: Region | None = None) -> Tensor:
        """(b f) c h w -> (b f) c h w. region: the cells that attend, and that are returned; all cells are attended to."""
        tokens, others = self.proj_in(self.norm(images)), None
        if region is not None:
            others = tokens.flatten(2).transpose(1, 2).contiguous()  # (b f) (h w) c
            tokens, images = (maps[:, :, region[0], region[1]] for maps in (tokens, images))
        height, width = images.shape[-2:]
        hidden = tokens.flatten(2).transpose(1, 2).contiguous()  # (b f) (h w) c
        del tokens
        for block in self.transformer_blocks:
            hidden = block(hidden, context, others)
        hidden = hidden.transpose(1, 2).unflatten(2, (height, width))  # (b f) c h w
        return add(self.proj_out(hidden), images)
