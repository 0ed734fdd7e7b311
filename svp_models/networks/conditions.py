"""The conditions of the denoiser as one value that can be zeroed, cut into windows and stacked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..errors import PortraitError
from .layers import KeysValues


@dataclass(frozen=True)
class ConditionWeights:
    """Factors of the three cross-attentions; 1 is as trained, 0 switches a condition off. without_reference: positions in the bank
    that are not read."""

    reference: float = 1.0
    audio: float = 1.0
    style: float = 1.0
    without_reference: frozenset[int] = frozenset()


AS_TRAINED = ConditionWeights()
PORTRAIT = (
    "reference",
    "reference_latent",
    "reference_warped",
    "kps",
)  # conditions that show whose head it is, and where


@dataclass(frozen=True)
class ConditionKeys:
    """What the transformer blocks' layers have made of the conditions that they attend to: one entry a block, in module order, or
    none where the blocks are to make it themselves. Rows are clips for the portrait, images for audio, one of both for style."""

    reference: tuple[KeysValues, ...] = ()
    audio: tuple[KeysValues, ...] = ()
    style: tuple[KeysValues, ...] = ()

    def map(self, change: Callable[[Tensor], Tensor]) -> ConditionKeys:
        """The same with all tensors changed."""
        return ConditionKeys(
            *(tuple(entry.map(change) for entry in part) for part in (self.reference, self.audio, self.style))
        )


UNPREPARED = ConditionKeys()


@dataclass(frozen=True)
class Conditions:
    """Conditions of a batch of clips.

    reference: one b x tokens x channels per transformer block, in module order (ReferenceNet's bank);
    reference_latent: b c h w, scaled portrait latent, only for models with `reference_concat`, otherwise None;
    reference_warped: b f c h w, the same of the portrait warped to the keypoints of every frame, only with `reference_warp`;
    audio: b f tokens d; kps: b f c0 h w, the guider's output; style: b f style-tokens d, b 1 style-tokens d for one that does not
    change, or None to skip the style layers; expression: b f tokens d, of an expression track, or None;
    keys: keys and values of reference, audio with expression, and style, where `Denoiser.prepare` has made them: the denoiser
    then reads no reference;
    unconditional_clips: clips at the start of the batch for which audio, style, expression and, where it lacks them, reference
    hold nothing: those have so many clips fewer, and attention to them is computed for the others alone.
    """

    reference: tuple[Tensor, ...]
    reference_latent: Tensor | None
    audio: Tensor
    kps: Tensor
    style: Tensor | None
    reference_warped: Tensor | None = None
    expression: Tensor | None = None
    keys: ConditionKeys = UNPREPARED
    unconditional_clips: int = 0

    def unconditional(self, keep_portrait: bool = False) -> Conditions:
        """The other half of classifier-free guidance: every condition zero (sec. 3.2). keep_portrait: but for the portrait and
        the keypoints, so that voice, style and expression alone are guided."""
        nothing = replace(self._map(lambda value: value[:0]), unconditional_clips=len(self.kps))
        shown: dict[str, Any] = {name: getattr(self, name) for name in PORTRAIT}
        if keep_portrait:
            return replace(nothing, **shown, keys=replace(nothing.keys, reference=self.keys.reference))
        del shown["reference"]  # the others are added to the input, for every clip
        shown.update({name: torch.zeros_like(value) for name, value in shown.items() if value is not None})
        return replace(nothing, **shown)

    def without_style(self) -> Conditions:
        """The same without a style, of which the denoiser then skips the layers."""
        return replace(self, style=None, keys=replace(self.keys, style=()))

    def mask(self, mask: Tensor) -> Conditions:
        """Clips where mask (b, bool) is False lose all their conditions; training drops them so."""
        return self._map(lambda value: value * mask.to(value).view(-1, *[1] * (value.ndim - 1)))

    def repeat(self, count: int) -> Conditions:
        """The same clips `count` times, all of them and then all of them again."""
        return self._map(lambda value: value.repeat(count, *[1] * (value.ndim - 1)))

    def frames(self, index: list[int]) -> Conditions:
        """The same clips at the frames of `index` alone; what belongs to the whole clip stays as it is."""
        if self.keys != UNPREPARED:
            raise PortraitError("these conditions are prepared for all their frames: cut them before")
        style = self.style if self.style is None or self.style.shape[1] == 1 else self.style[:, index]
        warped = None if self.reference_warped is None else self.reference_warped[:, index]
        expression = None if self.expression is None else self.expression[:, index]
        audio, kps = self.audio[:, index], self.kps[:, index]
        return replace(self, audio=audio, kps=kps, style=style, reference_warped=warped, expression=expression)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Conditions:
        return self._map(lambda value: value.to(device=device, dtype=dtype))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Conditions:
        return replace(
            self,
            reference=tuple(change(block) for block in self.reference),
            reference_latent=None if self.reference_latent is None else change(self.reference_latent),
            audio=change(self.audio),
            kps=change(self.kps),
            style=None if self.style is None else change(self.style),
            reference_warped=None if self.reference_warped is None else change(self.reference_warped),
            expression=None if self.expression is None else change(self.expression),
            keys=self.keys.map(change),
        )


def cat(first: Conditions, second: Conditions) -> Conditions:
    """Stacks two along the batch; both or neither must carry a style, and the same for the portrait latent. Unconditional clips
    come first."""
    if second.unconditional_clips and first.unconditional_clips != len(first.kps):
        raise PortraitError("conditions stand before unconditional clips: stack them the other way round")
    return Conditions(
        reference=tuple(_joined(*pair) for pair in zip(first.reference, second.reference, strict=True)),
        reference_latent=_cat(first.reference_latent, second.reference_latent, "a portrait latent"),
        audio=_joined(first.audio, second.audio),
        kps=torch.cat([first.kps, second.kps]),
        style=_cat(first.style, second.style, "a style"),
        reference_warped=_cat(first.reference_warped, second.reference_warped, "a warped portrait"),
        expression=_cat(first.expression, second.expression, "an expression"),
        keys=ConditionKeys(
            _cat_keys(first.keys.reference, second.keys.reference),
            _cat_keys(first.keys.audio, second.keys.audio),
            _cat_keys(first.keys.style, second.keys.style),
        ),
        unconditional_clips=first.unconditional_clips + second.unconditional_clips,
    )


def _cat(first: Tensor | None, second: Tensor | None, what: str) -> Tensor | None:
    if first is None and second is None:
        return None
    if first is None or second is None:
        raise PortraitError(f"only one of the two conditions carries {what}: give it to both or to neither")
    return _joined(first, second)


def _cat_keys(first: tuple[KeysValues, ...], second: tuple[KeysValues, ...]) -> tuple[KeysValues, ...]:
    pairs = zip(first, second, strict=True)
    return tuple(replace(b, keys=_joined(a.keys, b.keys), values=_joined(a.values, b.values)) for a, b in pairs)


def _joined(first: Tensor, second: Tensor) -> Tensor:
    """Both along the batch; no copy is made where there is nothing to copy to."""
    return torch.cat([first, second]) if len(first) else second
