"""What a model has made of the last portrait, voice and head motion, kept for the next run with another style or seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.native import PortraitModel
from ..io.frames import IN_MEMORY, Storage
from ..io.progress import Progress
from ..values import Style
from .conditions import ClipConditions, KpsFeatures, clip_conditions, style_tokens
from .request import ClipRequest

LARGEST = 256 * 2**20  # bytes of what a clip was made of; it is held as long as what was made of it


class KeptClip:
    """The encoded portrait, bent or not, the ReferenceNet's bank and the audio tokens of one clip: nothing of them depends on
    style, seed, steps or weights. Another clip takes its place. It belongs to one model, whose networks do not change."""

    def __init__(self) -> None:
        self._forget()

    def request(self, made_of: tuple[Any, ...], style: Style | None, make: Callable[[], ClipRequest]) -> ClipRequest:
        """With that style, the request that `make` gives, or gave when it was last made of the same."""
        if self._request is None or not alike(self._made_of, made_of):
            self._forget()  # before the next is made, so that there is never room needed for both
            request = make()
            if size_of(made_of) > LARGEST:
                return request
            self._made_of, self._request = made_of, request
        return replace(self._request, style=style)

    def conditions(
        self, model: PortraitModel, request: ClipRequest, progress: Progress | None = None, storage: Storage = IN_MEMORY
    ) -> ClipConditions:
        """As `clip_conditions`, which only runs for what is not kept."""
        same = [each.name for each in fields(request) if each.name != "style"]
        if any(getattr(request, each) is not getattr(self._request, each, None) for each in same):
            return clip_conditions(model, request, progress, storage)
        if self._conditions is None:
            made = clip_conditions(model, replace(request, style=None), progress, storage)
            self._conditions = replace(made, reference=tuple(each.cpu() for each in made.reference))
        kept, networks = self._conditions, model.networks
        like = model.like(networks.reference)
        latent = kept.reference_latent
        return replace(
            kept,
            reference=tuple(each.to(like) for each in kept.reference),
            reference_latent=None if latent is None else latent.to(like),
            style=None if request.style is None else style_tokens(model, request.style, request.frames, storage),
            kps=KpsFeatures(networks.guider, request.motion, *request.size, model.config.keypoints, model.device),
        )

    def _forget(self) -> None:
        self._made_of: tuple[Any, ...] = ()
        self._request: ClipRequest | None = None
        self._conditions: ClipConditions | None = None


def alike(first: Any, second: Any) -> bool:
    """Whether two values are equal; tensors by their numbers, dataclasses and tuples by what they hold."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(alike, first, second))
    if is_dataclass(first):
        return all(alike(getattr(first, each.name), getattr(second, each.name)) for each in fields(first))
    return bool(first == second)


def size_of(value: Any) -> int:
    """Bytes of the tensors in a value."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if is_dataclass(value):
        return sum(size_of(getattr(value, each.name)) for each in fields(value))
    return sum(map(size_of, value)) if isinstance(value, tuple) else 0
