"""The host's face landmarks (socket FACE_LANDMARKS, by its MediaPipe node) as a track and as head motion.

The value is a dict: `frames`, for every frame the faces in it, each with `landmarks_xy` (478 2, pixels) and `bbox_xyxy` (4);
`image_size`, (height, width). A frame without a face has an empty list, unless the node was asked to fill it in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import PortraitError
from .analyzer import FaceTrack
from .detection import FaceDetection, track_of
from .head_template import MESH_68, MESH_FIVE
from .keypoints import head_keypoints_from_mesh
from .selection import choose_faces
from .tracking import check_track, check_upright


def track_of_landmarks(value: Mapping[str, Any], what: str, choice: str = "largest", index: int = 0) -> FaceTrack:
    """The chosen face (see `choose_faces`) of every frame. No face in any frame, or one that is turned too far, raises
    PortraitError; `what` is what a message calls the frames."""
    try:
        frames, (height, width) = value["frames"], value["image_size"]
        meshes = [[np.asarray(face["landmarks_xy"], np.float32) for face in faces] for faces in frames]
    except (KeyError, TypeError, ValueError) as error:
        raise PortraitError(
            f"the face landmarks of {what} are not as Detect Face Landmarks gives them ({type(error).__name__}: {error}): connect its "
            "output face_landmarks"
        ) from error
    found = [[_face(mesh) for mesh in faces] for faces in meshes]
    track = track_of(choose_faces(found, choice, index), int(width), int(height))
    check_track(track, what)
    check_upright(track, what)
    return track


def _face(points: np.ndarray) -> FaceDetection:
    """One face from its 478 points in pixels, 478 2."""
    return FaceDetection(
        box=np.concatenate([points.min(axis=0), points.max(axis=0)]),
        head_keypoints=head_keypoints_from_mesh(points),  # refuses another number of points
        five_points=points[list(MESH_FIVE)],
        landmarks=points[list(MESH_68)],
    )
