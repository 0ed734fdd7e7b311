"""The host's FACE_LANDMARKS, built as its node Detect Face Landmarks builds them, as a track."""

from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.keypoints import HEAD_KEYPOINT_MESH_INDICES
from svp_portrait.svp_models.face.tracking import track_from_landmarks


def mesh(left: float, top: float, size: float, degrees: float = 0.0) -> np.ndarray:
    """478 points of a face of that size, with the 8 head keypoints where a head has them."""
    points = np.random.default_rng(0).uniform(0.2, 0.8, (478, 2))
    points[list(HEAD_KEYPOINT_MESH_INDICES)] = [
        (0, 0.4), (0.03, 0.7), (1, 0.4), (0.97, 0.7), (0.3, 0.4), (0.7, 0.4), (0.5, 0.35), (0.5, 0.6)
    ]  # fmt: skip
    turn = np.radians(degrees)
    points = (points - 0.5) @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]] + 0.5
    return (points * size + (left, top)).astype(np.float32)


def face(points: np.ndarray) -> dict:
    """A face as the host has it."""
    low, high = points.min(axis=0), points.max(axis=0)
    return {
        "bbox_xyxy": np.concatenate([low, high]).astype(np.float32),
        "blendshapes": {"jawOpen": 0.1},
        "landmarks_xy": points,
        "landmarks_3d": np.zeros((478, 3), np.float32),
        "presence": 7.0,
        "score": 0.9,
        "transformation_matrix": np.eye(4, dtype=np.float32),
    }


def value(*frames: list[np.ndarray]) -> dict:
    return {
        "frames": [[face(points) for points in faces] for faces in frames],
        "image_size": (360, 640),  # height, width
        "connection_sets": {"face_oval": frozenset({(10, 338)})},
    }


def test_the_eight_points_are_those_of_the_mesh():
    points = mesh(100, 50, 200)
    track = track_from_landmarks(value([points]), "the portrait")
    assert (track.width, track.height) == (640, 360) and track.present.tolist() == [True]
    assert np.array_equal(track.head_keypoints[0], points[[127, 132, 356, 361, 468, 473, 168, 4]])
    assert np.array_equal(track.boxes[0], [*points.min(axis=0), *points.max(axis=0)])
    assert np.array_equal(track.five_points[0], points[[468, 473, 4, 61, 291]]) and track.landmarks.shape == (1, 68, 2)
    assert track.expression is None


def test_frames_without_a_face_and_a_choice_of_several():
    small, large = mesh(10, 50, 100), mesh(300, 50, 200)
    given = value([large, small], [], [small])
    track = track_from_landmarks(given, "the clip")
    assert track.present.tolist() == [True, False, True] and track.boxes[0, 0] == large[:, 0].min()
    track = track_from_landmarks(given, "the clip", "left to right", 0)
    assert track.boxes[0, 0] == track.boxes[2, 0] == small[:, 0].min()


def test_what_cannot_be_used_is_told():
    with pytest.raises(PortraitError, match="no face found in the portrait .640 x 360 pixels, frames 0 of 1"):
        track_from_landmarks(value([]), "the portrait")
    with pytest.raises(PortraitError, match="the face in the portrait is turned clockwise by about 90 degrees"):
        track_from_landmarks(value([mesh(100, 50, 200, 90)]), "the portrait")
    with pytest.raises(PortraitError, match="face mesh has the shape .468, 2.: it must be 478"):
        track_from_landmarks(value([mesh(100, 50, 200)[:468]]), "the portrait")
    with pytest.raises(PortraitError, match="not those of Detect Face Landmarks .KeyError: 'image_size'"):
        track_from_landmarks({"frames": []}, "the portrait")
