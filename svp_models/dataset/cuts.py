"""Where one shot ends and the next begins, frame by frame while a film is read."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np

from ..libraries import cv2

SIDE = 48  # pixels a side that frames are compared at
BEFORE, AFTER = 12, 4  # frames whose change tells what is usual here
LEAST = 6.0  # mean difference of two frames of a cut, of 255
RATIO = 4.0  # of a cut's difference to what is usual; heads that turn fast reach 3.3
STILL = 0.05  # a frame that is repeated says nothing of what is usual


def mark_cuts(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """Frames (h w 3, uint8) each with whether a shot begins with it; the film's first frame begins none.

    A cut is a change from frame to frame (mean absolute difference of thumbnails) of at least LEAST that is more than RATIO
    times the usual one: the larger of the medians over the 12 frames before and the 4 after. Dissolves are not found, nor
    are cuts between pictures that differ no more than a head that turns.
    """
    held: deque[tuple[np.ndarray, float]] = deque()
    before: deque[float] = deque(maxlen=BEFORE)
    last = None
    for frame in frames:
        small = thumbnail(frame)
        held.append((frame, 0.0 if last is None else float(np.abs(small - last).mean())))
        last = small
        if len(held) > AFTER:
            yield _decided(held, before)
    while held:
        yield _decided(held, before)


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """48 48 3, float32."""
    return cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _decided(held: deque[tuple[np.ndarray, float]], before: deque[float]) -> tuple[np.ndarray, bool]:
    """The oldest frame held; `held` keeps those after it."""
    frame, change = held.popleft()
    usual = max(_median(before), _median(each for _, each in held))
    cut = change >= LEAST and change > RATIO * usual
    if not cut:
        before.append(change)
    return frame, cut


def _median(changes: Iterable[float]) -> float:
    moving = [each for each in changes if each > STILL]
    return float(np.median(moving)) if moving else 0.0
