"""`insightface`: InsightFace's buffalo_l networks by onnxruntime alone: detector, 106 points, 68 points in space."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ...errors import PortraitError
from ..alignment import crop, fit_similarity, inverse, move, square_around
from ..analyzer import check_frames
from ..detection import FaceDetection
from ..head_pose import pose_from_five_points
from ..head_template import FIVE_OF_TEMPLATE, TEMPLATE, face_edges, five_points_from_68
from ..onnx_session import open_session
from ..scrfd import STRIDES, faces_of, prepare

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
        matrix = square_around(box, LANDMARK_SIDE, MARGIN, angle)
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
