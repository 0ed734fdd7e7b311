"""Sliders of the face in both spaces, and what a motion says about lids, mouth and gaze in the sliders' units.

A slider at 0 changes nothing, 1 is a strong but natural movement, -1 the opposite one. In LivePortrait's space a slider moves
rows of the expression by the numbers of LivePortrait's own retargeting sliders, which all public editors use
(KwaiVGI/LivePortrait, `update_delta_new_*`); `units` is where such a slider stands at 1. In the space 'svp' it moves the named
coefficients of the synthetic faces, lids and gaze. Left and right are those of the picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..errors import PortraitError
from ..types import LIVEPORTRAIT, Motion
from .coefficients import EXPRESSION_INDEX, EXPRESSION_NAMES, EXPRESSION_SIZE, expression_vector

POINTS = 21
X, Y, Z = range(3)  # right, down, in
Rows = tuple[tuple[int, int, float], ...]  # row, axis, movement of a unit


@dataclass(frozen=True)
class PointSlider:
    """How a slider moves LivePortrait's points: up at positive positions, down at negative ones (None: against up)."""

    units: float
    up: Rows
    down: Rows | None = None

    def direction(self, sign: int) -> Tensor:
        """The movement of all points at position 1 or -1: 63."""
        movement = torch.zeros(POINTS, 3)
        rows, factor = (self.up, sign) if sign > 0 or self.down is None else (self.down, 1)
        for row, axis, amount in rows:
            movement[row, axis] += factor * self.units * amount
        return movement.flatten()


CLOSE_LEFT: Rows = ((11, Y, 0.001), (13, Y, -0.0003))  # upper lid down, lower lid up
CLOSE_RIGHT: Rows = ((15, Y, 0.001), (16, Y, -0.0003))
LID_UNITS = 25.0  # units that close an open lid: 0.0325, where the rows of a mean face lie 0.035 apart
POINT_SLIDERS = {
    "smile": PointSlider(
        1.0,
        (
            (20, Y, -0.01), (14, Y, -0.02), (17, Y, 0.0065), (17, Z, 0.003), (13, Y, -0.00275), (16, Y, -0.00275),
            (3, Y, -0.0035), (7, Y, -0.0035),
        ),
    ),
    "brows": PointSlider(  # up; or down and together
        15.0,
        ((1, Y, 0.001), (2, Y, -0.001)),
        ((1, X, 0.001), (2, X, -0.001), (1, Y, -0.0003), (2, Y, 0.0003)),
    ),
    "mouth_open": PointSlider(60.0, ((19, Y, 0.001), (19, Z, 0.0001), (17, Y, -0.0001))),
    "mouth_width": PointSlider(45.0, ((19, X, 0.001),)),
    "pout": PointSlider(15.0, ((14, Y, 0.001), (3, Y, -0.0005), (7, Y, -0.0005), (17, Z, -0.0005))),
    "wink_left": PointSlider(LID_UNITS, (*CLOSE_LEFT, (17, X, 0.0003), (17, Y, 0.0003), (3, Y, -0.0003))),
    # The published wink is of one side. Row 17 lies left of the middle and has no mirror image.
    "wink_right": PointSlider(LID_UNITS, (*CLOSE_RIGHT, (7, Y, -0.0003))),
    "blink": PointSlider(LID_UNITS, (*CLOSE_LEFT, *CLOSE_RIGHT)),
    "gaze_x": PointSlider(15.0, ((11, X, 0.0007), (15, X, 0.001)), ((11, X, -0.001), (15, X, -0.0007))),
    # Down. The eye's 0.001 with half of a blink's units against it, so that the lids follow
    "gaze_y": PointSlider(15.0, ((11, Y, 0.0005), (13, Y, 0.00015), (15, Y, 0.0005), (16, Y, 0.00015))),
}  # fmt: skip

# Position 1 and position -1 in the space 'svp'; lids and gaze come on top.
NAMED_SLIDERS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "smile": (
        {"corner_up": 1.0, "corner_out": 0.5, "cheek_raise": 0.6, "smile_fold": 0.6, "lower_lid_raise": 0.3},
        {"corner_down": 1.0, "chin_raise": 0.3},
    ),
    "brows": (
        {"brow_inner_up": 0.8, "brow_outer_up": 1.0, "forehead_wrinkle": 0.4},
        {"brow_lower": 1.0, "brow_squeeze": 0.7},
    ),
    "mouth_open": ({"jaw_open": 1.0}, {"jaw_open": -1.0}),
    "mouth_width": ({"lips_wide": 1.0}, {"lips_wide": -1.0}),
    "pout": ({"lips_round": 0.8, "lips_funnel": 0.4}, {"upper_lip_in": 0.6, "lower_lip_in": 0.6}),
    "wink_left": ({"cheek_raise_l": 0.4, "lower_lid_raise_l": 0.3}, {}),
    "wink_right": ({"cheek_raise_r": 0.4, "lower_lid_raise_r": 0.3}, {}),
    "blink": ({}, {}),
    "gaze_x": ({}, {}),
    "gaze_y": ({}, {}),
}
FACE_CHANNELS = tuple(POINT_SLIDERS)
LIDS_OF = {"wink_left": (0,), "wink_right": (1,), "blink": (0, 1)}
GAZE_OF = {"gaze_x": 0, "gaze_y": 1}
SIGNED = tuple(name for name in EXPRESSION_NAMES if "_side" in name or "_mode_" in name or name == "lips_wide")
LID_COLUMNS = ((3 * 11 + Y, 3 * 13 + Y), (3 * 15 + Y, 3 * 16 + Y))  # upper and lower lid; left, right
LID_TRAVEL = LID_UNITS * (0.001 + 0.0003)  # how much nearer they are with a lid closed
LIP_COLUMNS = (3 * 20 + Y, 3 * 19 + Y)  # upper and lower lip
LIP_TRAVEL = 0.06  # how much further apart they are with mouth_open at 1


def slider_direction(space: str, channel: str, sign: int = 1) -> Tensor:
    """What a slider adds to an expression at position 1 (or -1, with sign = -1): 63 or 64 numbers.

    In 'svp' the name of a coefficient is a slider too; lids and gaze are no part of the expression there.
    """
    if space == LIVEPORTRAIT:
        return POINT_SLIDERS[channel].direction(sign)
    if channel in EXPRESSION_INDEX:
        return sign * torch.from_numpy(expression_vector(**{channel: 1.0}))
    return torch.from_numpy(expression_vector(**NAMED_SLIDERS[channel][0 if sign > 0 else 1]))


def channels_of(space: str) -> tuple[str, ...]:
    """The sliders of a space."""
    return FACE_CHANNELS if space == LIVEPORTRAIT else (*FACE_CHANNELS, *EXPRESSION_NAMES)


def move_face(motion: Motion, positions: Mapping[str, Tensor | float]) -> Motion:
    """The motion with sliders at these positions, one number or n of them each. Sliders at 0 change nothing, to the bit.

    In 'svp', lids stay in 0 to 1, gaze in -1 to 1, and coefficients without a sign do not fall below 0.
    """
    for channel, position in positions.items():
        values = torch.as_tensor(position, dtype=torch.float32).expand(len(motion))
        if not bool(values.any()):
            continue
        motion = _move_expression(motion, channel, values)
        if motion.space != LIVEPORTRAIT and channel in LIDS_OF:
            motion = close_lids(motion, values, LIDS_OF[channel])
        if motion.space != LIVEPORTRAIT and channel in GAZE_OF:
            motion = _turn_gaze(motion, GAZE_OF[channel], values)
    return motion


def close_lids(motion: Motion, closure: Tensor, sides: tuple[int, ...] = (0, 1)) -> Motion:
    """Lids closed further: 1 shuts them, however far they are closed already, and -1 opens them. closure: n, -1 to 1."""
    if motion.space == LIVEPORTRAIT:
        left, right = (lid.clamp(0, 1) for lid in given(lid_closure(motion), "lids").unbind(1))
        shut = {"left": CLOSE_LEFT, "right": CLOSE_RIGHT}
        expression = motion.expression
        for side, (name, own) in enumerate((("left", left), ("right", right))):
            if side in sides:
                further = torch.where(closure > 0, closure * (1 - own), closure * own)
                expression = _added(expression, further, PointSlider(LID_UNITS, shut[name]).direction(1))
        return replace(motion, expression=expression)
    lids = given(motion.lids, "lids").clone()
    for side in sides:
        lid = lids[:, side]
        lids[:, side] = torch.where(closure > 0, lid + closure * (1 - lid), lid + closure * lid).clamp(0, 1)
    return replace(motion, lids=lids)


def lid_closure(motion: Motion) -> Tensor | None:
    """How far the lids are closed: n 2, 0 open to 1 closed; None where the motion does not tell.

    In LivePortrait's space 0 is the median of the clip: eyes are open most of the time.
    """
    if motion.space != LIVEPORTRAIT:
        return motion.lids
    if motion.expression.shape[1] != 3 * POINTS:
        return None
    near = torch.stack([motion.expression[:, upper] - motion.expression[:, lower] for upper, lower in LID_COLUMNS], 1)
    return (near - near.median(dim=0).values) / LID_TRAVEL


def mouth_opening(motion: Motion) -> Tensor | None:
    """How far the mouth is open, in units of the slider: n; None where the motion does not tell."""
    if motion.space != LIVEPORTRAIT:
        known = motion.expression.shape[1] == EXPRESSION_SIZE
        return motion.expression[:, EXPRESSION_INDEX["jaw_open"]] if known else None
    if motion.expression.shape[1] != 3 * POINTS:
        return None
    upper, lower = LIP_COLUMNS
    return (motion.expression[:, lower] - motion.expression[:, upper]) / LIP_TRAVEL


def gaze_direction(motion: Motion) -> Tensor | None:
    """Where the eyes look, right [and down], in units of the sliders: n 2, or n 1 in LivePortrait's space, where looking down
    and closing the lids move the same rows. None where the motion does not tell."""
    if motion.space != LIVEPORTRAIT:
        return motion.gaze
    if motion.expression.shape[1] != 3 * POINTS:
        return None
    moved = motion.expression[:, 3 * 11 + X] + motion.expression[:, 3 * 15 + X]
    return (moved / (0.0017 * POINT_SLIDERS["gaze_x"].units))[:, None]


def given(values: Tensor | None, what: str) -> Tensor:
    """The values, or an error where the motion has none of them."""
    if values is None:
        raise PortraitError(
            f"the motion has no {what}, so they cannot be changed: leave their inputs at 0, or use one with {what}"
        )
    return values


def _move_expression(motion: Motion, channel: str, values: Tensor) -> Motion:
    size = 3 * POINTS if motion.space == LIVEPORTRAIT else EXPRESSION_SIZE
    if motion.expression.shape[1] != size:
        raise PortraitError(
            f"the expression of the motion has {motion.expression.shape[1]} numbers, {channel} moves {size} in the space "
            f"{motion.space}: use a motion with as many"
        )
    expression = motion.expression
    for sign in (1, -1):
        expression = _added(expression, (sign * values).clamp(min=0), slider_direction(motion.space, channel, sign))
    if motion.space != LIVEPORTRAIT:
        unsigned = [index for name, index in EXPRESSION_INDEX.items() if name not in SIGNED]
        lowest = motion.expression[:, unsigned].clamp(max=0)
        expression = expression.clone()
        expression[:, unsigned] = torch.maximum(expression[:, unsigned], lowest)
    return replace(motion, expression=expression)


def _added(expression: Tensor, amount: Tensor, direction: Tensor) -> Tensor:
    """The expression n e with n amounts of a direction e on top; columns that it does not move stay as they are."""
    moved = direction.nonzero().flatten()
    expression = expression.clone()
    expression[:, moved] += amount[:, None] * direction[moved]
    return expression


def _turn_gaze(motion: Motion, axis: int, values: Tensor) -> Motion:
    gaze = given(motion.gaze, "gaze").clone()
    gaze[:, axis] = (gaze[:, axis] + values).clamp(-1, 1)
    return replace(motion, gaze=gaze)
