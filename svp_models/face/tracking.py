"""A face analyser applied to a clip: the chosen face as one track, with messages that name the clip."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import PortraitError
from ..io.progress import Progress
from ..media.stream import Frames
from .analyzer import FaceTrack, check_frames, require_face
from .backends.auto import AutoBackend
from .backends.built_in import BuiltInBackend
from .detection import FaceBackend, FaceDetection, track_of
from .keypoints import frame_ranges, interpolate_missing
from .one_euro import smooth_points
from .recon import read_faces
from .search import PortraitSearch
from .selection import COUNTED, choose_faces

LOG = logging.getLogger(__name__)
LARGEST_TURN = 50.0  # degrees that a head may be tilted by: the models know upright portraits


@dataclass(frozen=True)
class FaceTracker:
    """A backend, which of its faces is meant, and what is done to its track.

    choice, index: see `selection.choose_faces`. smoothing: 0 (off) to 1, see `one_euro.smooth_points`. recon: a
    `FaceReconNetwork` that gives expression (and pose, where the backend has none); None: what the backend gives.
    """

    backend: FaceBackend
    choice: str = "largest"
    index: int = 0
    smoothing: float = 0.0
    recon: nn.Module | None = None

    def analyze(self, frames: Frames, progress: Progress | None = None, fps: float = 25.0) -> FaceTrack:
        """The chosen face in frames n h w 3 (uint8 RGB) of one clip at `fps`.

        progress(frames done, frames in all); with `recon` the frames are gone through twice and count twice.
        """
        count = len(frames)  # of a file what its header says
        steps = count if self.recon is None else 2 * count
        found: list[list[FaceDetection]] = []
        for faces in self.backend.detect(frames):
            found.append(faces)
            if progress is not None:
                progress(min(len(found), count), steps)
        chosen = choose_faces(found, self.choice, self.index)
        track = track_of(chosen, frames.shape[2], frames.shape[1])
        if not track.present.any():
            return track
        if self.recon is not None:
            reading = None if progress is None else lambda done, total: progress(count + count * done // total, steps)
            expression, pose = read_faces(self.recon, frames, track, reading)
            track = replace(track, expression=expression, pose=pose if track.pose is None else track.pose)
        return smoothed(track, fps, self.smoothing) if self.smoothing else track


def smoothed(track: FaceTrack, fps: float, strength: float) -> FaceTrack:
    """The track with its points and boxes smoothed; frames without the face are bridged first and stay marked."""

    def smooth(points: np.ndarray) -> np.ndarray:
        return smooth_points(interpolate_missing(points, track.present)[0], fps, strength, size)

    pupils = track.head_keypoints[track.present][:, 4:6]
    size = float(np.median(np.linalg.norm(pupils[:, 1] - pupils[:, 0], axis=1)))
    return replace(
        track,
        boxes=smooth(track.boxes.reshape(-1, 2, 2)).reshape(-1, 4),
        head_keypoints=smooth(track.head_keypoints),
        landmarks=None if track.landmarks is None else smooth(track.landmarks),
        five_points=smooth(track.five_points),
    )


def tracker_of(analyzer: FaceTracker | bytes | None, frames: Frames, what: str) -> FaceTracker:
    """What finds the face in these frames: a FaceTracker, or the ONNX bytes of a model's own analyser; with None PortraitError
    says what to do. `what` is what a message calls the frames."""
    if analyzer is None:
        raise PortraitError(
            f"this model has no face analyser, so {what} cannot be read: load the built-in model for it, or connect "
            "Load Face Analyzer"
        )
    tracker = analyzer if isinstance(analyzer, FaceTracker) else FaceTracker(BuiltInBackend(analyzer))
    if isinstance(tracker.backend, AutoBackend):
        return replace(tracker, backend=tracker.backend.choose(frames))
    return tracker


def track_face(
    analyzer: FaceTracker | bytes | None,
    frames: Frames,
    what: str,
    progress: Progress | None = None,
    fps: float = 25.0,
) -> FaceTrack:
    """The face in frames n h w 3 (uint8) at `fps`; `what` is what a message calls the frames.

    analyzer: see `tracker_of`. No face at all, or one that is turned too far, raises PortraitError; frames without it are
    named in a warning.
    """
    track = look_for_face(analyzer, frames, what, progress, fps)
    check_track(track, what)
    return track


def check_track(track: FaceTrack, what: str, outcome: str = "they are filled in between their neighbours") -> None:
    """No face at all raises PortraitError; frames without it are named in a warning that says what becomes of them."""
    require_face(track, what)
    missing = np.flatnonzero(~track.present).tolist()
    if missing:
        LOG.warning("no face in frames %s of %d of %s: %s", frame_ranges(missing), len(track), what, outcome)


def look_for_face(
    analyzer: FaceTracker | bytes | None,
    frames: Frames,
    what: str,
    progress: Progress | None = None,
    fps: float = 25.0,
) -> FaceTrack:
    """As `track_face`, but nobody has to be there."""
    tracker = tracker_of(analyzer, frames, what)
    if isinstance(tracker.backend, BuiltInBackend):
        check_frames(frames)
        search = PortraitSearch(tracker.backend)
        _refuse_turned(search, next(iter(frames)), what)
        if tracker.choice == COUNTED:  # it knows one face a picture
            tracker = replace(tracker, backend=search)
    track = tracker.analyze(frames, progress, fps)
    check_upright(track, what)
    return track


def check_upright(track: FaceTrack, what: str) -> None:
    """A face that is turned too far in most of its frames raises PortraitError."""
    if not track.present.any():
        return
    pupils = track.head_keypoints[track.present][:, 4:6].astype(np.float64)
    across = pupils[:, 1] - pupils[:, 0]
    directions = across @ (1, 1j) / np.maximum(np.linalg.norm(across, axis=1), 1e-9)
    roll = float(np.degrees(np.angle(directions.mean())))
    if abs(roll) > LARGEST_TURN:
        raise turned_error(roll, what)


def _refuse_turned(search: PortraitSearch, frame: np.ndarray, what: str) -> None:
    """For a backend that takes whatever it sees for an upright face."""
    turn = None if search.find_whole(frame) else search.turn_of(frame)
    if turn is not None:
        raise turned_error(turn, what)


def turned_error(degrees: float, what: str) -> PortraitError:
    direction = "clockwise" if degrees > 0 else "counterclockwise"
    return PortraitError(
        f"the face in {what} is turned {direction} by about {abs(degrees):.0f} degrees: rotate the picture until it is upright"
    )


def expression_of(track: FaceTrack) -> Tensor:
    """Expression coefficients of every frame, n 64 float32; frames without a face lie between their neighbours."""
    if track.expression is None:
        raise PortraitError(
            "this face analyser finds points but no expression: set 'expression' of Load Face Analyzer to deep3d, or "
            "extract the style from the voice alone"
        )
    return torch.from_numpy(interpolate_missing(track.expression, track.present)[0])
