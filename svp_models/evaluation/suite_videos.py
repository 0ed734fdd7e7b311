"""What a suite measures of one clip: its true frames and what every system made of it; and finished videos as such."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..data.extract import load_face_backend
from ..errors import PortraitError
from ..face.detection import FaceTrack, boxes_around
from ..face.head_pose import pose_from_five_points
from ..face.keypoints import five_points_from_68
from ..face.tracking import FaceTracker
from ..media.frame_stream import Frames, FrameSelection, FrameStream, file_audio, file_stream
from ..types import Audio
from .suite import LANDMARKS_ENDING, NO_FACES, TRUTH, ClipJob, SuiteConfig


@dataclass(frozen=True)
class Made:
    """What one system made of a clip. joins: first frames of its windows; extra: figures that are measured elsewhere."""

    frames: Frames
    audio: Audio | None
    track: FaceTrack | None
    joins: tuple[int, ...] = ()
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ClipInputs:
    """A clip with what the systems made of it. portrait: h w 3, None where it is not known; label: its emotion, or empty."""

    true: Frames
    track: FaceTrack | None
    audio: Audio | None
    fps: float
    made: Mapping[str, Made]
    portrait: np.ndarray | None = None
    label: str = ""


@lru_cache(maxsize=1)
def face_tracker(name: str, roots: tuple[Path, ...]) -> FaceTracker | None:
    """Loaded once in each process; None for no analyser."""
    return None if name == NO_FACES else FaceTracker(load_face_backend(name, roots))


def video_inputs(config: SuiteConfig, job: ClipJob, roots: tuple[Path, ...]) -> ClipInputs:
    """Finished videos of a clip, at the true video's frame rate and size; they are decoded whenever they are read."""
    paths = {name: Path(path) for name, path in job.videos}
    tracker = face_tracker(config.face_analyzer, roots)
    selection = FrameSelection(cap=config.frames, width=config.size, height=config.size)
    true = file_stream(paths[TRUTH], selection=selection).counted()
    fps = true.fps or 25.0
    fitted = FrameSelection(fps, cap=len(true), width=true.width, height=true.height)
    made = {}
    for name, path in paths.items():
        if name != TRUTH:
            frames = file_stream(path, selection=fitted).counted()
            made[name] = Made(frames, file_audio(path), track_of(path, frames, tracker, fps))
    return ClipInputs(true, track_of(paths[TRUTH], true, tracker, fps), file_audio(paths[TRUTH]), fps, made)


def track_of(path: Path, frames: FrameStream, tracker: FaceTracker | None, fps: float) -> FaceTrack | None:
    """The face in frames of a video: from the landmarks beside it, else from the analyser; None without either."""
    beside = path.with_suffix(LANDMARKS_ENDING)
    if not beside.is_file():
        return None if tracker is None else tracker.analyze(frames, fps=fps)
    try:
        with np.load(beside, allow_pickle=False) as stored:
            points = np.asarray(stored["landmarks"], np.float64)
    except (OSError, ValueError, KeyError) as error:
        raise PortraitError(
            f"{beside}: no landmarks can be read from it ({error}): store `landmarks`, n x 68 x 2"
        ) from error
    own = file_stream(path)
    if points.shape[1:] != (68, 2) or not len(points):
        raise PortraitError(f"{beside}: landmarks has shape {points.shape}: n x 68 x 2 is needed")
    times = (np.arange(len(frames)) + 0.5) / fps
    rows = np.minimum((times * (own.fps or fps)).astype(int), len(points) - 1)
    scale = max(frames.width / own.width, frames.height / own.height)  # as frames are resized: covered and cut
    cut = np.array([own.width * scale - frames.width, own.height * scale - frames.height]) / 2
    return track_from_points(points[rows] * scale - cut, frames.width, frames.height)


def track_from_points(landmarks: np.ndarray, width: int, height: int) -> FaceTrack:
    """A track of 68 landmarks alone, n 68 2; frames whose points are no numbers show no face."""
    present = np.isfinite(landmarks).all((1, 2))
    points = np.nan_to_num(landmarks).astype(np.float32)
    five = five_points_from_68(points)
    pose = np.stack(
        [pose_from_five_points(row) if here else np.zeros(3) for row, here in zip(five, present, strict=True)]
    )
    return FaceTrack(
        boxes=boxes_around(points),
        landmarks=points,
        head_keypoints=np.zeros((len(points), 8, 2), np.float32),
        expression=None,
        pose=pose.astype(np.float32),
        present=present,
        width=width,
        height=height,
        five_points=five,
    )
