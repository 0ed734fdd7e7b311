"""`mediapipe`: Google's face landmarker, 478 points per face with irises; an optional package and one model file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from ...errors import PortraitError
from ..analyzer import check_frames
from ..detection import FaceDetection
from ..head_pose import MESH_68, MESH_FIVE, TEMPLATE_3D, pose_of_rotation, rotation_between
from ..keypoints import HEAD_KEYPOINT_MESH_INDICES, head_keypoints_from_mesh

FILE = "face_landmarker.task"
OWN_MODEL = os.path.join("modules", "face_landmark", "face_landmark_with_attention.tflite")  # below the package
MOST_FACES = 5
FRAME_MILLISECONDS = 40  # only their order matters to the tracker
IN_TEMPLATE = (*HEAD_KEYPOINT_MESH_INDICES, *MESH_FIVE[3:])  # the mesh's points in the order of TEMPLATE_3D


class MediaPipeBackend:
    """path: face_landmarker.task; None for a release that carries its models, see `carries_models`. Gives everything but
    expression coefficients."""

    name = "mediapipe"

    def __init__(self, path: Path | str | None) -> None:
        self._path = None if path is None else Path(path)
        if self._path is not None and not self._path.is_file():
            raise PortraitError(f"{self._path}: there is no such file: put MediaPipe's {FILE} there")
        self._mediapipe = _package("solutions" if self._path is None else "tasks")

    def detect(self, frames: np.ndarray) -> Iterator[list[FaceDetection]]:
        check_frames(frames)
        return self._by_its_own_models(frames) if self._path is None else self._by_the_file(frames)

    def _by_its_own_models(self, frames: np.ndarray) -> Iterator[list[FaceDetection]]:
        height, width = frames.shape[1:3]
        options = {"static_image_mode": False, "refine_landmarks": True, "max_num_faces": MOST_FACES}
        with self._mediapipe.solutions.face_mesh.FaceMesh(**options) as landmarker:  # a new one, see below
            for frame in frames:
                found = landmarker.process(np.ascontiguousarray(frame)).multi_face_landmarks or []
                yield [face_of_mesh(_mesh(each.landmark, width, height)) for each in found]

    def _by_the_file(self, frames: np.ndarray) -> Iterator[list[FaceDetection]]:
        height, width = frames.shape[1:3]
        landmarker = self._landmarker()  # a new one for every clip: it remembers the faces of the frame before
        try:
            for index, frame in enumerate(frames):
                picture = self._mediapipe.Image(
                    image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame)
                )
                answer = landmarker.detect_for_video(picture, index * FRAME_MILLISECONDS)
                yield [face_of_mesh(_mesh(each, width, height)) for each in answer.face_landmarks]
        finally:
            landmarker.close()

    def _landmarker(self) -> Any:
        vision = self._mediapipe.tasks.vision
        options = vision.FaceLandmarkerOptions(
            base_options=self._mediapipe.tasks.BaseOptions(model_asset_path=str(self._path)),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=MOST_FACES,
        )
        try:
            return vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError, OSError) as error:
            raise PortraitError(
                f"{self._path}: MediaPipe cannot use it ({(str(error).splitlines() or [''])[0]}): copy {FILE} again"
            ) from error


def face_of_mesh(mesh: np.ndarray) -> FaceDetection:
    """One face from its 478 points: 478 3 (x, y, z in pixels; smaller z is nearer)."""
    points = mesh.astype(np.float32)
    head = head_keypoints_from_mesh(points)  # refuses a mesh without irises
    upright = mesh[list(IN_TEMPLATE)] * (1, -1, -1)  # x right, y up, z towards the viewer
    return FaceDetection(
        box=np.concatenate([points[:, :2].min(axis=0), points[:, :2].max(axis=0)]),
        head_keypoints=head,
        five_points=points[list(MESH_FIVE), :2],
        landmarks=points[list(MESH_68), :2],
        pose=pose_of_rotation(rotation_between(TEMPLATE_3D, upright)),
    )


def _mesh(landmarks: Any, width: int, height: int) -> np.ndarray:
    """MediaPipe's normalised points -> 478 3 in pixels; its z is in units of the picture's width."""
    return np.array([(each.x, each.y, each.z) for each in landmarks]) * (width, height, width)


def carries_models() -> bool:
    """Whether the installed package brings its models: those before 0.10.22 do. It is not imported."""
    place = find_spec("mediapipe")
    folders = place.submodule_search_locations if place is not None else None
    return any(os.path.isfile(os.path.join(each, OWN_MODEL)) for each in folders or ())


def _package(part: str) -> ModuleType:
    try:
        package = import_module("mediapipe")
    except ModuleNotFoundError as error:
        raise PortraitError(
            "the backend mediapipe needs the package mediapipe, which is not installed: pip install "
            "'mediapipe>=1.0', or choose another backend"
        ) from error
    if part == "solutions" and not hasattr(package, part):
        raise PortraitError(
            f"the installed mediapipe {getattr(package, '__version__', 'of unknown version')} brings no models: put {FILE} into "
            "models/svp/mediapipe"
        )
    if part == "tasks" and (not hasattr(package, "tasks") or not hasattr(package.tasks, "vision")):
        raise PortraitError(
            f"the installed mediapipe {getattr(package, '__version__', 'of unknown version')} has no tasks.vision: "
            "pip install --upgrade 'mediapipe>=1.0'"
        )
    return package
