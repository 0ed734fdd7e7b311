"""`auto`: the built-in analyser for drawn faces, and for photographs the best way to find faces that is there.

`yunet`: OpenCV's small face detector, five points a face: photographs, turned and tilted faces too; one file of 0.2 MB.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np

from ...errors import PortraitError
from ...media.frame_stream import Frames
from ...optional_deps import cv2
from ..analyzer import BuiltInBackend, check_frames
from ..crop import fit_similarity, move
from ..detection import FaceBackend, FaceDetection
from ..head_pose import FIVE_OF_TEMPLATE, PUPILS, TEMPLATE, pose_from_five_points

LOG = logging.getLogger(__name__)

LOOKS, STEP = 5, 5  # frames from a clip's beginning that are looked at to choose, and how far they are apart
PORTRAIT = 2.1  # side of the square that is looked at, in faces: what the built-in analyser has learned from
SHIFT = 0.04  # of that square's side, by which it is moved
# Inter-ocular distances by which the points of the built-in analyser move when the picture is mirrored and when it is shifted,
# both together. It is steady where it knows what it sees: 0.01 to 0.05 on drawn faces, 0.09 to 0.3 on photographs.
STEADY = 0.07
MIRRORED = (2, 3, 0, 1, 5, 4, 6, 7)  # the head keypoints of a mirrored face


class AutoBackend:
    """drawn: for drawn faces; photo: for photographs, None where nothing is there for them."""

    name = "auto"

    def __init__(self, drawn: BuiltInBackend, photo: FaceBackend | None) -> None:
        self.drawn, self.photo = drawn, photo

    def detect(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        return self.choose(frames).detect(frames)

    def choose(self, frames: Frames) -> FaceBackend:
        """The backend for these frames, n h w 3 uint8, and a line in the log that names it: the built-in one if it is steady
        in half of the frames or more in which it sees a face, or if the other sees none."""
        check_frames(frames)
        if self.photo is None:
            return self.drawn
        some = np.stack(list(islice(frames, 0, LOOKS * STEP, STEP)))
        moves = [unsteadiness(self.drawn, frame) for frame in some]
        seen = [each for each in moves if each is not None]
        drawn = bool(seen) and float(np.median(seen)) <= STEADY
        if not drawn and seen and not any(self.photo.detect(some)):
            drawn = True
        chosen = self.drawn if drawn else self.photo
        LOG.info("faces are found by the backend %s", chosen.name)
        return chosen


def unsteadiness(backend: FaceBackend, frame: np.ndarray) -> float | None:
    """How far the head keypoints of a frame's largest face move (inter-ocular distances) when a square around it is mirrored,
    and when it is shifted, both together; None if no face is seen. frame: h w 3, uint8."""
    face = _largest(backend, frame)
    if face is None:
        return None
    left, top, right, bottom = (float(each) for each in face.box)
    side = PORTRAIT * max(right - left, bottom - top)
    by = SHIFT * side

    def view(shift: float, mirror: bool) -> np.ndarray | None:
        x, y = (left + right - side) / 2 + shift, (top + bottom - side) / 2 + shift
        columns, rows = (
            np.arange(round(start), round(start + side)).clip(0, size - 1)
            for start, size in ((x, frame.shape[1]), (y, frame.shape[0]))
        )
        square = frame[rows[:, None], columns]
        found = _largest(backend, np.ascontiguousarray(square[:, ::-1] if mirror else square))
        if found is None:
            return None
        points = found.head_keypoints[list(MIRRORED)] if mirror else found.head_keypoints
        return points * (-1, 1) + (len(columns), 0) + (round(x), round(y)) if mirror else points + (round(x), round(y))

    straight, mirrored, shifted = view(0, False), view(0, True), view(by, False)
    if straight is None or mirrored is None or shifted is None:
        return float("inf")
    eyes = max(float(np.linalg.norm(straight[5] - straight[4])), 1.0)
    return float(sum(np.linalg.norm(each - straight, axis=1).mean() for each in (mirrored, shifted))) / eyes


def _largest(backend: FaceBackend, frame: np.ndarray) -> FaceDetection | None:
    return max(next(iter(backend.detect(frame[None]))), key=lambda each: each.area, default=None)


def best_of(ways: Mapping[str, Callable[[], FaceBackend]]) -> FaceBackend | None:
    """The first way that can be opened; those before it are named in the log with what they lack, and None is warned of."""
    lacking = []
    for name, open_backend in ways.items():
        try:
            backend = open_backend()
        except PortraitError as error:
            lacking.append(f"{name}: {error}")
            continue
        LOG.info("photographs are read by the backend %s%s", name, "".join(f"; not by {each}" for each in lacking))
        return backend
    LOG.warning("only drawn faces can be found, nothing is there for photographs: %s", "; ".join(lacking))
    return None


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
