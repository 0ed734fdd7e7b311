"""What a face backend gives: the faces of a frame; and a clip's chosen faces as one track.

Which of several faces: the largest, one by its place, or the one that stays over the clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from ..errors import PortraitError
from ..media.frame_stream import Frames


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


COUNTED = "left to right"
FACE_CHOICES = ("largest", "stays", COUNTED)
SAME_FACE = 0.3  # overlap (intersection over union) from which boxes of two frames are one face
LONGEST_GAP = 25  # frames a face may be away and still be the same


def overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (left, top, right, bottom): n 4, m 4 -> n m in [0, 1]."""
    boxes, others = np.asarray(boxes, np.float64).reshape(-1, 1, 4), np.asarray(others, np.float64).reshape(1, -1, 4)
    span = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    common = span.clip(min=0).prod(axis=-1)
    areas = [(each[..., 2:] - each[..., :2]).clip(min=0).prod(axis=-1) for each in (boxes, others)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-9)


def choose_faces(
    found: Sequence[list[FaceDetection]], choice: str = "largest", index: int = 0
) -> list[FaceDetection | None]:
    """The chosen face of every frame, None where it is not there.

    `largest`: in every frame the largest box. `stays`: faces are followed by the overlap of their boxes from frame to
    frame, and the one seen in most frames is taken, the larger of two equals. `left to right`: the box number `index` from
    the left in every frame, counted from 0; if no frame has so many faces, PortraitError says how many there are.
    """
    if choice == "largest":
        return [max(faces, key=lambda each: each.area, default=None) for faces in found]
    if choice == "stays":
        return _staying(found)
    if choice != COUNTED:
        raise PortraitError(f"the choice of face is {choice!r}: it must be one of {', '.join(FACE_CHOICES)}")
    most = max((len(faces) for faces in found), default=0)
    if 0 < most <= index:
        raise PortraitError(
            f"face number {index} from the left was asked for, and no frame has more than {most}: the first is 0"
        )
    ordered = [sorted(faces, key=lambda each: float(each.box[0] + each.box[2])) for faces in found]
    return [faces[index] if index < len(faces) else None for faces in ordered]


@dataclass
class _Followed:
    """A face on its way through the clip."""

    faces: dict[int, FaceDetection] = field(default_factory=dict)  # by frame
    last: int = 0  # frame it was seen in

    def add(self, frame: int, face: FaceDetection) -> None:
        self.faces[frame], self.last = face, frame

    def rank(self) -> tuple[int, float]:
        return len(self.faces), float(np.mean([each.area for each in self.faces.values()]))


def _staying(found: Sequence[list[FaceDetection]]) -> list[FaceDetection | None]:
    """Greedy following: in every frame the pairs of known and new boxes that overlap most come first."""
    tracks: list[_Followed] = []
    for frame, faces in enumerate(found):
        live = [each for each in tracks if frame - each.last <= LONGEST_GAP]
        free = list(range(len(faces)))
        if live and faces:
            shared = overlap(
                np.stack([each.faces[each.last].box for each in live]), np.stack([each.box for each in faces])
            )
            while shared.size and shared.max() >= SAME_FACE:
                old, new = np.unravel_index(int(shared.argmax()), shared.shape)
                live[old].add(frame, faces[new])
                free.remove(int(new))
                shared[old], shared[:, new] = -1, -1
        for new in free:
            tracks.append(_Followed({frame: faces[new]}, frame))
    best = max(tracks, key=_Followed.rank, default=None)
    return [None if best is None else best.faces.get(frame) for frame in range(len(found))]
