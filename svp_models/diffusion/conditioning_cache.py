"""What a model has made of the last portrait, voice and head motion, for the next run with another style or seed."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..io.memory_map import IN_MEMORY, Storage
from ..io.progress import Progress
from ..model import PortraitModel
from .conditioning import ClipConditions, encode_conditions, kps_features, style_tokens
from .inputs import ClipInputs

LARGEST_KEY = 256 * 2**20  # bytes of what a clip was made of, which stays in memory as long as what was made of it


class ConditioningCache:
    """The prepared inputs and encoded conditions of one clip: nothing of them depends on style, seed, steps or weights.

    Another clip takes its place. It belongs to one model, whose networks do not change.
    """

    _key: tuple[Any, ...]
    _inputs: ClipInputs | None
    _conditions: ClipConditions | None

    def __init__(self) -> None:
        self._forget()

    def inputs(self, key: tuple[Any, ...]) -> ClipInputs | None:
        """The inputs that were stored under an equal key; otherwise None, and what was stored is dropped, so that there is
        never memory needed for two clips."""
        if self._inputs is not None and equal(self._key, key):
            return self._inputs
        self._forget()
        return None

    def store_inputs(self, key: tuple[Any, ...], inputs: ClipInputs) -> None:
        """key: everything that the inputs were made of, except the style."""
        if size_of(key) <= LARGEST_KEY:
            self._key, self._inputs = key, inputs

    def conditions(
        self, model: PortraitModel, inputs: ClipInputs, progress: Progress | None = None, storage: Storage = IN_MEMORY
    ) -> ClipConditions:
        """As `encode_conditions`, which only runs for what is not stored. Inputs of another clip are encoded and not stored."""
        others = [field.name for field in fields(inputs) if field.name != "style"]
        if any(getattr(inputs, name) is not getattr(self._inputs, name, None) for name in others):
            return encode_conditions(model, inputs, progress, storage)
        if self._conditions is None:
            encoded = encode_conditions(model, replace(inputs, style=None), progress, storage)
            self._conditions = replace(encoded, reference=tuple(block.cpu() for block in encoded.reference))
        stored, like = self._conditions, model.like(model.networks.reference)
        latent = stored.reference_latent
        return replace(
            stored,
            reference=tuple(block.to(like) for block in stored.reference),
            reference_latent=None if latent is None else latent.to(like),
            style=None if inputs.style is None else style_tokens(model, inputs.style, inputs.frames, storage),
            kps=kps_features(model, inputs),
        )

    def _forget(self) -> None:
        self._key, self._inputs, self._conditions = (), None, None


def equal(first: Any, second: Any) -> bool:
    """Whether two values are equal; tensors by their numbers, dataclasses and tuples by what they hold."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    if is_dataclass(first):
        return all(equal(getattr(first, field.name), getattr(second, field.name)) for field in fields(first))
    return bool(first == second)


def size_of(value: Any) -> int:
    """Bytes of the tensors in a value."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if is_dataclass(value):
        return sum(size_of(getattr(value, field.name)) for field in fields(value))
    return sum(map(size_of, value)) if isinstance(value, tuple) else 0
