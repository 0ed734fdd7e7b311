"""A closer look at a face whose place is known: points, expression, lids and gaze from an upright square around it.

The face analyser sees a whole portrait in 128 pixels; here the face alone fills them. It knows synthetic faces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..io.progress import Progress
from ..media.frame_stream import Frames
from ..networks.face_landmarks import ANALYZER_SIZE, READER_OUTPUTS, PortraitReaderNetwork
from .affine import invert_affine, transform_points, warp_square
from .detection import FaceTrack, boxes_around
from .detectors.built_in import BATCH_SIZE, FaceAnalyzer
from .keypoints import five_points_from_68

EYES = slice(36, 42), slice(42, 48)  # of 68 landmarks
MOUTH = slice(48, 68)
CENTRE = 0.55  # of the way from the eyes to the mouth
SIDE = 2.9  # of a square, in lengths of that way or distances of the eyes, whichever is longer
LOOKS = 2  # the second at the square around the points of the first


class Analyzer(Protocol):
    """What reads the face of a clip."""

    def analyze(self, frames: Frames, progress: Progress | None = None) -> FaceTrack:
        """Frames of one clip: n h w 3, uint8 RGB. progress(frames done, frames in all)."""
        ...


@dataclass(frozen=True)
class FaceReading:
    """n faces: landmarks n 68 2 and head_keypoints n 8 2 in pixels of their images; expression n 64; eyes n 4, left and right lid (0
    open to 1 closed), gaze right and down."""

    landmarks: np.ndarray
    head_keypoints: np.ndarray
    expression: np.ndarray
    eyes: np.ndarray

    def track(self) -> Tensor:
        """As rows of an expression track, n 68; lids between open and closed."""
        eyes = np.concatenate([self.eyes[:, :2].clip(0, 1), self.eyes[:, 2:]], axis=1)
        return torch.from_numpy(np.concatenate([self.expression, eyes], axis=1)).float()


def face_squares(landmarks: Tensor) -> Tensor:
    """Landmarks n 68 2 in pixels -> maps n 2 3 onto upright squares around the faces, whose sides go from 0 to 1."""
    points = landmarks.double()
    left, right = (points[:, part].mean(1) for part in EYES)
    eyes, mouth = (left + right) / 2, points[:, MOUTH].mean(1)
    across, down = right - left, mouth - eyes
    side = SIDE * torch.maximum(across.norm(dim=1), down.norm(dim=1)).clamp(min=1e-6)
    across = across / across.norm(dim=1, keepdim=True).clamp(min=1e-9)
    linear = torch.stack([across, torch.stack([-across[:, 1], across[:, 0]], 1)], 1) / side[:, None, None]  # n 2 2
    centre = torch.lerp(eyes, mouth, CENTRE)[..., None]
    return torch.cat([linear, 0.5 - linear @ centre], 2)


def cut_squares(images: Sequence[np.ndarray], matrices: np.ndarray) -> np.ndarray:
    """Images h w 3 (uint8) through maps n 2 3 of `face_squares` -> n 128 128 3, uint8."""
    scaled = ANALYZER_SIZE * np.asarray(matrices)
    return np.stack([warp_square(image, matrix, ANALYZER_SIZE) for image, matrix in zip(images, scaled, strict=True)])


class PortraitReader:
    """Reads faces with a PortraitReaderNetwork, on the CPU."""

    def __init__(self, network: PortraitReaderNetwork) -> None:
        self._network = network.eval()

    def read(self, images: Sequence[np.ndarray], landmarks: np.ndarray) -> FaceReading:
        """Faces near landmarks n 68 2 of n images h w 3, uint8: looked at until the square fits."""
        reading = self.look(images, landmarks)
        for _ in range(LOOKS - 1):
            reading = self.look(images, reading.landmarks)
        return reading

    def look(self, images: Sequence[np.ndarray], landmarks: np.ndarray) -> FaceReading:
        """The same, from one square each."""
        matrices = face_squares(torch.from_numpy(np.asarray(landmarks))).numpy()
        squares = torch.from_numpy(cut_squares(images, matrices)).movedim(3, 1).float() / 255
        with torch.inference_mode():
            values = [value.numpy() for value in self._network(squares)]
        found = dict(zip(READER_OUTPUTS, values, strict=True))
        for name in ("landmarks", "head_keypoints"):
            back = [
                transform_points(points, invert_affine(matrix))
                for points, matrix in zip(found[name], matrices, strict=True)
            ]
            found[name] = np.stack(back).astype(np.float32)
        return FaceReading(**found)


class CloserAnalyzer:
    """A face analyser, and a reader that looks closer at the faces that it finds."""

    def __init__(self, analyzer: FaceAnalyzer, reader: PortraitReader) -> None:
        self._analyzer, self._reader = analyzer, reader

    def analyze(self, frames: Frames, progress: Progress | None = None) -> FaceTrack:
        """See `FaceAnalyzer.analyze`; the frames are read twice."""
        track = self._analyzer.analyze(frames, progress)
        assert track.landmarks is not None  # the built-in analyser finds them
        parts: list[FaceReading] = []
        batch: list[np.ndarray] = []
        for frame in frames:
            batch.append(frame)
            if len(batch) == BATCH_SIZE:
                parts.append(self._read(batch, track.landmarks, len(parts)))
                batch = []
        if batch:
            parts.append(self._read(batch, track.landmarks, len(parts)))
        landmarks, keypoints, expression = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("landmarks", "head_keypoints", "expression")
        )
        return replace(
            track,
            boxes=boxes_around(np.concatenate([landmarks, keypoints], axis=1)),
            landmarks=landmarks,
            head_keypoints=keypoints,
            expression=expression,
            five_points=five_points_from_68(landmarks),
        )

    def _read(self, batch: list[np.ndarray], landmarks: np.ndarray, number: int) -> FaceReading:
        first = number * BATCH_SIZE
        return self._reader.read(batch, landmarks[first : first + len(batch)])
