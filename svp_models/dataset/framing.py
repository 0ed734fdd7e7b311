"""Which squares of a film (see `face.crop`) are good enough to learn from."""

from __future__ import annotations

from ..face.crop import Square

MOST_OUTSIDE = 1 / 3  # of the square's area


def outside_share(square: Square, width: int, height: int) -> float:
    """Share of the square's area that lies outside of the picture."""
    left, top, right, bottom = square.within(width, height)
    return 1 - max(0, right - left) / square.side * (max(0, bottom - top) / square.side)
