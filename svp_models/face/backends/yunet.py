"""`yunet`: OpenCV's small face detector, five points a face: photographs, turned and tilted faces too; one file of 0.2 MB."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import PortraitError
from ...libraries import cv2
from ..alignment import fit_similarity, move
from ..analyzer import check_frames
from ..detection import FaceDetection
from ..head_pose import pose_from_five_points
from ..head_template import FIVE_OF_TEMPLATE, PUPILS, TEMPLATE

FILE = "face_detection_yunet_2023mar.onnx"
LARGEST_SIDE = 640  # pixels of the frame's longer side in which faces are looked for
SCORE_FROM, SAME_BOX, MOST_FACES = 0.6, 0.3, 20
NOSE_TIP = 7  # of the head keypoints


class YuNetBackend:
    """path: face_detection_yunet_2023mar.onnx. Gives boxes, five points and a rough pose; the face's edges and the bridge of the
    nose come from a frontal head template on the five points. No landmarks."""

    name = "yunet"

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        if not hasattr(cv2, "FaceDetectorYN"):
            raise PortraitError(
                f"the installed OpenCV {cv2.__version__} has no YuNet; 4.5.4 and newer have: choose another backend or upgrade it"
            )
        try:
            self._detector = cv2.FaceDetectorYN.create(str(self._path), "", (64, 64), SCORE_FROM, SAME_BOX, MOST_FACES)
        except cv2.error as error:
            raise PortraitError(f"{self._path}: OpenCV cannot use it: copy {FILE} again") from error

    def detect(self, frames: np.ndarray) -> Iterator[list[FaceDetection]]:
        check_frames(frames)
        height, width = frames.shape[1:3]
        scale = min(1.0, LARGEST_SIDE / max(width, height))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        self._detector.setInputSize(size)
        for frame in frames:
            picture = frame if size == (width, height) else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            _, rows = self._detector.detect(np.ascontiguousarray(picture[:, :, ::-1]))  # it knows blue, green, red
            yield [face_of_row(row / (*np.tile([size[0] / width, size[1] / height], 7), 1)) for row in _rows(rows)]


def _rows(found: np.ndarray | None) -> np.ndarray:
    return np.zeros((0, 15)) if found is None else np.asarray(found, np.float64).reshape(-1, 15)


def face_of_row(row: np.ndarray) -> FaceDetection:
    """left, top, width, height, five points (x, y) and score: 15 -> the face."""
    five = row[4:14].reshape(5, 2)
    head = move(TEMPLATE, fit_similarity(TEMPLATE[list(FIVE_OF_TEMPLATE)], five))[:8]
    head[list(PUPILS)], head[NOSE_TIP] = five[:2], five[2]
    return FaceDetection(
        box=np.concatenate([row[:2], row[:2] + row[2:4]]).astype(np.float32),
        head_keypoints=head.astype(np.float32),
        five_points=five.astype(np.float32),
        pose=pose_from_five_points(five),
    )
