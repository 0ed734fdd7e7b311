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
CURVE = 33  # points of a lip between its corners
EDGE = 1.2  # pixels over which the paint begins
REACH = 0.5  # of the size of the lips: how far around them the light is measured


@dataclass(frozen=True)
class MouthPaint:
    """Colours are shares of white in good light. least: opening at which the paint begins, and full: beyond that of the portrait's
    mouth at which it covers, both in widths of the mouth. teeth: height of the upper teeth, in openings and at most in widths."""

    dark: tuple[float, float, float] = (0.26, 0.09, 0.09)
    tongue: tuple[float, float, float] = (0.55, 0.25, 0.25)
    enamel: tuple[float, float, float] = (0.76, 0.71, 0.65)
    least: float = 0.03
    full: float = 0.08
    teeth: tuple[float, float] = (0.40, 0.12)


@dataclass(frozen=True)
class _Mouths:
    """Inner lips of n faces. corner: n 2, the left one; axes: n 2 2 (rows: along, down; in pixels, as long as the mouth is wide);
    upper, lower: n 5 2, in these axes."""

    corner: Tensor
    axes: Tensor
    upper: Tensor
    lower: Tensor

    @property
    def width(self) -> Tensor:
        """n, in pixels."""
        return self.axes[:, 0].norm(dim=1).clamp(min=1e-6)

    @property
    def opening(self) -> Tensor:
        """How far the inner lips are apart: n, in widths of the mouth."""
        return (self.lower[:, 1:-1, 1] - self.upper[:, 1:-1, 1]).amax(1)


def paint_mouths(images: Tensor, points: Tensor, moved: Tensor, paint: MouthPaint = MouthPaint()) -> Tensor:
    """Warped portraits n 3 h w in [-1, 1] with the opened mouths filled. points, moved: n 68+ 2, landmarks of the portrait and of
    the frames in pixels. Where a mouth is no wider open than the portrait's, its own inside stays."""
    before, after = (_mouths(value.to(images.device)) for value in (points, moved))
    share = ((after.opening - before.opening.clamp(min=paint.least)) / paint.full).clamp(0, 1)  # n
    lips = moved[:, LIPS].to(images.device).double()
    around = torch.stack([lips.amin(1), lips.amax(1)], 1)  # n 2 2, corners of the boxes of the lips
    around += REACH * (around[:, 1:] - around[:, :1]) * around.new_tensor([[-1.0], [1.0]])
    rows, columns = _window(around[share > 0], images.shape[2], images.shape[3])
    result = images.clone()
    part = result[:, :, rows, columns]
    if not part.numel():
        return result
    lines = [
        torch.arange(line.start, line.stop, device=images.device, dtype=torch.float64) + 0.5 for line in (rows, columns)
    ]
    pixels = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)  # h w 2
    colour, inside = _inside(pixels, after, paint)
    colour = colour * _light(part, pixels, around)[:, :, None, None]
    weight = (share[:, None, None] * inside).unsqueeze(1).to(part)
    part.copy_(torch.lerp(part, (2 * colour - 1).to(part), weight))
    return result


def _window(boxes: Tensor, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that hold all boxes n 2 2 (left top, right bottom); empty without any."""
    if not len(boxes):
        return slice(0), slice(0)
    left, top, right, bottom = torch.cat([boxes[:, 0].amin(0).floor(), boxes[:, 1].amax(0).ceil()]).int().tolist()
    return slice(max(0, top), max(0, min(height, bottom))), slice(max(0, left), max(0, min(width, right)))


def _mouths(points: Tensor) -> _Mouths:
    points = points.double()
    corner, along = points[:, UPPER[0]], points[:, UPPER[-1]] - points[:, UPPER[0]]
    axes = torch.stack([along, torch.stack([-along[:, 1], along[:, 0]], 1)], 1)
    size = along.square().sum(1).clamp(min=1e-9)[:, None, None]
    upper, lower = ((points[:, list(line)] - corner[:, None]) @ axes.mT / size for line in (UPPER, LOWER))
    return _Mouths(corner, axes, upper, lower)


def _inside(pixels: Tensor, mouths: _Mouths, paint: MouthPaint) -> tuple[Tensor, Tensor]:
    """Colours n 3 h w in full light, and where the opening is, n h w. pixels: h w 2."""
    width = mouths.width[:, None, None]
    local = (pixels - mouths.corner[:, None, None]) @ mouths.axes.mT[:, None] / width[..., None] ** 2  # n h w 2
    along, down = local.unbind(-1)  # in widths of the mouth
    roof, floor = (_curve(along, line) for line in (mouths.upper, mouths.lower))
    edge = EDGE / width
    inside = ((down - roof) / edge).clamp(0, 1) * ((floor - down) / edge).clamp(0, 1)
    height = (floor - roof).clamp(min=1e-6)
    depth = ((down - roof) / height).clamp(0, 1)
    teeth = (paint.teeth[0] * height).clamp(max=paint.teeth[1])
    bite = ((teeth - (down - roof)) / (2 * edge) + 0.5).clamp(0, 1) * (1 - (2 * along - 1).abs() ** 4).clamp(0, 1)
    dark, tongue, enamel = (
        pixels.new_tensor(value)[:, None, None] for value in (paint.dark, paint.tongue, paint.enamel)
    )
    colour = torch.lerp(dark, tongue, ((depth - 0.55) / 0.45).clamp(0, 1)[:, None])
    return torch.lerp(colour, enamel, bite[:, None]), inside


def _curve(along: Tensor, line: Tensor) -> Tensor:
    """The heights of lips through points n 5 2 from corner to corner, at places n h w."""
    knots = np.arange(line.shape[1])
    spline = interpolate.CubicSpline(knots, np.eye(len(knots)), bc_type="natural")(np.linspace(0, knots[-1], CURVE))
    places, heights = (torch.from_numpy(spline).to(line) @ line).unbind(-1)  # n CURVE
    order = torch.linspace(0, 1e-4, CURVE).to(line)
    places = places.cummax(1).values + order  # corners that fold over stay in order
    asked = along.flatten(1).contiguous()
    right = torch.searchsorted(places.contiguous(), asked).clamp(1, CURVE - 1)
    low, high = (places.gather(1, index) for index in (right - 1, right))
    share = ((asked - low) / (high - low)).clamp(0, 1)
    return torch.lerp(heights.gather(1, right - 1), heights.gather(1, right), share).view_as(along)


def _light(part: Tensor, pixels: Tensor, around: Tensor) -> Tensor:
    """How light pictures n 3 h w are around their mouths, n 1: that of the brightest quarter of the boxes n 2 2 there."""
    within = ((pixels >= around[:, :1, None]) & (pixels <= around[:, 1:, None])).all(-1)  # n h w
    shown = ((part.double() + 1) / 2).mean(1).masked_fill(~within, torch.nan)
    bright = torch.nanquantile(shown.flatten(1), 0.75, dim=1, keepdim=True)
    return (0.25 + 0.95 * bright).clamp(max=1).nan_to_num(1.0)
