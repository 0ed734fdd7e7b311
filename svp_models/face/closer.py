"""Where faces are cut out: found in whole pictures of any size, and looked at again in the squares that come out of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np

from ..errors import PortraitError
from ..io.progress import Progress
from ..media.stream import Frames
from .analyzer import FaceTrack, check_frames
from .backends.built_in import BuiltInBackend
from .crop import LEAST_SIDE, FaceCrop, Square, cut_square, from_square
from .detection import track_of
from .keypoints import interpolate_missing
from .outline import face_boxes
from .search import PortraitSearch
from .selection import overlap
from .tracking import FaceTracker, check_track, check_upright, tracker_of, turned_error

LOOKED_AGAIN = 4  # frames of a clip whose square is looked at again
SEEN_SIDE = 640  # pixels of such a square at most
SAME = 0.3  # overlap (intersection over union) of the face seen in the square and the one it was cut out for


def find_face(
    analyzer: FaceTracker | bytes | None, frames: Frames, what: str, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The face in frames n h w 3 (uint8) of one clip, from the brows to the chin: boxes n 4 (left, top, right, bottom),
    float64 pixels; and whether it is there, n bool. Boxes of frames without it lie between their neighbours; no face at all,
    or one that is turned too far, raises PortraitError.

    analyzer: see `tracker_of`; what: what a message calls the frames; progress(done, total), which may raise to stop.
    """
    check_frames(frames)
    height, width = frames.shape[1:3]
    if min(width, height) < LEAST_SIDE:
        raise PortraitError(
            f"{what} are {width} x {height} pixels: no face fits in less than {LEAST_SIDE}, choose larger pictures"
        )
    tracker = tracker_of(analyzer, frames, what)
    if isinstance(tracker.backend, BuiltInBackend):
        track = _search(tracker, frames, what, progress)
    else:
        track = tracker.analyze(frames, progress)
    check_track(track, what, "Paste Face Back leaves them as they are")
    check_upright(track, what)
    return interpolate_missing(face_boxes(track), track.present)[0].astype(np.float64), track.present


def _search(tracker: FaceTracker, frames: Frames, what: str, progress: Progress | None) -> FaceTrack:
    state = (0, len(frames))

    def reached(done: int, total: int) -> None:
        nonlocal state
        state = (done, total)
        if progress is not None:
            progress(done, total)

    search = PortraitSearch(tracker.backend, None if progress is None else lambda: progress(*state))
    track = replace(tracker, backend=search, smoothing=0.0, recon=None).analyze(frames, reached)
    if not track.present.any():
        turn = search.turn_of(next(iter(frames)))
        if turn is not None:
            raise turned_error(turn, what)
    return track


def look_again(
    analyzer: FaceTracker | bytes | None, frames: Frames, crop: FaceCrop, boxes: np.ndarray, what: str
) -> None:
    """Raises PortraitError unless the face of these boxes n 4 is seen again in what is cut out around it.

    A few of the frames are looked at, and half of them must agree. Drawn faces were looked at in such squares already.
    """
    tracker = tracker_of(analyzer, frames, what)
    if isinstance(tracker.backend, BuiltInBackend):
        return
    shown = [index for index in range(len(boxes)) if crop.shows(index)]
    chosen = {shown[int(row)] for row in np.linspace(0, len(shown) - 1, LOOKED_AGAIN).round()}
    seen = [
        _seen_in(tracker, frame, crop.at(index), boxes[index])
        for index, frame in enumerate(islice(frames, max(chosen) + 1))
        if index in chosen
    ]
    if 2 * sum(seen) < len(seen):
        square = crop.at(min(chosen))
        raise PortraitError(
            f"what {tracker.backend.name} took for a face in {what} is none in the square cut out around it ({square.side} "
            f"pixels at {square.left}, {square.top}): choose another face or backend of Load Face Analyzer, or type the points"
        )


def _seen_in(tracker: FaceTracker, frame: np.ndarray, square: Square, box: np.ndarray) -> bool:
    side = min(square.side, SEEN_SIDE)
    (faces,) = tracker.backend.detect(cut_square(frame, square, side)[None])
    if not faces:
        return False
    corners = face_boxes(track_of(faces, side, side)).reshape(-1, 2)
    found = from_square(corners, square, side).reshape(-1, 4)
    return bool((overlap(found, box[None]) >= SAME).any())
