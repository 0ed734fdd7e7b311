"""Metrics of series, one row a frame: correlation, jitter, seams at the joins of windows, beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...optional_deps import signal

Rows = NDArray[np.floating]

BEAT_SIGMA = 3.0  # frames, of Bailando's beat alignment
ROUNDING = 1e-3  # of the largest value of a series: a network tells up to a quarter of that of the same picture twice
ONSET_HEIGHT = 0.1  # of the strongest onset: weaker ones are no beats


def correlation(first: Rows, second: Rows) -> float:
    """Pearson correlation of two series; 0 when they are shorter than two or one of them is constant but for ROUNDING."""
    if len(first) < 2 or any(np.ptp(rows) <= ROUNDING * np.abs(rows).max() for rows in (first, second)):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def lagged_correlation(generated: Rows, true: Rows, reach: int) -> NDArray[np.floating]:
    """Correlation at lags -reach .. reach: 2 reach + 1 values. Lag k > 0 compares generated[i + k] with true[i]: k frames late."""
    values = []
    for lag in range(-reach, reach + 1):
        late, early = generated[max(0, lag) :], true[max(0, -lag) :]
        length = min(len(late), len(early))
        values.append(correlation(late[:length], early[:length]))
    return np.array(values)


def largest_change(rows: Rows) -> float:
    """Largest distance of neighbouring rows, n x d; 0 for a single row."""
    return float(np.linalg.norm(np.diff(rows, axis=0), axis=-1).max(initial=0))


def second_differences(rows: Rows) -> NDArray[np.float64]:
    """How abruptly a series turns, per frame: n x d -> n, the norm of x[i - 1] - 2 x[i] + x[i + 1]; 0 at both ends.

    For points of a face (n x k x 2) it is the mean over the points. The unit is that of the rows, per frame squared.
    """
    values = np.asarray(rows, np.float64)
    values = values[:, None] if values.ndim == 1 else values
    turned = np.zeros(len(values))
    if len(values) > 2:
        bend = np.linalg.norm(values[:-2] - 2 * values[1:-1] + values[2:], axis=-1)  # n-2 or n-2 k
        turned[1:-1] = bend.reshape(len(bend), -1).mean(1)
    return turned


def jitter(rows: Rows) -> float:
    """Mean of `second_differences` over the frames that have two neighbours; 0 for fewer than three frames."""
    turned = second_differences(rows)
    return float(turned[1:-1].mean()) if len(turned) > 2 else 0.0


def seam_ratio(roughness: Rows, joins: Sequence[int]) -> float:
    """How much rougher a series is at its joins than elsewhere: 1 where nobody could tell where they are.

    roughness: n, for example `second_differences`; joins: the first frames of the windows but the first. A join at frame j
    shows at j - 1 and j. 1 for a series without roughness, or with nothing but joins.
    """
    values = np.asarray(roughness, np.float64)
    at = np.zeros(len(values), bool)
    for join in joins:
        at[max(0, join - 1) : join + 1] = True
    inside = np.zeros(len(values), bool)
    inside[1:-1] = True
    there, elsewhere = values[at & inside], values[~at & inside]
    if not len(there) or not len(elsewhere) or not values[inside].any():
        return 1.0
    usual = float(elsewhere.mean())
    return float(there.mean()) / usual if usual else float("inf")


def roughest_frames(roughness: Rows, count: int) -> list[int]:
    """The `count` frames with the largest values, in order of time: where a seam or a flicker may be."""
    return sorted(np.argsort(-np.asarray(roughness), kind="stable")[:count].tolist())


def onsets(energy: Rows) -> NDArray[np.intp]:
    """Frames at which a voice sets in: peaks of the rise of its energy, at least 0.1 of the strongest. energy: n -> k indices."""
    rise = np.diff(np.asarray(energy, np.float64), prepend=energy[:1]).clip(min=0)
    if not rise.any():
        return np.zeros(0, np.intp)
    return signal.find_peaks(rise, height=ONSET_HEIGHT * rise.max())[0]


def motion_beats(angles: Rows) -> NDArray[np.intp]:
    """Frames at which a head pauses: minima of its speed. angles: n x 3 -> k indices."""
    speed = (
        np.linalg.norm(np.gradient(np.asarray(angles, np.float64), axis=0), axis=-1) if len(angles) > 1 else np.zeros(1)
    )
    return signal.find_peaks(-speed)[0]


def beat_alignment(motion: Sequence[int] | NDArray[np.intp], audio: Sequence[int] | NDArray[np.intp]) -> float:
    """How near the beats of a motion are to those of the audio, 0 to 1: mean of exp(-d^2 / (2 sigma^2)) over the motion's beats.

    Both in frames; d: distance to the nearest beat of the audio, sigma: 3 frames. Source: Bailando (Siyao et al. 2022),
    section 4.1. 0 without beats.
    """
    if not len(motion) or not len(audio):
        return 0.0
    distance = np.abs(np.asarray(motion)[:, None] - np.asarray(audio)[None]).min(1)
    return float(np.exp(-(distance**2) / (2 * BEAT_SIGMA**2)).mean())


def pose_diversity(angles: Rows) -> float:
    """How much a head moves: standard deviation of yaw, pitch and roll over the frames, mean of the three, degrees. n x 3."""
    return float(np.std(np.asarray(angles, np.float64), axis=0).mean())
