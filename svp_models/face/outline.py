"""How far a face reaches: its points, or what stands for them, and the box around them from the brows to the chin."""

from __future__ import annotations

import numpy as np

from .analyzer import FaceTrack

CHIN_BELOW = 1.3  # without landmarks: the chin lies so many times the way from nose tip to mouth below the mouth
BROWS_ABOVE = 0.45  # and the brows so many eye distances above the eyes
EYES_TO_CHIN = (
    0.8  # with head keypoints alone: the chin lies so many widths of the face below the eyes (drawn 0.7, real 0.9)
)
EYES_TO_BROWS = 0.2  # and the brows so many above them


def face_points(track: FaceTrack, row: int) -> np.ndarray:
    """The 68 landmarks in frame `row`, or what stands for them: 4 edges, 2 brows, the chin."""
    if track.landmarks is not None:
        return track.landmarks[row]
    five = track.five_points[row].astype(np.float64)
    eyes, nose, mouth = five[:2], five[2], five[3:].mean(axis=0)
    up = np.array([five[1, 1] - five[0, 1], five[0, 0] - five[1, 0]])  # from the eyes, as long as they are apart
    chin = mouth + CHIN_BELOW * (mouth - nose)
    return np.concatenate([track.head_keypoints[row, :4], eyes + BROWS_ABOVE * up, chin[None]])


def face_boxes(track: FaceTrack) -> np.ndarray:
    """From the brows to the chin: n 4 (left, top, right, bottom), float64 pixels."""
    points = np.stack([face_points(track, row) for row in range(len(track))])  # n k 2
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).astype(np.float64)


def boxes_of_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """The same of the 8 head keypoints alone, n 8 2 -> n 4: brows and chin are guessed from the width of the face."""
    points = np.asarray(keypoints, np.float64)
    across = points[:, 2:4].mean(axis=1, keepdims=True) - points[:, :2].mean(axis=1, keepdims=True)  # n 1 2
    down = np.stack([-across[..., 1], across[..., 0]], axis=-1)
    eyes = points[:, 4:6].mean(axis=1, keepdims=True)
    points = np.concatenate([points, eyes + EYES_TO_CHIN * down, eyes - EYES_TO_BROWS * down], axis=1)  # n 10 2
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
