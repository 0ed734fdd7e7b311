"""What the steps of a sampling run hand to later ones: deep features and the attention outside of the face, by window and half."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ..io.memory_map import MappedFrames, Storage
from ..networks.foreground import Box, Foreground
from ..networks.unet import DeepFeatures, UNet
from .acceleration import Acceleration
from .guidance import GuidedFeatures

HALVES = ("unconditional", "conditional")
Key: TypeAlias = "tuple[int, str]"  # window, half
Stored: TypeAlias = "Tensor | MappedFrames"  # (b f) c h w on the CPU


class FeatureCache:
    """Of the windows of a clip and both halves of the guidance; on the CPU, memory-mapped where they are large."""

    def __init__(self, acceleration: Acceleration, denoiser: UNet, storage: Storage) -> None:
        self.acceleration, self.storage = acceleration, storage
        # Where all layers run, attention runs everywhere: only the outer layers ever use again what it added.
        outer = acceleration.cache_every > 1 and acceleration.cache_every % acceleration.foreground_every == 0
        self._layers = denoiser.outer_attention(acceleration.cache_layers) if outer else None
        self._deep: dict[Key, list[tuple[int, Stored]]] = {}  # the last whole runs, the newest first: step and features
        self._added: dict[Key, dict[nn.Module, Stored]] = {}  # of attention, see `Foreground`

    def features(self, window: int, guided: bool, step: int, like: Tensor, box: Box | None = None) -> GuidedFeatures:
        """What a prediction of that window in that step starts from: nothing if all layers are to run, or if a half that it needs
        has never been stored. box: of the face, None: attention runs everywhere."""
        fast, halves = self.acceleration, HALVES if guided else HALVES[1:]
        features = GuidedFeatures(*(DeepFeatures(fast.cache_layers, None, self._foreground(box, step)) for _ in HALVES))
        if not fast.whole(step) and all(self._deep.get((window, half)) for half in halves):
            for half in halves:
                getattr(features, half).stored = self._continued(self._deep[window, half], step, like)
        if box is not None and not fast.everywhere(step):
            for half in halves:
                added = self._added.get((window, half), {})
                getattr(features, half).foreground.added |= {layer: _read(rows, like) for layer, rows in added.items()}
        return features

    def store(self, window: int, features: GuidedFeatures, step: int) -> None:
        """Takes over what a whole run of that step has left."""
        for half in HALVES:
            found: DeepFeatures = getattr(features, half)
            if found.stored is not None and self.acceleration.cache_every > 1:
                self._store_deep((window, half), found.stored, step)

    def store_attention(self, window: int, features: GuidedFeatures) -> None:
        """Takes over what attention over the whole picture has added."""
        for half in HALVES:
            foreground = getattr(features, half).foreground
            if foreground is not None and foreground.added:
                stored = self._added.setdefault((window, half), {})
                for layer, value in foreground.added.items():
                    stored[layer] = self._written(stored.get(layer), value)

    def _foreground(self, box: Box | None, step: int) -> Foreground | None:
        return None if box is None else Foreground(box, not self.acceleration.everywhere(step), self._layers)

    def _store_deep(self, key: Key, value: Tensor, step: int) -> None:
        runs = self._deep.setdefault(key, [])
        free = runs.pop()[1] if len(runs) > self.acceleration.taylor_order else None
        runs.insert(0, (step, self._written(free, value)))

    def _written(self, room: Stored | None, value: Tensor) -> Stored:
        if room is None or room.shape != value.shape:
            room = self.storage.zeros(value.shape, value.dtype)
        room[: len(value)] = value.to(torch.device("cpu"))
        return room

    @staticmethod
    def _continued(runs: Sequence[tuple[int, Stored]], step: int, like: Tensor) -> Tensor:
        """The features at a step by the polynomial through those of the last runs, as many as there are."""
        weights = polynomial_weights([at for at, _ in runs], step)
        parts = [weight * _read(rows, like) for weight, (_, rows) in zip(weights, runs, strict=True)]
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]


def polynomial_weights(places: Sequence[int], place: int) -> list[float]:
    """Lagrange's: the value at `place` of the polynomial through values at `places` is the sum of these times the values."""
    weights = []
    for own in places:
        weight = 1.0
        for other in places:
            if other != own:
                weight *= (place - other) / (own - other)
        weights.append(weight)
    return weights


def _read(rows: Stored, like: Tensor) -> Tensor:
    return rows[: len(rows)].to(like)
