"""The detector SCRFD (InsightFace's det_*.onnx): its picture, and boxes and five points out of what it answers."""

from __future__ import annotations

import numpy as np

from ..libraries import cv2
from .selection import overlap

STRIDES = (8, 16, 32)  # pixels per cell of the three levels
ANCHORS = 2  # per cell
SCORE_FROM = 0.5
SAME_BOX = 0.4  # overlap from which the weaker of two boxes is dropped


def prepare(frame: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """A frame (h w 3, uint8 RGB) as the network's input 1 3 side side, float32 in about [-1, 1], and its scale.

    The frame fills the square from the top left as far as its shape allows; the rest is black.
    """
    height, width = frame.shape[:2]
    scale = side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    square = np.zeros((side, side, 3), np.uint8)
    square[: size[1], : size[0]] = cv2.resize(
        frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    return ((square.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None], scale


def anchor_centres(side: int, stride: int) -> np.ndarray:
    """Where the anchors of one level sit, row by row, both of a cell in turn: cells * ANCHORS 2, pixels of the input."""
    cells = np.arange(side // stride) * stride
    grid = np.stack(np.meshgrid(cells, cells, indexing="xy"), axis=-1).reshape(-1, 2)
    return np.repeat(grid, ANCHORS, axis=0).astype(np.float32)


def decode(scores: np.ndarray, boxes: np.ndarray, points: np.ndarray, side: int, stride: int) -> tuple[np.ndarray, ...]:
    """One level's answers -> (scores k, boxes k 4, points k 5 2) of the anchors with SCORE_FROM or more, input pixels.

    scores: a 1, probabilities; boxes: a 4, distances of left, top, right, bottom from the anchor; points: a 10, x and y
    of the five points from the anchor; distances in units of the stride. Leading axes of size 1 are taken off.
    """
    scores = scores.reshape(-1)
    chosen = np.flatnonzero(scores >= SCORE_FROM)
    centre = anchor_centres(side, stride)[chosen]
    away = boxes.reshape(-1, 4)[chosen] * stride
    corners = np.concatenate([centre - away[:, :2], centre + away[:, 2:]], axis=1)  # k 4
    five = centre[:, None] + points.reshape(-1, 5, 2)[chosen] * stride  # k 5 2
    return scores[chosen], corners, five


def suppress(scores: np.ndarray, boxes: np.ndarray, same: float = SAME_BOX) -> np.ndarray:
    """Non-maximum suppression: indices of the boxes (n 4) to keep, best score first."""
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        kept.append(int(left[0]))
        left = left[1:][overlap(boxes[left[0]], boxes[left[1:]])[0] <= same]
    return np.array(kept, dtype=int)


def faces_of(answers: list[np.ndarray], side: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nine answers (scores, boxes, points of each level) -> scores k, boxes k 4, points k 5 2 in pixels of the frame."""
    levels = [
        decode(answers[level], answers[level + 3], answers[level + 6], side, stride)
        for level, stride in enumerate(STRIDES)
    ]
    scores, boxes, points = (np.concatenate(parts) for parts in zip(*levels, strict=True))
    kept = suppress(scores, boxes)
    return scores[kept], boxes[kept] / scale, points[kept] / scale
