"""Classifier-free guidance: the prediction is pushed away from what the network says without any condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..networks.conditions import Conditions, ConditionWeights, cat
from ..networks.unet import DeepFeatures

KEY_BYTES = 128 * 2**20  # of keys and values of audio and style that are stored for all steps, where there is room


@dataclass(frozen=True)
class MemoryPlan:
    """How a guided prediction is computed: both halves as one batch, or in less memory one after the other. key_bytes: of keys and
    values on the device that are stored from step to step."""

    halves_together: bool = True
    key_bytes: int = KEY_BYTES


FASTEST = MemoryPlan()


@dataclass
class GuidedFeatures:
    """Deep features of both halves; of the unconditional one none where a prediction runs without it."""

    unconditional: DeepFeatures
    conditional: DeepFeatures

    def joined(self) -> DeepFeatures:
        """Both as one batch, the unconditional half first."""
        halves = (self.unconditional.stored, self.conditional.stored)
        stored = None if halves[0] is None or halves[1] is None else torch.cat([halves[0], halves[1]])
        return DeepFeatures(self.conditional.layers, stored)

    def split(self, joined: DeepFeatures) -> None:
        """Takes over the features of such a batch."""
        if joined.stored is not None:
            self.unconditional.stored, self.conditional.stored = joined.stored.chunk(2)


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
    deep: GuidedFeatures | None = None,
) -> Tensor:
    """One guided prediction: b f c h w. latents: b f c h w, scaled and noisy; timestep: (b,).

    The unconditional half has zero reference features, audio tokens, kps features and style tokens, with keep_portrait no audio,
    style and expression tokens alone; cfg = 1 needs no such half and runs without it. deep: features of the denoiser's inner
    layers, which run and are stored there where there are none.
    """

    def predict(x: Tensor, t: Tensor, given: Conditions, features: DeepFeatures | None) -> Tensor:
        return denoiser(x, t, given, weights) if features is None else denoiser(x, t, given, weights, deep=features)

    first, second = (None, None) if deep is None else (deep.unconditional, deep.conditional)
    if cfg == 1:
        return predict(latents, timestep, conditions, second)
    if not plan.halves_together:
        unconditional = predict(latents, timestep, conditions.unconditional(keep_portrait), first)
        return guided(unconditional, predict(latents, timestep, conditions, second), cfg)
    both = cat(conditions.unconditional(keep_portrait), conditions)
    doubled = torch.cat([latents, latents])  # 2b f c h w
    joined = None if deep is None else deep.joined()
    unconditional, conditional = predict(doubled, torch.cat([timestep, timestep]), both, joined).chunk(2)
    if deep is not None and joined is not None:
        deep.split(joined)
    return guided(unconditional, conditional, cfg)
