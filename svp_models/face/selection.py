"""Which of several faces: the largest, one by its place, or the one that stays over the clip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import PortraitError
from .detection import FaceDetection

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
