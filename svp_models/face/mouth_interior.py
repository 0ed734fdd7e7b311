"""The inside of a mouth that a warped portrait opens: teeth, tongue and darkness, painted between the inner lips.

A portrait with a closed mouth has no pixels of it, and a warp stretches the seam of the lips over the opening.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..optional_deps import interpolate

UPPER, LOWER = (60, 61, 62, 63, 64), (60, 67, 66, 65, 64)  # of 68 landmarks, the inner lips from left to right
LIPS = slice(48, 60)


@dataclass(frozen=True)
class MouthPaint:
    """Colours are shares of white in good light. least: opening at which the paint begins, and full: beyond that of the portrait's
    mouth at which it covers, both in widths of the mouth. teeth: height of the upper teeth, in openings and at most in widths."""

    dark: tuple[float, float, float] = (0.20, 0.06, 0.06)
    tongue: tuple[float, float, float] = (0.55, 0.25, 0.25)
    enamel: tuple[float, float, float] = (0.90, 0.86, 0.80)
    least: float = 0.03
    full: float = 0.08
    teeth: tuple[float, float] = (0.40, 0.12)


def paint_mouths(images: Tensor, points: Tensor, moved: Tensor, paint: MouthPaint = MouthPaint()) -> Tensor:
    """Warped portraits n 3 h w in [-1, 1] with the opened mouths filled. points, moved: n 68+ 2, landmarks of the portrait and of
    the frames in pixels. Where a mouth is no wider open than the portrait's, its own inside stays."""
    result = images.clone()
    for row, (before, after) in enumerate(zip(points.double().numpy(), moved.double().numpy(), strict=True)):
        share = (_opening(after) - max(_opening(before), paint.least)) / paint.full
        if share > 0:
            _paint(result[row], after, min(share, 1.0), paint)
    return result


def _opening(points: np.ndarray) -> float:
    """How far the inner lips are apart, in widths of the mouth."""
    _, _, upper, lower = _mouth(points)
    return float(np.max(lower[1:-1, 1] - upper[1:-1, 1]))


def _mouth(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Left corner 2 and axes 2 2 (rows: along, down; in pixels, as long as the mouth is wide), inner lips 5 2 in these axes."""
    corner, along = points[UPPER[0]], points[UPPER[-1]] - points[UPPER[0]]
    axes = np.stack([along, [-along[1], along[0]]])
    size = max(float(along @ along), 1e-9)
    upper, lower = (((points[list(line)] - corner) @ axes.T) / size for line in (UPPER, LOWER))
    return corner, axes, upper, lower


def _paint(image: Tensor, points: np.ndarray, share: float, paint: MouthPaint) -> None:
    """Paints into an image 3 h w."""
    corner, axes, upper, lower = _mouth(points)
    width = float(np.linalg.norm(axes[0]))
    lips = points[list(UPPER + LOWER)]
    left, top = (max(0, int(value)) for value in lips.min(axis=0) - 2)
    right, bottom = (int(value) for value in lips.max(axis=0) + 3)
    part = image[:, top:bottom, left:right]
    if not part.numel():
        return
    rows, columns = (np.arange(count) + 0.5 for count in part.shape[1:])
    pixels = np.stack(np.meshgrid(columns + left, rows + top), axis=-1) - corner
    along, down = np.moveaxis(pixels @ axes.T / width**2, -1, 0)  # h w both, in widths of the mouth
    roof, floor = (_curve(along, line) for line in (upper, lower))
    soft = 1.2 / width  # the edge, in widths: about a pixel
    inside = ((down - roof) / soft).clip(0, 1) * ((floor - down) / soft).clip(0, 1)
    height = np.maximum(floor - roof, 1e-6)
    depth = ((down - roof) / height).clip(0, 1)
    teeth = np.minimum(paint.teeth[0] * height, paint.teeth[1])
    bite = ((teeth - (down - roof)) / (2 * soft) + 0.5).clip(0, 1) * (1 - np.abs(2 * along - 1) ** 4).clip(0, 1)
    light = _light(image, points)
    colour = np.array(paint.dark) + ((depth - 0.55) / 0.45).clip(0, 1)[..., None] * np.subtract(
        paint.tongue, paint.dark
    )
    colour = (colour + bite[..., None] * (np.array(paint.enamel) - colour)) * light
    weight = torch.from_numpy(share * inside).to(part)
    part.copy_(torch.lerp(part, torch.from_numpy(2 * colour - 1).movedim(-1, 0).to(part), weight))


def _curve(along: np.ndarray, line: np.ndarray) -> np.ndarray:
    """The lip through points 5 2 from corner to corner, smooth and without overshooting, at places h w."""
    places = np.maximum.accumulate(line[:, 0]) + 1e-4 * np.arange(len(line))  # corners that fold over stay in order
    return interpolate.PchipInterpolator(places, line[:, 1])(along.clip(places[0], places[-1]))


def _light(image: Tensor, points: np.ndarray) -> np.ndarray:
    """How light the picture is around the mouth, 3: that of the brightest quarter of its surroundings."""
    low, high = points[LIPS].min(axis=0), points[LIPS].max(axis=0)
    margin = 0.5 * (high - low)
    left, top = (max(0, int(value)) for value in low - margin)
    right, bottom = (int(value) + 1 for value in high + margin)
    around = ((image[:, top:bottom, left:right].double() + 1) / 2).flatten(1)
    if not around.numel():
        return np.ones(3)
    bright = float(torch.quantile(around.mean(0), 0.75))
    return np.full(3, min(1.0, 0.25 + 0.95 * bright))
