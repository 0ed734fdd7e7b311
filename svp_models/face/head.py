"""A head of average proportions, in half widths of the face: x to the right, y down, z towards the camera."""

from __future__ import annotations

Point = tuple[float, float, float]


def _both_sides(*points: Point) -> tuple[Point, ...]:
    """Points of the image-right half and the middle, and those of the other half."""
    return tuple((side * x, y, z) for x, y, z in points for side in ((-1, 1) if x else (1,)))


RIGID = (0, 1, 2, 3, 6, 7)  # of the 8 head keypoints: the pupils move with a glance too
KEYPOINTS: tuple[Point, ...] = (  # those
    (-1, -0.11, -0.12),
    (-0.905, 0.555, 0.02),
    (1, -0.11, -0.12),
    (0.905, 0.555, 0.02),
    (0, -0.06, 0.5),
    (0, 0.4, 0.8),
)
CROWN = _both_sides(
    (0, -1.22, -0.17), (0.5, -1.12, -0.17), (0.8, -0.88, -0.16), (0.93, -0.62, -0.15), (0.985, -0.36, -0.14)
)
HAIR = tuple((1.15 * x, 1.15 * y, z - 0.2) for x, y, z in CROWN)
FACE = _both_sides((0, 1.2, 0.27), (0.665, 0.935, 0.15), (0, -0.65, 0.39), (0.43, -0.35, 0.38), (0.428, -0.04, 0.4))
