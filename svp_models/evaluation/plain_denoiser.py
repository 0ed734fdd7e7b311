"""The denoiser computed as V-Express computes it, and with any one of the savings of ours alone.

Plain: every doubled map is made before it is convolved; both halves of the guidance attend to all conditions, zeros or not; the
portrait's keys and values are computed again for every frame, all conditions' in every step; queries and outputs of few keys go
through whole layers.
"""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..diffusion.guidance import guided
from ..networks.attention import BlockContext, SpatialTransformer, TransformerBlock, add_attention, add_feed_forward
from ..networks.conditions import AS_TRAINED, Conditions, cat
from ..networks.denoiser import Denoiser
from ..networks.layers import Attention, Upsample

DOUBLED_MAPS, ZERO_CONDITIONS, ONE_PORTRAIT, FEW_KEYS = "doubled maps", "zero conditions", "one portrait", "few keys"
SAVINGS = frozenset({DOUBLED_MAPS, ZERO_CONDITIONS, ONE_PORTRAIT, FEW_KEYS})
NONE: frozenset[str] = frozenset()


class FrameByFrame(nn.Module):
    """A transformer block whose frames all have the keys and values of the portrait computed for themselves."""

    def __init__(self, block: TransformerBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, hidden: Tensor, context: BlockContext, others: Tensor | None = None) -> Tensor:
        """(b f) t c -> (b f) t c. others: see TransformerBlock."""
        block, weights = self.block, context.weights
        hidden = hidden + block.attn1(block.norm1(hidden), None if others is None else block.norm1(others))
        cells = hidden.shape[1]
        bank = context.reference[block.index].repeat_interleave(context.frames, 0)  # (b f) t c
        portrait = block.reference_attn.keys_values(bank, cells)
        hidden = add_attention(hidden, block.reference_norm, block.reference_attn, portrait, weights.reference)
        audio = block.audio_keys(context.tokens, cells)
        hidden = add_attention(hidden, block.norm2, block.attn2, audio, weights.audio)
        if context.style is not None:
            style = block.style_keys(context.style.repeat_interleave(context.style_serves, 0), cells, 1)
            hidden = add_attention(hidden, block.style_norm, block.style_attn, style, weights.style)
        return add_feed_forward(hidden, block.norm3, block.ff)


def with_savings(network: nn.Module, savings: frozenset[str] = NONE) -> nn.Module:
    """A network of the same weights, which are not copied, that makes these savings alone; see also `prediction`."""
    plain = copy.deepcopy(network, {id(weight): weight for weight in network.parameters()})
    for module in list(plain.modules()):
        if isinstance(module, Upsample) and DOUBLED_MAPS not in savings:
            module.fewest_cells = math.inf
        elif isinstance(module, Attention):
            module.folds = FEW_KEYS in savings
        elif isinstance(module, SpatialTransformer) and ONE_PORTRAIT not in savings:
            blocks = [FrameByFrame(cast(TransformerBlock, block)) for block in module.transformer_blocks]
            module.transformer_blocks = nn.ModuleList(blocks)
    return plain


def prediction(
    denoiser: Denoiser, latents: Tensor, conditions: Conditions, cfg: float, savings: frozenset[str] = NONE
) -> Tensor:
    """A guided prediction of a denoiser `with_savings` of the same: b f c h w. Without any of them sums and activations are new
    tensors and feed-forward layers take all tokens at once, as where gradients are wanted; nothing asks for one."""
    with torch.set_grad_enabled(not savings):
        return _prediction(denoiser, latents, conditions, cfg, savings)


def _prediction(
    denoiser: Denoiser, latents: Tensor, conditions: Conditions, cfg: float, savings: frozenset[str]
) -> Tensor:
    timestep = torch.full((len(latents),), 500, device=latents.device)
    if cfg == 1:
        return denoiser(latents, timestep, conditions, AS_TRAINED)
    zero = conditions.unconditional() if ZERO_CONDITIONS in savings else zeros(conditions)
    both = denoiser(torch.cat([latents, latents]), torch.cat([timestep, timestep]), cat(zero, conditions), AS_TRAINED)
    unconditional, conditional = both.chunk(2)
    return guided(unconditional, conditional, cfg)


def zeros(conditions: Conditions) -> Conditions:
    """The unconditional half with all its zeros."""
    names = ("audio", "kps", "style", "expression", "reference_latent", "reference_warped")
    values = {name: getattr(conditions, name) for name in names}
    cleared: dict[str, Any] = {
        name: value if value is None else torch.zeros_like(value) for name, value in values.items()
    }
    return replace(conditions, reference=tuple(map(torch.zeros_like, conditions.reference)), **cleared)
