"""`classical`: OpenCV's cascades of simple features, which come with OpenCV 4: frontal faces without any model file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import combinations

import numpy as np

from ...errors import PortraitError
from ...optional_deps import cv2
from ..analyzer import check_frames
from ..crop import move
from ..detection import FaceDetection
from ..head_pose import pupils_of_box, template_on_pupils

FACES = "haarcascade_frontalface_default.xml"
EYES = ("haarcascade_eye_tree_eyeglasses.xml", "haarcascade_eye.xml")  # the second where the first sees no pair
TILTS = (0.0, -20.0, 20.0)  # degrees the frame is turned by until a face fits well: cascades know upright ones only
FACE_SIDE = 320  # pixels of the frame's longer side in which faces are looked for: enough for them, and faster
EYE_WIDTH = 240  # pixels of a box's width in which eyes are looked for
SMALLEST = 0.1  # of the frame's smaller side, a face's box
EYE_SIZES = (0.12, 0.35)  # of the box's width
EYES_WITHIN = 0.6  # of the box, from its top
PLAUSIBLE = (0.7, 1.35)  # eye distance, as a factor of what the box lets expect
FARTHEST = 0.35  # of the expected eye distance: how far the pair's middle may lie from where the box lets expect it
STEEPEST = 0.4  # rise of the line between the eyes
FITS_WELL = 0.12  # misfit of the pupils, see `_misfit`, up to which no other tilt is tried


class ClassicalBackend:
    """Gives boxes and pupils; the other points come from a frontal head template on the pupils. No landmarks, no pose.

    Where no pair of eyes is seen (closed, turned away), the pupils are placed by the box.
    """

    name = "classical"

    def __init__(self) -> None:
        self._faces = _cascade(FACES)
        self._eyes = [_cascade(each) for each in EYES]

    def detect(self, frames: np.ndarray) -> Iterator[list[FaceDetection]]:
        check_frames(frames)
        for frame in frames:
            yield self._faces_of(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))

    def _faces_of(self, grey: np.ndarray) -> list[FaceDetection]:
        """The faces as the tilt shows them at which the largest one's eyes fit best; the first that fits well is taken."""
        height, width = grey.shape
        smallest = max(24, round(SMALLEST * min(width, height) * min(1.0, FACE_SIDE / max(width, height))))
        best: list[FaceDetection] = []
        least = np.inf
        for tilt in TILTS:
            upright = _turned(grey, tilt)
            small, scale = _shrunk(upright, FACE_SIDE / max(width, height))
            boxes = self._faces.detectMultiScale(small, 1.1, 5, minSize=(smallest, smallest))
            back = cv2.getRotationMatrix2D((width / 2, height / 2), -tilt, 1.0)
            found = [self._face(upright, box / scale, back) for box in boxes]
            error = max(found, key=lambda each: each[0].area)[1] if found else np.inf
            if error < least or not best:
                best, least = [face for face, _ in found], error
            if least <= FITS_WELL:
                break
        return best

    def _face(self, grey: np.ndarray, found: np.ndarray, back: np.ndarray) -> tuple[FaceDetection, float]:
        """The face, and how far its eyes are from their expected place, infinite if they were not seen.

        grey: the upright picture; found: x, y, width, height in it; back: from there to the frame.
        """
        x, y, width, height = (round(float(each)) for each in found)
        box = np.array([x, y, x + width, y + height], np.float64)
        expected = pupils_of_box(box)
        pupils, error = expected, np.inf
        part, scale = _shrunk(grey[y : y + round(EYES_WITHIN * height), x : x + width], EYE_WIDTH / width)
        sizes = [(round(each * part.shape[1]),) * 2 for each in EYE_SIZES]
        for eyes in self._eyes:
            seen = eyes.detectMultiScale(part, 1.05, 3, minSize=sizes[0], maxSize=sizes[1])
            centres = [((left + wide / 2) / scale + x, (top + high / 2) / scale + y) for left, top, wide, high in seen]
            pair = best_pair(np.array(centres).reshape(-1, 2), expected)
            if pair is not None:
                pupils, error = pair, _misfit(pair, expected)
                break
        head, five = template_on_pupils(move(pupils, back))
        corners = move(np.array([[box[0], box[1]], [box[2], box[1]], [box[2], box[3]], [box[0], box[3]]]), back)
        around = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        return FaceDetection(around.astype(np.float32), head.astype(np.float32), five.astype(np.float32)), error


def best_pair(centres: np.ndarray, expected: np.ndarray) -> np.ndarray | None:
    """The two of the eye candidates (k 2 pixels) nearest to the expected pupils (2 2), left one first; None if none fit."""
    distance = float(np.linalg.norm(expected[1] - expected[0]))
    fitting = []
    for pair in map(np.array, combinations(sorted(centres.tolist()), 2)):
        across = pair[1] - pair[0]
        far = float(np.linalg.norm(pair.mean(axis=0) - expected.mean(axis=0))) / distance
        ratio = float(np.linalg.norm(across)) / distance
        if PLAUSIBLE[0] <= ratio <= PLAUSIBLE[1] and abs(across[1]) <= STEEPEST * across[0] and far <= FARTHEST:
            fitting.append(pair)
    return min(fitting, key=lambda pair: _misfit(pair, expected), default=None)


def _misfit(pair: np.ndarray, expected: np.ndarray) -> float:
    """Root mean square distance of two pupils from their expected places, in units of the expected eye distance."""
    distance = float(np.linalg.norm(expected[1] - expected[0]))
    return float(np.sqrt(np.square(pair - expected).sum(axis=1).mean())) / distance


def _shrunk(grey: np.ndarray, factor: float) -> tuple[np.ndarray, float]:
    """A picture made smaller by a factor, or as it is if that is 1 or more, and the factor applied."""
    if factor >= 1:
        return grey, 1.0
    size = (max(1, round(grey.shape[1] * factor)), max(1, round(grey.shape[0] * factor)))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA), factor


def _turned(grey: np.ndarray, degrees: float) -> np.ndarray:
    """A picture turned counterclockwise about its middle."""
    if degrees == 0:
        return grey
    height, width = grey.shape
    turn = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, 1.0)  # 0 is the first pixel's centre
    return cv2.warpAffine(grey, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)


def _cascade(name: str) -> cv2.CascadeClassifier:
    folder = cv2.data.haarcascades if hasattr(cv2, "data") else ""
    path = os.path.join(folder, name)
    if not hasattr(cv2, "CascadeClassifier") or not os.path.isfile(path):
        raise PortraitError(
            f"the installed OpenCV {cv2.__version__} brings no face cascades ({name}); OpenCV 4 does: "
            "pip install 'opencv-python-headless>=4.9,<5', or choose the backend yunet, insightface or mediapipe"
        )
    return cv2.CascadeClassifier(path)
