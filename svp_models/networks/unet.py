"""The skeleton that Denoiser and ReferenceNet share: Stable Diffusion 1.5's UNet, module names as in diffusers.

ReferenceNet: the portrait's features for the denoiser's reference attention (sec. 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..config import UNetConfig
from .attention import AttentionConfig, BlockContext, SpatialTransformer, TransformerBlock
from .foreground import Foreground
from .layers import Downsample, ResnetBlock, TimestepEmbedding, Timesteps, Upsample
from .motion_module import MotionModule


@dataclass
class DeepFeatures:
    """What a UNet's inner layers hand to its outer ones, stored by one pass and used by later ones (DeepCache, Ma et al. 2024,
    sec. 3.2). layers: of the highest resolution, down and up, that run in every pass; stored: (b f) c h w, or None: the next
    pass runs all layers and stores. foreground: what attention adds outside of the face, stored in the same way, or None: it
    runs over all cells and stores nothing."""

    layers: int = 1
    stored: Tensor | None = None
    foreground: Foreground | None = None


class UNetBlock(nn.Module):
    """Base of the blocks. gradient_checkpointing: their layers store only their inputs and compute the values in between
    again when gradients need them: slower, much less memory, the same gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = False

    def run(self, layer: nn.Module, *inputs: Any) -> Tensor:
        """layer(*inputs), checkpointed if that is on and gradients are wanted."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *inputs, use_reentrant=False)
        return layer(*inputs)

    def attended(self, layer: nn.Module, images: Tensor, given: Any, context: BlockContext) -> Tensor:
        """layer(images, given), around the face alone where the context says so."""
        if context.foreground is None:
            return self.run(layer, images, given)
        return context.foreground.run(layer, images, lambda region: layer(images, given, region))


class Layers(UNetBlock):
    """resnet -> spatial transformer -> motion module, a few times over; the lists hold only what the block has."""

    def __init__(self, config: UNetConfig, channels_in: list[int], level: int, attention: AttentionConfig) -> None:
        super().__init__()
        channels, count = config.block_out_channels[level], len(channels_in)
        attentions = count if config.attention_levels[level] else 0
        self.resnets = nn.ModuleList([resnet(config, width, channels) for width in channels_in])
        self.attentions = nn.ModuleList([transformer(config, level, attention) for _ in range(attentions)])
        self.motion_modules = nn.ModuleList([motion(config, channels) for _ in range(count if attention.motion else 0)])

    def layer(self, index: int, images: Tensor, time: Tensor, context: BlockContext) -> Tensor:
        """One layer: (b f) c_in h w -> (b f) c h w"""
        images = self.run(self.resnets[index], images, time)  # lets go of the input
        return self.attend(index, images, context)

    def attend(self, index: int, images: Tensor, context: BlockContext) -> Tensor:
        """What follows a resnet: (b f) c h w -> (b f) c h w"""
        if self.attentions:
            images = self.attended(self.attentions[index], images, context, context)
        if self.motion_modules and context.temporal:
            images = self.attended(self.motion_modules[index], images, context.frames, context)
        return images


class DownBlock(Layers):
    """Layers at one resolution, then half of it where a lower level follows."""

    def __init__(self, config: UNetConfig, level: int, attention: AttentionConfig) -> None:
        widths = config.block_out_channels
        channels, channels_in = widths[level], widths[max(level - 1, 0)]
        inputs = [channels_in] + [channels] * (config.layers_per_block - 1)
        super().__init__(config, inputs, level, attention)
        last = level == len(widths) - 1
        self.downsamplers = nn.ModuleList([] if last else [Downsample(channels)])

    def forward(self, images: Tensor, time: Tensor, context: BlockContext) -> list[Tensor]:
        """(b f) c_in h w -> the output of every layer and of the downsampler; the last one goes on."""
        outputs = []
        for index in range(len(self.resnets)):
            images = self.layer(index, images, time, context)
            outputs.append(images)
        for downsampler in self.downsamplers:
            outputs.append(downsampler(images))
        return outputs


class MidBlock(UNetBlock):
    """resnet -> spatial transformer (-> motion module) -> resnet at the lowest resolution."""

    def __init__(self, config: UNetConfig, attention: AttentionConfig) -> None:
        super().__init__()
        channels = config.block_out_channels[-1]
        self.resnets = nn.ModuleList([resnet(config, channels, channels) for _ in range(2)])
        self.attentions = nn.ModuleList([transformer(config, -1, attention)])
        with_motion = attention.motion and config.motion_mid_block
        self.motion_modules = nn.ModuleList([motion(config, channels)] if with_motion else [])

    def forward(self, images: Tensor, time: Tensor, context: BlockContext) -> Tensor:
        """(b f) c h w -> (b f) c h w"""
        images = self.run(self.resnets[0], images, time)
        images = self.attended(self.attentions[0], images, context, context)
        for module in self.motion_modules if context.temporal else ():
            images = self.attended(module, images, context.frames, context)
        return self.run(self.resnets[1], images, time)


class UpBlock(Layers):
    """Layers that take one stored output each of the way down, then twice the resolution where a higher level follows."""

    def __init__(self, config: UNetConfig, level: int, attention: AttentionConfig) -> None:
        widths = config.block_out_channels
        channels = widths[level]
        below, above = widths[min(level + 1, len(widths) - 1)], widths[max(level - 1, 0)]
        count = config.layers_per_block + 1
        hidden = [below] + [channels] * (count - 1)
        stored = [channels] * (count - 1) + [above]
        inputs = [first + second for first, second in zip(hidden, stored, strict=True)]
        super().__init__(config, inputs, level, attention)
        self.upsamplers = nn.ModuleList([] if level == 0 else [Upsample(channels)])

    def forward(
        self, stored: list[Tensor], time: Tensor, context: BlockContext, deep: DeepFeatures | None = None
    ) -> Tensor:
        """(b f) c_below h w -> (b f) c h w or twice as large; takes its input and then its stored outputs off the end of the
        list, so that none outlives its use. deep: stores the input of its layers."""
        for index in range(len(self.resnets)):
            if deep is not None and index == len(self.resnets) - deep.layers:
                deep.stored = stored[-1]
            stored.append(self.layer(index, torch.cat([stored.pop(), stored.pop()], dim=1), time, context))
        for upsampler in self.upsamplers:
            # The size of what comes next and not simply the double: odd sizes were rounded up on the way down.
            stored.append(upsampler(stored.pop(), tuple(stored[-1].shape[-2:])))
        return stored.pop()


class UNet(nn.Module):
    """Everything between the first and the last convolution is here; what surrounds them is up to the two networks."""

    def __init__(self, config: UNetConfig, latent_channels: int, attention: AttentionConfig) -> None:
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = nn.Conv2d(latent_channels, widths[0], 3, padding=1)
        self.time_proj = Timesteps(widths[0])
        self.time_embedding = TimestepEmbedding(widths[0], 4 * widths[0])
        levels = range(len(widths))
        self.down_blocks = nn.ModuleList([DownBlock(config, level, attention) for level in levels])
        self.mid_block = MidBlock(config, attention)
        self.up_blocks = nn.ModuleList([UpBlock(config, level, attention) for level in reversed(levels)])
        self.conv_out = nn.Conv2d(widths[0], config.latent_channels, 3, padding=1)
        blocks = self.transformer_blocks()
        for index, block in enumerate(blocks):
            block.index = index
        self.bank_size = len(blocks)

    def set_gradient_checkpointing(self, on: bool) -> None:
        """Switches gradient checkpointing of all blocks on or off, see UNetBlock."""
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            block.gradient_checkpointing = on

    def transformer_blocks(self) -> list[TransformerBlock]:
        """All spatial transformer blocks in module order: down, middle, up. The bank has one entry a block."""
        return [module for module in self.modules() if isinstance(module, TransformerBlock)]

    def embed_time(self, timestep: Tensor) -> Tensor:
        """b -> b 4*c0"""
        return self.time_embedding(self.time_proj(timestep).to(self.conv_in.weight.dtype))

    def backbone(self, images: Tensor, time: Tensor, context: BlockContext, deep: DeepFeatures | None = None) -> Tensor:
        """(b f) c0 h w behind the first convolution -> (b f) c0 h w before the last one. time: (b f) 4*c0; deep: features of the
        inner layers, which do not run where these are stored."""
        if deep is not None and deep.stored is not None:
            return self._outer_layers(images, deep.stored, time, context, deep.layers)
        stored = [images]
        for block in self.down_blocks:
            stored += block(stored[-1], time, context)
        stored.append(self.mid_block(stored[-1], time, context))
        for block in self.up_blocks:
            stored.append(block(stored, time, context, deep if block is self.up_blocks[-1] else None))
        return stored.pop()

    def outer_attention(self, layers: int) -> frozenset[nn.Module]:
        """The attention of the layers that run in every pass, see DeepFeatures: spatial transformers and motion modules."""
        down, up = cast(DownBlock, self.down_blocks[0]), cast(UpBlock, self.up_blocks[-1])
        both = [(down.attentions, slice(layers - 1)), (down.motion_modules, slice(layers - 1))]
        both += [(up.attentions, slice(-layers, None)), (up.motion_modules, slice(-layers, None))]
        return frozenset(module for modules, part in both for module in modules[part])

    def _outer_layers(self, images: Tensor, inner: Tensor, time: Tensor, context: BlockContext, layers: int) -> Tensor:
        """The last layers of the way up on what the inner ones gave before, and those of the way down that they need."""
        down, up = cast(DownBlock, self.down_blocks[0]), cast(UpBlock, self.up_blocks[-1])
        stored = [images]
        for index in range(layers - 1):
            stored.append(down.layer(index, stored[-1], time, context))
        for index in range(len(up.resnets) - layers, len(up.resnets)):
            inner = up.layer(index, torch.cat([inner, stored.pop()], dim=1), time, context)
        return inner


def resnet(config: UNetConfig, channels_in: int, channels: int) -> nn.Module:
    return ResnetBlock(channels_in, channels, 4 * config.block_out_channels[0], config.norm_groups, eps=1e-5)


def transformer(config: UNetConfig, level: int, attention: AttentionConfig) -> SpatialTransformer:
    channels, heads = config.block_out_channels[level], config.attention_heads
    heads = heads if isinstance(heads, int) else heads[level]
    return SpatialTransformer(channels, heads, config.cross_attention_dim, config.norm_groups, attention)


def motion(config: UNetConfig, channels: int) -> MotionModule:
    return MotionModule(channels, config.motion_heads, config.motion_groups, config.motion_positions)


class ReferenceNet(UNet):
    """Stable Diffusion 1.5's UNet without its last norm, run once on the portrait at t = 0.

    The file format it shares with V-Express has `conv_out`; nothing reads that layer's output, so it is never run.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config, config.latent_channels, AttentionConfig())
        self.cross_attention_dim = config.cross_attention_dim

    def forward(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Scaled portrait latent b c h w -> bank: for every transformer block the input of its cross-attention, b t c."""
        batch = len(latent)
        time = self.embed_time(torch.zeros(batch, device=latent.device))
        bank: list[Tensor] = []
        context = BlockContext(frames=1, tokens=latent.new_empty(0, 1, self.cross_attention_dim), bank=bank)
        self.backbone(self.conv_in(latent), time, context)
        return tuple(bank)
