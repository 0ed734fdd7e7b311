"""Where faces are cut out: found in whole pictures of any size, and looked at again in the squares that come out of it.

How far a face reaches: its points, or what stands for them, and the box around them from the brows to the chin.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np

from ..errors import PortraitError
from ..io.progress import Progress
from ..media.frame_stream import Frames
from .analyzer import BuiltInBackend, check_frames
from .crop import LEAST_SIDE, FaceCrop, Square, cut_square, from_square
from .detection import FaceTrack, overlap, track_of
from .keypoints import interpolate_missing
from .search import PortraitSearch
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


CHIN_BELOW = 1.3  # without landmarks: the chin lies so many times the way from nose tip to mouth below the mouth
BROWS_ABOVE = 0.45  # and the brows so many eye distances above the eyes
EYES_TO_CHIN = (
    0.8  # with head keypoints alone: the chin lies so many widths of the face below the eyes (drawn 0.7, real 0.9)
)
EYES_TO_BROWS = 0.2  # and the brows so many above them


def face_points(track: FaceTrack, row: int) -> np.ndarray:
    """The 68 landmarks in frame `row`, or what stands for them: 4 edges, 2 brows, the chin."""
    if track.landmarks is not None:
        return track.landmarks[row]
    five = track.five_points[row].astype(np.float64)
    eyes, nose, mouth = five[:2], five[2], five[3:].mean(axis=0)
    up = np.array([five[1, 1] - five[0, 1], five[0, 0] - five[1, 0]])  # from the eyes, as long as they are apart
    chin = mouth + CHIN_BELOW * (mouth - nose)
    return np.concatenate([track.head_keypoints[row, :4], eyes + BROWS_ABOVE * up, chin[None]])


def face_boxes(track: FaceTrack) -> np.ndarray:
    """From the brows to the chin: n 4 (left, top, right, bottom), float64 pixels."""
    points = np.stack([face_points(track, row) for row in range(len(track))])  # n k 2
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).astype(np.float64)


def boxes_of_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """The same of the 8 head keypoints alone, n 8 2 -> n 4: brows and chin are guessed from the width of the face."""
    points = np.asarray(keypoints, np.float64)
    across = points[:, 2:4].mean(axis=1, keepdims=True) - points[:, :2].mean(axis=1, keepdims=True)  # n 1 2
    down = np.stack([-across[..., 1], across[..., 0]], axis=-1)
    eyes = points[:, 4:6].mean(axis=1, keepdims=True)
    points = np.concatenate([points, eyes + EYES_TO_CHIN * down, eyes - EYES_TO_BROWS * down], axis=1)  # n 10 2
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
