"""A supersampled image with the strokes of a face.

Coordinates are float pixels of the final image: (0, 0) is its top-left corner, so the centre of the first pixel is
(0.5, 0.5). Colours are RGB 0 .. 255.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..optional_deps import cv2

SHIFT = 6  # fractional bits that OpenCV rasterises with

Colour = tuple[float, float, float]


@lru_cache(maxsize=64)
def curve_matrix(points: int, samples: int, closed: bool) -> np.ndarray:
    """Weights of a Catmull-Rom curve through all its points: rows x points, float32; `samples` rows a segment."""
    segments = points if closed else points - 1
    rows = []
    for segment in range(segments):
        for step in range(samples):
            rows.append(_spline_row(points, segment, step / samples, closed))
    if not closed:
        rows.append(_spline_row(points, segments - 1, 1.0, closed))
    return np.stack(rows).astype(np.float32)


def _spline_row(points: int, segment: int, t: float, closed: bool) -> np.ndarray:
    weights = (
        -0.5 * t + t * t - 0.5 * t**3,
        1 - 2.5 * t * t + 1.5 * t**3,
        0.5 * t + 2 * t * t - 1.5 * t**3,
        -0.5 * t * t + 0.5 * t**3,
    )
    row = np.zeros(points)
    for offset, weight in zip(range(-1, 3), weights, strict=True):
        index = segment + offset
        if closed:
            row[index % points] += weight
        elif index < 0:  # beyond an end the curve goes on straight
            row[0] += 2 * weight
            row[1] -= weight
        elif index >= points:
            row[points - 1] += 2 * weight
            row[points - 2] -= weight
        else:
            row[index] += weight
    return row


def curve(points: np.ndarray, samples: int = 6, closed: bool = False) -> np.ndarray:
    """n x d -> a smooth line through all points, m x d."""
    return curve_matrix(len(points), samples, closed) @ points


def resample(points: np.ndarray, count: int) -> np.ndarray:
    """A line n x 2 with `count` points instead, evenly spread over its index."""
    position = np.linspace(0, len(points) - 1, count)
    index = np.arange(len(points))
    return np.stack([np.interp(position, index, points[:, axis]) for axis in (0, 1)], axis=1)


def ribbon(centre: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Outline of a stroke with varying width: centre m x 2, full width m (or a number) -> 2m x 2."""
    tangent = np.gradient(centre, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-6
    half = normal * (np.asarray(width) * 0.5).reshape(-1, 1)
    return np.concatenate([centre + half, (centre - half)[::-1]])


def mix(first: Colour, second: Colour, amount: float) -> Colour:
    """Between two colours: 0 is the first."""
    red, green, blue = (a + (b - a) * amount for a, b in zip(first, second, strict=True))
    return red, green, blue


def multiplied(colour: Colour, factors: Colour) -> Colour:
    """Channel by channel."""
    red, green, blue = (channel * factor for channel, factor in zip(colour, factors, strict=True))
    return red, green, blue


def shade(colour: Colour, factor: float) -> Colour:
    """Darker (below 1) or lighter (above 1, towards white)."""
    if factor <= 1:
        return multiplied(colour, (factor, factor, factor))
    return mix(colour, (255.0, 255.0, 255.0), factor - 1)


def as_colour(values: np.ndarray) -> Colour:
    """An array of three as a colour within 0 .. 255."""
    red, green, blue = (float(min(max(value, 0.0), 255.0)) for value in values)
    return red, green, blue


class Canvas:
    """Image of `size` x `size`, painted `factor` times larger."""

    def __init__(self, image: np.ndarray, factor: int) -> None:
        self.image = image  # size*factor x size*factor x 3, uint8
        self.factor = factor

    def fixed(self, points: np.ndarray, left: int = 0, top: int = 0) -> np.ndarray:
        """Picture coordinates -> OpenCV's fixed point, in a region that begins at (left, top) of the large image."""
        offset = np.array([0.5 + left, 0.5 + top])
        return np.rint((points * self.factor - offset) * (1 << SHIFT)).astype(np.int32)

    def fill(self, points: np.ndarray, colour: Colour) -> None:
        cv2.fillPoly(self.image, [self.fixed(points)], colour, cv2.LINE_AA, SHIFT)

    def line(self, points: np.ndarray, colour: Colour, width: float, closed: bool = False) -> None:
        """width in image pixels; never thinner than one pixel of the large image."""
        thickness = max(1, round(width * self.factor))
        cv2.polylines(self.image, [self.fixed(points)], closed, colour, thickness, cv2.LINE_AA, SHIFT)

    def lines(self, paths: list[np.ndarray], colour: Colour, width: float) -> None:
        thickness = max(1, round(width * self.factor))
        cv2.polylines(self.image, [self.fixed(p) for p in paths], False, colour, thickness, cv2.LINE_AA, SHIFT)

    def disc(self, centre: np.ndarray, radius: float | tuple[float, float], colour: Colour, angle: float = 0.0) -> None:
        radii = radius if isinstance(radius, tuple) else (radius, radius)
        centre_fixed = self.fixed(np.asarray(centre))
        axes = tuple(max(1, round(r * self.factor * (1 << SHIFT))) for r in radii)
        centre_pixel = (int(centre_fixed[0]), int(centre_fixed[1]))
        cv2.ellipse(self.image, centre_pixel, axes, angle, 0, 360, colour, -1, cv2.LINE_AA, SHIFT)

    def box(self, points: np.ndarray, margin: float = 1.0) -> tuple[int, int, int, int] | None:
        """The region around points in the large image: left, top, right, bottom; None when outside the image."""
        height, width = self.image.shape[:2]
        low = np.floor((points.min(axis=0) - margin) * self.factor).astype(int)
        high = np.ceil((points.max(axis=0) + margin) * self.factor).astype(int)
        left, top = max(0, low[0]), max(0, low[1])
        right, bottom = min(width, high[0]), min(height, high[1])
        return (left, top, right, bottom) if right > left and bottom > top else None

    def mask(self, points: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
        """The polygon's coverage in a region: h x w, uint8."""
        left, top, right, bottom = box
        alpha = np.zeros((bottom - top, right - left), dtype=np.uint8)
        cv2.fillPoly(alpha, [self.fixed(points, left, top)], 255, cv2.LINE_AA, SHIFT)
        return alpha

    def soft(
        self,
        points: np.ndarray,
        colour: Colour,
        opacity: float,
        blur: float,
        clip: np.ndarray | None = None,
    ) -> None:
        """A polygon with a soft edge. blur in image pixels; clip: polygon outside which nothing is painted."""
        if opacity <= 0.004:
            return
        box = self.box(points, margin=blur * 1.5 + 1)
        if box is None:
            return
        alpha = self.mask(points, box)
        kernel = max(1, round(blur * self.factor)) * 2 + 1
        if kernel > 3:  # two box blurs look like one Gaussian blur, in a fraction of the time
            alpha = cv2.blur(cv2.blur(alpha, (kernel // 2 | 1,) * 2), (kernel // 2 | 1,) * 2)
        if clip is not None:
            alpha = cv2.multiply(alpha, self.mask(clip, box), scale=1 / 255)
        self.blend(box, colour, alpha, opacity)

    def blend(self, box: tuple[int, int, int, int], colour: Colour, alpha: np.ndarray, opacity: float = 1.0) -> None:
        """Paint one colour through an alpha of the region's size."""
        left, top, right, bottom = box
        region = self.image[top:bottom, left:right]
        weight = cv2.multiply(alpha, 1.0, scale=opacity / 255, dtype=cv2.CV_32F)  # type: ignore[call-overload]
        flat = np.empty_like(region)
        flat[:] = np.clip(np.rint(colour), 0, 255).astype(np.uint8)
        region[:] = cv2.blendLinear(flat, region, weight, 1 - weight)

    def paste(self, box: tuple[int, int, int, int], image: np.ndarray, alpha: np.ndarray) -> None:
        """Paint an image of the region's size through an alpha of the region's size."""
        left, top, right, bottom = box
        region = self.image[top:bottom, left:right]
        weight = cv2.multiply(alpha, 1.0, scale=1 / 255, dtype=cv2.CV_32F)  # type: ignore[call-overload]
        region[:] = cv2.blendLinear(image, region, weight, 1 - weight)
