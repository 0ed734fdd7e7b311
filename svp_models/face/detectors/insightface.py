"""`insightface`: the networks of InsightFace buffalo_l by onnxruntime alone: the detector SCRFD, 106 points, 68 points in space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import PortraitError
from ...media.frame_stream import Frames
from ...optional_deps import cv2
from ..affine import fit_similarity, invert_affine, square_matrix, transform_points, warp_square
from ..detection import FaceDetection, check_frames
from ..head_pose import TEMPLATE, TEMPLATE_FIVE_POINTS, face_edges, pose_from_five_points
from ..keypoints import five_points_from_68
from .built_in import open_session

FILES = ("det_10g.onnx", "2d106det.onnx", "1k3d68.onnx")
DETECTOR_SIDES = (640, 128)  # pixels of its input; the second where the first finds none: faces that fill the image
LANDMARK_SIDE = 192  # pixels of the input of the two landmark networks
MARGIN = 1.5  # of the box, the input of these
# Of the 106 points: the sides of the contour, both with the chin (0), and the pupils
LEFT_SIDE, RIGHT_SIDE = list(range(17)), [0, *range(17, 33)]
PUPILS = [38, 88]
NOSE_TOP = 27  # of the 68 points

STRIDES = (8, 16, 32)  # pixels per cell of the three levels
ANCHORS = 2  # per cell
MIN_SCORE = 0.5
NMS_IOU = 0.4  # from which the weaker of two boxes is dropped


class InsightFaceBackend:
    """detector, points_106, points_68: the three files. Detects everything but the expression."""

    name = "insightface"

    def __init__(self, detector: Path | str, points_106: Path | str, points_68: Path | str) -> None:
        self._detector = _Network(detector, outputs=3 * len(STRIDES))
        self._points_106 = _Network(points_106, outputs=1)
        self._points_68 = _Network(points_68, outputs=1)

    def detect(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        check_frames(frames)
        for frame in frames:
            boxes, points = self._boxes(frame)
            yield [self._face(frame, box, five) for box, five in zip(boxes, points, strict=True)]

    def _boxes(self, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes k 4 and five points k 5 2, best score first."""
        fixed = self._detector.side
        for side in (fixed,) if fixed else DETECTOR_SIDES:
            image, scale = detector_input(frame, side)
            outputs = self._detector.run(image)
            expected = [2 * (side // stride) ** 2 * width for width in (1, 4, 10) for stride in STRIDES]
            sizes = [output.size for output in outputs]
            if sizes != expected:
                raise PortraitError(
                    f"{self._detector.path}: its outputs have {sizes} numbers for {side} pixels, "
                    f"{expected} are needed: use det_10g.onnx of buffalo_l"
                )
            _, boxes, points = decode_faces(outputs, side, scale)
            if len(boxes):
                break
        return boxes, points

    def _face(self, frame: np.ndarray, box: np.ndarray, five: np.ndarray) -> FaceDetection:
        onto = fit_similarity(TEMPLATE[list(TEMPLATE_FIVE_POINTS)], five)
        angle = float(np.arctan2(onto[1, 0], onto[0, 0]))  # the landmark networks know upright faces best
        matrix = square_matrix(box, LANDMARK_SIDE, MARGIN, angle)
        image = (
            warp_square(frame, matrix, LANDMARK_SIDE).transpose(2, 0, 1)[None].astype(np.float32)
        )  # 1 3 192 192, 0 .. 255
        back = invert_affine(matrix)
        points_106 = transform_points(self._points_106.points(image, 106, 2), back)
        landmarks = transform_points(self._points_68.points(image, 68, 3)[:, :2], back)
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
                f"{', '.join(FILES)} of buffalo_l, in this order"
            )
        self._input = inputs[0].name
        height = inputs[0].shape[2]
        self.side = height if isinstance(height, int) and height > 0 else None

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        return [np.asarray(output, np.float32) for output in self._session.run(None, {self._input: image})]

    def points(self, image: np.ndarray, count: int, dimensions: int) -> np.ndarray:
        """The last `count` points of the only output, from [-1, 1] to continuous pixels of the input: count dimensions."""
        output = self.run(image)[0]
        if output.size < count * dimensions or output.size % dimensions:
            raise PortraitError(
                f"{self.path}: its output has {output.size} numbers, {count} x {dimensions} or more are needed: use the "
                "file of buffalo_l"
            )
        # 0 is the first pixel's centre there: these networks learned from images that OpenCV moved together with their points
        return (output.reshape(-1, dimensions)[-count:] + 1) * (LANDMARK_SIDE / 2) + 0.5


def detector_input(frame: np.ndarray, side: int) -> tuple[np.ndarray, float]:
    """A frame (h w 3, uint8 RGB) as the input of the detector, 1 3 side side, float32 in about [-1, 1], and its scale.

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
    """The anchors of one level, row by row, both of a cell in turn: cells * ANCHORS 2, pixels of the input."""
    cells = np.arange(side // stride) * stride
    grid = np.stack(np.meshgrid(cells, cells, indexing="xy"), axis=-1).reshape(-1, 2)
    return np.repeat(grid, ANCHORS, axis=0).astype(np.float32)


def decode_level(
    scores: np.ndarray, boxes: np.ndarray, points: np.ndarray, side: int, stride: int
) -> tuple[np.ndarray, ...]:
    """The outputs of one level -> (scores k, boxes k 4, points k 5 2) of the anchors with MIN_SCORE or more, input pixels.

    scores: a 1, probabilities; boxes: a 4, distances of left, top, right, bottom from the anchor; points: a 10, x and y
    of the five points from the anchor; distances in units of the stride. Leading axes of size 1 are removed.
    """
    scores = scores.reshape(-1)
    chosen = np.flatnonzero(scores >= MIN_SCORE)
    centre = anchor_centres(side, stride)[chosen]
    distances = boxes.reshape(-1, 4)[chosen] * stride
    corners = np.concatenate([centre - distances[:, :2], centre + distances[:, 2:]], axis=1)  # k 4
    five = centre[:, None] + points.reshape(-1, 5, 2)[chosen] * stride  # k 5 2
    return scores[chosen], corners, five


def suppress(scores: np.ndarray, boxes: np.ndarray, max_iou: float = NMS_IOU) -> np.ndarray:
    """Non-maximum suppression: indices of the chosen boxes (n 4: left, top, right, bottom), best score first."""
    corner_and_size = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1).astype(np.float64)
    chosen = cv2.dnn.NMSBoxes(corner_and_size.tolist(), scores.astype(np.float64).tolist(), 0.0, max_iou)
    return np.asarray(chosen, dtype=int).reshape(-1)


def decode_faces(outputs: list[np.ndarray], side: int, scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The nine outputs (scores, boxes, points of each level) -> scores k, boxes k 4, points k 5 2 in pixels of the frame."""
    levels = [
        decode_level(outputs[level], outputs[level + 3], outputs[level + 6], side, stride)
        for level, stride in enumerate(STRIDES)
    ]
    scores, boxes, points = (np.concatenate(parts) for parts in zip(*levels, strict=True))
    chosen = suppress(scores, boxes)
    return scores[chosen], boxes[chosen] / scale, points[chosen] / scale
