"""Similarities between points of two pictures, and square crops along them; continuous pixels, (0, 0) the top left corner."""

from __future__ import annotations

import numpy as np

from ..errors import PortraitError
from ..libraries import cv2


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that bring source nearest to target (least squares): k 2 both, k > 1 -> 2 3 float64.

    No mirroring. Source points that all lie on one spot raise PortraitError.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    centre, goal = source.mean(axis=0), target.mean(axis=0)
    a = (source - centre) @ (1, 1j)
    b = (target - goal) @ (1, 1j)
    spread = float(np.sum(np.abs(a) ** 2))
    if not np.isfinite(spread) or spread <= 1e-12:
        raise PortraitError("the points of a face lie on one spot or are not numbers: choose another picture")
    turn = np.sum(np.conj(a) * b) / spread
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.column_stack([linear, goal - linear @ centre])


def move(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points ... 2 through an affine map 2 3 -> ... 2, float64."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The affine map 2 3 that undoes another."""
    return cv2.invertAffineTransform(np.asarray(matrix, np.float64))


def square_around(box: np.ndarray, side: int, margin: float, angle: float = 0.0) -> np.ndarray:
    """The map 2 3 of a picture onto a square crop of `side` pixels around a box (left, top, right, bottom).

    The crop shows `margin` times the box's longer side, turned back by `angle` (radians, clockwise in the picture).
    """
    left, top, right, bottom = (float(each) for each in box)
    scale = side / (max(right - left, bottom - top, 1e-6) * margin)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([linear, side / 2 - linear @ ((left + right) / 2, (top + bottom) / 2)])


def crop(frame: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """A frame (h w 3, uint8) through a similarity 2 3 -> side side 3, uint8; black outside of the frame.

    A frame that shrinks is averaged down first: sampling alone would leave out most of its pixels.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    matrix = np.asarray(matrix, np.float64)
    if scale < 1:
        height, width = frame.shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        frame = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
        matrix = np.column_stack([matrix[:, :2] @ np.diag((width / small[0], height / small[1])), matrix[:, 2]])
    # OpenCV's 0 is the first pixel's centre
    shifted = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ (0.5, 0.5) - 0.5])
    return cv2.warpAffine(frame, shifted, (side, side), flags=cv2.INTER_LINEAR)
