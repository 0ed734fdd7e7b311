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
from ...media.frame_stream import Frames
from ..affine import fit_rotation
from ..detection import FaceDetection, boxes_around, check_frames
from ..head_pose import TEMPLATE_3D, pose_from_rotation
from ..keypoints import HEAD_KEYPOINT_MESH_INDICES, MESH_68, MESH_FIVE_POINTS, head_keypoints_from_mesh

MEDIAPIPE_FILE = "face_landmarker.task"
BUNDLED_MODEL = os.path.join("modules", "face_landmark", "face_landmark_with_attention.tflite")  # below the package
MAX_FACES = 5
FRAME_MILLISECONDS = 40  # only their order matters to the tracker
TEMPLATE_MESH_INDICES = (
    *HEAD_KEYPOINT_MESH_INDICES,
    *MESH_FIVE_POINTS[3:],
)  # the mesh's points in the order of TEMPLATE_3D


class MediaPipeBackend:
    """path: face_landmarker.task; None for a release with bundled models, see `has_bundled_models`. Detects everything but
    the expression."""

    name = "mediapipe"

    def __init__(self, path: Path | str | None) -> None:
        self._path = None if path is None else Path(path)
        if self._path is not None and not self._path.is_file():
            raise PortraitError(f"{self._path}: there is no such file: put MediaPipe's {MEDIAPIPE_FILE} there")
        self._mediapipe = _package("solutions" if self._path is None else "tasks")

    def detect(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        check_frames(frames)
        return self._detect_with_bundled_models(frames) if self._path is None else self._detect_with_file(frames)

    def _detect_with_bundled_models(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        height, width = frames.shape[1:3]
        options = {"static_image_mode": False, "refine_landmarks": True, "max_num_faces": MAX_FACES}
        with self._mediapipe.solutions.face_mesh.FaceMesh(**options) as landmarker:  # a new one, see below
            for frame in frames:
                found = landmarker.process(np.ascontiguousarray(frame)).multi_face_landmarks or []
                yield [face_from_mesh(_mesh(face.landmark, width, height)) for face in found]

    def _detect_with_file(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        height, width = frames.shape[1:3]
        landmarker = self._landmarker()  # a new one for every clip: it remembers the faces of the frame before
        try:
            for index, frame in enumerate(frames):
                image = self._mediapipe.Image(
                    image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(frame)
                )
                result = landmarker.detect_for_video(image, index * FRAME_MILLISECONDS)
                yield [face_from_mesh(_mesh(face, width, height)) for face in result.face_landmarks]
        finally:
            landmarker.close()

    def _landmarker(self) -> Any:
        vision = self._mediapipe.tasks.vision
        options = vision.FaceLandmarkerOptions(
            base_options=self._mediapipe.tasks.BaseOptions(model_asset_path=str(self._path)),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=MAX_FACES,
        )
        try:
            return vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError, OSError) as error:
            raise PortraitError(
                f"{self._path}: MediaPipe cannot use it ({(str(error).splitlines() or [''])[0]}): copy {MEDIAPIPE_FILE} again"
            ) from error


def face_from_mesh(mesh: np.ndarray) -> FaceDetection:
    """One face from its 478 points: 478 3 (x, y, z in pixels; smaller z is nearer)."""
    points = mesh.astype(np.float32)
    head = head_keypoints_from_mesh(points)  # refuses a mesh without irises
    upright = mesh[list(TEMPLATE_MESH_INDICES)] * (1, -1, -1)  # x right, y up, z towards the viewer
    return FaceDetection(
        box=boxes_around(points[:, :2]),
        head_keypoints=head,
        five_points=points[list(MESH_FIVE_POINTS), :2],
        landmarks=points[list(MESH_68), :2],
        pose=pose_from_rotation(fit_rotation(TEMPLATE_3D, upright)),
    )


def _mesh(landmarks: Any, width: int, height: int) -> np.ndarray:
    """MediaPipe's normalised points -> 478 3 in pixels; its z is in units of the image width."""
    return np.array([(point.x, point.y, point.z) for point in landmarks]) * (width, height, width)


def has_bundled_models() -> bool:
    """Whether the installed package contains its models: those before 0.10.22 do. It is not imported."""
    spec = find_spec("mediapipe")
    folders = spec.submodule_search_locations if spec is not None else None
    return any(os.path.isfile(os.path.join(folder, BUNDLED_MODEL)) for folder in folders or ())


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
            f"the installed mediapipe {getattr(package, '__version__', 'of unknown version')} contains no models: put {MEDIAPIPE_FILE} into "
            "models/svp/mediapipe"
        )
    if part == "tasks" and (not hasattr(package, "tasks") or not hasattr(package.tasks, "vision")):
        raise PortraitError(
            f"the installed mediapipe {getattr(package, '__version__', 'of unknown version')} has no tasks.vision: "
            "pip install --upgrade 'mediapipe>=1.0'"
        )
    return package
