"""Frames -> face box, landmarks, head keypoints, expression and pose, by a small ONNX network on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..errors import PortraitError
from ..libraries import cv2
from ..media.stream import Frames
from .head_template import five_points_from_68
from .keypoints import frame_ranges
from .onnx_session import open_session

INPUT_SIDE = 128  # pixels of the square the network sees
BATCH = 32  # frames a call
PRESENT_FROM = 0.5  # probability
OUTPUTS = {"landmarks": (68, 2), "head_keypoints": (8, 2), "expression": (64,), "pose": (3,), "present": ()}


@dataclass(frozen=True)
class FaceTrack:
    """One face in every frame. Positions are pixels of the analysed frames: continuous, (0, 0) is the top left corner.

    boxes: n 4 (left, top, right, bottom); landmarks: n 68 2; head_keypoints: n 8 2; expression: n 64; pose: n 3,
    yaw, pitch, roll in degrees (positive: nose to the image's right, nose down, head tilted clockwise); all float32.
    landmarks, expression and pose are None where the backend does not know them. present: n bool; where it is False the
    other rows mean nothing. width, height: of the frames.
    five_points: n 5 2, eyes, nose tip, mouth corners.
    """

    boxes: np.ndarray
    landmarks: np.ndarray | None
    head_keypoints: np.ndarray
    expression: np.ndarray | None
    pose: np.ndarray | None
    present: np.ndarray
    width: int
    height: int
    five_points: np.ndarray

    def __len__(self) -> int:
        return len(self.present)


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
