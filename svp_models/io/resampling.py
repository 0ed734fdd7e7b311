"""Values over time: linear interpolation, other frame rates, gaps filled, jitter removed.

Rows are frames. Positions are fractional row numbers: 1.5 lies half way between row 1 and row 2.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..optional_deps import interpolate

MAX_CUTOFF_AT_REST = 0.5  # Hz, for strength 1
SPEED_GAIN = 4.0  # Hz of cut-off per unit and second of speed: fast movement passes
SPEED_CUTOFF = 1.0  # Hz, of the speed's own low-pass, as in the paper


def neighbours(positions: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Positions m in [0, count - 1] -> the rows below and above (m, int64) and the weight of the row above (m, in [0, 1])."""
    below = positions.floor().long().clamp(max=max(0, count - 2))
    above = (below + 1).clamp(max=count - 1)
    return below, above, positions - below


def interpolate_rows(rows: Tensor, positions: Tensor) -> Tensor:
    """Linear interpolation between rows: n ..., positions m in [0, n - 1] -> m ..., of the rows' type."""
    below, above, weight = neighbours(positions, len(rows))
    return torch.lerp(rows[below], rows[above], weight.to(rows.dtype).view(-1, *[1] * (rows.dim() - 1)))


def frame_centre_positions(count: int, step: float, stored: int) -> Tensor:
    """Positions of `count` frames in `stored` rows when the centres of frames are aligned; the ends repeat. step: rows per frame."""
    return ((torch.arange(count) + 0.5) * step - 0.5).clamp(0, stored - 1)


def ping_pong_positions(positions: Tensor, count: int) -> Tensor:
    """Positions from 0 on without end -> positions in [0, count - 1] that run forwards, backwards, forwards and so on."""
    if count < 2:
        return torch.zeros_like(positions)
    period = 2 * (count - 1)
    positions = positions % period
    return torch.minimum(positions, period - positions)


def interpolate_missing(rows: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Fill missing frames: a smooth curve between the neighbours in time, constant before the first and after the last.

    The curve (PCHIP, monotone cubic) continues the movement and never leaves the span between its two ends, however
    long the gap. rows: n rows of any shape; present: n bool. Returns the rows as float32 and the indices of the filled frames.
    """
    present = np.asarray(present, dtype=bool)
    known = np.flatnonzero(present)
    if len(known) == 0:
        raise PortraitError(
            f"none of the {len(present)} frames shows a face: choose another clip or type the keypoints"
        )
    missing = np.flatnonzero(~present)
    filled = np.array(rows, dtype=np.float64)
    if len(known) > 1:
        filled[missing] = interpolate.PchipInterpolator(known, filled[known])(missing.clip(known[0], known[-1]))
    else:
        filled[missing] = filled[known]
    return filled.astype(np.float32), tuple(missing.tolist())


def one_euro(
    values: np.ndarray, fps: float, min_cutoff: float, speed_gain: float, speed_cutoff: float = SPEED_CUTOFF
) -> np.ndarray:
    """The one-euro filter (Casiez, Roussel and Vogel, CHI 2012): causal, n rows of any shape at `fps`.

    Row by row: x' = a x + (1 - a) x'_before with a = 1 / (1 + fps / (2 pi f)) and f = min_cutoff + speed_gain |dx'|, where
    dx' is the change per second, itself low-passed at speed_cutoff. Cut-offs in Hz, speed_gain in Hz per unit and second.
    """
    rows = np.asarray(values, np.float64)
    filtered = rows.copy()
    speed = np.zeros_like(rows[0]) if len(rows) else rows
    for index in range(1, len(rows)):
        step = (rows[index] - filtered[index - 1]) * fps
        speed = speed + _low_pass_weight(speed_cutoff, fps) * (step - speed)
        weight = _low_pass_weight(min_cutoff + speed_gain * np.abs(speed), fps)
        filtered[index] = filtered[index - 1] + weight * (rows[index] - filtered[index - 1])
    return filtered


def smooth_points(points: np.ndarray, fps: float, strength: float, size: float) -> np.ndarray:
    """Points n k 2 of every frame of a clip at `fps`, smoothed -> n k 2, float32.

    strength: 0 changes nothing, 1 is the strongest (0.5 Hz at rest); size: pixels that count as 1 for the speed, such as
    the distance of the eyes, so that the size of the image does not matter. The filter runs forwards and backwards and the
    mean of both is taken: their delays cancel.
    """
    if not 0 <= strength <= 1 or fps <= 0 or size <= 0:
        raise PortraitError(
            f"smoothing {strength} at {fps} fps with a face of {size} pixels: strength must be 0 to 1, the others above 0"
        )
    if strength == 0 or len(points) < 2:
        return np.asarray(points, np.float32)
    scaled = np.asarray(points, np.float64) / size
    cutoff = MAX_CUTOFF_AT_REST / strength
    forward = one_euro(scaled, fps, cutoff, SPEED_GAIN)
    backward = one_euro(scaled[::-1], fps, cutoff, SPEED_GAIN)[::-1]
    return ((forward + backward) / 2 * size).astype(np.float32)


def _low_pass_weight(cutoff: float | np.ndarray, fps: float) -> float | np.ndarray:
    """Weight of the new value in a first-order low-pass."""
    return 1 / (1 + fps / (2 * math.pi * cutoff))
