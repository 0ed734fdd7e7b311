"""A face analyser applied to a clip: the chosen face as one track, with messages that name the clip.

The host's face landmarks (socket FACE_LANDMARKS, by its MediaPipe node) as a track and as head motion.

The value is a dict: `frames`, for every frame the faces in it, each with `landmarks_xy` (478 2, pixels) and `bbox_xyxy` (4);
`image_size`, (height, width). A frame without a face has an empty list, unless the node was asked to fill it in.

Less trembling of tracked points: the one-euro filter (Casiez, Roussel and Vogel, CHI 2012), run both ways over a clip.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import PortraitError
from ..io.progress import Progress
from ..media.frame_stream import Frames
from .analyzer import BuiltInBackend, check_frames, require_face
from .detection import COUNTED, FaceBackend, FaceDetection, FaceTrack, choose_faces, track_of
from .detectors.auto import AutoBackend
from .expression import read_faces
from .head_pose import MESH_68, MESH_FIVE
from .keypoints import frame_ranges, head_keypoints_from_mesh, interpolate_missing
from .search import PortraitSearch

LOG = logging.getLogger(__name__)
LARGEST_TURN = 50.0  # degrees that a head may be tilted by: the models know upright portraits


@dataclass(frozen=True)
class FaceTracker:
    """A backend, which of its faces is meant, and what is done to its track.

    choice, index: see `selection.choose_faces`. smoothing: 0 (off) to 1, see `one_euro.smooth_points`. recon: a
    `Deep3DNetwork` that gives expression (and pose, where the backend has none); None: what the backend gives.
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


def track_of_landmarks(value: Mapping[str, Any], what: str, choice: str = "largest", index: int = 0) -> FaceTrack:
    """The chosen face (see `choose_faces`) of every frame. No face in any frame, or one that is turned too far, raises
    PortraitError; `what` is what a message calls the frames."""
    try:
        frames, (height, width) = value["frames"], value["image_size"]
        meshes = [[np.asarray(face["landmarks_xy"], np.float32) for face in faces] for faces in frames]
    except (KeyError, TypeError, ValueError) as error:
        raise PortraitError(
            f"the face landmarks of {what} are not as Detect Face Landmarks gives them ({type(error).__name__}: {error}): connect its "
            "output face_landmarks"
        ) from error
    found = [[_face(mesh) for mesh in faces] for faces in meshes]
    track = track_of(choose_faces(found, choice, index), int(width), int(height))
    check_track(track, what)
    check_upright(track, what)
    return track


def _face(points: np.ndarray) -> FaceDetection:
    """One face from its 478 points in pixels, 478 2."""
    return FaceDetection(
        box=np.concatenate([points.min(axis=0), points.max(axis=0)]),
        head_keypoints=head_keypoints_from_mesh(points),  # refuses another number of points
        five_points=points[list(MESH_FIVE)],
        landmarks=points[list(MESH_68)],
    )


STRONGEST_CUTOFF = 0.5  # Hz at rest, for strength 1
SPEED_GAIN = 4.0  # Hz of cut-off per unit and second of speed: fast movement passes
SPEED_CUTOFF = 1.0  # Hz, of the speed's own low-pass, as in the paper


def one_euro(
    values: np.ndarray, fps: float, min_cutoff: float, speed_gain: float, speed_cutoff: float = SPEED_CUTOFF
) -> np.ndarray:
    """Causal filter of n rows of any shape at `fps`; cut-offs in Hz, speed_gain in Hz per unit of value and second.

    Row by row: x' = a x + (1 - a) x'_before with a = 1 / (1 + fps / (2 pi f)) and f = min_cutoff + speed_gain |dx'|, where
    dx' is the change per second, itself low-passed at speed_cutoff.
    """
    rows = np.asarray(values, np.float64)
    filtered = rows.copy()
    speed = np.zeros_like(rows[0]) if len(rows) else rows
    for index in range(1, len(rows)):
        step = (rows[index] - filtered[index - 1]) * fps
        speed = speed + _weight(speed_cutoff, fps) * (step - speed)
        share = _weight(min_cutoff + speed_gain * np.abs(speed), fps)
        filtered[index] = filtered[index - 1] + share * (rows[index] - filtered[index - 1])
    return filtered


def smooth_points(points: np.ndarray, fps: float, strength: float, size: float) -> np.ndarray:
    """Points n k 2 of every frame of a clip at `fps`, smoothed -> n k 2, float32.

    strength: 0 changes nothing, 1 is the strongest (0.5 Hz at rest); size: pixels that count as 1 for the speed, such as
    the eyes' distance, so that the picture's size does not matter. The filter runs forwards and backwards and the two
    are averaged: their delays cancel.
    """
    if not 0 <= strength <= 1 or fps <= 0 or size <= 0:
        raise PortraitError(
            f"smoothing {strength} at {fps} fps with a face of {size} pixels: strength must be 0 to 1, the others above 0"
        )
    if strength == 0 or len(points) < 2:
        return np.asarray(points, np.float32)
    scaled = np.asarray(points, np.float64) / size
    cutoff = STRONGEST_CUTOFF / strength
    forward = one_euro(scaled, fps, cutoff, SPEED_GAIN)
    backward = one_euro(scaled[::-1], fps, cutoff, SPEED_GAIN)[::-1]
    return ((forward + backward) / 2 * size).astype(np.float32)


def _weight(cutoff: float | np.ndarray, fps: float) -> float | np.ndarray:
    """Share of the new value in a first-order low-pass."""
    return 1 / (1 + fps / (2 * math.pi * cutoff))
