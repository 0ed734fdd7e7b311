"""The layers that come from diffusers. It is imported when the first network is built and not before: that takes seconds,
which the start of a host need not wait for."""

from __future__ import annotations

from torch import nn


def resnet_block(channels_in: int, channels: int, time: int | None, groups: int, eps: float = 1e-6) -> nn.Module:
    """Two convolutions behind norms and a residual: n c h w -> n channels h w. time: size of the time embedding, or none."""
    from diffusers.models.resnet import ResnetBlock2D

    return ResnetBlock2D(in_channels=channels_in, out_channels=channels, temb_channels=time, groups=groups, eps=eps)


def downsample(channels: int, channels_out: int | None = None) -> nn.Module:
    """Half the size by a convolution."""
    from diffusers.models.downsampling import Downsample2D

    return Downsample2D(channels, use_conv=True, out_channels=channels_out, name="op")


def upsample(channels: int, channels_out: int | None = None) -> nn.Module:
    """Twice the size, or a given one, and a convolution."""
    from diffusers.models.upsampling import Upsample2D

    return Upsample2D(channels, use_conv=True, out_channels=channels_out)


def feed_forward(channels: int) -> nn.Module:
    """Two linear layers with a gated GELU between them."""
    from diffusers.models.attention import FeedForward

    return FeedForward(channels, activation_fn="geglu")


def attention(channels: int, heads: int, context: int | None = None, width: int = 0) -> nn.Module:
    """Multi-head attention as Stable Diffusion has it: no bias but at the output. width: inside, 0 that of the channels."""
    from diffusers.models.attention_processor import Attention

    return Attention(
        channels, cross_attention_dim=context, heads=heads, dim_head=min(width or channels, channels) // heads
    )


def timestep_waves(channels: int) -> nn.Module:
    """Timesteps b -> sines and cosines b c."""
    from diffusers.models.embeddings import Timesteps

    return Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)


def timestep_embedding(channels: int, size: int) -> nn.Module:
    """Waves b c -> b size."""
    from diffusers.models.embeddings import TimestepEmbedding

    return TimestepEmbedding(channels, size)


def resampler_layer(width: int, head_size: int, heads: int, feed_forward: int) -> nn.Module:
    """A layer of a Perceiver resampler: queries read and are mixed."""
    from diffusers.models.embeddings import IPAdapterPlusImageProjectionBlock

    return IPAdapterPlusImageProjectionBlock(width, head_size, heads, feed_forward)


def kl_autoencoder(widths: tuple[int, ...], layers: int, latent_channels: int, scale: float) -> nn.Module:
    """Stable Diffusion's autoencoder."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=layers,
        latent_channels=latent_channels,
        scaling_factor=scale,
        sample_size=512,
    )
