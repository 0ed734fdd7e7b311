"""What a face backend gives: the faces of a frame; and a clip's chosen faces as one track."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..media.stream import Frames
from .analyzer import FaceTrack


@dataclass(frozen=True)
class FaceDetection:
    """One face in one frame, in continuous pixels of the frame, (0, 0) its top left corner.

    box: 4 (left, top, right, bottom); head_keypoints: 8 2; five_points: 5 2 (eyes, nose tip, mouth corners); landmarks:
    68 2, pose: yaw, pitch, roll in degrees, expression: 64 - each None from backends that do not know it.
    """

    box: np.ndarray
    head_keypoints: np.ndarray
    five_points: np.ndarray
    landmarks: np.ndarray | None = None
    pose: np.ndarray | None = None
    expression: np.ndarray | None = None

    @property
    def area(self) -> float:
        left, top, right, bottom = (float(each) for each in self.box)
        return max(0.0, right - left) * max(0.0, bottom - top)


class FaceBackend(Protocol):
    """A way to find faces. name: as the user chose it."""

    name: str

    def detect(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        """The faces of every frame of one clip, in order: n h w 3, uint8 RGB; an empty list where there are none.

        The frames are gone through once, `for frame in frames`: they need not be in memory.
        """
        ...


def track_of(chosen: Sequence[FaceDetection | None], width: int, height: int) -> FaceTrack:
    """One face or None per frame of width x height -> the track; what no face knows is None, absent frames are zeros."""
    found = [each for each in chosen if each is not None]

    def rows(name: str) -> np.ndarray | None:
        known = [value for each in found if (value := getattr(each, name)) is not None]
        if len(known) < len(found) or not found:
            return None
        empty = np.zeros_like(known[0])
        every = [empty if each is None else getattr(each, name) for each in chosen]
        return np.stack(every).astype(np.float32)

    count = len(chosen)
    boxes, points, five = rows("box"), rows("head_keypoints"), rows("five_points")
    return FaceTrack(
        boxes=np.zeros((count, 4), np.float32) if boxes is None else boxes,
        landmarks=rows("landmarks"),
        head_keypoints=np.zeros((count, 8, 2), np.float32) if points is None else points,
        expression=rows("expression"),
        pose=rows("pose"),
        present=np.array([each is not None for each in chosen], dtype=bool),
        width=width,
        height=height,
        five_points=np.zeros((count, 5, 2), np.float32) if five is None else five,
    )
