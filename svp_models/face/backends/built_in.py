"""`built-in`: the small network of a portrait model, which knows drawn faces, one a frame."""

from __future__ import annotations

from collections.abc import Iterator

from ...media.stream import Frames
from ..analyzer import FaceAnalyzer
from ..detection import FaceDetection


class BuiltInBackend:
    """onnx: a model's `face_analyzer`. Gives everything, expression coefficients too."""

    name = "built-in"

    def __init__(self, onnx: bytes) -> None:
        self._analyzer = FaceAnalyzer(onnx)

    def detect(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        for track in self._analyzer.batches(frames):
            for row in range(len(track)):
                face = FaceDetection(
                    box=track.boxes[row],
                    head_keypoints=track.head_keypoints[row],
                    five_points=track.five_points[row],
                    landmarks=track.landmarks[row],
                    pose=track.pose[row],
                    expression=track.expression[row],
                )
                yield [face] if track.present[row] else []
