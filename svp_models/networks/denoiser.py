"""Denoising UNet of a clip: Stable Diffusion 1.5's with reference, audio, style and temporal attention (sec. 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..config import UNetConfig
from ..errors import PortraitError
from .attention import AttentionConfig, BlockContext
from .conditions import AS_TRAINED, Conditions, ConditionWeights
from .layers import KeysValues
from .unet import DeepFeatures, UNet


class Denoiser(UNet):
    """Noisy latents and conditions -> noise or velocity, whichever the schedule predicts."""

    def __init__(self, config: UNetConfig, style: bool) -> None:
        inputs = config.latent_channels * (1 + config.reference_concat + config.reference_warp)
        super().__init__(config, inputs, AttentionConfig(True, style, config.style_width, motion=True))
        self.reference_concat, self.reference_warp = config.reference_concat, config.reference_warp
        self.style = style
        self.condition_embedding = config.condition_embedding
        self.expression_tokens = config.expression_tokens if config.expression_size else 0
        if config.condition_embedding:
            time = 4 * config.block_out_channels[0]
            self.audio_embedding = nn.Linear(config.cross_attention_dim, time, bias=False)
            self.style_embedding = nn.Linear(config.cross_attention_dim, time, bias=False)
            for embedding in (self.audio_embedding, self.style_embedding):
                nn.init.zeros_(embedding.weight)
            if config.expression_size:
                # Not zero: its tokens are at first, and nothing would learn where both factors are.
                self.expression_embedding = nn.Linear(config.cross_attention_dim, time, bias=False)
        self.conv_norm_out = nn.GroupNorm(config.norm_groups, config.block_out_channels[0], eps=1e-5)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        conditions: Conditions,
        weights: ConditionWeights = AS_TRAINED,
        temporal: bool = True,
        deep: DeepFeatures | None = None,
    ) -> Tensor:
        """latents: b f c h w, scaled and noisy; timestep: (b,), 0..999, may be fractional, or one for every frame, (b, f) -> b f c h w

        temporal: False leaves the temporal layers out, as in the first stage of training; deep: see `UNet.backbone`.
        """
        self._check(latents, conditions)
        batch, frames = latents.shape[:2]
        if self.reference_concat and conditions.reference_latent is not None:
            portrait = conditions.reference_latent[:, None].expand(-1, frames, -1, -1, -1)
            latents = torch.cat([latents, portrait], dim=2)  # b f 2c h w
        if self.reference_warp and conditions.reference_warped is not None:
            latents = torch.cat([latents, conditions.reference_warped], dim=2)  # b f 3c h w
        images = self.conv_in(latents.flatten(0, 1)) + conditions.kps.flatten(0, 1)  # (b f) c0 h w
        if timestep.dim() == 1:
            time = self.embed_time(timestep).repeat_interleave(frames, dim=0)  # (b f) 4*c0
        else:
            time = self.embed_time(timestep.flatten())
        if self.condition_embedding:
            time = time + self._embed_conditions(conditions, weights).flatten(0, 1)
        style = conditions.style
        context = BlockContext(
            frames=frames,
            tokens=self._tokens(conditions),
            style=None if style is None else style.flatten(0, 1),
            weights=weights,
            style_serves=_serves(style, frames),
            reference=conditions.reference,
            keys=conditions.keys,
            temporal=temporal,
            foreground=None if deep is None else deep.foreground,
        )
        images = self.backbone(images, time, context, deep)
        images = self.conv_out(functional.silu(self.conv_norm_out(images)))
        return images.unflatten(0, (batch, frames))

    def reference_keys(self, bank: tuple[Tensor, ...], frames: int) -> tuple[KeysValues, ...]:
        """Keys and values of the portrait for clips of so many frames, see `ConditionKeys`. bank: b x tokens x channels per block."""
        blocks = zip(self.transformer_blocks(), bank, strict=True)
        return tuple(block.reference_keys(features, features.shape[1], frames) for block, features in blocks)

    def prepare(
        self, conditions: Conditions, cells: Sequence[int], weights: ConditionWeights = AS_TRAINED
    ) -> Conditions:
        """The same conditions with the keys and values of audio, expression and style, which serve every step of the sampling; a
        condition of weight 0 gets none. cells: of the images, for every transformer block."""
        blocks = list(zip(self.transformer_blocks(), cells, strict=True))
        style, frames, keys = conditions.style, conditions.audio.shape[1], conditions.keys
        if weights.audio:
            tokens = self._tokens(conditions)
            keys = replace(keys, audio=tuple(block.audio_keys(tokens, count) for block, count in blocks))
        if style is not None and weights.style:
            rows, serves = style.flatten(0, 1), _serves(style, frames)
            keys = replace(keys, style=tuple(block.style_keys(rows, count, serves) for block, count in blocks))
        return replace(conditions, keys=keys)

    def _tokens(self, conditions: Conditions) -> Tensor:
        """What the audio attention reads: (b f) tokens d."""
        tokens = conditions.audio
        if self.expression_tokens:
            tokens = torch.cat([tokens, self._expression(conditions)], dim=2)
        return tokens.flatten(0, 1)

    def _embed_conditions(self, conditions: Conditions, weights: ConditionWeights) -> Tensor:
        """What audio, style and expression add to the time embedding of every frame: b f 4*c0, zero where they are zero."""
        embedded = self.audio_embedding(conditions.audio.mean(2)) * weights.audio
        if conditions.style is not None:
            embedded = embedded + self.style_embedding(conditions.style.mean(2)) * weights.style
        if conditions.expression is not None:
            embedded = embedded + self.expression_embedding(conditions.expression.mean(2))
        return functional.pad(embedded, (0, 0, 0, 0, conditions.unconditional_clips, 0))

    def _expression(self, conditions: Conditions) -> Tensor:
        """The tokens of the expression track, zero where there is none, as training drops them out: b f tokens d."""
        if conditions.expression is not None:
            return conditions.expression
        audio = conditions.audio
        return audio.new_zeros(*audio.shape[:2], self.expression_tokens, audio.shape[-1])

    def _check(self, latents: Tensor, conditions: Conditions) -> None:
        batch, frames = latents.shape[:2]
        given = batch - conditions.unconditional_clips
        clips = {"audio": given, "kps": batch, "style": given, "reference_warped": batch, "expression": given}
        for name, count in clips.items():
            value = getattr(conditions, name)
            if name == "style" and value is not None and value.shape[1] == 1:
                value = value.expand(-1, frames, -1, -1)
            if value is not None and tuple(value.shape[:2]) != (count, frames):
                have = " x ".join(str(size) for size in value.shape[:2])
                raise PortraitError(
                    f"{name} conditions are for {have} clips x frames, the latents are {count} x {frames}: cut both alike"
                )
        entries = len(conditions.reference or conditions.keys.reference)
        if entries != self.bank_size:
            raise PortraitError(
                f"the reference bank has {entries} entries, the denoiser reads {self.bank_size}: use the "
                "ReferenceNet of the same model"
            )
        for bank in conditions.reference:
            if len(bank) not in (given, batch):
                raise PortraitError(
                    f"the reference bank is for {len(bank)} clips, the latents are {batch}: cut both alike"
                )
        if conditions.style is not None and not self.style:
            raise PortraitError(
                "this denoiser was built without style layers: leave the style out or load another model"
            )
        if conditions.expression is not None and not self.expression_tokens:
            raise PortraitError(
                "this denoiser was built without expression tokens: leave the expression track out or load another model"
            )
        if self.reference_concat and conditions.reference_latent is None:
            raise PortraitError("this denoiser also takes the portrait latent: set Conditions.reference_latent")
        if self.reference_warp and conditions.reference_warped is None:
            raise PortraitError("this denoiser also takes the warped portrait: set Conditions.reference_warped")


def _serves(style: Tensor | None, frames: int) -> int:
    """Frames that a row of a style b f n d or b 1 n d is for."""
    return frames // style.shape[1] if style is not None else 1
