"""Frames -> face box, landmarks, head keypoints, expression and pose, by a small ONNX network on the CPU.

Opening ONNX models; onnxruntime is imported with the first one.

`built-in`: the small network of a portrait model, which knows drawn faces, one a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import PortraitError
from ..media.frame_stream import Frames
from ..optional_deps import cv2, onnxruntime
from .detection import FaceDetection, FaceTrack
from .head_pose import five_points_from_68
from .keypoints import frame_ranges

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(
    model: bytes | str, what: str, cure: str, providers: Sequence[str], threads: int = 0
) -> InferenceSession:
    """A session of a model: its path or its content. providers: the wanted ones, best first; what is not there is left out.

    what, cure: how a message calls a model that cannot be used, and what to do then. threads: 0 for as many as there are cores.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors are raised anyway
    if threads:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    available = ort.get_available_providers()
    try:
        return ort.InferenceSession(model, options, providers=[each for each in providers if each in available])
    except (*_load_errors(), OSError) as error:
        raise PortraitError(f"{what} is no usable ONNX model: {cure}") from error


def _load_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises for a model that it cannot use."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "NoSuchFile",
        "RuntimeException",
    )
    return tuple(getattr(errors, name) for name in names)


INPUT_SIDE = 128  # pixels of the square the network sees
BATCH = 32  # frames a call
PRESENT_FROM = 0.5  # probability
OUTPUTS = {"landmarks": (68, 2), "head_keypoints": (8, 2), "expression": (64,), "pose": (3,), "present": ()}


class FaceAnalyzer:
    """The network as an onnxruntime session.

    Its input `image` is n 3 128 128, float32 RGB in [0, 1]; its outputs are `landmarks` (n 68 2) and `head_keypoints`
    (n 8 2) as fractions of that square, `expression` (n 64), `pose` (n 3 or more: what follows the three angles is not
    read) and `present` (n, probability).
    """

    def __init__(self, onnx: bytes, threads: int = 1) -> None:
        what = f"the face analyser ({len(onnx)} bytes)"
        self._session = open_session(onnx, what, "use a complete model file", ["CPUExecutionProvider"], threads)
        missing = set(OUTPUTS) - {output.name for output in self._session.get_outputs()}
        inputs = [each.name for each in self._session.get_inputs()]
        if missing or inputs != ["image"]:
            raise PortraitError(
                f"the face analyser has the inputs {inputs} and lacks the outputs {sorted(missing)}: "
                f"it must map 'image' to {', '.join(OUTPUTS)}"
            )

    def analyze(self, frames: Frames, progress: Callable[[int, int], None] | None = None) -> FaceTrack:
        """Find the face in frames of one clip: n h w 3, uint8 RGB. progress(frames done, frames in all)."""
        parts: list[FaceTrack] = []
        done = 0
        for part in self.batches(frames):
            parts.append(part)
            done += len(part)
            if progress is not None:
                progress(min(done, len(frames)), len(frames))
        return joined(parts)

    def batches(self, frames: Frames) -> Iterator[FaceTrack]:
        """The same, BATCH frames at a time; one frame in its own size is at hand at any time."""
        check_frames(frames)
        height, width = frames.shape[1:3]
        batch: list[np.ndarray] = []
        for frame in frames:
            batch.append(letterbox(frame))  # 128 128 3
            if len(batch) == BATCH:
                yield self._read(batch, width, height)
                batch = []
        if batch:
            yield self._read(batch, width, height)

    def _read(self, batch: list[np.ndarray], width: int, height: int) -> FaceTrack:
        image = np.stack(batch).transpose(0, 3, 1, 2).astype(np.float32) / 255  # b 3 128 128
        results: dict[str, np.ndarray] = {}
        for name, value in zip(OUTPUTS, self._session.run(list(OUTPUTS), {"image": image}), strict=True):
            rows = np.asarray(value, np.float32)
            rows = rows[:, : OUTPUTS[name][0]] if name == "pose" else rows
            results[name] = rows.reshape(len(batch), *OUTPUTS[name])
        landmarks = from_letterbox(results["landmarks"], width, height)  # b 68 2
        head_keypoints = from_letterbox(results["head_keypoints"], width, height)  # b 8 2
        outline = np.concatenate([landmarks, head_keypoints], axis=1)  # b 76 2
        return FaceTrack(
            boxes=np.concatenate([outline.min(axis=1), outline.max(axis=1)], axis=1),  # b 4
            landmarks=landmarks,
            head_keypoints=head_keypoints,
            expression=results["expression"],
            pose=results["pose"],
            present=results["present"] >= PRESENT_FROM,
            width=width,
            height=height,
            five_points=five_points_from_68(landmarks),
        )


def joined(parts: list[FaceTrack]) -> FaceTrack:
    """One track of the tracks of a clip's parts."""
    rows = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("boxes", "landmarks", "head_keypoints", "expression", "pose", "present", "five_points")
    }
    return replace(parts[0], **rows)


def check_frames(frames: Frames) -> None:
    """Raise PortraitError unless frames are n h w 3, uint8, with none of them 0."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise PortraitError(
            f"the frames to analyse are {frames.dtype} of shape {tuple(frames.shape)}: they must be uint8 of shape "
            "frames x height x width x 3, with none of them 0"
        )


def letterbox(frame: np.ndarray) -> np.ndarray:
    """A frame (h w 3, uint8) made square by repeating its edges on both sides, then resized: 128 128 3, uint8."""
    height, width = frame.shape[:2]
    side = max(width, height)
    left, top = _margins(width, height)
    square = cv2.copyMakeBorder(
        frame, top, side - height - top, left, side - width - left, borderType=cv2.BORDER_REPLICATE
    )
    filter_kind = cv2.INTER_AREA if side > INPUT_SIDE else cv2.INTER_LINEAR
    return cv2.resize(square, (INPUT_SIDE, INPUT_SIDE), interpolation=filter_kind)


def from_letterbox(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Fractions of the square that `letterbox` makes of a frame -> that frame's pixels: n k 2 both, float32."""
    return (points * max(width, height) - _margins(width, height)).astype(np.float32)


def _margins(width: int, height: int) -> tuple[int, int]:
    """Pixels that the square has left of and above the frame."""
    side = max(width, height)
    return (side - width) // 2, (side - height) // 2


def require_face(track: FaceTrack, what: str) -> None:
    """Raise PortraitError if no frame of `what` shows a face."""
    if not track.present.any():
        raise PortraitError(
            f"no face found in {what} ({track.width} x {track.height} pixels, frames {frame_ranges(range(len(track)))} of "
            f"{len(track)}): choose a picture with a face seen from the front that fills a third of it or more, "
            "for a photograph connect Load Face Analyzer with another backend than built-in, or type the 8 keypoints by hand"
        )


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
