"""`classical` and `yunet`: the face detectors of OpenCV. Cascades of simple features come with OpenCV 4; YuNet is a small network."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import numpy as np

from ...errors import PortraitError
from ...media.frame_stream import Frames
from ...optional_deps import cv2
from ..affine import fit_similarity, transform_points, warp_image
from ..detection import FaceDetection, boxes_around, check_frames
from ..head_pose import (
    TEMPLATE,
    TEMPLATE_FIVE_POINTS,
    TEMPLATE_PUPILS,
    pose_from_five_points,
    pupils_in_box,
    template_on_pupils,
)

FACE_CASCADE = "haarcascade_frontalface_default.xml"
EYE_CASCADES = (
    "haarcascade_eye_tree_eyeglasses.xml",
    "haarcascade_eye.xml",
)  # the second where the first finds no pair
TILTS = (
    0.0,
    -20.0,
    20.0,
)  # degrees by which the frame is rotated until a face fits well: cascades know upright faces only
FACE_SIDE = 320  # pixels of the longer side of the frame for face detection: enough, and faster
EYE_WIDTH = 240  # pixels of the width of a face box for eye detection
MIN_FACE = 0.1  # of the smaller side of the frame, a face box
EYE_SIZES = (0.12, 0.35)  # of the width of the box
EYES_WITHIN = 0.6  # of the box, from its top
EYE_DISTANCES = (0.7, 1.35)  # times the distance expected from the box
MAX_OFFSET = 0.35  # of the expected eye distance, between the centre of the pair and the expected centre
MAX_SLOPE = 0.4  # rise of the line between the eyes
GOOD_FIT = 0.12  # misfit of the pupils, see `_misfit`, up to which no other tilt is tried

YUNET_FILE = "face_detection_yunet_2023mar.onnx"
YUNET_SIDE = 640  # pixels of the longer side of the frame for face detection
MIN_SCORE, NMS_IOU, MAX_FACES = 0.6, 0.3, 20
NOSE_TIP = 7  # of the head keypoints


class ClassicalBackend:
    """Detects boxes and pupils; the other points are those of a frontal head template on the pupils. No landmarks, no pose.

    Where no pair of eyes is found (closed, turned away), the pupils follow from the box.
    """

    name = "classical"

    def __init__(self) -> None:
        self._faces = _cascade(FACE_CASCADE)
        self._eyes = [_cascade(name) for name in EYE_CASCADES]

    def detect(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        check_frames(frames)
        for frame in frames:
            yield self._faces_of(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))

    def _faces_of(self, grey: np.ndarray) -> list[FaceDetection]:
        """The faces at the tilt at which the eyes of the largest one fit best; the first good fit is taken."""
        height, width = grey.shape
        smallest = max(24, round(MIN_FACE * min(width, height) * min(1.0, FACE_SIDE / max(width, height))))
        best: list[FaceDetection] = []
        lowest = np.inf
        for tilt in TILTS:
            upright = _rotated(grey, tilt)
            small, scale = _scaled_down(upright, FACE_SIDE / max(width, height))
            boxes = self._faces.detectMultiScale(small, 1.1, 5, minSize=(smallest, smallest))
            back = cv2.getRotationMatrix2D((width / 2, height / 2), -tilt, 1.0)
            found = [self._face(upright, np.asarray(box) / scale, back) for box in boxes]
            error = max(found, key=lambda pair: pair[0].area)[1] if found else np.inf
            if error < lowest or not best:
                best, lowest = [face for face, _ in found], error
            if lowest <= GOOD_FIT:
                break
        return best

    def _face(self, grey: np.ndarray, found: np.ndarray, back: np.ndarray) -> tuple[FaceDetection, float]:
        """The face, and the misfit of its eyes, infinite if they were not found.

        grey: the upright image; found: x, y, width, height in it; back: the map 2 3 from there to the frame.
        """
        x, y, width, height = (round(float(value)) for value in found)
        box = np.array([x, y, x + width, y + height], np.float64)
        expected = pupils_in_box(box)
        pupils, error = expected, np.inf
        part, scale = _scaled_down(grey[y : y + round(EYES_WITHIN * height), x : x + width], EYE_WIDTH / width)
        sizes = [(round(size * part.shape[1]),) * 2 for size in EYE_SIZES]
        for eyes in self._eyes:
            seen = eyes.detectMultiScale(part, 1.05, 3, minSize=sizes[0], maxSize=sizes[1])
            centres = [((left + wide / 2) / scale + x, (top + high / 2) / scale + y) for left, top, wide, high in seen]
            pair = best_pair(np.array(centres).reshape(-1, 2), expected)
            if pair is not None:
                pupils, error = pair, _misfit(pair, expected)
                break
        head, five = template_on_pupils(transform_points(pupils, back))
        corners = transform_points(
            np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]]), back
        )
        return FaceDetection(
            boxes_around(corners).astype(np.float32), head.astype(np.float32), five.astype(np.float32)
        ), error


def best_pair(centres: np.ndarray, expected: np.ndarray) -> np.ndarray | None:
    """The two of the eye candidates (k 2 pixels) nearest to the expected pupils (2 2), left one first; None if none fit."""
    distance = float(np.linalg.norm(expected[1] - expected[0]))
    plausible = []
    for pair in map(np.array, combinations(sorted(centres.tolist()), 2)):
        across = pair[1] - pair[0]
        offset = float(np.linalg.norm(pair.mean(axis=0) - expected.mean(axis=0))) / distance
        ratio = float(np.linalg.norm(across)) / distance
        if (
            EYE_DISTANCES[0] <= ratio <= EYE_DISTANCES[1]
            and abs(across[1]) <= MAX_SLOPE * across[0]
            and offset <= MAX_OFFSET
        ):
            plausible.append(pair)
    return min(plausible, key=lambda pair: _misfit(pair, expected), default=None)


def _misfit(pair: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square distance of two pupils from the expected ones, in units of the expected eye distance."""
    distance = float(np.linalg.norm(expected[1] - expected[0]))
    return float(np.sqrt(np.square(pair - expected).sum(axis=1).mean())) / distance


def _scaled_down(grey: np.ndarray, factor: float) -> tuple[np.ndarray, float]:
    """An image made smaller by a factor, or as it is if that is 1 or more, and the factor applied."""
    if factor >= 1:
        return grey, 1.0
    size = (max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor)))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA), factor


def _rotated(grey: np.ndarray, degrees: float) -> np.ndarray:
    """An image rotated counterclockwise about its centre."""
    if degrees == 0:
        return grey
    height, width = grey.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    return warp_image(grey, matrix, (width, height), replicate=True)


def _cascade(name: str) -> cv2.CascadeClassifier:
    folder = cv2.data.haarcascades if hasattr(cv2, "data") else ""
    path = os.path.join(folder, name)
    if not hasattr(cv2, "CascadeClassifier") or not os.path.isfile(path):
        raise PortraitError(
            f"the installed OpenCV {cv2.__version__} has no face cascades ({name}); OpenCV 4 has them: "
            "pip install 'opencv-python-headless>=4.9,<5', or choose the backend yunet, insightface or mediapipe"
        )
    return cv2.CascadeClassifier(path)


class YuNetBackend:
    """path: face_detection_yunet_2023mar.onnx. Detects boxes and five points; edges and bridge of the nose are those of a frontal
    head template on the five points, and a rough pose follows from them. No landmarks."""

    name = "yunet"

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        if not hasattr(cv2, "FaceDetectorYN"):
            raise PortraitError(
                f"the installed OpenCV {cv2.__version__} has no YuNet; 4.5.4 and newer have: choose another backend or upgrade it"
            )
        try:
            self._detector = cv2.FaceDetectorYN.create(str(self._path), "", (64, 64), MIN_SCORE, NMS_IOU, MAX_FACES)
        except cv2.error as error:
            raise PortraitError(f"{self._path}: OpenCV cannot use it: copy {YUNET_FILE} again") from error

    def detect(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        check_frames(frames)
        height, width = frames.shape[1:3]
        scale = min(1.0, YUNET_SIDE / max(width, height))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        self._detector.setInputSize(size)
        for frame in frames:
            image = frame if size == (width, height) else cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
            _, rows = self._detector.detect(np.ascontiguousarray(image[:, :, ::-1]))  # BGR
            scales = (*np.tile([size[0] / width, size[1] / height], 7), 1)
            yield [face_from_row(row / scales) for row in _rows(rows)]


def _rows(found: np.ndarray | None) -> np.ndarray:
    return np.zeros((0, 15)) if found is None else np.asarray(found, np.float64).reshape(-1, 15)


def face_from_row(row: np.ndarray) -> FaceDetection:
    """A row of YuNet -> the face. row: 15, left, top, width, height, five points (x, y) and score."""
    five = row[4:14].reshape(5, 2)
    head = transform_points(TEMPLATE, fit_similarity(TEMPLATE[list(TEMPLATE_FIVE_POINTS)], five))[:8]
    head[list(TEMPLATE_PUPILS)], head[NOSE_TIP] = five[:2], five[2]
    return FaceDetection(
        box=np.concatenate([row[:2], row[:2] + row[2:4]]).astype(np.float32),
        head_keypoints=head.astype(np.float32),
        five_points=five.astype(np.float32),
        pose=pose_from_five_points(five),
    )
