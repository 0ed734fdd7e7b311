"""Faces that are small in their picture, found by looking again at the part where they seem to be.

The network of drawn faces has learnt from portraits and sees 128 pixels of the whole picture. Of a face that is smaller or
far from the middle it knows roughly the place, if it sees it at all; cut out around it, it sees a portrait. Backends that
search the picture for faces find small ones themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from .analyzer import INPUT_SIDE, FaceTrack
from .backends.auto import AutoBackend
from .backends.built_in import BuiltInBackend
from .crop import RISE, Progress, Square, cut_square, from_square
from .keypoints import interpolate_missing
from .outline import face_boxes
from .tracking import FaceTracker, check_track, track_face

LOOKS = 4  # after the first
PORTRAIT = 2.1  # side of the pictures it has learnt from, in faces
LEAST_STEP = 0.6  # of what the look before has seen: a rough place tells little of the size
SEARCHED_FRAMES = 4  # of a clip in which the first look has seen nothing
SEARCHED_SIDES = (1.0, 0.7, 0.5)  # of the picture's shorter side, squares that are searched then
SEARCHED_STEP = 0.25  # of their side from one to the next, at most


def find_face(
    analyzer: FaceTracker | bytes | None, frames: np.ndarray, what: str, progress: Progress | None = None
) -> np.ndarray:
    """The face in frames n h w 3 (uint8) of one clip, from the brows to the chin: boxes n 4 (left, top, right, bottom),
    float64 pixels. Frames without it lie between their neighbours; no face at all raises PortraitError.

    analyzer: as `track_face` takes it; what: what a message calls the frames; progress(done, total).
    """
    tracker = FaceTracker(BuiltInBackend(analyzer)) if isinstance(analyzer, bytes) else analyzer
    if tracker is not None and isinstance(tracker.backend, AutoBackend):
        tracker = replace(tracker, backend=tracker.backend.choose(frames))
    if tracker is not None and isinstance(tracker.backend, BuiltInBackend):
        return _find_portrait(replace(tracker, smoothing=0.0, recon=None), frames, what, progress)
    track = track_face(tracker, frames, what, progress)
    return interpolate_missing(face_boxes(track), track.present)[0].astype(np.float64)


def portrait_square(box: np.ndarray, least: float) -> Square:
    """The square that makes a portrait of the face in a box (left, top, right, bottom), of `least` pixels or more."""
    wide, high = box[2:] - box[:2]
    side = max(PORTRAIT * max(wide, high), least)
    left, top = (box[:2] + box[2:]) / 2 - (0, RISE * high) - side / 2
    return Square(round(float(left)), round(float(top)), round(side))


def _find_portrait(tracker: FaceTracker, frames: np.ndarray, what: str, progress: Progress | None) -> np.ndarray:
    count, height, width = frames.shape[:3]
    whole = max(width, height)
    squares = [Square((width - whole) // 2, (height - whole) // 2, whole)] * count
    for look in range(LOOKS + 1):
        track, found = _look(tracker, frames, squares, _part(progress, look, count))
        if look == 0:
            if not track.present.any():
                squares = [_search(tracker, frames) or squares[0]] * count
                track, found = _look(tracker, frames, squares)
            check_track(replace(track, width=width, height=height), what)
            boxes = interpolate_missing(found, track.present)[0].astype(np.float64)
            least = float(squares[0].side)
        boxes[track.present] = found[track.present]
        least *= LEAST_STEP
        squares = [portrait_square(box, least) for box in boxes]
    return boxes


def _part(progress: Progress | None, look: int, count: int) -> Progress | None:
    """Reports a look at `count` frames as a part of all looks."""
    if progress is None:
        return None
    return lambda done, total: progress(look * count + done, (LOOKS + 1) * count)


def _look(
    tracker: FaceTracker, frames: Iterable[np.ndarray], squares: Sequence[Square], progress: Progress | None = None
) -> tuple[FaceTrack, np.ndarray]:
    """What the tracker sees in a square of each frame, in pixels of what it was shown; and the boxes n 4 in the frames."""
    shown = np.stack([cut_square(frame, square, INPUT_SIDE) for frame, square in zip(frames, squares, strict=True)])
    track = tracker.analyze(shown, progress)
    corners = face_boxes(track).reshape(-1, 2, 2)
    boxes = [from_square(each, square, INPUT_SIDE).reshape(4) for each, square in zip(corners, squares, strict=True)]
    return track, np.stack(boxes)


def _search(tracker: FaceTracker, frames: np.ndarray) -> Square | None:
    """The square of some of the frames that is most like a portrait: what is seen in it would be cut out as it is."""
    height, width = frames.shape[1:3]
    tiles = [
        tile for share in SEARCHED_SIDES for tile in _tiles(width, height, max(1, round(share * min(width, height))))
    ]
    some = np.unique(np.linspace(0, len(frames) - 1, SEARCHED_FRAMES).round().astype(int))
    track, boxes = _look(tracker, (frames[index] for index in some for _ in tiles), tiles * len(some))
    best, least = None, np.inf
    for row in np.flatnonzero(track.present):
        tile, wanted = tiles[row % len(tiles)], portrait_square(boxes[row], 0)
        apart = [wanted.left - tile.left, wanted.top - tile.top, wanted.side - tile.side]
        off = float(np.linalg.norm(apart)) / tile.side
        if off < least:
            best, least = tile, off
    return best


def _tiles(width: int, height: int, side: int) -> list[Square]:
    """Squares of that side all over a picture."""
    rows, columns = (
        np.linspace(0, extent - side, 1 + int(np.ceil((extent - side) / (SEARCHED_STEP * side)))).round().astype(int)
        for extent in (height, width)
    )
    return [Square(int(left), int(top), side) for top in rows for left in columns]
