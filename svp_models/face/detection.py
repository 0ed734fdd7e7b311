"""Detected faces: the face of one frame, the face of a whole clip as a track, the choice between several, the face box.

Coordinates are continuous pixels of the frame: (0, 0) is its top left corner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

import numpy as np

from ..errors import PortraitError
from ..media.frame_stream import Frames

PointMap = Callable[[np.ndarray], np.ndarray]  # points ... 2 -> ... 2

LEFT_TO_RIGHT = "left to right"
FACE_CHOICES = ("largest", "stays", LEFT_TO_RIGHT)
SAME_FACE_IOU = 0.3  # of the boxes of two frames, from which they are one face
MAX_GAP = 25  # frames that a face may be away and still be the same

CHIN_BELOW = 1.3  # without landmarks: the chin lies 1.3 times the way from nose tip to mouth below the mouth
BROWS_ABOVE = 0.45  # and the brows 0.45 eye distances above the eyes
EYES_TO_CHIN = 0.8  # with head keypoints alone: widths of the face from the eyes to the chin (synthetic 0.7, real 0.9)
EYES_TO_BROWS = 0.2  # and from the eyes to the brows


@dataclass(frozen=True)
class FaceDetection:
    """One face in one frame.

    box: 4 (left, top, right, bottom); head_keypoints: 8 2; five_points: 5 2 (eyes, nose tip, mouth corners); landmarks:
    68 2, pose: yaw, pitch, roll in degrees, expression: 64. The last three are None from backends that do not detect them.
    """

    box: np.ndarray
    head_keypoints: np.ndarray
    five_points: np.ndarray
    landmarks: np.ndarray | None = None
    pose: np.ndarray | None = None
    expression: np.ndarray | None = None

    @property
    def area(self) -> float:
        left, top, right, bottom = (float(edge) for edge in self.box)
        return max(0.0, right - left) * max(0.0, bottom - top)

    def map_points(self, function: PointMap) -> FaceDetection:
        """The face with all its points, the corners of the box too, moved by a function."""
        return replace(self, box=function(self.box.reshape(2, 2)).reshape(4), **_mapped(self, function))


@dataclass(frozen=True)
class FaceTrack:
    """One face in every frame of a clip.

    boxes: n 4 (left, top, right, bottom); landmarks: n 68 2; head_keypoints: n 8 2; expression: n 64; pose: n 3,
    yaw, pitch, roll in degrees (positive: nose to the right of the image, nose down, head tilted clockwise); all float32.
    landmarks, expression and pose are None where the backend does not detect them. present: n bool; where it is False the
    other rows mean nothing. width, height: of the frames. five_points: n 5 2, eyes, nose tip, mouth corners.
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

    def map_points(self, function: PointMap) -> FaceTrack:
        """The track with all its points, the corners of the boxes too, moved by a function of n k 2."""
        boxes = function(self.boxes.reshape(-1, 2, 2)).reshape(-1, 4)
        return replace(self, boxes=boxes, **_mapped(self, function))


class FaceBackend(Protocol):
    """A way to detect faces. name: as the user chose it."""

    name: str

    def detect(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        """The faces of every frame of one clip, in order: n h w 3, uint8 RGB; an empty list where there are none.

        The frames are read once, `for frame in frames`: they need not be in memory.
        """
        ...


def given(values: np.ndarray | None, what: str) -> np.ndarray:
    """What not every backend detects, where it is needed; PortraitError names it where it is missing."""
    if values is None:
        raise PortraitError(f"this face analyser detects no {what}: choose the backend 'built-in'")
    return values


def _mapped(face: FaceDetection | FaceTrack, function: PointMap) -> dict[str, Any]:
    points = {name: getattr(face, name) for name in ("head_keypoints", "five_points", "landmarks")}
    return {name: None if value is None else function(value) for name, value in points.items()}


def build_track(faces: Sequence[FaceDetection | None], width: int, height: int) -> FaceTrack:
    """One face or None per frame of width x height -> the track; what no face knows is None, absent frames are zeros."""
    found = [face for face in faces if face is not None]

    def rows(name: str) -> np.ndarray | None:
        known = [value for face in found if (value := getattr(face, name)) is not None]
        if len(known) < len(found) or not found:
            return None
        empty = np.zeros_like(known[0])
        return np.stack([empty if face is None else getattr(face, name) for face in faces]).astype(np.float32)

    count = len(faces)
    boxes, points, five = rows("box"), rows("head_keypoints"), rows("five_points")
    return FaceTrack(
        boxes=np.zeros((count, 4), np.float32) if boxes is None else boxes,
        landmarks=rows("landmarks"),
        head_keypoints=np.zeros((count, 8, 2), np.float32) if points is None else points,
        expression=rows("expression"),
        pose=rows("pose"),
        present=np.array([face is not None for face in faces], dtype=bool),
        width=width,
        height=height,
        five_points=np.zeros((count, 5, 2), np.float32) if five is None else five,
    )


def concatenate_tracks(tracks: Sequence[FaceTrack]) -> FaceTrack:
    """The tracks of consecutive parts of a clip as one track."""
    names = [item.name for item in fields(FaceTrack) if isinstance(getattr(tracks[0], item.name), np.ndarray)]
    joined: dict[str, Any] = {name: np.concatenate([getattr(track, name) for track in tracks]) for name in names}
    return replace(tracks[0], **joined)


def check_frames(frames: Frames) -> None:
    """Raise PortraitError unless frames are n h w 3, uint8, with none of them 0."""
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise PortraitError(
            f"the frames to analyse are {frames.dtype} of shape {tuple(frames.shape)}: they must be uint8 of shape "
            "frames x height x width x 3, with none of them 0"
        )


def require_face(track: FaceTrack, what: str) -> None:
    """Raise PortraitError if no frame of `what` shows a face."""
    if not track.present.any():
        raise PortraitError(
            f"no face found in {what} ({track.width} x {track.height} pixels, frames {frame_ranges(range(len(track)))} of "
            f"{len(track)}): choose an image with a frontal face that fills a third of it or more, "
            "for a photograph connect Load Face Analyzer with another backend than built-in, or type the 8 keypoints by hand"
        )


def frame_ranges(indices: Iterable[int]) -> str:
    """Frame numbers for a message: (3, 4, 5, 9) -> `3-5, 9`."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def box_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (left, top, right, bottom): n 4, m 4 -> n m in [0, 1]."""
    boxes, others = np.asarray(boxes, np.float64).reshape(-1, 1, 4), np.asarray(others, np.float64).reshape(1, -1, 4)
    span = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    common = span.clip(min=0).prod(axis=-1)
    areas = [(corners[..., 2:] - corners[..., :2]).clip(min=0).prod(axis=-1) for corners in (boxes, others)]
    return common / np.maximum(areas[0] + areas[1] - common, 1e-9)


def choose_faces(
    found: Sequence[list[FaceDetection]], choice: str = "largest", index: int = 0
) -> list[FaceDetection | None]:
    """The chosen face of every frame, None where it is not there.

    `largest`: the largest box of every frame. `stays`: faces are tracked by the overlap of their boxes from frame to
    frame, and the one seen in most frames is taken, the larger of two equals. `left to right`: the box number `index` from
    the left in every frame, counted from 0; if no frame has so many faces, PortraitError says how many there are.
    """
    if choice == "largest":
        return [max(faces, key=lambda face: face.area, default=None) for faces in found]
    if choice == "stays":
        return _longest_tracked(found)
    if choice != LEFT_TO_RIGHT:
        raise PortraitError(f"the choice of face is {choice!r}: it must be one of {', '.join(FACE_CHOICES)}")
    most = max((len(faces) for faces in found), default=0)
    if 0 < most <= index:
        raise PortraitError(
            f"face number {index} from the left was asked for, and no frame has more than {most}: the first is 0"
        )
    ordered = [sorted(faces, key=lambda face: float(face.box[0] + face.box[2])) for faces in found]
    return [faces[index] if index < len(faces) else None for faces in ordered]


@dataclass
class _TrackedFace:
    """A face on its way through the clip."""

    faces: dict[int, FaceDetection] = field(default_factory=dict)  # by frame
    last: int = 0  # frame in which it was last seen

    def add(self, frame: int, face: FaceDetection) -> None:
        self.faces[frame], self.last = face, frame

    def rank(self) -> tuple[int, float]:
        return len(self.faces), float(np.mean([face.area for face in self.faces.values()]))


def _longest_tracked(found: Sequence[list[FaceDetection]]) -> list[FaceDetection | None]:
    """Greedy tracking: in every frame the pairs of known and new boxes that overlap most come first."""
    tracked: list[_TrackedFace] = []
    for frame, faces in enumerate(found):
        live = [known for known in tracked if frame - known.last <= MAX_GAP]
        free = list(range(len(faces)))
        if live and faces:
            iou = box_iou(
                np.stack([known.faces[known.last].box for known in live]), np.stack([face.box for face in faces])
            )
            while iou.size and iou.max() >= SAME_FACE_IOU:
                old, new = np.unravel_index(int(iou.argmax()), iou.shape)
                live[old].add(frame, faces[new])
                free.remove(int(new))
                iou[old], iou[:, new] = -1, -1
        tracked += [_TrackedFace({frame: faces[index]}, frame) for index in free]
    best = max(tracked, key=_TrackedFace.rank, default=None)
    return [None if best is None else best.faces.get(frame) for frame in range(len(found))]


def face_points(track: FaceTrack, frame: int) -> np.ndarray:
    """The 68 landmarks of a frame, or without landmarks 4 edges, 2 brows and the chin: k 2."""
    if track.landmarks is not None:
        return track.landmarks[frame]
    five = track.five_points[frame].astype(np.float64)
    eyes, nose, mouth = five[:2], five[2], five[3:].mean(axis=0)
    up = np.array([five[1, 1] - five[0, 1], five[0, 0] - five[1, 0]])  # as long as the distance of the eyes
    chin = mouth + CHIN_BELOW * (mouth - nose)
    return np.concatenate([track.head_keypoints[frame, :4], eyes + BROWS_ABOVE * up, chin[None]])


def face_boxes(track: FaceTrack) -> np.ndarray:
    """The face boxes from the brows to the chin: n 4 (left, top, right, bottom), float64 pixels."""
    return boxes_around(np.stack([face_points(track, frame) for frame in range(len(track))])).astype(np.float64)


def boxes_from_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """The face boxes from the 8 head keypoints alone, n 8 2 -> n 4: brows and chin are guessed from the width of the face."""
    points = np.asarray(keypoints, np.float64)
    across = points[:, 2:4].mean(axis=1, keepdims=True) - points[:, :2].mean(axis=1, keepdims=True)  # n 1 2
    down = np.stack([-across[..., 1], across[..., 0]], axis=-1)
    eyes = points[:, 4:6].mean(axis=1, keepdims=True)
    return boxes_around(
        np.concatenate([points, eyes + EYES_TO_CHIN * down, eyes - EYES_TO_BROWS * down], axis=1)
    )  # n 10 2


def boxes_around(points: np.ndarray) -> np.ndarray:
    """Points ... k 2 -> the boxes around them, ... 4 (left, top, right, bottom)."""
    return np.concatenate([points.min(axis=-2), points.max(axis=-2)], axis=-1)
