"""The square that is cut out of a film: one for a whole clip, around the face's places in all of its frames.

Its side is `margin` times the longer side of the box around all these places, but not more than the picture's shorter side
unless LEAST_MARGIN demands it; its middle lies a tenth of that box's height above the box's, because hair and forehead are not
in it. It is moved into the picture as far as the whole box stays in it. What is still outside repeats the picture's edge.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

LEAST_MARGIN = 1.1
RISE = 0.1
MOST_OUTSIDE = 1 / 3  # of the square's area


@dataclass(frozen=True)
class Square:
    """left, top, side in whole pixels of a film; it may reach outside of the picture."""

    left: int
    top: int
    side: int


def square_around(boxes: np.ndarray, width: int, height: int, margin: float) -> Square:
    """The square for face boxes n 4 (left, top, right, bottom) in pictures of width x height."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    longer = float(max(high - low))
    side = max(min(margin * longer, min(width, height)), LEAST_MARGIN * longer)
    middle = (low + high) / 2 - (0, RISE * (high[1] - low[1]))
    corner = []
    for axis, extent in enumerate((width, height)):
        start = middle[axis] - side / 2
        start = np.clip(start, 0, extent - side) if side <= extent else (extent - side) / 2
        corner.append(np.clip(start, high[axis] - side, low[axis]))
    return Square(round(float(corner[0])), round(float(corner[1])), round(side))


def outside_share(square: Square, width: int, height: int) -> float:
    """Share of the square's area that lies outside of the picture."""
    inside = 1.0
    for start, extent in ((square.left, width), (square.top, height)):
        inside *= max(0, min(start + square.side, extent) - max(start, 0)) / square.side
    return 1 - inside


def cut_square(frame: np.ndarray, square: Square, size: int) -> np.ndarray:
    """The square of a frame (h w 3, uint8) as size size 3: averaged where it shrinks, bicubic where it grows."""
    height, width = frame.shape[:2]
    left, top = max(square.left, 0), max(square.top, 0)
    right, bottom = min(square.left + square.side, width), min(square.top + square.side, height)
    part = frame[top:bottom, left:right]
    around = (
        top - square.top,
        square.top + square.side - bottom,
        left - square.left,
        square.left + square.side - right,
    )
    if any(around):
        part = cv2.copyMakeBorder(part, *around, borderType=cv2.BORDER_REPLICATE)
    if square.side == size:
        return np.ascontiguousarray(part)
    return cv2.resize(part, (size, size), interpolation=cv2.INTER_AREA if square.side > size else cv2.INTER_CUBIC)


def to_square(points: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Points ... 2 of the film -> of the cut square, float32."""
    return ((points - (square.left, square.top)) * (size / square.side)).astype(np.float32)
