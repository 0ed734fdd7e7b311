"""`insightface`: InsightFace's buffalo_l networks by onnxruntime alone: detector, 106 points, 68 points in space.

The detector SCRFD (InsightFace's det_*.onnx): its picture, and boxes and five points out of what it answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import PortraitError
from ...optional_deps import cv2
from ..analyzer import check_frames, open_session
from ..crop import alignment_matrix, crop, fit_similarity, inverse, move
from ..detection import FaceDetection, overlap
from ..head_pose import FIVE_OF_TEMPLATE, TEMPLATE, face_edges, five_points_from_68, pose_from_five_points

FILES = ("det_10g.onnx", "2d106det.onnx", "1k3d68.onnx")
DETECTOR_SIDES = (640, 128)  # pixels of its input; the second where the first sees nothing: faces that fill the picture
LANDMARK_SIDE = 192  # pixels of the two landmark networks' input
MARGIN = 1.5  # of the box, what these see
# Of the 106 points: the outline's sides, both with the chin (0), and the pupils
LEFT_SIDE, RIGHT_SIDE = list(range(17)), [0, *range(17, 33)]
PUPILS = [38, 88]
NOSE_TOP = 27  # of the 68 points


class InsightFaceBackend:
    """detector, points_106, points_68: the three files. Gives everything but expression coefficients."""

    name = "insightface"

    def __init__(self, detector: Path | str, points_106: Path | str, points_68: Path | str) -> None:
        self._detector = _Network(detector, outputs=3 * len(STRIDES))
        self._points_106 = _Network(points_106, outputs=1)
        self._points_68 = _Network(points_68, outputs=1)

    def detect(self, frames: np.ndarray) -> Iterator[list[FaceDetection]]:
        check_frames(frames)
        for frame in frames:
            boxes, points = self._boxes(frame)
            yield [self._face(frame, box, five) for box, five in zip(boxes, points, strict=True)]

    def _boxes(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes k 4 and five points k 5 2, best score first."""
        fixed = self._detector.side
        for side in (fixed,) if fixed else DETECTOR_SIDES:
            image, scale = prepare(frame, side)
            answers = self._detector.run(image)
            expected = [2 * (side // stride) ** 2 * width for width in (1, 4, 10) for stride in STRIDES]
            if [each.size for each in answers] != expected:
                raise PortraitError(
                    f"{self._detector.path}: its answers hold {[each.size for each in answers]} numbers for {side} pixels, "
                    f"{expected} are needed: use det_10g.onnx of buffalo_l"
                )
            _, boxes, points = faces_of(answers, side, scale)
            if len(boxes):
                break
        return boxes, points

    def _face(self, frame: np.ndarray, box: np.ndarray, five: np.ndarray) -> FaceDetection:
        onto = fit_similarity(TEMPLATE[list(FIVE_OF_TEMPLATE)], five)
        angle = float(np.arctan2(onto[1, 0], onto[0, 0]))  # the landmark networks know upright faces best
        matrix = alignment_matrix(box, LANDMARK_SIDE, MARGIN, angle)
        image = crop(frame, matrix, LANDMARK_SIDE).transpose(2, 0, 1)[None].astype(np.float32)  # 1 3 192 192, 0 .. 255
        back = inverse(matrix)
        points_106 = move(self._points_106.points(image, 106, 2), back)
        landmarks = move(self._points_68.points(image, 68, 3)[:, :2], back)
        edges = face_edges(points_106[LEFT_SIDE], points_106[RIGHT_SIDE], five)
        head = [edges, points_106[PUPILS], landmarks[NOSE_TOP][None], five[2][None]]
        return FaceDetection(
            box=box.astype(np.float32),
            head_keypoints=np.concatenate(head).astype(np.float32),
            five_points=five.astype(np.float32),
            landmarks=landmarks.astype(np.float32),
            pose=pose_from_five_points(five_points_from_68(landmarks)),
        )


class _Network:
    """One ONNX file. side: pixels of its square input, None where it takes any."""

    def __init__(self, path: Path | str, outputs: int) -> None:
        self.path = Path(path)
        providers = ["CUDAExecutionProvider", "CPUExecutionProvider"]
        self._session = open_session(str(self.path), f"{self.path}", "copy the file of buffalo_l again", providers)
        inputs, found = self._session.get_inputs(), len(self._session.get_outputs())
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or found != outputs:
            raise PortraitError(
                f"{self.path}: {len(inputs)} inputs and {found} outputs, 1 and {outputs} are needed: use "
                f"{', '.join(FILES)} of buffalo_l, each in its place"
            )
        self._input = inputs[0].name
        height = inputs[0].shape[2]
        self.side = height if isinstance(height, int) and height > 0 else None

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(each, np.float32) for each in self._session.run(None, {self._input: image})]

    def points(self, image: np.ndarray, count: int, dimensions: int) -> np.ndarray:
        """The last `count` points of the only answer, from [-1, 1] to continuous pixels of the input: count dimensions."""
        answer = self.run(image)[0]
        if answer.size < count * dimensions or answer.size % dimensions:
            raise PortraitError(
                f"{self.path}: its answer holds {answer.size} numbers, {count} x {dimensions} or more are needed: use the "
                "file of buffalo_l"
            )
        # 0 is the first pixel's centre there: these networks learned from pictures that OpenCV moved together with points
        return (answer.reshape(-1, dimensions)[-count:] + 1) * (LANDMARK_SIDE / 2) + 0.5


STRIDES = (8, 16, 32)  # pixels per cell of the three levels
ANCHORS = 2  # per cell
SCORE_FROM = 0.5
SAME_BOX = 0.4  # overlap from which the weaker of two boxes is dropped


def prepare(frame: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """A frame (h w 3, uint8 RGB) as the network's input 1 3 side side, float32 in about [-1, 1], and its scale.

    The frame fills the square from the top left as far as its shape allows; the rest is black.
    """
    height, width = frame.shape[:2]
    scale = side / max(width, height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    square = np.zeros((side, side, 3), np.uint8)
    square[: size[1], : size[0]] = cv2.resize(
        frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    )
    return ((square.astype(np.float32) - 127.5) / 128).transpose(2, 0, 1)[None], scale


def anchor_centres(side: int, stride: int) -> np.ndarray:
    """Where the anchors of one level sit, row by row, both of a cell in turn: cells * ANCHORS 2, pixels of the input."""
    cells = np.arange(side // stride) * stride
    grid = np.stack(np.meshgrid(cells, cells, indexing="xy"), axis=-1).reshape(-1, 2)
    return np.repeat(grid, ANCHORS, axis=0).astype(np.float32)


def decode(scores: np.ndarray, boxes: np.ndarray, points: np.ndarray, side: int, stride: int) -> tuple[np.ndarray, ...]:
    """One level's answers -> (scores k, boxes k 4, points k 5 2) of the anchors with SCORE_FROM or more, input pixels.

    scores: a 1, probabilities; boxes: a 4, distances of left, top, right, bottom from the anchor; points: a 10, x and y
    of the five points from the anchor; distances in units of the stride. Leading axes of size 1 are taken off.
    """
    scores = scores.reshape(-1)
    chosen = np.flatnonzero(scores >= SCORE_FROM)
    centre = anchor_centres(side, stride)[chosen]
    away = boxes.reshape(-1, 4)[chosen] * stride
    corners = np.concatenate([centre - away[:, :2], centre + away[:, 2:]], axis=1)  # k 4
    five = centre[:, None] + points.reshape(-1, 5, 2)[chosen] * stride  # k 5 2
    return scores[chosen], corners, five


def suppress(scores: np.ndarray, boxes: np.ndarray, same: float = SAME_BOX) -> np.ndarray:
    """Non-maximum suppression: indices of the boxes (n 4) to keep, best score first."""
    left = np.argsort(-scores, kind="stable")
    kept = []
    while len(left):
        kept.append(int(left[0]))
        left = left[1:][overlap(boxes[left[0]], boxes[left[1:]])[0] <= same]
    return np.array(kept, dtype=int)


def faces_of(answers: list[np.ndarray], side: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nine answers (scores, boxes, points of each level) -> scores k, boxes k 4, points k 5 2 in pixels of the frame."""
    levels = [
        decode(answers[level], answers[level + 3], answers[level + 6], side, stride)
        for level, stride in enumerate(STRIDES)
    ]
    scores, boxes, points = (np.concatenate(parts) for parts in zip(*levels, strict=True))
    kept = suppress(scores, boxes)
    return scores[kept], boxes[kept] / scale, points[kept] / scale
