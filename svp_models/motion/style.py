"""Style of a clip on another motion without training: the mean and the spread of how a face moves.

A motion is moved to a style by exp' = mu_s + (exp - mu_g) sigma_s / sigma_g, column by column, where s is the style and g the
motion itself; the columns that speech moves take the mean alone, so that the lips keep to the voice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ..checkpoints.safetensors_io import check_numbers, read_safetensors, write_safetensors
from ..diffusion.style import EASINGS
from ..errors import PortraitError
from ..io.resampling import interpolate_rows
from ..types import LIVEPORTRAIT, SVP, Motion
from .keypoints import LIPS
from .sliders import LID_COLUMNS

KIND = "motion_style"  # of a file
ANGLES, GAZE = 3, 2  # columns behind the expression's
KNOTS = 64  # rows of a style that changes over a clip
LIVEPORTRAIT_LIPS = tuple(3 * row + axis for row in LIPS for axis in range(3))  # columns of 63
LIVEPORTRAIT_LIDS = tuple(column for lids in LID_COLUMNS for column in lids)  # that blinks move
WEIGHTS = {"weight": (0.0, 2.0), "lips_weight": (0.0, 1.0), "pose_weight": (0.0, 1.0), "temperature": (0.0, 4.0)}


@dataclass(frozen=True)
class MotionStylePrior:
    """How a face moves: mean and spread of every column, and how the mean varies; float32 on the CPU.

    Columns d: the expression's e, then yaw, pitch, roll in degrees, then gaze right and down. Rows k: evenly spaced from the
    clip's first frame to its last; k = 1 is constant.

    mean, spread: k d. own_mean, own_spread: k d, which part of the motion's own mean and spread stays: a motion with the mean
    mu_g gets own_mean mu_g + mean. A clip has 0 and 0, a picture 0 and 1 (it tells nothing about spread), an offset such as an
    emotion 1 and 1, and what is unknown (gaze in LivePortrait's space) 1 and 1 too.
    variations: b k d. A drawn mean is mean + temperature sum_b eps_b variations_b with eps standard normal.
    space: of the expression, as in `Motion`.
    """

    mean: Tensor
    spread: Tensor
    own_mean: Tensor
    own_spread: Tensor
    variations: Tensor
    space: str

    def __post_init__(self) -> None:
        size = tuple(self.mean.shape)
        if len(size) != 2 or not size[0] or size[1] <= ANGLES + GAZE:
            raise PortraitError(f"the mean of a motion style has shape {size}: k x d is needed")
        for name in ("spread", "own_mean", "own_spread"):
            if tuple(getattr(self, name).shape) != size:
                raise PortraitError(
                    f"{name} of a motion style has shape {tuple(getattr(self, name).shape)}, {size} is needed"
                )
        if tuple(self.variations.shape[1:]) != size:
            raise PortraitError(
                f"variations of a motion style have shape {tuple(self.variations.shape)}, b x {size[0]} x {size[1]} is needed"
            )
        if self.space not in (LIVEPORTRAIT, SVP):
            raise PortraitError(f"the space of a motion style is {LIVEPORTRAIT} or {SVP}, not {self.space!r}")

    @property
    def expression_size(self) -> int:
        return self.mean.shape[1] - ANGLES - GAZE

    def draw(self, seed: int, temperature: float) -> MotionStylePrior:
        """The style with another mean, see `variations`; temperature 0 changes nothing."""
        if temperature == 0:
            return self
        noise = torch.randn(len(self.variations), generator=torch.Generator().manual_seed(seed))
        return replace(self, mean=self.mean + temperature * torch.einsum("b,bkd->kd", noise, self.variations))


@dataclass(frozen=True)
class ExtractConfig:
    """How a clip's style is read. passage: seconds whose means say how the clip's mean varies; take: seconds of the clip that
    a drawn mean stands for; components: principal directions of the passages' means, at most."""

    passage: float = 1.0
    take: float = 4.0
    components: int = 16


@dataclass(frozen=True)
class TransferConfig:
    """Bounds of sigma_s / sigma_g. A column of the motion with a spread below `still` keeps it: noise would be amplified."""

    lowest: float = 0.25
    highest: float = 4.0
    still: float = 1e-6


@dataclass(frozen=True)
class TransferWeights:
    """How far a motion is moved: 0 not at all, 1 to the style. weight: of everything, up to 2 (exaggerated); lips_weight:
    of the lips' mean; pose_weight: of the head's angles and the gaze; both are factors on `weight`.

    temperature: 0 takes the style's mean, 1 draws one that another clip in the style could have.
    """

    weight: float = 1.0
    lips_weight: float = 1.0
    pose_weight: float = 1.0
    temperature: float = 0.0

    def __post_init__(self) -> None:
        for name, (low, high) in WEIGHTS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise PortraitError(f"{name} of a motion style is {value}: choose {low:g} to {high:g}")


def style_of_motion(motion: Motion, config: ExtractConfig = ExtractConfig()) -> MotionStylePrior:
    """Mean and spread of a clip's motion; a single frame has a mean alone.

    A mean that is drawn with temperature 1 is one that another clip of four seconds of the same person in the same style could
    have. It varies by the standard error of such a clip's mean, from the means of passages of about one second (the method of
    batch means): covariance = that of the passages' means times passage / take. It does not shrink with the clip's length.
    """
    rows, known = _columns(motion)
    mean, spread = rows.mean(0), rows.std(0, correction=0)
    still = float(len(rows) == 1)
    own = (~known).double()
    passages = min(len(rows) // 2, max(2, round(len(rows) / motion.fps / config.passage)))
    variations = rows.new_zeros(0, rows.shape[1])
    if passages > 1:
        means = torch.stack([part.mean(0) for part in rows.tensor_split(passages)])
        seconds = len(rows) / motion.fps / passages
        share = seconds / config.take / (passages - 1)
        variations = _principal((means - means.mean(0)) * math.sqrt(share), spread, config.components)
    kept = own.clamp(min=still)
    return MotionStylePrior(
        mean=(mean * known)[None].float(),
        spread=(spread * known)[None].float(),
        own_mean=own[None].float(),
        own_spread=kept[None].float(),
        variations=(variations * known)[:, None].float(),
        space=motion.space,
    )


def style_of(value: Motion | MotionStylePrior) -> MotionStylePrior:
    """A style as it is, or the style of a clip's motion."""
    return style_of_motion(value) if isinstance(value, Motion) else value


def offset_style(parts: Tensor, pose: Tensor, variation: float, space: str) -> MotionStylePrior:
    """A style that shifts motions by the sum of parts b e and turns head and gaze by pose (5), and leaves their spread.

    variation: standard deviation of each part's strength, as a share of it, for temperature 1.
    """
    offset = torch.cat([parts.sum(0), pose])[None]
    variations = functional.pad(parts * variation, (0, ANGLES + GAZE))[:, None]
    return MotionStylePrior(
        offset, torch.zeros_like(offset), torch.ones_like(offset), torch.ones_like(offset), variations, space
    )


def mix_styles(
    a: MotionStylePrior, b: MotionStylePrior, start: float = 0.0, end: float = 1.0, easing: str = "linear"
) -> MotionStylePrior:
    """A style between a (position 0) and b (position 1), from `start` in the first frame to `end` in the last.

    Means, spreads and own parts are mixed linearly, so an emotion's offset and a clip's style can be mixed too. Positions
    outside 0 to 1 exaggerate; a spread stops at 0.
    """
    if (a.space, a.mean.shape[1]) != (b.space, b.mean.shape[1]):
        raise PortraitError(
            f"motion styles of different spaces cannot be mixed: one is in {a.space} with {a.expression_size} numbers, the "
            f"other in {b.space} with {b.expression_size}: make both in the same space"
        )
    if easing not in EASINGS:
        raise PortraitError(f"unknown easing {easing!r}: choose one of {', '.join(EASINGS)}")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise PortraitError(f"positions between the styles are {start} and {end}: both must be numbers, usually 0 to 1")
    constant = start == end and len(a.mean) == len(b.mean) == 1
    knots = 1 if constant else KNOTS
    weight = (start + (end - start) * EASINGS[easing](torch.linspace(0, 1, knots)))[:, None]  # k 1
    a, b = _at(a, knots), _at(b, knots)
    mixed = {
        name: (1 - weight) * getattr(a, name) + weight * getattr(b, name)
        for name in ("mean", "spread", "own_mean", "own_spread")
    }
    mixed["spread"] = mixed["spread"].clamp(min=0)
    variations = torch.cat([(1 - weight) * a.variations, weight * b.variations])
    return MotionStylePrior(**mixed, variations=variations, space=a.space)


def apply_style(
    motion: Motion,
    style: MotionStylePrior,
    lips: Sequence[int],
    weights: TransferWeights = TransferWeights(),
    seed: int = 0,
    config: TransferConfig = TransferConfig(),
    lids: Sequence[int] = (),
) -> Motion:
    """The motion with the style's mean and spread. lips, lids: columns of the expression that keep their own spread; those of
    lids do so that every blink still closes the eyes, whose spread is mostly blinks.

    Shift and scale say how the picture is framed, and `Motion.lids` are blinks: they stay as they are. With weight 0
    everything stays, to the bit. Relative driving compares with the motion's frame from before, so that the style shows there.
    """
    if motion.space != style.space or motion.expression.shape[1] != style.expression_size:
        raise PortraitError(
            f"the motion is in the space {motion.space} with {motion.expression.shape[1]} numbers, the style in {style.space} "
            f"with {style.expression_size}: make both in the same space"
        )
    size = style.expression_size
    if max([*lips, *lids], default=0) >= size:
        raise PortraitError(
            f"the motion has {size} numbers and the lips and lids are in columns up to {max([*lips, *lids])}: use a motion of as many points as published"
        )
    rows, known = _columns(motion)
    part = torch.full((rows.shape[1],), weights.weight, dtype=torch.float64)
    part[list(lips)] *= weights.lips_weight
    part[size:] *= weights.pose_weight
    part[~known] = 0
    drawn = style.draw(seed, weights.temperature)
    drawn = _at(replace(drawn, variations=drawn.variations[:0]), len(rows))
    own, deviation = rows.mean(0), rows.std(0, correction=0)
    mean = drawn.own_mean * own + drawn.mean  # n d
    wanted = drawn.own_spread * deviation + drawn.spread
    ratio = (wanted / deviation.clamp(min=config.still)).clamp(config.lowest, config.highest)
    ratio[:, deviation < config.still] = 1
    ratio[:, [*lips, *lids]] = 1
    gain = (1 + part * (ratio - 1)).clamp(min=0)
    moved = (rows + part * (mean - own) + (gain - 1) * (rows - own)).float()
    return replace(
        motion,
        expression=moved[:, :size],
        angles=moved[:, size : size + ANGLES],
        gaze=None if motion.gaze is None else moved[:, size + ANGLES :],
        reference=motion.reference if weights.weight == 0 else motion.compared,
    )


def save_motion_style(path: Path | str, style: MotionStylePrior) -> None:
    """Writes a style as a safetensors file of the kind motion_style, float32."""
    tensors = {name: getattr(style, name).float() for name in _tensor_names()}
    write_safetensors(path, KIND, {name: tensor for name, tensor in tensors.items() if tensor.numel()}, _header(style))


def load_motion_style(path: Path | str) -> MotionStylePrior:
    """Reads a file of `save_motion_style`."""
    tensors, metadata = read_safetensors(path, KIND)
    check_numbers(tensors, path)
    missing = sorted({*_tensor_names()} - {"variations"} - set(tensors))
    unexpected = sorted(set(tensors) - {*_tensor_names()})
    if missing or unexpected:
        what = f"{missing[0]} is missing" if missing else f"{unexpected[0]} is unexpected"
        raise PortraitError(f"{path}: {what}: the file is damaged, save the style again")
    mean = tensors["mean"].float()
    variations = tensors.get("variations", mean.new_zeros(0, *mean.shape)).float()
    others = {name: tensors[name].float() for name in ("spread", "own_mean", "own_spread")}
    try:
        style = MotionStylePrior(mean=mean, **others, variations=variations, space=metadata.get("space", ""))
    except PortraitError as error:
        raise PortraitError(f"{path}: {error}: save the style again") from error
    if bool((style.spread < 0).any()):
        raise PortraitError(f"{path}: a spread is {float(style.spread.min()):g}, it cannot be negative: save it again")
    return style


def _columns(motion: Motion) -> tuple[Tensor, Tensor]:
    """A motion's columns n d, float64, and which of them are known (d); unknown gaze is zero."""
    gaze = motion.angles.new_zeros(len(motion), GAZE) if motion.gaze is None else motion.gaze
    rows = torch.cat([motion.expression, motion.angles, gaze], dim=1).double()
    if not torch.isfinite(rows).all():
        bad = int((~torch.isfinite(rows)).any(1).sum())
        raise PortraitError(
            f"{bad} of {len(rows)} frames of the motion hold numbers that are not finite: make it again"
        )
    known = torch.ones(rows.shape[1], dtype=torch.bool)
    known[-GAZE:] = motion.gaze is not None
    return rows, known


def _principal(deviations: Tensor, spread: Tensor, kept: int) -> Tensor:
    """Rows b d -> at most `kept` rows with the same covariance sum(row row^T), but for the weakest directions.

    Columns have units of their own, so the directions are those of columns over their spread.
    """
    unit = torch.where(spread > 0, spread, torch.ones_like(spread))
    _, lengths, directions = torch.linalg.svd(deviations / unit, full_matrices=False)
    kept = min(kept, int((lengths > 1e-9 * lengths[0]).sum()))
    directions = directions[:kept]
    # A direction's sign is arbitrary: the largest number is positive, so that seeds mean the same everywhere.
    signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    return signs * lengths[:kept, None] * directions * unit


def _at(style: MotionStylePrior, count: int) -> MotionStylePrior:
    """The style with `count` rows, linear between the stored ones."""
    if len(style.mean) == count:
        return style
    positions = torch.linspace(0, len(style.mean) - 1, count)
    rows = {name: interpolate_rows(getattr(style, name), positions) for name in _tensor_names() if name != "variations"}
    variations = interpolate_rows(style.variations.transpose(0, 1), positions).transpose(0, 1)
    return MotionStylePrior(**rows, variations=variations, space=style.space)


def _tensor_names() -> tuple[str, ...]:
    return tuple(field.name for field in fields(MotionStylePrior) if field.name != "space")


def _header(style: MotionStylePrior) -> dict[str, str]:
    return {"space": style.space, "expression_size": str(style.expression_size), "rows": str(len(style.mean))}
