"""What was made of the conditions of a clip: for the next run with another style or seed, and for the next step of this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..io.memory_map import IN_MEMORY, Storage
from ..io.progress import Progress
from ..media.audio import warn_if_silent
from ..model import PortraitModel
from ..networks.conditions import ConditionKeys, Conditions, ConditionWeights
from ..networks.denoiser import Denoiser
from ..networks.layers import KeysValues
from ..types import Audio
from .conditioning import (
    ClipConditions,
    audio_tokens,
    encode_conditions,
    kps_features,
    style_tokens,
)
from .inputs import ClipInputs

PreparedTokens = tuple[tuple[KeysValues, ...], tuple[KeysValues, ...]]  # of audio and style
LARGEST_KEY = 256 * 2**20  # bytes of what a clip was made of, which stays in memory as long as what was made of it


class ConditioningCache:
    """The prepared inputs and encoded conditions of one clip: nothing of them depends on style, seed, steps or weights.

    With another voice all that is seen stays, and with another motion or length what the ReferenceNet has made of the portrait.
    Another clip takes the place of the last one. It belongs to one model, whose networks do not change.
    """

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._inputs: ClipInputs | None = None
        self._conditions: ClipConditions | None = None
        self._voice: Audio | None = None  # of the conditions
        self._latent: Tensor | None = None  # of the last portrait
        self._reference: tuple[Tensor, ...] = ()  # of it, on the CPU

    def inputs(self, key: tuple[Any, ...], audio: Audio) -> ClipInputs | None:
        """The inputs that were stored under an equal key, with this voice; otherwise None, and what was stored is dropped, so that
        there is never memory needed for two clips."""
        stored = self._inputs
        if stored is None or not equal(self._key, key):
            self._key, self._inputs, self._conditions = (), None, None
            return None
        if not equal(stored.audio, audio):
            self._inputs = replace(stored, audio=audio)
        return self._inputs

    def store_inputs(self, key: tuple[Any, ...], inputs: ClipInputs) -> None:
        """key: everything that the inputs were made of, except the voice and the style."""
        if size_of((key, inputs.audio)) <= LARGEST_KEY:
            self._key, self._inputs = key, inputs

    def conditions(
        self, model: PortraitModel, inputs: ClipInputs, progress: Progress | None = None, storage: Storage = IN_MEMORY
    ) -> ClipConditions:
        """As `encode_conditions`, which only runs for what is not stored. Inputs of another clip are encoded and not stored."""
        others = [field.name for field in fields(inputs) if field.name != "style"]
        if any(getattr(inputs, name) is not getattr(self._inputs, name, None) for name in others):
            return encode_conditions(model, inputs, progress, storage)
        like = model.like(model.networks.reference)
        if self._conditions is None:
            known = self._latent is not None and torch.equal(self._latent, inputs.portrait_latent)
            bank = tuple(block.to(like) for block in self._reference) if known else None
            encoded = encode_conditions(model, replace(inputs, style=None), progress, storage, bank)
            self._latent, self._reference = inputs.portrait_latent, tuple(block.cpu() for block in encoded.reference)
            self._conditions, self._voice = replace(encoded, reference=self._reference), inputs.audio
        elif self._voice is not inputs.audio:
            warn_if_silent(inputs.audio)
            tokens = audio_tokens(model, inputs.audio, inputs.frames, inputs.fps, progress, storage)
            self._conditions, self._voice = replace(self._conditions, audio=tokens), inputs.audio
        stored = self._conditions
        latent = stored.reference_latent
        return replace(
            stored,
            reference=tuple(block.to(like) for block in stored.reference),
            reference_latent=None if latent is None else latent.to(like),
            style=None if inputs.style is None else style_tokens(model, inputs.style, inputs.frames, storage),
            kps=kps_features(model, inputs, storage),
        )


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


class KeyValueCache:
    """The conditions of any window of a clip, ready for the denoiser.

    Keys and values of the portrait are made once a clip, those of audio, expression and style once a window, as long as they take
    up to `budget` bytes on the denoiser's device; the denoiser makes those of the remaining windows in every step. Results are the
    same bit by bit.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditions: ClipConditions,
        weights: ConditionWeights,
        budget: int,
        reused: bool = True,
    ) -> None:
        """reused: whether windows come more than once; if not, keys and values of theirs are not stored."""
        self.denoiser, self.conditions, self.weights, self.reused = denoiser, conditions, weights, reused
        self._room = budget if reused else 0
        self._reference: dict[int, tuple[KeysValues, ...]] = {}  # frames of a window -> of every block
        self._tokens: dict[tuple[int, ...], PreparedTokens] = {}  # windows of a batch -> of every block

    def window(self, number: int, index: list[int], like: Tensor) -> Conditions:
        """Conditions of window `number`, which has the frames `index`; device and dtype as `like`."""
        return self.windows([number], [index], like)

    def windows(self, numbers: Sequence[int], indices: Sequence[list[int]], like: Tensor) -> Conditions:
        """The same of several windows of one length, a batch of so many clips, which come together in every step."""
        given, key = self.conditions.windows(indices, like, self.reused), tuple(numbers)
        bank = given.reference
        if self.weights.reference:  # one row serves all windows
            keys = self._portrait(tuple(block[:1] for block in bank), len(indices[0]))
            shared = tuple(replace(entry, serves=len(key) * entry.serves) for entry in keys)
            given = replace(given, reference=(), keys=ConditionKeys(reference=shared))
        if key in self._tokens:
            audio, style = self._tokens[key]
            return replace(given, keys=replace(given.keys, audio=audio, style=style))
        if self._room > 0:
            given = self.denoiser.prepare(given, [features.shape[1] for features in bank], self.weights)
            self._room -= sum(entry.nbytes for part in (given.keys.audio, given.keys.style) for entry in part)
            if self._room >= 0:
                self._tokens[key] = given.keys.audio, given.keys.style
        return given

    def _portrait(self, bank: tuple[Tensor, ...], frames: int) -> tuple[KeysValues, ...]:
        if frames not in self._reference:
            self._reference = {frames: self.denoiser.reference_keys(bank, frames)}
        return self._reference[frames]
