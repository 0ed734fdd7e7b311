"""Autoencoders between pixels and latents: the pack's own small one, and Stable Diffusion 1.5's."""

from __future__ import annotations

from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import VaeConfig
from .layers import Downsample, ResnetBlock, Upsample

GROUPS = 8


def _resnets(width: int, layers: int) -> list[nn.Module]:
    return [ResnetBlock(width, width, None, GROUPS) for _ in range(layers)]


class _Stack(nn.Module):
    """Residual blocks in a row, without a time embedding."""

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.blocks = nn.ModuleList(_resnets(width, layers))

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = block(hidden)
        return hidden


class RunningNorm(nn.Module):
    """Zero mean and unit variance per channel by running statistics, in training too.

    A batch's own statistics (BatchNorm) would hide its mean colour from the decoder.
    """

    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, momentum: float = 0.01):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, hidden: Tensor) -> Tensor:
        """n c h w -> n c h w; training mode also updates the running statistics."""
        if self.training:
            now = hidden.detach().to(self.mean)  # half precision would lose the small updates
            self.mean.lerp_(now.mean((0, 2, 3)), self.momentum)
            spread = (now - self.mean[:, None, None]).square().mean((0, 2, 3))
            self.variance.lerp_(spread, self.momentum)
        mean, variance = self.mean.to(hidden), self.variance.to(hidden)
        return (hidden - mean[:, None, None]) / variance[:, None, None].sqrt()


class PortraitVae(nn.Module):
    """Small autoencoder for synthetic portraits; latents have zero mean and, unless rescaled, unit variance per channel.

    A linear path maps each patch of pixels to its latent and back, as principal components do (`init_from_pca`);
    convolutions add the rest. Full-resolution convolutions are slow on a CPU, so pixels are folded into channels first and
    unfolded last (pixel shuffle). Training updates the statistics of the latents in buffers, and the network applies them
    itself, so that `VaeConfig.scale` is 1.
    """

    def __init__(self, config: VaeConfig):
        super().__init__()
        encoder, decoder = config.encoder_widths, config.decoder_widths
        unfold = config.downscale // 2 ** (len(decoder) - 1)
        self.config = config
        self.fold, self.unfold = config.fold, unfold

        layers: list[nn.Module] = [nn.Conv2d(3 * config.fold**2, encoder[0], 3, padding=1)]
        for index, width in enumerate(encoder):
            if index:
                layers.append(Downsample(encoder[index - 1], width))
            layers.append(_Stack(width, config.layers))
        self.encoder = nn.Sequential(
            *layers,
            nn.GroupNorm(GROUPS, encoder[-1]),
            nn.SiLU(),
            nn.Conv2d(encoder[-1], config.latent_channels, 3, padding=1),
        )

        layers = [nn.Conv2d(config.latent_channels, decoder[0], 3, padding=1)]
        for index, width in enumerate(decoder):
            if index:
                layers.append(Upsample(decoder[index - 1], width))
            layers.append(_Stack(width, config.layers))
        self.decoder = nn.Sequential(
            *layers, nn.GroupNorm(GROUPS, decoder[-1]), nn.SiLU(), nn.Conv2d(decoder[-1], 3 * unfold**2, 3, padding=1)
        )
        patch = 3 * config.downscale**2
        self.patch_encoder = nn.Conv2d(patch, config.latent_channels, 1)
        self.patch_decoder = nn.Conv2d(config.latent_channels, patch, 1)
        for last in (self.encoder[-1], self.decoder[-1]):  # training starts from the linear path alone
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        self.statistics = RunningNorm(config.latent_channels)

    def encode(self, images: Tensor) -> Tensor:
        """Images n x 3 x H x W in [-1, 1] -> latents n x c x H/8 x W/8, unit variance."""
        folded = functional.pixel_unshuffle(images, self.fold)  # n 3*fold^2 H/fold W/fold
        patches = functional.pixel_unshuffle(images, self.config.downscale)  # n 192 H/8 W/8
        return self.statistics(self.encoder(folded) + self.patch_encoder(patches))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents n x c x h x w, unit variance -> images n x 3 x 8h x 8w, nominally in [-1, 1]."""
        patches = functional.pixel_shuffle(self.patch_decoder(latents), self.config.downscale)  # n 3 8h 8w
        return patches + functional.pixel_shuffle(self.decoder(latents), self.unfold)

    @torch.no_grad()
    def init_from_pca(self, images: Tensor) -> None:
        """Sets the linear path to the principal components of the images' patches (n x 3 x H x W in [-1, 1])."""
        patches = functional.pixel_unshuffle(images, self.config.downscale).movedim(1, -1).flatten(0, 2)  # m 192
        mean = patches.mean(0)
        covariance = (patches - mean).T @ (patches - mean) / len(patches)
        variances, components = torch.linalg.eigh(covariance)  # ascending
        count = self.config.latent_channels
        deviations, components = variances[-count:].sqrt(), components[:, -count:].T  # c, c 192
        self.patch_encoder.weight.copy_((components / deviations[:, None])[..., None, None])
        self.patch_encoder.get_parameter("bias").copy_(-(components @ mean) / deviations)
        self.patch_decoder.weight.copy_((components.T * deviations)[..., None, None])
        self.patch_decoder.get_parameter("bias").copy_(mean)

    @torch.no_grad()
    def rescale(self, factors: Tensor) -> None:
        """Multiplies each latent channel by its factor (c); decoded images stay the same."""
        self.statistics.variance /= factors.square()
        for first in (self.decoder[0], self.patch_decoder):
            first.get_parameter("weight").div_(factors[:, None, None])


def _autoencoder_kl(widths: tuple[int, ...], layers: int, latent_channels: int, scale: float) -> Any:
    """Stable Diffusion's autoencoder, with the pack's layer where the decoder doubles the size: the same numbers, sooner."""
    from diffusers import AutoencoderKL  # lazy: the import takes seconds, and only full-size models need it

    autoencoder = AutoencoderKL(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * len(widths),
        up_block_types=("UpDecoderBlock2D",) * len(widths),
        layers_per_block=layers,
        latent_channels=latent_channels,
        scaling_factor=scale,
        sample_size=512,
    )
    blocks = list(cast(nn.Module, autoencoder).get_submodule("decoder.up_blocks").children())
    for block, width in zip(blocks[:-1], reversed(widths[1:]), strict=True):
        block.upsamplers = nn.ModuleList([Upsample(width)])
    return autoencoder


class StableDiffusionVae(nn.Module):
    """SD1.5's AutoencoderKL (diffusers); encodes to the posterior mean. Latents are unscaled (x 0.18215 for the denoiser)."""

    def __init__(self, config: VaeConfig):
        super().__init__()
        self.config = config
        self.autoencoder = _autoencoder_kl(config.encoder_widths, config.layers, config.latent_channels, config.scale)

    def encode(self, images: Tensor) -> Tensor:
        """Images n x 3 x H x W in [-1, 1] -> latents n x 4 x H/8 x W/8, unscaled posterior mean."""
        return self.autoencoder.encode(images).latent_dist.mode()

    def decode(self, latents: Tensor) -> Tensor:
        """Latents n x 4 x h x w, unscaled -> images n x 3 x 8h x 8w, nominally in [-1, 1]."""
        return self.autoencoder.decode(latents).sample


Vae: TypeAlias = PortraitVae | StableDiffusionVae


def build_vae(config: VaeConfig) -> Vae:
    """The autoencoder that `config.kind` names."""
    return PortraitVae(config) if config.kind == "portrait" else StableDiffusionVae(config)


@torch.no_grad()
def encode_images(vae: Vae, images: Tensor) -> Tensor:
    """`vae.encode` on the VAE's device and dtype; the result is float32 on the images' device."""
    weight = next(vae.parameters())
    return vae.encode(images.to(weight)).to(images.device, torch.float32)
