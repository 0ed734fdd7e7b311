"""Overlapping windows of frames, and how their predictions are joined."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import PortraitError

BLENDS = ("average", "triangular")


def frame_windows(frames: int, window: int, overlap: int) -> list[list[int]]:
    """Frame indices of every window, each `window` long and sharing at least `overlap` frames with the one before.

    Every frame is in at least one window and none lies beyond the clip: the last window is shifted back to end with the
    clip. A clip of up to `window` frames is one window of its own length.
    """
    if frames < 1:
        raise PortraitError(f"the clip has {frames} frames: at least 1 is needed")
    if window < 1 or not 0 <= overlap < window:
        raise PortraitError(
            f"window is {window} frames and overlap {overlap}: overlap must be at least 0 and less than window"
        )
    if frames <= window:
        return [list(range(frames))]
    starts = [*range(0, frames - window, window - overlap), frames - window]
    return [list(range(start, start + window)) for start in starts]


def blend_weights(windows: list[list[int]], frames: int, blend: str = "average") -> list[Tensor]:
    """What each window contributes to each of its frames: one tensor (window,) per window, summing to 1 on every frame.

    `average` (the default): all windows that hold a frame count the same. `triangular` (a choice): a window counts the
    less the nearer the frame is to its edge, so that a prediction fades in and out over an overlap.
    """
    if blend not in BLENDS:
        raise PortraitError(f"unknown blend {blend!r}: choose one of {', '.join(BLENDS)}")
    raw = []
    for window in windows:
        rising = torch.arange(1, len(window) + 1, dtype=torch.float32)
        raw.append(torch.minimum(rising, rising.flip(0)) if blend == "triangular" else torch.ones(len(window)))
    total = torch.zeros(frames)
    for window, weight in zip(windows, raw, strict=True):
        total[window] += weight
    return [weight / total[window] for window, weight in zip(windows, raw, strict=True)]


def completed_frames(windows: list[list[int]], number: int, frames: int) -> slice:
    """The frames whose last window is windows[number], of windows as `frame_windows` gives them: up to the start of the next."""
    return slice(windows[number][0], windows[number + 1][0] if number + 1 < len(windows) else frames)
