"""Less trembling of tracked points: the one-euro filter (Casiez, Roussel and Vogel, CHI 2012), run both ways over a clip."""

from __future__ import annotations

import math

import numpy as np

from ..errors import PortraitError

STRONGEST_CUTOFF = 0.5  # Hz at rest, for strength 1
SPEED_GAIN = 4.0  # Hz of cut-off per unit and second of speed: fast movement passes
SPEED_CUTOFF = 1.0  # Hz, of the speed's own low-pass, as in the paper


def one_euro(
    values: np.ndarray, fps: float, min_cutoff: float, speed_gain: float, speed_cutoff: float = SPEED_CUTOFF
) -> np.ndarray:
    """Causal filter of n rows of any shape at `fps`; cut-offs in Hz, speed_gain in Hz per unit of value and second.

    Row by row: x' = a x + (1 - a) x'_before with a = 1 / (1 + fps / (2 pi f)) and f = min_cutoff + speed_gain |dx'|, where
    dx' is the change per second, itself low-passed at speed_cutoff.
    """
    rows = np.asarray(values, np.float64)
    filtered = rows.copy()
    speed = np.zeros_like(rows[0]) if len(rows) else rows
    for index in range(1, len(rows)):
        step = (rows[index] - filtered[index - 1]) * fps
        speed = speed + _weight(speed_cutoff, fps) * (step - speed)
        share = _weight(min_cutoff + speed_gain * np.abs(speed), fps)
        filtered[index] = filtered[index - 1] + share * (rows[index] - filtered[index - 1])
    return filtered


def smooth_points(points: np.ndarray, fps: float, strength: float, size: float) -> np.ndarray:
    """Points n k 2 of every frame of a clip at `fps`, smoothed -> n k 2, float32.

    strength: 0 changes nothing, 1 is the strongest (0.5 Hz at rest); size: pixels that count as 1 for the speed, such as
    the eyes' distance, so that the picture's size does not matter. The filter runs forwards and backwards and the two
    are averaged: their delays cancel.
    """
    if not 0 <= strength <= 1 or fps <= 0 or size <= 0:
        raise PortraitError(
            f"smoothing {strength} at {fps} fps with a face of {size} pixels: strength must be 0 to 1, the others above 0"
        )
    if strength == 0 or len(points) < 2:
        return np.asarray(points, np.float32)
    scaled = np.asarray(points, np.float64) / size
    cutoff = STRONGEST_CUTOFF / strength
    forward = one_euro(scaled, fps, cutoff, SPEED_GAIN)
    backward = one_euro(scaled[::-1], fps, cutoff, SPEED_GAIN)[::-1]
    return ((forward + backward) / 2 * size).astype(np.float32)


def _weight(cutoff: float | np.ndarray, fps: float) -> float | np.ndarray:
    """Share of the new value in a first-order low-pass."""
    return 1 / (1 + fps / (2 * math.pi * cutoff))
