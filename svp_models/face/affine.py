"""Affine maps between points and between images: least-squares fits, and their use.

Coordinates are continuous pixels: (0, 0) is the top left corner of the image. A map is a matrix 2 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ..errors import PortraitError
from ..optional_deps import cv2, transform


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that bring source nearest to target (least squares): k 2 both, k > 1 -> 2 3 float64.

    No mirroring. Source points that all lie on one spot raise PortraitError.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    source_centre, target_centre = source.mean(axis=0), target.mean(axis=0)
    a = (source - source_centre) @ (1, 1j)
    b = (target - target_centre) @ (1, 1j)
    spread = float(np.sum(np.abs(a) ** 2))
    if not np.isfinite(spread) or spread <= 1e-12:
        raise PortraitError("the points of a face lie on one spot or are not numbers: choose another image")
    rotation = np.sum(np.conj(a) * b) / spread
    linear = np.array([[rotation.real, -rotation.imag], [rotation.imag, rotation.real]])
    return np.column_stack([linear, target_centre - linear @ source_centre])


def fit_rotation(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation 3 3 that turns source nearest to target after shift and scale (Kabsch): k 3 both, k > 2."""
    rotation, _ = transform.Rotation.align_vectors(target - target.mean(axis=0), source - source.mean(axis=0))
    return rotation.as_matrix()


def fit_affine_camera(points: np.ndarray, model: ArrayLike, depth_ridge: float = 0.0) -> np.ndarray:
    """The orthographic cameras that show a model (k 3, k > 3, not in one plane) at points (... k 2): ... 4 2, float64.

    Least squares; (x, y, z, 1) times a camera is a point. depth_ridge: regularisation of the column for z, which keeps a
    model that is almost flat from being taken for a wild turn.
    """
    homogeneous = np.insert(np.asarray(model, np.float64), 3, 1.0, axis=1)  # k 4
    normal = homogeneous.T @ homogeneous + np.diag([0, 0, depth_ridge, 0])
    return np.linalg.solve(normal, homogeneous.T @ np.asarray(points, np.float64))


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points ... 2 through an affine map 2 3 -> ... 2, float64."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def invert_affine(matrix: np.ndarray) -> np.ndarray:
    """The affine map 2 3 that undoes another."""
    return cv2.invertAffineTransform(np.asarray(matrix, np.float64))


def square_matrix(box: np.ndarray, size: int, margin: float, angle: float = 0.0) -> np.ndarray:
    """The map 2 3 of an image onto a square crop of `size` pixels around a box (left, top, right, bottom).

    The crop shows `margin` times the longer side of the box, turned back by `angle` (radians, clockwise in the image).
    """
    left, top, right, bottom = (float(edge) for edge in box)
    scale = size / (max(right - left, bottom - top, 1e-6) * margin)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([linear, size / 2 - linear @ ((left + right) / 2, (top + bottom) / 2)])


def warp_image(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], replicate: bool = False) -> np.ndarray:
    """An image (h w or h w 3, uint8) through an affine map 2 3, sampled bilinearly: size is (width, height).

    replicate: repeat the edges of the image outside of it instead of black.
    """
    # OpenCV's 0 is the centre of the first pixel.
    shifted = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ (0.5, 0.5) - 0.5])
    border = cv2.BORDER_REPLICATE if replicate else cv2.BORDER_CONSTANT
    return cv2.warpAffine(image, shifted, size, flags=cv2.INTER_LINEAR, borderMode=border)


def warp_square(image: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """An image (h w 3, uint8) through a similarity 2 3 -> size size 3, uint8; black outside of the image.

    An image that shrinks is averaged down first: sampling alone would leave out most of its pixels.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    matrix = np.asarray(matrix, np.float64)
    if scale < 1:
        height, width = image.shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        matrix = np.column_stack([matrix[:, :2] @ np.diag((width / small[0], height / small[1])), matrix[:, 2]])
    return warp_image(image, matrix, (size, size))
