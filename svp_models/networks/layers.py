"""The layers of Stable Diffusion's UNet in plain torch, with the parameter names and the numbers of diffusers' layers.

`import diffusers` loads torch's compiler and a computer algebra system, which takes 3 s, and 10 s on a fresh installation:
with these layers the first clip does not wait for it. diffusers builds the full-size autoencoder alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import PortraitError

MAX_PERIOD = 10000  # of the slowest wave of a timestep


class ResnetBlock(nn.Module):
    """Two convolutions behind norms and a residual: n c h w -> n channels h w. time: size of the time embedding, or none."""

    def __init__(self, channels_in: int, channels: int, time: int | None, groups: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, channels_in, eps)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.time_emb_proj = None if time is None else nn.Linear(time, channels)
        self.norm2 = nn.GroupNorm(groups, channels, eps)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_shortcut = None if channels_in == channels else nn.Conv2d(channels_in, channels, 1)

    def forward(self, images: Tensor, time: Tensor | None = None) -> Tensor:
        """images: n c h w; time: n size."""
        hidden = self.conv1(functional.silu(self.norm1(images)))
        if self.time_emb_proj is not None:
            if time is None:
                raise PortraitError("a block with a time embedding got no time: pass one embedding per image")
            hidden = hidden + self.time_emb_proj(functional.silu(time))[:, :, None, None]
        hidden = self.conv2(functional.silu(self.norm2(hidden)))
        return hidden + (images if self.conv_shortcut is None else self.conv_shortcut(images))


class Downsample(nn.Module):
    """Half the size by a convolution."""

    def __init__(self, channels: int, channels_out: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels_out or channels, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """n c h w -> n channels_out h/2 w/2, odd sizes rounded up"""
        return self.conv(images)


class Upsample(nn.Module):
    """Twice the size, or a given one, and a convolution."""

    def __init__(self, channels: int, channels_out: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels_out or channels, 3, padding=1)

    def forward(self, images: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """n c h w -> n channels_out and the size"""
        height, width = images.shape[-2:]
        return self.conv(functional.interpolate(images, size=size or (2 * height, 2 * width), mode="nearest"))


class GELU(nn.Module):
    """A linear layer and GELU."""

    def __init__(self, channels: int, width: int, bias: bool = True) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, width, bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.gelu(self.proj(hidden))


class GEGLU(nn.Module):
    """A linear layer; one half of its outputs times GELU of the other half."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * width)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden, gate = self.proj(hidden).chunk(2, dim=-1)
        return hidden * functional.gelu(gate)


class FeedForward(nn.Module):
    """Two linear layers with a nonlinearity between them; the identity in `net` is diffusers' dropout of 0."""

    def __init__(self, activation: nn.Module, width: int, channels: int, bias: bool = True) -> None:
        super().__init__()
        self.net = nn.ModuleList([activation, nn.Identity(), nn.Linear(width, channels, bias)])

    def forward(self, hidden: Tensor) -> Tensor:
        return self.net[2](self.net[0](hidden))


class Attention(nn.Module):
    """Multi-head attention as in Stable Diffusion: only the output layer has a bias.

    context: channels of the keys and values, None for self-attention; width: inner channels of all heads together.
    """

    def __init__(self, channels: int, heads: int, context: int | None, width: int, out_bias: bool = True) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, width, bias=False)
        self.to_k = nn.Linear(context or channels, width, bias=False)
        self.to_v = nn.Linear(context or channels, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, channels, bias=out_bias), nn.Identity()])  # as in FeedForward

    def forward(self, hidden: Tensor, context: Tensor | None = None) -> Tensor:
        """hidden: n t c; context: n k c', None for hidden itself -> n t c"""
        context = hidden if context is None else context
        query, key, value = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # n heads t d
            for layer, tokens in ((self.to_q, hidden), (self.to_k, context), (self.to_v, context))
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))


class Timesteps(nn.Module):
    """Sinusoidal embedding of timesteps: b -> b c, cosines and then sines of falling frequency."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, timesteps: Tensor) -> Tensor:
        half = self.channels // 2
        exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) * -math.log(MAX_PERIOD) / half
        angles = timesteps[:, None].float() * exponents.exp()
        return functional.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, self.channels % 2))


class TimestepEmbedding(nn.Module):
    """Two linear layers: sinusoidal embedding b c -> b size."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, size)
        self.linear_2 = nn.Linear(size, size)

    def forward(self, embedding: Tensor) -> Tensor:
        return self.linear_2(functional.silu(self.linear_1(embedding)))


def feed_forward(channels: int) -> FeedForward:
    """Two linear layers with a gated GELU between them."""
    return FeedForward(GEGLU(channels, 4 * channels), 4 * channels, channels)


def attention(channels: int, heads: int, context: int | None = None, width: int = 0) -> Attention:
    """Attention with heads of equal size. width: inner channels, at most `channels`; 0 means `channels`."""
    return Attention(channels, heads, context, min(width or channels, channels) // heads * heads)


class _SkipNormalInit(TorchFunctionMode):
    """Skips normal initialisation: on the meta device it does nothing, but it imports torch's compiler, which takes 3 s."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in (Tensor.normal_, nn.init.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


@contextmanager
def shapes_only() -> Iterator[None]:
    """Within it, new tensors have a shape and a dtype but no memory (torch's meta device), for weights that come from a file."""
    with torch.device("meta"), _SkipNormalInit():
        yield
