"""Guided predictions of the windows of a clip, with what an acceleration leaves out of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..io.memory_map import Storage
from ..model import PortraitModel
from ..networks.conditions import ConditionWeights
from .acceleration import Acceleration
from .conditioning import ClipConditions
from .conditioning_cache import KeyValueCache
from .face_region import face_box
from .feature_cache import FeatureCache
from .guidance import GuidedFeatures, MemoryPlan, guided_prediction, joined_features, split_guided
from .noise_schedule import SamplingSchedule
from .processes import least


class NoisePredictor:
    """Predicts windows, one or several in one batch, or one of them at several steps; it remembers what later steps use again."""

    def __init__(
        self,
        model: PortraitModel,
        conditions: ClipConditions,
        acceleration: Acceleration,
        weights: ConditionWeights,
        cfg: float,
        schedule: SamplingSchedule,
        plan: MemoryPlan,
        storage: Storage,
        style_cfg: float | None = None,
    ) -> None:
        """cfg: guidance, of all conditions or, with a style_cfg of its own for the style, of the others, see `guided_prediction`."""
        self.model, self.conditions, self.acceleration, self.weights = model, conditions, acceleration, weights
        self.full_cfg, self.schedule, self.plan = cfg, schedule, plan
        self.style_cfg = cfg if style_cfg is None else style_cfg
        denoiser = model.networks.denoiser
        self.cache = FeatureCache(acceleration, denoiser, storage)
        self.key_cache = KeyValueCache(denoiser, conditions, weights, plan.key_bytes, reused=len(schedule) > 1)
        self._guides = True
        self._similarity = math.inf  # the least between both halves since `finish`

    def cfg(self, step: int) -> float:
        """The guidance of a step, 1 where it has none."""
        return self.full_cfg if self._guided(step) else 1.0

    def _guided(self, step: int) -> bool:
        return self._guides and self.acceleration.guides(step, len(self.schedule))

    def finish(self) -> None:
        """A step is done in all windows: adaptive guidance may end here."""
        limit = self.acceleration.guidance_similarity
        if limit < 1 and limit <= least(self._similarity) < math.inf:
            self._guides = False
        self._similarity = math.inf

    def __call__(
        self,
        numbers: Sequence[int],
        windows: Sequence[list[int]],
        latents: Sequence[Tensor],
        steps: Sequence[int],
    ) -> list[Tensor]:
        """Predictions, float32 on the CPU, of one window at several steps or of several windows, of one length, at one step.

        numbers: of the windows; latents: of every window or step, f c h w; steps: with the same guidance.
        """
        model, denoiser, cfg = self.model, self.model.networks.denoiser, self.cfg(steps[0])
        like = model.like(denoiser)
        given = self.key_cache.windows(numbers, windows, like)
        deep = self._features(numbers, windows, steps, cfg != 1, like)
        whole = deep is not None and deep.conditional.stored is None
        predictions = guided_prediction(
            denoiser,
            torch.stack(list(latents)).to(like),
            self.schedule.timesteps[list(steps)].expand(len(latents)).to(like.device),
            given if len(steps) == 1 else given.repeat(len(steps)),
            self.weights,
            cfg,
            self.plan,
            keep_portrait=not model.config.guide_portrait,
            deep=deep,
            on_halves=self._compare if self.acceleration.guidance_similarity < 1 else None,
            style_cfg=self.style_cfg if self._guided(steps[0]) else 1.0,
        )
        if deep is not None and len(steps) == 1:
            for number, own in zip(numbers, split_guided(deep, len(numbers)), strict=True):
                if whole:
                    self.cache.store(number, own, steps[0])
                if self.acceleration.everywhere(steps[0]):
                    self.cache.store_attention(number, own)
        return list(predictions.float().cpu())

    def _features(
        self, numbers: Sequence[int], windows: Sequence[list[int]], steps: Sequence[int], guided: bool, like: Tensor
    ) -> GuidedFeatures | None:
        """What the prediction starts from, of all windows or steps as one batch; None where nothing is used again."""
        fast, box = self.acceleration, None
        if fast.cache_every == fast.foreground_every == 1:
            return None
        if fast.foreground_every > 1:  # of a single window, see `Acceleration.at_once`
            kps = self.conditions.kps
            box = face_box(kps.motion, windows[0], kps.keypoints)
        found = [self.cache.features(number, guided, step, like, box) for number in numbers for step in steps]
        if len(found) == 1:
            return found[0]
        return GuidedFeatures(
            joined_features([features.unconditional for features in found]),
            joined_features([features.conditional for features in found]),
        )

    def _compare(self, unconditional: Tensor, conditional: Tensor) -> None:
        one, other = (half.float().flatten(1) for half in (unconditional, conditional))
        self._similarity = min(self._similarity, float(torch.cosine_similarity(one, other).min()))
