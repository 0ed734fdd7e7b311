"""Classifier-free guidance: the prediction is pushed away from what the network says without any condition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ..networks.conditions import Conditions, ConditionWeights, cat
from ..networks.unet import DeepFeatures

OnHalves: TypeAlias = Callable[[Tensor, Tensor], None]
KEY_BYTES = 128 * 2**20  # of keys and values of audio and style that are stored for all steps, where there is room


@dataclass(frozen=True)
class MemoryPlan:
    """How a guided prediction is computed: both halves as one batch, or in less memory one after the other. key_bytes: of keys and
    values on the device that are stored from step to step; windows: how many windows of a clip are one batch."""

    halves_together: bool = True
    key_bytes: int = KEY_BYTES
    windows: int = 1


FASTEST = MemoryPlan()


@dataclass
class GuidedFeatures:
    """Deep features of both halves; of the unconditional one none where a prediction runs without it."""

    unconditional: DeepFeatures
    conditional: DeepFeatures

    def joined(self) -> DeepFeatures:
        """Both as one batch, the unconditional half first."""
        return joined_features([self.unconditional, self.conditional])

    def split(self, joined: DeepFeatures) -> None:
        """Takes over the features of such a batch."""
        for half, part in zip((self.unconditional, self.conditional), split_features(joined, 2), strict=True):
            half.stored = part.stored
            if half.foreground is not None and part.foreground is not None:
                half.foreground.added = part.foreground.added


def joined_features(parts: Sequence[DeepFeatures]) -> DeepFeatures:
    """The features of several batches as one: what only some of them have is left out. All have the same face box."""
    stored = [part.stored for part in parts if part.stored is not None]
    first, areas = parts[0], [part.foreground for part in parts if part.foreground is not None]
    foreground = None
    if first.foreground is not None:
        shared = [layer for layer in first.foreground.added if all(layer in area.added for area in areas)]
        added = {layer: torch.cat([area.added[layer] for area in areas]) for layer in shared}
        foreground = replace(first.foreground, added=added)
    return DeepFeatures(first.layers, torch.cat(stored) if len(stored) == len(parts) else None, foreground)


def split_features(joined: DeepFeatures, count: int) -> list[DeepFeatures]:
    """The features of `count` batches of one size that ran as one."""
    stored = [None] * count if joined.stored is None else joined.stored.chunk(count)
    added: list[dict[nn.Module, Tensor]] = [{} for _ in range(count)]
    if joined.foreground is not None:
        for layer, value in joined.foreground.added.items():
            for part, own in zip(value.chunk(count), added, strict=True):
                own[layer] = part
    areas = [None if joined.foreground is None else replace(joined.foreground, added=own) for own in added]
    return [DeepFeatures(joined.layers, *both) for both in zip(stored, areas, strict=True)]


def split_guided(joined: GuidedFeatures, count: int) -> list[GuidedFeatures]:
    """The features of both halves of `count` batches of one size that ran as one."""
    halves = (split_features(half, count) for half in (joined.unconditional, joined.conditional))
    return [GuidedFeatures(*both) for both in zip(*halves, strict=True)]


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
    on_halves: OnHalves | None = None,
    style_cfg: float | None = None,
) -> Tensor:
    """One guided prediction: b f c h w. latents: b f c h w, scaled and noisy; timestep: (b,).

    The unconditional half has zero reference features, audio tokens, kps features and style tokens, with keep_portrait no audio,
    style and expression tokens alone; cfg = 1 needs no such half and runs without it. deep: features of the denoiser's inner
    layers, which run and are stored there where there are none. on_halves(unconditional, conditional) gets the two predictions.

    style_cfg: scale of its own for the style, None for cfg. With another one, the scales are nested (Brooks et al. 2023, eq. 3):
    e0 + cfg (e1 - e0) + style_cfg (e2 - e1), where e0 has no condition, e1 all but the style and e2 all; what its scale makes
    needless is left out. These run one after the other, and without deep features.
    """

    def predict(x: Tensor, t: Tensor, given: Conditions, features: DeepFeatures | None) -> Tensor:
        return denoiser(x, t, given, weights) if features is None else denoiser(x, t, given, weights, deep=features)

    if style_cfg is not None and style_cfg != cfg and conditions.style is not None:
        spoken = predict(latents, timestep, conditions.without_style(), None)
        weakest, strongest = spoken, spoken
        if cfg != 1:
            weakest = predict(latents, timestep, conditions.unconditional(keep_portrait), None)
        if style_cfg != 0:
            strongest = predict(latents, timestep, conditions, None)
        if on_halves is not None:
            on_halves(weakest, strongest)
        return guided(weakest, spoken, cfg) + style_cfg * (strongest - spoken)
    first, second = (None, None) if deep is None else (deep.unconditional, deep.conditional)
    if cfg == 1:
        return predict(latents, timestep, conditions, second)
    if not plan.halves_together:
        unconditional = predict(latents, timestep, conditions.unconditional(keep_portrait), first)
        conditional = predict(latents, timestep, conditions, second)
        if on_halves is not None:
            on_halves(unconditional, conditional)
        return guided(unconditional, conditional, cfg)
    both = cat(conditions.unconditional(keep_portrait), conditions)
    doubled = torch.cat([latents, latents])  # 2b f c h w
    joined = None if deep is None else deep.joined()
    unconditional, conditional = predict(doubled, torch.cat([timestep, timestep]), both, joined).chunk(2)
    if deep is not None and joined is not None:
        deep.split(joined)
    if on_halves is not None:
        on_halves(unconditional, conditional)
    return guided(unconditional, conditional, cfg)
