"""Editing of motions: head, expression, blinks and gaze by numbers, and any of them over time by keyframes.

What is left at its default (offset 0, amplitude 1, smoothing 0, sliders 0) stays as it is, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import PortraitError
from ..optional_deps import ndimage
from ..types import Motion
from .blinks import edit_blinks
from .keyframes import keyframe_curves, last_time
from .mix import resample
from .sliders import channels_of, move_face

HEAD_CHANNELS = ("yaw", "pitch", "roll", "shift_x", "shift_y", "scale")
AMPLITUDE = "expression"  # keyframes of it are factors


@dataclass(frozen=True)
class ChannelEdit:
    """What happens to a channel, in this order. smoothing: standard deviation of a Gaussian over time, seconds; amplitude:
    factor on the movement about the clip's mean; offset: added, in the channel's unit (of the scale: as a share of it)."""

    offset: float = 0.0
    amplitude: float = 1.0
    smoothing: float = 0.0


@dataclass(frozen=True)
class ExpressionEdit:
    """sliders: positions by channel; amplitude: factor on the expression about the clip's mean; blink_rate: blinks a second in
    place of the own ones, None keeps them; blink_depth: factor on own blinks, closure of new ones."""

    sliders: Mapping[str, float]
    amplitude: float = 1.0
    blink_rate: float | None = None
    blink_depth: float = 1.0


def edit_head(motion: Motion, edits: Mapping[str, ChannelEdit]) -> Motion:
    """The motion with edited angles (degrees), shift (shares of the picture) and scale, by the names in HEAD_CHANNELS."""
    channels = head_channels(motion)
    for name, edit in edits.items():
        channels[name] = _scaled(_smoothed(channels[name], edit.smoothing, motion.fps), edit.amplitude)
    centred = with_head_channels(motion, channels)
    offsets = {name: edit.offset for name, edit in edits.items() if edit.offset}
    for name, offset in offsets.items():
        channels[name] = channels[name] * (1 + offset) if name == "scale" else channels[name] + offset
    return _shifted(centred, with_head_channels(motion, channels)) if offsets else centred


def edit_expression(motion: Motion, edit: ExpressionEdit, seed: int = 0) -> Motion:
    """The motion with another expression: amplitude first, then the blinks, then the sliders. seed: of new blinks."""
    moved = replace(motion, expression=_scaled(motion.expression, edit.amplitude))
    moved = edit_blinks(moved, edit.blink_rate, edit.blink_depth, seed)
    return _shifted(moved, move_face(moved, edit.sliders))


def apply_keyframes(motion: Motion, text: str, interpolation: str = "smooth") -> Motion:
    """The motion with a table's curves on top of it (see `keyframes`): of the head, of every slider of the motion's space, and
    of the expression's amplitude, where 1 changes nothing. A motion of one frame becomes as long as the table."""
    names = (*HEAD_CHANNELS, AMPLITUDE, *channels_of(motion.space))
    if len(motion) == 1:
        motion = resample(motion, round(last_time(text, names) * motion.fps) + 1, motion.fps, "hold")
    curves = keyframe_curves(text, names, len(motion), motion.fps, interpolation)
    if not curves:
        return motion
    channels = head_channels(motion)
    for name in HEAD_CHANNELS:
        if name in curves:
            curve = curves.pop(name)
            channels[name] = channels[name] * (1 + curve) if name == "scale" else channels[name] + curve
    moved = with_head_channels(motion, channels)
    if AMPLITUDE in curves:
        moved = replace(moved, expression=_scaled(moved.expression, curves.pop(AMPLITUDE)[:, None]))
    return _shifted(motion, move_face(moved, curves))


def head_channels(motion: Motion) -> dict[str, Tensor]:
    """The head's six channels by name, n each."""
    columns = (*motion.angles.unbind(1), *motion.shift.unbind(1), motion.scale)
    return dict(zip(HEAD_CHANNELS, columns, strict=True))


def with_head_channels(motion: Motion, channels: Mapping[str, Tensor]) -> Motion:
    """The motion with these six channels. A head of no size raises PortraitError."""
    scale = channels["scale"]
    if scale is not motion.scale and bool((scale <= 0).any()):
        raise PortraitError(
            f"the scale falls to {float(scale.min()):.3g} in frame {int(scale.argmin())}: it must stay above 0, use a smaller "
            "amplitude or offset"
        )
    angles, shift = ([channels[name] for name in names] for names in (HEAD_CHANNELS[:3], HEAD_CHANNELS[3:5]))
    return replace(motion, angles=torch.stack(angles, dim=1), shift=torch.stack(shift, dim=1), scale=scale)


def _shifted(before: Motion, after: Motion) -> Motion:
    """The motion after a shift; relative driving, which compares with a frame from before, shows the shift too."""
    return after if after is before else replace(after, reference=before.compared)


def _smoothed(values: Tensor, seconds: float, fps: float) -> Tensor:
    if seconds == 0 or len(values) < 2:
        return values
    smooth = ndimage.gaussian_filter1d(values.double().numpy(), seconds * fps, axis=0, mode="nearest")
    return torch.from_numpy(smooth).to(values.dtype)


def _scaled(values: Tensor, amplitude: float | Tensor) -> Tensor:
    """values n ... with the movement about their mean made larger; amplitude 1 leaves a frame as it is, to the bit."""
    factor = torch.as_tensor(amplitude, dtype=values.dtype)
    if bool((factor == 1).all()):
        return values
    mean = values.mean(dim=0)
    return torch.where(factor == 1, values, mean + factor * (values - mean))
