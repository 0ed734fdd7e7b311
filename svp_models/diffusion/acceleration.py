"""Sampling in less time with a small loss: deep features of earlier steps, guidance in some of the steps, even windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..config import UNetConfig
from ..errors import PortraitError
from ..io.memory_map import MappedFrames, Storage
from ..networks.unet import DeepFeatures
from .context_windows import frame_windows
from .guidance import GuidedFeatures


@dataclass(frozen=True)
class Acceleration:
    """What a sampling run leaves out.

    cache_every: the whole denoiser runs in every so many steps, in those between its outermost layers alone, on the deep features
    of the last whole run (DeepCache, Ma et al. 2024); 1: in every step. cache_layers: how many layers of the highest resolution
    these are, down and up. guidance_start, guidance_end: the part of the steps with guidance, in shares of them (Castillo et al.
    2023; Kynkäänniemi et al. 2024); the others have the conditional half alone. even_windows: windows no longer than the clip needs.
    """

    cache_every: int = 1
    cache_layers: int = 1
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    even_windows: bool = False

    def __post_init__(self) -> None:
        if self.cache_every < 1 or self.cache_layers < 1:
            raise PortraitError(
                f"cache_every is {self.cache_every} and cache_layers {self.cache_layers}: both must be 1 or more"
            )
        if self.cache_every == 1 and self.cache_layers > 1:
            raise PortraitError(
                f"cache_layers is {self.cache_layers} and cache_every 1, which runs all layers in every step: set cache_every to 2 "
                "or more, or cache_layers to 1"
            )
        if not 0 <= self.guidance_start < self.guidance_end <= 1:
            raise PortraitError(
                f"guidance_start is {self.guidance_start:g} and guidance_end {self.guidance_end:g}: the start must come before the "
                "end, both between 0 and 1; to sample without guidance set cfg to 1"
            )

    def whole(self, step: int) -> bool:
        """Whether all layers run in that step."""
        return step % self.cache_every == 0

    def guides(self, step: int, steps: int) -> bool:
        """Whether that step, counted from 0, has guidance."""
        return self.guidance_start * steps <= step < self.guidance_end * steps

    def windows(self, frames: int, window: int, overlap: int) -> list[list[int]]:
        """The windows of a clip, see `frame_windows`."""
        windows = frame_windows(frames, window, overlap)
        if not self.even_windows or len(windows) == 1:
            return windows
        even = math.ceil((frames + (len(windows) - 1) * overlap) / len(windows))
        return frame_windows(frames, even, overlap)


EXACT = Acceleration()
PRESETS = {
    "exact": EXACT,
    "balanced": Acceleration(cache_every=3, guidance_end=0.8, even_windows=True),
    "fast": Acceleration(cache_every=5, guidance_end=0.5, even_windows=True),
}


def check_acceleration(acceleration: Acceleration, unet: UNetConfig) -> None:
    """Raises PortraitError where the denoiser has too few layers."""
    most = unet.layers_per_block + 1
    if acceleration.cache_layers > most:
        raise PortraitError(
            f"cache_layers is {acceleration.cache_layers}: the highest resolution of this model has {most} layers, choose 1 to {most}"
        )


def chosen_acceleration(preset: str, settings: Mapping[str, Any], unet: UNetConfig) -> Acceleration:
    """A preset by its name, or for `custom` the settings. Settings beside a preset have to be those of `exact`: anything else
    contradicts it and raises PortraitError."""
    if preset == "custom":
        acceleration = Acceleration(**settings)
    elif preset in PRESETS:
        acceleration = PRESETS[preset]
        for name, value in settings.items():
            if value != getattr(EXACT, name):
                raise PortraitError(
                    f"preset is {preset} and {name} {value}: choose the preset custom for settings of your own, or set {name} back to "
                    f"{getattr(EXACT, name)}"
                )
    else:
        raise PortraitError(f"unknown preset {preset!r}: choose one of {', '.join([*PRESETS, 'custom'])}")
    check_acceleration(acceleration, unet)
    return acceleration


class FeatureCache:
    """Deep features of the windows of a clip, both halves of the guidance, from the last step that ran all layers; on the CPU,
    memory-mapped where they are large."""

    def __init__(self, layers: int, storage: Storage) -> None:
        self.layers, self.storage = layers, storage
        self._stored: dict[tuple[int, str], Tensor | MappedFrames] = {}  # (window, half) -> f c h w

    def features(self, window: int, guided: bool, whole: bool, like: Tensor) -> GuidedFeatures:
        """What a prediction of that window starts from: nothing if all layers are to run, or if a half that it needs has never
        been stored."""
        halves = ("unconditional", "conditional") if guided else ("conditional",)
        features = GuidedFeatures(DeepFeatures(self.layers), DeepFeatures(self.layers))
        if not whole and all((window, half) in self._stored for half in halves):
            for half in halves:
                stored = self._stored[window, half]
                getattr(features, half).stored = stored[: len(stored)].to(like)
        return features

    def store(self, window: int, features: GuidedFeatures) -> None:
        """Takes over what a prediction has stored."""
        for half in ("unconditional", "conditional"):
            stored = getattr(features, half).stored
            if stored is not None:
                if (window, half) not in self._stored:
                    self._stored[window, half] = self.storage.zeros(stored.shape, stored.dtype)
                self._stored[window, half][: len(stored)] = stored.to(torch.device("cpu"))
