"""The backend against a stand-in of the package's Tasks interface, as mediapipe 1.2 has it."""

from __future__ import annotations

import sys
from inspect import signature
from types import SimpleNamespace

import numpy as np
import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detectors.mediapipe import (
    TEMPLATE_MESH_INDICES,
    MediaPipeBackend,
    face_from_mesh,
    has_bundled_models,
)
from svp_portrait.svp_models.face.head_pose import TEMPLATE_3D
from svp_portrait.svp_models.face.keypoints import HEAD_KEYPOINT_MESH_INDICES


class FakeMediaPipe(SimpleNamespace):
    """faces: for each frame a list of arrays 478 3, normalised; everything asked of it is kept."""

    def __init__(self, faces):
        self.asked, self.closed, self.options, self.error = [], 0, None, None
        package = self

        class Landmarker:
            @staticmethod
            def create_from_options(options):
                if package.error:
                    raise package.error
                package.options = options
                return Landmarker()

            def detect_for_video(self, image, timestamp_ms):
                package.asked.append((image.data.shape, image.image_format, timestamp_ms))
                found = faces[len(package.asked) - 1]
                points = [[SimpleNamespace(x=x, y=y, z=z) for x, y, z in face] for face in found]
                return SimpleNamespace(face_landmarks=points)

            def close(self):
                package.closed += 1

        self.Image = lambda image_format, data: SimpleNamespace(image_format=image_format, data=data)
        self.ImageFormat = SimpleNamespace(SRGB="srgb")
        vision = SimpleNamespace(
            FaceLandmarker=Landmarker,
            FaceLandmarkerOptions=lambda **given: SimpleNamespace(**given),
            RunningMode=SimpleNamespace(VIDEO="video"),
        )
        self.tasks = SimpleNamespace(vision=vision, BaseOptions=lambda **given: SimpleNamespace(**given))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "face_landmarker.task"
    path.write_bytes(b"model")
    return path


def mesh(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, (478, 3))


def test_faces_in_pixels_of_every_frame(monkeypatch, model):
    fake = FakeMediaPipe([[mesh(0), mesh(1)], []])
    monkeypatch.setitem(sys.modules, "mediapipe", fake)
    frames = np.zeros((2, 48, 64, 3), np.uint8)
    found = list(MediaPipeBackend(model).detect(frames))
    assert [len(each) for each in found] == [2, 0]
    pixels = mesh(1)[:, :2] * (64, 48)
    face = found[0][1]
    assert np.allclose(face.head_keypoints, pixels[list(HEAD_KEYPOINT_MESH_INDICES)], atol=1e-4)
    assert np.allclose(face.five_points[:2], pixels[[468, 473]], atol=1e-4)
    assert np.allclose(face.landmarks[[8, 30, 48]], pixels[[152, 4, 61]], atol=1e-4)
    assert np.allclose(face.box, [*pixels.min(axis=0), *pixels.max(axis=0)], atol=1e-4) and face.expression is None
    assert fake.options.base_options.model_asset_path == str(model) and fake.options.running_mode == "video"
    assert fake.options.num_faces > 1 and fake.closed == 1
    (shape, kind, first), (_, _, second) = fake.asked
    assert shape == (48, 64, 3) and kind == "srgb" and second > first


@pytest.mark.parametrize("pose", [(0, 0, 0), (30, 0, 0), (0, -20, 0), (-15, 10, 25)])
def test_pose_of_a_turned_mesh(pose):
    yaw, pitch, roll = np.radians(pose)
    x = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    y = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    z = np.array([[np.cos(roll), np.sin(roll), 0], [-np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    points = np.zeros((478, 3))
    points[list(TEMPLATE_MESH_INDICES)] = TEMPLATE_3D @ (z @ y @ x).T * 20 * (1, -1, -1) + (300, 200, 0)
    assert np.allclose(face_from_mesh(points).pose, pose, atol=1e-3)


def test_missing_package_file_and_old_versions_name_the_cure(monkeypatch, model, tmp_path):
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(PortraitError, match="not installed: pip install 'mediapipe>=1.0'"):
        MediaPipeBackend(model)
    with pytest.raises(PortraitError, match="no such file: put MediaPipe's face_landmarker.task there"):
        MediaPipeBackend(tmp_path / "face.task")
    monkeypatch.setitem(sys.modules, "mediapipe", SimpleNamespace(__version__="0.7"))
    with pytest.raises(PortraitError, match="mediapipe 0.7 has no tasks.vision"):
        MediaPipeBackend(model)


def test_a_damaged_file_is_named_and_meshes_without_irises_too(monkeypatch, model):
    fake = FakeMediaPipe([[mesh()[:468]]])
    monkeypatch.setitem(sys.modules, "mediapipe", fake)
    frames = np.zeros((1, 8, 8, 3), np.uint8)
    with pytest.raises(PortraitError, match="468, 3.*478 x 3, with the irises"):
        list(MediaPipeBackend(model).detect(frames))
    assert fake.closed == 1
    fake.error = RuntimeError("Unable to open zip archive.\nmore")
    with pytest.raises(
        PortraitError, match="face_landmarker.task: MediaPipe cannot use it .Unable to open zip archive"
    ):
        list(MediaPipeBackend(model).detect(frames))


def test_a_release_that_carries_its_models(monkeypatch, tmp_path):
    """0.10.21 and older: no file is needed, the same points come out."""
    asked = []

    class FaceMesh:
        def __init__(self, **options):
            asked.append(options)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            asked.append("closed")

        def process(self, image):
            points = [SimpleNamespace(x=x, y=y, z=z) for x, y, z in mesh()]
            return SimpleNamespace(multi_face_landmarks=[SimpleNamespace(landmark=points)] if image.any() else None)

    monkeypatch.setitem(
        sys.modules,
        "mediapipe",
        SimpleNamespace(solutions=SimpleNamespace(face_mesh=SimpleNamespace(FaceMesh=FaceMesh))),
    )
    frames = np.zeros((2, 48, 64, 3), np.uint8)
    frames[0] = 9
    (face,), none = MediaPipeBackend(None).detect(frames)
    expected = mesh()[list(HEAD_KEYPOINT_MESH_INDICES), :2] * (64, 48)
    assert none == [] and np.allclose(face.head_keypoints, expected, atol=1e-4)
    assert asked[0]["refine_landmarks"] is True and asked[0]["max_num_faces"] > 1 and asked[1] == "closed"
    monkeypatch.setitem(sys.modules, "mediapipe", SimpleNamespace(__version__="1.2"))
    with pytest.raises(
        PortraitError, match="mediapipe 1.2 contains no models: put face_landmarker.task into models/svp/mediapipe"
    ):
        MediaPipeBackend(None)


def test_models_are_looked_for_without_an_import(monkeypatch, tmp_path):
    folder = tmp_path / "mediapipe"
    (folder / "modules" / "face_landmark").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mediapipe", raising=False)
    assert has_bundled_models() is False
    (folder / "modules" / "face_landmark" / "face_landmark_with_attention.tflite").touch()
    assert has_bundled_models() is True


def test_the_real_package_has_what_the_backend_asks_for(model):
    mediapipe = pytest.importorskip("mediapipe")
    image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.zeros((6, 8, 3), np.uint8))
    assert (image.width, image.height) == (8, 6)
    landmarker = mediapipe.tasks.vision.FaceLandmarker
    assert list(signature(landmarker.detect_for_video).parameters)[:3] == ["self", "image", "timestamp_ms"]
    assert callable(landmarker.close)
    with pytest.raises(PortraitError, match="MediaPipe cannot use it"):
        list(MediaPipeBackend(model).detect(np.zeros((1, 8, 8, 3), np.uint8)))
