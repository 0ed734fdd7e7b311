"""Labels of a tracked face in the frames of a clip: points, expression and pose in the crop's pixels, masks of face and mouth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..face.crop import Square, to_square
from ..face.detection import FaceTrack, face_points
from ..optional_deps import cv2
from .schema import MASK_CELL, ClipLabels

FOREHEAD = 0.3  # of the way from the chin to the brows, how far the face reaches above them
BROWS, JAW, CHIN, LIPS = slice(17, 27), slice(0, 17), 8, slice(48, 60)
MOUTH_HALF_HEIGHT = (
    0.35  # without landmarks the lips' outline is an ellipse of this height, in mouth widths, on either side
)
CANVAS = 2048  # pixels per side that outlines are filled at, at least
SHIFT = 4  # fractional bits of OpenCV's coordinates


def face_outline(track: FaceTrack, row: int) -> np.ndarray:
    """The face's outline in frame `row`, k 2: the hull of its points, with the brows' raised to the forehead."""
    points = face_points(track, row)
    brows, chin = (points[BROWS], points[CHIN]) if track.landmarks is not None else (points[4:6], points[6])
    forehead = brows + FOREHEAD * (brows.mean(axis=0) - chin)
    return _hull(np.concatenate([points, forehead]))


def mouth_outline(track: FaceTrack, row: int) -> np.ndarray:
    """The outer edge of the lips in frame `row`, k 2."""
    if track.landmarks is not None:
        return _hull(track.landmarks[row, LIPS])
    corners = track.five_points[row, 3:].astype(np.float64)
    along = (corners[1] - corners[0]) / 2
    across = np.array([-along[1], along[0]]) * 2 * MOUTH_HALF_HEIGHT
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return corners.mean(axis=0) + np.outer(np.cos(turn), along) + np.outer(np.sin(turn), across)


def coverage(outline: np.ndarray, size: int) -> np.ndarray:
    """An outline (k 2 pixels) in a frame of `size` pixels a side -> size/8 size/8, uint8: covered area, 255 is all."""
    factor = max(1, CANVAS // size)
    canvas = np.zeros((size * factor, size * factor), np.uint8)
    fixed = np.rint((outline * factor - 0.5) * 2**SHIFT).astype(np.int32)  # OpenCV's 0 is the first pixel's centre
    cv2.fillPoly(canvas, [fixed], 255, cv2.LINE_8, SHIFT)
    return shrink(canvas, size // MASK_CELL)


def shrink(mask: np.ndarray, cells: int) -> np.ndarray:
    """A mask (h w, uint8) -> cells cells, uint8, the mean of what each cell covers."""
    return cv2.resize(mask, (cells, cells), interpolation=cv2.INTER_AREA)


def _hull(points: np.ndarray) -> np.ndarray:
    return cv2.convexHull(points.astype(np.float32))[:, 0]


def in_square(track: FaceTrack, square: Square, size: int) -> FaceTrack:
    """The track in the pixels of the cropped frames."""

    def moved(points: np.ndarray) -> np.ndarray:
        return to_square(points, square, size)

    return replace(
        track,
        boxes=moved(track.boxes.reshape(-1, 2, 2)).reshape(-1, 4),
        landmarks=None if track.landmarks is None else moved(track.landmarks),
        head_keypoints=moved(track.head_keypoints),
        five_points=moved(track.five_points),
        width=size,
        height=size,
    )


def labels_of(track: FaceTrack, interpolated: np.ndarray, size: int) -> tuple[ClipLabels, tuple[str, ...]]:
    """The labels of a track in frames of `size` pixels, and the names of the unknown ones, which are NaN."""
    count = len(track)
    known = {
        "landmarks": track.landmarks,
        "expression": track.expression,
        "pose": None if track.pose is None else track.pose[:, :3],
    }
    unknown = {"landmarks": (68, 2), "expression": (64,), "pose": (3,)}
    arrays = {
        name: np.full((count, *unknown[name]), np.nan, np.float32) if value is None else np.float32(value)
        for name, value in known.items()
    }
    labels = ClipLabels(
        head_keypoints=np.float32(track.head_keypoints),
        mouth_mask=np.stack([coverage(mouth_outline(track, row), size) for row in range(count)]),
        face_mask=np.stack([coverage(face_outline(track, row), size) for row in range(count)]),
        interpolated=np.asarray(interpolated, bool),
        **arrays,
    )
    return labels, tuple(name for name, value in known.items() if value is None)
