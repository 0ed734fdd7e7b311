"""The face of a clip: detected in every frame, chosen, tracked, smoothed; with error messages that name the clip."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import PortraitError
from ..io.progress import Progress
from ..io.resampling import interpolate_missing, smooth_points
from ..media.frame_stream import Frames
from .crop import MIN_SIDE, FaceCrop, Square, crop_square, from_square
from .detection import (
    LEFT_TO_RIGHT,
    FaceBackend,
    FaceDetection,
    FaceTrack,
    box_iou,
    boxes_around,
    build_track,
    check_frames,
    choose_faces,
    face_boxes,
    frame_ranges,
    require_face,
)
from .detectors.auto import AutoBackend
from .detectors.built_in import BuiltInBackend, PortraitSearch
from .expression import predict_expression
from .keypoints import MESH_68, MESH_FIVE_POINTS, head_keypoints_from_mesh

LOG = logging.getLogger(__name__)
MAX_TILT = 50.0  # degrees: the models know upright portraits
VERIFIED_FRAMES = 4  # frames of a clip whose crop is checked for the face
VERIFIED_SIDE = 640  # pixels of such a crop at most
VERIFIED_IOU = 0.3  # of the face detected in the crop and the face it was made for


@dataclass(frozen=True)
class FaceTracker:
    """A backend, the choice of face, and the processing of its track.

    choice, index: see `choose_faces`. smoothing: 0 (off) to 1, see `smooth_points`. expression_network: a
    `Deep3DNetwork` that predicts the expression (and the pose, where the backend has none); None: that of the backend.
    """

    backend: FaceBackend
    choice: str = "largest"
    index: int = 0
    smoothing: float = 0.0
    expression_network: nn.Module | None = None

    def analyze(self, frames: Frames, progress: Progress | None = None, fps: float = 25.0) -> FaceTrack:
        """The chosen face in frames n h w 3 (uint8 RGB) of one clip at `fps`.

        progress(frames done, frames in all); with an expression network the frames are read twice and count twice.
        """
        count = len(frames)  # of a file what its header says
        network = self.expression_network
        steps = count if network is None else 2 * count
        found: list[list[FaceDetection]] = []
        for faces in self.backend.detect(frames):
            found.append(faces)
            if progress is not None:
                progress(min(len(found), count), steps)
        track = build_track(choose_faces(found, self.choice, self.index), frames.shape[2], frames.shape[1])
        if not track.present.any():
            return track
        if network is not None:
            second = None if progress is None else lambda done, total: progress(count + count * done // total, steps)
            expression, pose = predict_expression(network, frames, track, second)
            track = replace(track, expression=expression, pose=pose if track.pose is None else track.pose)
        return smooth_track(track, fps, self.smoothing) if self.smoothing else track


def smooth_track(track: FaceTrack, fps: float, strength: float) -> FaceTrack:
    """The track with its points and boxes smoothed; frames without the face are interpolated first and stay marked."""
    pupils = track.head_keypoints[track.present][:, 4:6]
    size = float(np.median(np.linalg.norm(pupils[:, 1] - pupils[:, 0], axis=1)))
    return track.map_points(
        lambda points: smooth_points(interpolate_missing(points, track.present)[0], fps, strength, size)
    )


def resolve_tracker(analyzer: FaceTracker | bytes | None, frames: Frames, what: str) -> FaceTracker:
    """The tracker for these frames: a FaceTracker as it is, or one for the ONNX bytes of the face analyser of a model.

    None raises PortraitError. what: the name of the frames in messages.
    """
    if analyzer is None:
        raise PortraitError(
            f"this model has no face analyser, so {what} cannot be analysed: load the built-in model for it, or connect "
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
    """The face in frames n h w 3 (uint8) at `fps`; `what` is the name of the frames in messages.

    analyzer: see `resolve_tracker`. No face at all, or a face that is tilted too far, raises PortraitError; frames without the
    face are named in a warning.
    """
    track = track_face_if_any(analyzer, frames, what, progress, fps)
    check_track(track, what)
    return track


def check_track(track: FaceTrack, what: str, outcome: str = "they are filled in between their neighbours") -> None:
    """No face at all raises PortraitError; frames without it are named in a warning with the outcome for them."""
    require_face(track, what)
    missing = np.flatnonzero(~track.present).tolist()
    if missing:
        LOG.warning("no face in frames %s of %d of %s: %s", frame_ranges(missing), len(track), what, outcome)


def track_face_if_any(
    analyzer: FaceTracker | bytes | None,
    frames: Frames,
    what: str,
    progress: Progress | None = None,
    fps: float = 25.0,
) -> FaceTrack:
    """As `track_face`, but the frames may all be without a face."""
    tracker = resolve_tracker(analyzer, frames, what)
    if isinstance(tracker.backend, BuiltInBackend):
        check_frames(frames)
        search = PortraitSearch(tracker.backend)
        _refuse_tilted(search, next(iter(frames)), what)
        if tracker.choice == LEFT_TO_RIGHT:  # the backend alone detects one face per image
            tracker = replace(tracker, backend=search)
    track = tracker.analyze(frames, progress, fps)
    check_upright(track, what)
    return track


def check_upright(track: FaceTrack, what: str) -> None:
    """A face that is tilted too far in most of its frames raises PortraitError."""
    if not track.present.any():
        return
    pupils = track.head_keypoints[track.present][:, 4:6].astype(np.float64)
    across = pupils[:, 1] - pupils[:, 0]
    directions = across @ (1, 1j) / np.maximum(np.linalg.norm(across, axis=1), 1e-9)
    roll = float(np.degrees(np.angle(directions.mean())))
    if abs(roll) > MAX_TILT:
        raise _tilt_error(roll, what)


def _refuse_tilted(search: PortraitSearch, frame: np.ndarray, what: str) -> None:
    """For a backend that takes whatever it sees for an upright face."""
    tilt = None if search.find_whole(frame) else search.tilt_of(frame)
    if tilt is not None:
        raise _tilt_error(tilt, what)


def _tilt_error(degrees: float, what: str) -> PortraitError:
    direction = "clockwise" if degrees > 0 else "counterclockwise"
    return PortraitError(
        f"the face in {what} is turned {direction} by about {abs(degrees):.0f} degrees: rotate the image until it is upright"
    )


def expression_from_track(track: FaceTrack) -> Tensor:
    """Expression coefficients of every frame, n 64 float32; frames without a face are interpolated."""
    if track.expression is None:
        raise PortraitError(
            "this face analyser finds points but no expression: set 'expression' of Load Face Analyzer to deep3d, or "
            "extract the style from the voice alone"
        )
    return torch.from_numpy(interpolate_missing(track.expression, track.present)[0])


def track_from_landmarks(value: Mapping[str, Any], what: str, choice: str = "largest", index: int = 0) -> FaceTrack:
    """The chosen face (see `choose_faces`) of the host's face landmarks (socket FACE_LANDMARKS of its MediaPipe node).

    value: `frames`, for every frame its faces with `landmarks_xy` (478 2, pixels), and `image_size`, (height, width). No face in
    any frame, or a face that is tilted too far, raises PortraitError; `what` is the name of the frames in messages.
    """
    try:
        frames, (height, width) = value["frames"], value["image_size"]
        meshes = [[np.asarray(face["landmarks_xy"], np.float32) for face in faces] for faces in frames]
    except (KeyError, TypeError, ValueError) as error:
        raise PortraitError(
            f"the face landmarks of {what} are not those of Detect Face Landmarks ({type(error).__name__}: {error}): connect its "
            "output face_landmarks"
        ) from error
    found = [[_face_from_mesh(mesh) for mesh in faces] for faces in meshes]
    track = build_track(choose_faces(found, choice, index), int(width), int(height))
    check_track(track, what)
    check_upright(track, what)
    return track


def _face_from_mesh(points: np.ndarray) -> FaceDetection:
    """One face from its 478 points in pixels, 478 2."""
    return FaceDetection(
        box=boxes_around(points),
        head_keypoints=head_keypoints_from_mesh(points),  # refuses another number of points
        five_points=points[list(MESH_FIVE_POINTS)],
        landmarks=points[list(MESH_68)],
    )


LEFT_AS_THEY_ARE = "Paste Face Back leaves them as they are"


def find_face_boxes(
    analyzer: FaceTracker | bytes | None, frames: Frames, what: str, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes from the brows to the chin of the face that `find_face` finds, n 4 (left, top, right, bottom), float64 pixels;
    and whether the frame shows it, n bool. Boxes of frames without it are interpolated."""
    track = find_face(analyzer, frames, what, progress)
    return filled_face_boxes(track), track.present


def filled_face_boxes(track: FaceTrack) -> np.ndarray:
    """`face_boxes` of a track, interpolated where the frame does not show the face: n 4, float64."""
    return interpolate_missing(face_boxes(track), track.present)[0].astype(np.float64)


def find_face(
    analyzer: FaceTracker | bytes | None,
    frames: Frames,
    what: str,
    progress: Progress | None = None,
    outcome: str = LEFT_AS_THEY_ARE,
) -> FaceTrack:
    """The face in frames n h w 3 (uint8) of one clip, of any size in them. No face at all, or a face that is tilted too far,
    raises PortraitError; frames without it are named in a warning with the outcome for them.

    analyzer: see `resolve_tracker`; what: the name of the frames in messages; progress(done, total) may raise to stop.
    """
    check_frames(frames)
    height, width = frames.shape[1:3]
    if min(width, height) < MIN_SIDE:
        raise PortraitError(
            f"{what} are {width} x {height} pixels: no face fits in less than {MIN_SIDE}, choose larger images"
        )
    tracker = resolve_tracker(analyzer, frames, what)
    if isinstance(tracker.backend, BuiltInBackend):
        track = _search_whole_images(tracker, frames, what, progress)
    else:
        track = tracker.analyze(frames, progress)
    check_track(track, what, outcome)
    check_upright(track, what)
    return track


def _search_whole_images(tracker: FaceTracker, frames: Frames, what: str, progress: Progress | None) -> FaceTrack:
    position = (0, len(frames))

    def moved(done: int, total: int) -> None:
        nonlocal position
        position = (done, total)
        if progress is not None:
            progress(done, total)

    search = PortraitSearch(tracker.backend, None if progress is None else lambda: progress(*position))
    track = replace(tracker, backend=search, smoothing=0.0, expression_network=None).analyze(frames, moved)
    if not track.present.any():
        tilt = search.tilt_of(next(iter(frames)))
        if tilt is not None:
            raise _tilt_error(tilt, what)
    return track


def verify_crop(
    analyzer: FaceTracker | bytes | None, frames: Frames, crop: FaceCrop, boxes: np.ndarray, what: str
) -> None:
    """Raises PortraitError unless the face of these boxes n 4 is detected again inside the crop.

    A few of the frames are checked, and half of them must agree. The built-in backend has done so already.
    """
    tracker = resolve_tracker(analyzer, frames, what)
    if isinstance(tracker.backend, BuiltInBackend):
        return
    shown = [index for index in range(len(boxes)) if crop.shows(index)]
    checked = {shown[int(row)] for row in np.linspace(0, len(shown) - 1, VERIFIED_FRAMES).round()}
    agreed = [
        _detected_in(tracker.backend, frame, crop.at(index), boxes[index])
        for index, frame in enumerate(islice(frames, max(checked) + 1))
        if index in checked
    ]
    if 2 * sum(agreed) < len(agreed):
        square = crop.at(min(checked))
        raise PortraitError(
            f"what {tracker.backend.name} took for a face in {what} is none in the square around it ({square.side} "
            f"pixels at {square.left}, {square.top}): choose another face or backend of Load Face Analyzer, or type the points"
        )


def _detected_in(backend: FaceBackend, frame: np.ndarray, square: Square, box: np.ndarray) -> bool:
    side = min(square.side, VERIFIED_SIDE)
    (faces,) = backend.detect(crop_square(frame, square, side)[None])
    if not faces:
        return False
    corners = face_boxes(build_track(faces, side, side)).reshape(-1, 2)
    found = from_square(corners, square, side).reshape(-1, 4)
    return bool((box_iou(found, box[None]) >= VERIFIED_IOU).any())
