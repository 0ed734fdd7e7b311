"""OpenCV's YuNet, played by a detector with answers known beforehand."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detectors.opencv import YuNetBackend
from svp_portrait.svp_models.face.head_pose import TEMPLATE, TEMPLATE_FIVE_POINTS

FIVE = TEMPLATE[list(TEMPLATE_FIVE_POINTS)] * 40 + (100, 80)  # a frontal face, its eyes 40 pixels apart


@pytest.fixture
def detector(monkeypatch):
    """Answers FIVE in a frame whose blue is above 0, in the size it is shown."""
    asked = SimpleNamespace(sizes=[], scale=1.0)

    class Detector:
        @staticmethod
        def create(path, config, size, score, nms, most):
            return Detector()

        def setInputSize(self, size):
            asked.sizes.append(size)

        def detect(self, image):
            assert image.shape[1::-1] == asked.sizes[-1] and image.flags.c_contiguous
            if not image[0, 0, 0]:
                return 1, None
            row = np.concatenate([[60, 50, 80, 100], FIVE.ravel(), [1 / asked.scale]]) * asked.scale
            return 1, row[None].astype(np.float32)

    monkeypatch.setattr(cv2, "FaceDetectorYN", Detector, raising=False)
    return asked


def blue(height: int, width: int) -> np.ndarray:
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 2] = 200
    return frame


def test_five_points_and_the_template_on_them(detector):
    frames = np.stack([blue(200, 300), np.zeros((200, 300, 3), np.uint8)])
    (face,), none = YuNetBackend("yunet.onnx").detect(frames)
    assert none == [] and detector.sizes == [(300, 200)]
    assert np.allclose(face.five_points, FIVE, atol=1e-3) and np.allclose(face.box, [60, 50, 140, 150])
    assert np.allclose(face.head_keypoints, TEMPLATE[:8] * 40 + (100, 80), atol=1e-3)
    assert np.abs(face.pose).max() < 15 and face.landmarks is None and face.expression is None


def test_large_frames_are_looked_at_smaller(detector):
    detector.scale = 640 / 1920
    (face,) = next(YuNetBackend("yunet.onnx").detect(blue(1080, 1920)[None]))
    assert detector.sizes == [(640, 360)]
    assert np.allclose(face.five_points, FIVE, atol=1e-2) and np.allclose(face.box, [60, 50, 140, 150], atol=1e-2)


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    broken = tmp_path / "yunet.onnx"
    broken.write_bytes(b"no network")
    with pytest.raises(PortraitError, match="yunet.onnx: OpenCV cannot use it: copy face_detection_yunet_2023mar.onnx"):
        YuNetBackend(broken)
    monkeypatch.delattr(cv2, "FaceDetectorYN")
    with pytest.raises(PortraitError, match="has no YuNet"):
        YuNetBackend(broken)
