"""The layers of Stable Diffusion's UNet in plain torch, with the parameter names and the numbers of diffusers' layers.

`import diffusers` brings torch's compiler and a computer algebra system with it, which takes 3 s on a good day and 10 s on a
fresh installation: these layers spare every first clip that. diffusers stays for the full-size autoencoder.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_PERIOD = 10000  # of the slowest timestep wave


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


class Gelu(nn.Module):
    """A linear layer and GELU."""

    def __init__(self, channels: int, width: int, bias: bool = True) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, width, bias)

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.gelu(self.proj(hidden))


class GatedGelu(nn.Module):
    """A linear layer, half of whose outputs pass as far as GELU of the other half lets them."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, 2 * width)

    def forward(self, hidden: Tensor) -> Tensor:
        hidden, gate = self.proj(hidden).chunk(2, dim=-1)
        return hidden * functional.gelu(gate)


class FeedForward(nn.Module):
    """Two linear layers with a nonlinearity between them; `net` has a place where diffusers keeps a dropout of 0."""

    def __init__(self, inward: nn.Module, width: int, channels: int, bias: bool = True) -> None:
        super().__init__()
        self.net = nn.ModuleList([inward, nn.Identity(), nn.Linear(width, channels, bias)])

    def forward(self, hidden: Tensor) -> Tensor:
        return self.net[2](self.net[0](hidden))


class Attention(nn.Module):
    """Multi-head attention as Stable Diffusion has it: no bias but at the output.

    context: numbers in a row of what is read, none if that is the queries' own; width: inside, all heads together.
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
            layer(rows).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # n heads t d
            for layer, rows in ((self.to_q, hidden), (self.to_k, context), (self.to_v, context))
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        return self.to_out[0](mixed.transpose(1, 2).flatten(2))


class TimestepWaves(nn.Module):
    """Timesteps b -> cosines and sines b c, of falling frequency."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, timesteps: Tensor) -> Tensor:
        half = self.channels // 2
        exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) * -math.log(MAX_PERIOD) / half
        angles = timesteps[:, None].float() * exponents.exp()
        return functional.pad(torch.cat([angles.cos(), angles.sin()], dim=-1), (0, self.channels % 2))


class TimestepEmbedding(nn.Module):
    """Waves b c -> b size."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, size)
        self.linear_2 = nn.Linear(size, size)

    def forward(self, waves: Tensor) -> Tensor:
        return self.linear_2(functional.silu(self.linear_1(waves)))


class ResamplerLayer(nn.Module):
    """A layer of a Perceiver resampler: tokens read the rows and themselves, and are mixed."""

    def __init__(self, width: int, head_size: int, heads: int, mult: int) -> None:
        super().__init__()
        self.ln0 = nn.LayerNorm(width)
        self.ln1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads, None, heads * head_size, out_bias=False)
        inner = int(width * mult)
        inward = Gelu(width, inner, bias=False)
        self.ff = nn.Sequential(nn.LayerNorm(width), FeedForward(inward, inner, width, bias=False))

    def forward(self, rows: Tensor, tokens: Tensor) -> Tensor:
        """rows: n k width; tokens: n t width -> n t width"""
        queries = self.ln1(tokens)
        tokens = self.attn(queries, torch.cat([self.ln0(rows), queries], dim=-2)) + tokens
        return self.ff(tokens) + tokens


def feed_forward(channels: int) -> FeedForward:
    """Two linear layers with a gated GELU between them."""
    return FeedForward(GatedGelu(channels, 4 * channels), 4 * channels, channels)


def attention(channels: int, heads: int, context: int | None = None, width: int = 0) -> Attention:
    """Attention of heads of equal size. width: inside, 0 or more than the channels: as wide as these."""
    return Attention(channels, heads, context, min(width or channels, channels) // heads * heads)


def kl_autoencoder(widths: tuple[int, ...], layers: int, latent_channels: int, scale: float) -> nn.Module:
    """Stable Diffusion's autoencoder."""
    from diffusers import AutoencoderKL  # here, because it takes seconds and only full-size models have it

    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=layers,
        latent_channels=latent_channels,
        scaling_factor=scale,
        sample_size=512,
    )
