"""Blocks of the pack's motion generator: transformers over frames whose attention is local, so that a clip may be of any length."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from .motion_generators.kdtalker import RotaryEmbedding


class BlockSizes(Protocol):
    """width, heads, feed_forward: of a block; condition_width: of what modulates it; reach: how many frames away a frame attends."""

    @property
    def width(self) -> int: ...

    @property
    def heads(self) -> int: ...

    @property
    def feed_forward(self) -> int: ...

    @property
    def condition_width(self) -> int: ...

    @property
    def reach(self) -> int: ...


def zeros(layer: nn.Linear) -> nn.Linear:
    """The layer with nothing in it: what it adds begins as nothing."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def local_attention(q: Tensor, k: Tensor, v: Tensor, reach: int, causal: bool) -> Tensor:
    """Attention of every frame to those at most `reach` frames away, causal: before it. b h n d -> b h n d.

    Frames are taken in blocks of `reach`: the time grows with n, not with its square.
    """
    batch, heads, frames, size = q.shape
    blocks = -(-frames // reach)
    spare = blocks * reach - frames
    around = 2 if causal else 3
    queries = functional.pad(q, (0, 0, 0, spare)).unflatten(2, (blocks, reach))
    behind = (0, 0, reach, spare + (0 if causal else reach))
    keys, values = (
        functional.pad(part, behind).unfold(2, around * reach, reach).transpose(-1, -2) for part in (k, v)
    )  # b h blocks around*reach d
    mask = local_mask(frames, reach, causal, q.device)  # blocks reach around*reach
    queries, keys, values = (
        part.transpose(1, 2).reshape(batch * blocks, heads, -1, size) for part in (queries, keys, values)
    )
    found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask.repeat(batch, 1, 1)[:, None])
    found = found.view(batch, blocks, heads, reach, size).transpose(1, 2)
    return found.reshape(batch, heads, blocks * reach, size)[:, :, :frames]


def local_mask(frames: int, reach: int, causal: bool, device: torch.device | str = "cpu") -> Tensor:
    """True where a frame may look: blocks x reach x (2 or 3 reach). Frames beyond the clip's end look at themselves."""
    blocks = -(-frames // reach)
    around = 2 if causal else 3
    query = torch.arange(blocks * reach, device=device).view(blocks, reach, 1)
    key = torch.arange(around * reach, device=device) + (torch.arange(blocks, device=device)[:, None, None] - 1) * reach
    near = (key <= query) & (query - key <= reach) if causal else (key - query).abs() <= reach
    return (near & (key >= 0) & (key < frames)) | (query == key)


class _Attention(nn.Module):
    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.heads, self.reach = sizes.heads, sizes.reach
        self.to_qkv = nn.Linear(sizes.width, 3 * sizes.width)
        self.to_out = nn.Linear(sizes.width, sizes.width)
        self.rotary = RotaryEmbedding(sizes.width // sizes.heads // 2)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        """b n w -> b n w"""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.to_qkv(x).chunk(3, dim=-1))
        found = local_attention(self.rotary(q), self.rotary(k), v, self.reach, causal)
        return self.to_out(found.transpose(1, 2).flatten(2))


def _feed_forward(sizes: BlockSizes) -> nn.Sequential:
    inner = sizes.feed_forward * sizes.width
    return nn.Sequential(nn.Linear(sizes.width, inner), nn.GELU(), nn.Linear(inner, sizes.width))


class VoiceBlock(nn.Module):
    """Attention and feed-forward behind norms, each added: b n w -> b n w."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(sizes.width), nn.LayerNorm(sizes.width)
        self.attention, self.feed_forward = _Attention(sizes), _feed_forward(sizes)

    def forward(self, x: Tensor, causal: bool) -> Tensor:
        x = x + self.attention(self.norm1(x), causal)
        return x + self.feed_forward(self.norm2(x))


class MotionBlock(nn.Module):
    """The same, each part scaled, shifted and gated by the condition (Peebles and Xie 2023, adaLN-zero): it begins as identity."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(sizes.width, elementwise_affine=False)
        self.modulation = zeros(nn.Linear(sizes.condition_width, 6 * sizes.width))
        self.attention, self.feed_forward = _Attention(sizes), _feed_forward(sizes)

    def forward(self, x: Tensor, condition: Tensor, causal: bool) -> Tensor:
        """b n w, b 1 c or b n c -> b n w"""
        scale1, shift1, gate1, scale2, shift2, gate2 = self.modulation(condition).chunk(6, dim=-1)
        x = x + gate1 * self.attention(self.norm(x) * (1 + scale1) + shift1, causal)
        return x + gate2 * self.feed_forward(self.norm(x) * (1 + scale2) + shift2)
