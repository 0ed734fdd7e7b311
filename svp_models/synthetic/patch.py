"""A small picture in the frame of a mouth or an eye, painted upright and then laid onto the head."""

from __future__ import annotations

import numpy as np

from ..optional_deps import cv2


class Patch:
    """Float pixels with coverage in a frame whose x axis runs from `start` to `end`, both pixels of the image.

    unit: pixels of the image in one face unit; low, high: corners of the patch, face units around the frame's origin, which is
    midway between start and end; finer: pixels of the patch per pixel of the image. x, y: w and h x 1, the pixels' centres in
    face units.
    """

    def __init__(
        self, start: np.ndarray, end: np.ndarray, unit: float, low: np.ndarray, high: np.ndarray, finer: float
    ) -> None:
        along = (end - start) / (np.linalg.norm(end - start) + 1e-6)
        self.axes = np.array([along, [-along[1], along[0]]], np.float32)  # rows: the frame's x and y in the image
        self.origin = (start + end) / 2
        self.unit, self.low, self.density = unit, low, unit * finer
        width, height = np.maximum(4, np.ceil((high - low) * self.density)).astype(int)
        self.x = np.float32(low[0] + (np.arange(width) + 0.5) / self.density)
        self.y = np.float32(low[1] + (np.arange(height) + 0.5) / self.density)[:, None]
        self.colour = np.zeros((height, width, 3), np.float32)
        self.alpha = np.zeros((height, width), np.float32)

    @staticmethod
    def frame(start: np.ndarray, end: np.ndarray, unit: float, points: np.ndarray) -> np.ndarray:
        """Image points n x 2 -> the frame's coordinates, face units."""
        along = (end - start) / (np.linalg.norm(end - start) + 1e-6)
        axes = np.array([along, [-along[1], along[0]]])
        return (points - (start + end) / 2) @ axes.T / unit

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """The frame's coordinates -> pixels of the patch."""
        return (points - self.low) * self.density

    def column(self, line: np.ndarray) -> np.ndarray:
        """y of a line m x 2 that runs from left to right, for every column."""
        x = np.maximum.accumulate(line[:, 0]) + np.arange(len(line)) * 1e-6
        return np.interp(self.x, x, line[:, 1]).astype(np.float32)

    def edge(self, distance: np.ndarray, softness: float = 0.0) -> np.ndarray:
        """Coverage from a signed distance in face units: 0 outside, 1 inside, over `softness` and at least one pixel."""
        return np.clip(distance / max(softness, 1 / self.density) + 0.5, 0, 1)

    def over(self, colour: np.ndarray, alpha: np.ndarray) -> None:
        """Paint a colour (3, or h x w x 3) with a coverage h x w."""
        alpha = alpha[..., None]
        self.colour += (colour - self.colour) * alpha
        self.alpha += (1 - self.alpha) * alpha[..., 0]

    def strokes(self, paths: np.ndarray, width: float) -> np.ndarray:
        """Coverage of thin lines, lines x points x 2, face units: h x w float32."""
        mask = np.zeros(self.alpha.shape, np.uint8)
        fixed = np.rint((self.pixels(paths) - 0.5) * 16).astype(np.int32)
        pixels = width * self.density
        cv2.polylines(mask, list(fixed), False, 255, max(1, round(pixels)), cv2.LINE_AA, 4)
        return mask * np.float32(min(1.0, pixels) / 255)

    def lay(self, image: np.ndarray) -> None:
        """Paint the patch onto an image, h x w x 3 uint8. Colours spread over edges: colour is divided by coverage first."""
        corners = np.array([[0, 0], [self.alpha.shape[1], 0], [0, self.alpha.shape[0]]], np.float32)
        frame = corners / self.density + self.low
        placed = np.float32(frame @ self.axes * self.unit + self.origin)
        all_corners = np.concatenate([placed, placed[1:2] + placed[2:3] - placed[:1]])
        low = np.floor(all_corners.min(axis=0)).astype(int) - 1
        high = np.ceil(all_corners.max(axis=0)).astype(int) + 1
        left, top = np.maximum(low, 0)
        right, bottom = min(high[0], image.shape[1]), min(high[1], image.shape[0])
        if right <= left or bottom <= top:
            return
        matrix = cv2.getAffineTransform(corners - 0.5, placed - np.array([left + 0.5, top + 0.5], np.float32))
        picture = np.empty((*self.alpha.shape, 4), np.float32)
        picture[..., :3], picture[..., 3] = self.colour * self.alpha[..., None], self.alpha
        laid = cv2.warpAffine(picture, matrix, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
        region = image[top:bottom, left:right]
        region[:] = np.clip(region * (1 - laid[..., 3:]) + laid[..., :3] + np.float32(0.5), 0, 255).astype(np.uint8)
