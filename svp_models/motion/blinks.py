"""Blinks: the curve of one, blinks found in a motion, made weaker or taken out, and put in at another rate."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..types import LIVEPORTRAIT, Motion
from .sliders import LID_COLUMNS, close_lids, given, lid_closure


@dataclass(frozen=True)
class BlinkConfig:
    """Times in seconds, closures from 0 (open) to 1.

    closing, closed, opening: the curve of a blink. A blink is found where both lids are closed by more than `closes`; it lasts
    until one falls to `ends` or, below half of `closes`, begins to close again, and is none if it takes longer than `longest`. apart: least time from one new blink to
    the next.
    """

    closing: float = 0.06
    closed: float = 0.03
    opening: float = 0.11
    closes: float = 0.5
    ends: float = 0.1
    longest: float = 0.6
    apart: float = 0.5


BLINK = BlinkConfig()


def blink_curve(since: np.ndarray, config: BlinkConfig = BLINK) -> np.ndarray:
    """Closure, 0 to 1, `since` seconds after a blink began; a lid shuts faster than it opens."""
    shut = config.closing + config.closed
    return smoothstep(since / config.closing) * (1 - smoothstep((since - shut) / config.opening))


def smoothstep(ramp: np.ndarray) -> np.ndarray:
    """0 below 0, 1 above 1, smooth between."""
    ramp = np.clip(ramp, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def find_blinks(motion: Motion, config: BlinkConfig = BLINK) -> list[tuple[int, int]]:
    """First frame and the frame behind the last of every blink; a wink of one eye and eyes that stay closed are none."""
    closure = lid_closure(motion)
    if closure is None:
        return []
    both = closure.amin(dim=1)
    found: list[tuple[int, int]] = []
    for first, end in _runs(both > config.closes):
        span = _edge(both, first, -1, config), _edge(both, end - 1, 1, config) + 1
        if span[1] - span[0] > config.longest * motion.fps or (found and span[0] < found[-1][1]):
            continue
        found.append(span)
    return found


def _edge(both: Tensor, index: int, step: int, config: BlinkConfig) -> int:
    """The outermost frame of a blink in one direction: behind it the lids are open, or begin to close again."""
    while 0 <= index + step < len(both):
        now, following = float(both[index]), float(both[index + step])
        if following <= config.ends or (now < config.closes / 2 and following >= now):
            return index
        index += step
    return index


def weaken_blinks(motion: Motion, depth: float, config: BlinkConfig = BLINK) -> Motion:
    """The motion with its blinks as deep as `depth` times before: 1 changes nothing, 0 keeps the eyes open."""
    if depth == 1:
        return motion
    values = _lids(motion).clone()
    for first, end in find_blinks(motion, config):
        before, behind = (values[index] if 0 <= index < len(values) else None for index in (first - 1, end))
        before = behind if before is None else before
        behind = before if behind is None else behind
        if before is None or behind is None:
            continue  # the clip is one blink: nothing tells how open the eyes would be
        weight = torch.linspace(0, 1, end - first + 2)[1:-1, None]
        open_lids = torch.lerp(before, behind, weight)
        values[first:end] = open_lids + depth * (values[first:end] - open_lids)
    return _with_lids(motion, values)


def add_blinks(motion: Motion, rate: float, depth: float, seed: int, config: BlinkConfig = BLINK) -> Motion:
    """The motion with random blinks, `rate` a second on average. depth: 1 shuts the lids."""
    if rate == 0 or depth == 0:
        return motion
    if not 0 < rate * config.apart < 1:
        raise PortraitError(f"{rate:g} blinks a second: choose 0 to {1 / config.apart:g}, not included")
    rng = np.random.default_rng(seed)
    times = np.arange(len(motion)) / motion.fps
    closure = np.zeros(len(motion))
    free = 1 / rate - config.apart  # mean time from when a blink may follow to when it does
    moment = rng.exponential(free) - config.closing
    while moment < times[-1]:
        closure = np.maximum(closure, blink_curve(times - moment, config))
        moment += config.apart + rng.exponential(free)
    return close_lids(motion, torch.from_numpy(depth * closure).float())


def edit_blinks(motion: Motion, rate: float | None, depth: float, seed: int, config: BlinkConfig = BLINK) -> Motion:
    """Another rate and depth of the blinks. rate: blinks a second in place of the motion's own, which are taken out; None keeps
    them. depth: factor on the own ones, closure of new ones."""
    if rate is None:
        return weaken_blinks(motion, depth, config)
    given(lid_closure(motion), "lids")
    return add_blinks(weaken_blinks(motion, 0.0, config), rate, depth, seed, config)


def _runs(flags: Tensor) -> list[tuple[int, int]]:
    """First index and the one behind the last of every run of True."""
    padded = torch.cat([flags.new_zeros(1), flags, flags.new_zeros(1)]).int()
    change = padded.diff()
    return list(
        zip((change == 1).nonzero().flatten().tolist(), (change == -1).nonzero().flatten().tolist(), strict=True)
    )


def _lids(motion: Motion) -> Tensor:
    given(lid_closure(motion), "lids")
    if motion.space == LIVEPORTRAIT:
        return motion.expression[:, [column for pair in LID_COLUMNS for column in pair]]
    return given(motion.lids, "lids")


def _with_lids(motion: Motion, values: Tensor) -> Motion:
    if motion.space != LIVEPORTRAIT:
        return replace(motion, lids=values.clamp(0, 1))
    expression = motion.expression.clone()
    expression[:, [column for pair in LID_COLUMNS for column in pair]] = values
    return replace(motion, expression=expression)
