"""Keyframes: a small table of what changes when, and the curves through it.

    # time in seconds, channel, value
    0    yaw    0
    1.5  yaw    20
    2.5  smile  0.8

One keyframe a line, in any order; blanks, tabs, commas or semicolons between the three; `#` begins a comment.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..optional_deps import interpolate

SEPARATORS = re.compile(r"[\s,;]+")
HEADER = ("time", "channel", "value")


def _smooth(times: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    return interpolate.PchipInterpolator(times, values)(at)


def _linear(times: np.ndarray, values: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.interp(at, times, values)


# smooth: a monotone cubic (PCHIP), which never leaves the span between two keyframes
INTERPOLATIONS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]] = {
    "smooth": _smooth,
    "linear": _linear,
}


def parse_keyframes(text: str, channels: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """A table -> (time, value) by channel, in the order of time. PortraitError names the line that is wrong."""
    found: dict[str, dict[float, float]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.split("#")[0].strip(" \t\r,;")
        parts = SEPARATORS.split(content) if content else []
        if not parts or tuple(part.lower() for part in parts) == HEADER:
            continue
        if len(parts) != len(HEADER):
            raise PortraitError(
                f"keyframes, line {number}: {line.strip()!r} has {len(parts)} entries: write time, channel and value, like "
                "1.5 yaw 20"
            )
        time, channel, value = _number(parts[0], number), parts[1].lower(), _number(parts[2], number)
        if time < 0:
            raise PortraitError(f"keyframes, line {number}: the time is {time:g} seconds: it must be 0 or more")
        if channel not in channels:
            raise PortraitError(
                f"keyframes, line {number}: there is no channel {parts[1]!r}: {_nearest(channel, channels)}"
            )
        rows = found.setdefault(channel, {})
        if time in rows:
            raise PortraitError(
                f"keyframes, line {number}: {channel} has a second value at {time:g} seconds: keep one of them"
            )
        rows[time] = value
    return {channel: sorted(rows.items()) for channel, rows in found.items()}


def keyframe_curves(
    text: str, channels: Sequence[str], frames: int, fps: float, interpolation: str = "smooth"
) -> dict[str, Tensor]:
    """A table -> n values by channel, float32; frame i is at i / fps seconds.

    Before a channel's first keyframe its first value holds, behind the last one the last.
    """
    if interpolation not in INTERPOLATIONS:
        raise PortraitError(f"unknown interpolation {interpolation!r}: choose one of {', '.join(INTERPOLATIONS)}")
    at = np.arange(frames) / fps
    curves = {}
    for channel, rows in parse_keyframes(text, channels).items():
        times, values = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
        inside = at.clip(times[0], times[-1])
        curve = np.full(frames, values[0]) if len(rows) == 1 else INTERPOLATIONS[interpolation](times, values, inside)
        curves[channel] = torch.from_numpy(curve).float()
    return curves


def last_time(text: str, channels: Sequence[str]) -> float:
    """The time of a table's last keyframe in seconds; 0 without any."""
    return max((rows[-1][0] for rows in parse_keyframes(text, channels).values()), default=0.0)


def _number(text: str, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise PortraitError(
            f"keyframes, line {line}: {text!r} is no number: write time, channel and value, like 1.5 yaw 20"
        )
    return value


def _nearest(name: str, channels: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, channels, n=1)
    return f"did you mean {near[0]!r}?" if near else f"choose one of {', '.join(channels)}"
