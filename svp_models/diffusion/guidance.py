"""Classifier-free guidance: the prediction is pushed away from what the network says without any condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..networks.conditions import Conditions, ConditionWeights, cat


@dataclass(frozen=True)
class MemoryPlan:
    """How a guided prediction is computed: both halves as one batch, or in less memory one after the other."""

    halves_together: bool = True


FASTEST = MemoryPlan()


def guided(unconditional: Tensor, conditional: Tensor, scale: float) -> Tensor:
    """unconditional + scale (conditional - unconditional); 1 is the conditional prediction, 0 the unconditional."""
    return unconditional + scale * (conditional - unconditional)


def guided_prediction(
    denoiser: Callable[..., Tensor],
    latents: Tensor,
    timestep: Tensor,
    conditions: Conditions,
    weights: ConditionWeights,
    cfg: float,
    plan: MemoryPlan = FASTEST,
    keep_portrait: bool = False,
) -> Tensor:
    """One guided prediction: b f c h w. latents: b f c h w, scaled and noisy; timestep: (b,).

    The unconditional half has zero reference features, audio tokens, kps features and style tokens, with keep_portrait no audio,
    style and expression tokens alone; cfg = 1 needs no such half and runs without it.
    """
    if cfg == 1:
        return denoiser(latents, timestep, conditions, weights)
    if not plan.halves_together:
        unconditional = denoiser(latents, timestep, conditions.unconditional(keep_portrait), weights)
        return guided(unconditional, denoiser(latents, timestep, conditions, weights), cfg)
    both = cat(conditions.unconditional(keep_portrait), conditions)
    doubled = torch.cat([latents, latents])  # 2b f c h w
    unconditional, conditional = denoiser(doubled, torch.cat([timestep, timestep]), both, weights).chunk(2)
    return guided(unconditional, conditional, cfg)
