"""Parts of several motions in one: the pose of one, the lips of another, the eyes of a third, the rest of the first.

Redubbing is the video's own motion with the lips of a voice's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..errors import PortraitError
from ..io.resampling import interpolate_rows, ping_pong_positions
from ..types import LIVEPORTRAIT, Motion
from .coefficients import EXPRESSION_NAMES, EXPRESSION_SIZE
from .keypoints import EYES, LIPS

REGIONS = ("pose", "lips", "eyes")
LENGTHS = ("first", "longest", "shortest")
FILLS = ("loop", "hold")  # how a motion goes on behind its end: forwards and backwards, or with its last frame
TRANSFERS = ("absolute", "relative")  # a region's values as they are, or its movement about the first motion's mean
LIP_WORDS = ("jaw", "lip_", "lips_", "corner", "mouth", "tongue", "teeth", "chin")  # in the names of coefficients
EYE_WORDS = ("lid_", "eye_")
FRACTION = 1e6  # positions are rounded to a millionth of a frame: equal rates must hit the stored frames themselves


def mix_motions(
    first: Motion,
    parts: Mapping[str, Motion],
    length: str = "first",
    fill: str = "loop",
    transfer: str = "absolute",
) -> Motion:
    """The first motion with regions of others, at its frame rate; whatever is not replaced stays as it is, to the bit.

    parts: motions by region. `pose` is angles, shift and scale, `lips` and `eyes` columns of the expression, in 'svp' also
    lids and gaze. Times are compared in seconds. length: of the result, as the first, the longest or the shortest motion.
    """
    _check(first, parts, length, fill, transfer)
    frames = _frames(first, parts, length)
    mixed = resample(first, frames, first.fps, fill)
    for region, part in parts.items():
        part = resample(part, frames, first.fps, fill)
        compared = mixed.compared if part.reference is not None or mixed.reference is not None else None
        mixed = _with_region(mixed, part, region, transfer == "relative")
        if compared is not None:
            mixed = replace(mixed, reference=_reference(compared, part, mixed, region))
    return mixed


def resample(motion: Motion, frames: int, fps: float, fill: str = "loop") -> Motion:
    """The motion as `frames` frames at `fps`, linear between the stored ones, at the same times. Where all frames are stored
    ones they stay as they are, to the bit."""
    count = len(motion)
    positions = torch.arange(frames, dtype=torch.float64) * (motion.fps / fps)  # in stored frames
    positions = (positions * FRACTION).round() / FRACTION
    positions = ping_pong_positions(positions, count) if fill == "loop" else positions.clamp(max=count - 1)
    rows: dict[str, Any] = {
        name: interpolate_rows(value, positions)
        for name in ("angles", "shift", "scale", "expression", "lids", "gaze")
        if (value := getattr(motion, name)) is not None
    }
    return replace(motion, fps=fps, **rows)


def region_columns(space: str, region: str, size: int) -> list[int]:
    """The columns of an expression of `size` numbers that move the lips or the eyes."""
    if space == LIVEPORTRAIT:
        rows = LIPS if region == "lips" else EYES
        columns = [3 * row + axis for row in rows for axis in range(3)]
        if columns and max(columns) >= size:
            raise PortraitError(f"the motion has {size // 3} points, {max(rows) + 1} are needed to know its {region}")
        return columns
    words = LIP_WORDS if region == "lips" else EYE_WORDS
    return [index for index, name in enumerate(EXPRESSION_NAMES) if any(word in name for word in words)]


def _frames(first: Motion, parts: Mapping[str, Motion], length: str) -> int:
    if length == "first":
        return len(first)
    seconds = [len(motion) / motion.fps for motion in (first, *parts.values())]
    wanted = max(seconds) if length == "longest" else min(seconds)
    return max(1, math.floor(wanted * first.fps + 0.5))


def _with_region(motion: Motion, part: Motion, region: str, relative: bool) -> Motion:
    if region == "pose":
        scale = part.scale
        if relative or part.space != motion.space:  # the size of a head is another number in another space
            scale = scale * (motion.scale.mean() / scale.mean())
        return replace(
            motion,
            angles=_moved(motion.angles, part.angles, relative),
            shift=_moved(motion.shift, part.shift, relative),
            scale=scale,
        )
    expression, columns = motion.expression.clone(), region_columns(motion.space, region, motion.expression.shape[1])
    expression[:, columns] = _moved(expression[:, columns], part.expression[:, columns], relative)
    mixed = replace(motion, expression=expression)
    if region == "eyes" and part.lids is not None and part.gaze is not None:
        mixed = replace(mixed, lids=part.lids, gaze=part.gaze)  # how far lids are closed does not depend on the face
    return mixed


def _reference(compared: Motion, part: Motion, mixed: Motion, region: str) -> Motion:
    """The frame that relative driving compares with, its region from the part, shifted as the part was."""
    other = part.compared
    if region == "pose":
        return replace(
            compared,
            angles=other.angles + mixed.angles[:1] - part.angles[:1],
            shift=other.shift + mixed.shift[:1] - part.shift[:1],
            scale=other.scale * mixed.scale[:1] / part.scale[:1],
        )
    expression = compared.expression.clone()
    columns = region_columns(compared.space, region, expression.shape[1])
    shift = mixed.expression[:1, columns] - part.expression[:1, columns]
    expression[:, columns] = other.expression[:, columns] + shift
    return replace(compared, expression=expression)


def _moved(own: Tensor, other: Tensor, relative: bool) -> Tensor:
    return own.mean(dim=0) + (other - other.mean(dim=0)) if relative else other


def _check(first: Motion, parts: Mapping[str, Motion], length: str, fill: str, transfer: str) -> None:
    for name, value, choices in (("length", length, LENGTHS), ("fill", fill, FILLS), ("transfer", transfer, TRANSFERS)):
        if value not in choices:
            raise PortraitError(f"the {name} is {value!r}: choose one of {', '.join(choices)}")
    size = first.expression.shape[1]
    for region, part in parts.items():
        if region not in REGIONS:
            raise PortraitError(f"there is no region {region!r} of a motion: choose one of {', '.join(REGIONS)}")
        if region == "pose":
            continue  # angles and shift mean the same in both spaces
        if (part.space, part.expression.shape[1]) != (first.space, size):
            raise PortraitError(
                f"the first motion has {size} numbers in the space {first.space}, the one for {region} has "
                f"{part.expression.shape[1]} in {part.space}: extract or generate both in the same space"
            )
        if first.space != LIVEPORTRAIT and size != EXPRESSION_SIZE:
            raise PortraitError(f"the expression has {size} numbers, {EXPRESSION_SIZE} are needed to know its {region}")
        if region == "eyes" and (part.lids is None) != (first.lids is None):
            without = "the first motion" if first.lids is None else "the motion for eyes"
            raise PortraitError(
                f"{without} has no lids and gaze, the other has: extract or generate both in the same way"
            )
