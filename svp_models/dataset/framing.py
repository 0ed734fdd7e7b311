"""Which squares of a film (see `face.crop`) are good enough to learn from."""

from __future__ import annotations

from ..face.crop import Square

MOST_OUTSIDE = 1 / 3  # of the square's area


def outside_share(square: Square, width: int, height: int) -> float:
    """Share of the square's area that lies outside of the picture."""
    inside = 1.0
    for start, extent in ((square.left, width), (square.top, height)):
        inside *= max(0, min(start + square.side, extent) - max(start, 0)) / square.side
    return 1 - inside
