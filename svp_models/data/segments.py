"""Segments of a video that show one face: shot detection, faces found while the video is decoded, short gaps bridged."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import PortraitError
from ..face.detection import FaceBackend, FaceDetection, FaceTrack, build_track, choose_faces, face_boxes
from ..face.tracking import smooth_track
from ..io.resampling import interpolate_missing
from ..optional_deps import cv2
from .schema import FPS, MIN_FRAMES, ONE_FACE, ClipLimits, PrepareConfig, Skipped, VideoOptions

BATCH_PIXELS = 64_000_000  # of the frames that a backend gets at once
BATCH_FRAMES = 32
THUMBNAIL_SIDE = 48  # pixels a side at which frames are compared
FRAMES_BEFORE, FRAMES_AFTER = 12, 4  # whose changes define the usual change
REPEATED = 0.05  # a smaller change is a repeated frame, which does not count for the usual change


@dataclass(frozen=True)
class Shot:
    """Frames start .. start + len(faces) - 1 of one shot, or of a part of a long one, and the faces in each; pixels of the video."""

    start: int
    faces: list[list[FaceDetection]]
    width: int
    height: int


@dataclass(frozen=True)
class Segment:
    """Frames start .. start + len(track) - 1 of a video, all with the face: gaps are filled and marked in `interpolated`."""

    start: int
    track: FaceTrack
    interpolated: np.ndarray  # n bool


class UnreadableVideo(PortraitError):
    """A video that cannot be decoded from some frame on."""


def iter_shots(frames: Iterable[np.ndarray], backend: FaceBackend, longest: int, limits: ClipLimits) -> Iterator[Shot]:
    """Splits a video (frames h w 3, uint8) into shots, long ones into parts of at most `longest` frames, and finds the faces."""
    start, index = 0, 0
    batch: list[np.ndarray] = []
    found: list[list[FaceDetection]] = []
    for frame, is_first in detect_shots(frames, limits):
        height, width = frame.shape[:2]
        if is_first or index - start == longest:
            found += _detect(backend, batch)
            yield Shot(start, found, width, height)
            start, found = index, []
        batch.append(frame)
        index += 1
        if len(batch) == max(1, min(BATCH_FRAMES, BATCH_PIXELS // (width * height))):
            found += _detect(backend, batch)
    found += _detect(backend, batch)
    if found:
        yield Shot(start, found, width, height)


def segments_of(shot: Shot, source: str, config: PrepareConfig) -> Iterator[Segment | Skipped]:
    """The segments of a shot, or why there are none. source: the path of the video, for the messages."""
    options = config.for_videos()
    count = len(shot.faces)

    def skip(reason: str, detail: str, start: int = shot.start) -> Skipped:
        return Skipped(source, start / FPS, reason, detail)

    if count < MIN_FRAMES:
        yield skip("too short", f"{count} of {MIN_FRAMES} frames")
        return
    choice = "stays" if options.face == ONE_FACE else options.face
    most = max(len(faces) for faces in shot.faces)
    if most <= (options.face_index if choice == "left to right" else 0):
        yield skip("no face", f"at most {most} in each of {count} frames")
        return
    chosen = choose_faces(shot.faces, choice, options.face_index)
    second = _frames_with_second_face(shot.faces, chosen, options.limits.second_face_area)
    if options.face == ONE_FACE and second > options.limits.max_second_face * count:
        yield skip("several faces", f"in {second} of {count} frames")
        return
    track = build_track(chosen, shot.width, shot.height)
    runs = present_runs(track.present, options.limits.max_gap)
    if all(stop - start < MIN_FRAMES for start, stop in runs):
        longest = max(stop - start for start, stop in runs)
        yield skip("no face", f"for {MIN_FRAMES} frames; the longest time is {longest}")
        return
    for start, stop in runs:
        if stop - start < MIN_FRAMES:
            yield skip("too short", f"{stop - start} of {MIN_FRAMES} frames with the face", shot.start + start)
            continue
        part = part_of(track, start, stop)
        missing = ~part.present
        part = without_gaps(smooth_track(part, FPS, options.smoothing) if options.smoothing else part)
        size = face_size(part)
        if size < min_face_size(options, config.output.size):
            least = min_face_size(options, config.output.size)
            yield skip("face too small", f"{size:.0f} of {least} pixels", shot.start + start)
            continue
        yield Segment(shot.start + start, part, missing)


def min_face_size(options: VideoOptions, size: int) -> int:
    """Least size of a face in pixels of the video."""
    return options.min_face or size // 4


def face_size(track: FaceTrack) -> float:
    """Median over the frames of the longer side of the box from brows to chin, pixels."""
    boxes = face_boxes(track)
    return float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1)))


def present_runs(present: np.ndarray, max_gap: int) -> list[tuple[int, int]]:
    """present, n bool -> (start, stop) of the runs of frames with a face, which may have gaps of at most `max_gap` frames."""
    runs: list[list[int]] = []
    for index in np.flatnonzero(present).tolist():
        if runs and index - runs[-1][1] <= max_gap:
            runs[-1][1] = index + 1
        else:
            runs.append([index, index + 1])
    return [(start, stop) for start, stop in runs]


def part_of(track: FaceTrack, start: int, stop: int) -> FaceTrack:
    """Frames start .. stop - 1 of a track."""
    arrays: dict[str, Any] = {
        name: value[start:stop] for name, value in vars(track).items() if isinstance(value, np.ndarray)
    }
    return replace(track, **arrays)


def without_gaps(track: FaceTrack) -> FaceTrack:
    """The track with the frames without a face filled in between their neighbours; `present` is True everywhere."""
    arrays: dict[str, Any] = {
        name: interpolate_missing(value, track.present)[0]
        for name, value in vars(track).items()
        if isinstance(value, np.ndarray) and name != "present"
    }
    return replace(track, **arrays, present=np.ones(len(track), bool))


def _detect(backend: FaceBackend, batch: list[np.ndarray]) -> list[list[FaceDetection]]:
    """The faces in the collected frames; empties the list."""
    if not batch:
        return []
    frames = np.stack(batch)
    batch.clear()
    return list(backend.detect(frames))


def _frames_with_second_face(
    faces: list[list[FaceDetection]], chosen: list[FaceDetection | None], least_area: float
) -> int:
    return sum(
        best is not None and any(face is not best and face.area > least_area * best.area for face in found)
        for found, best in zip(faces, chosen, strict=True)
    )


def detect_shots(frames: Iterable[np.ndarray], limits: ClipLimits) -> Iterator[tuple[np.ndarray, bool]]:
    """Yields each frame (h w 3, uint8) and whether a shot begins with it; the video's first frame does not count.

    A shot begins with a change from frame to frame (mean absolute difference of thumbnails) of at least `shot_min_change` that
    is more than `shot_ratio` times the usual one: the larger of the medians over the 12 frames before and the 4 after.
    Dissolves are not found, nor shots whose frames differ no more than when a head turns.
    """
    waiting: deque[tuple[np.ndarray, float]] = deque()
    before: deque[float] = deque(maxlen=FRAMES_BEFORE)
    last = None
    for frame in frames:
        small = thumbnail(frame)
        waiting.append((frame, 0.0 if last is None else float(np.abs(small - last).mean())))
        last = small
        if len(waiting) > FRAMES_AFTER:
            yield _next_frame(waiting, before, limits)
    while waiting:
        yield _next_frame(waiting, before, limits)


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """48 48 3, float32."""
    return cv2.resize(frame, (THUMBNAIL_SIDE, THUMBNAIL_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _next_frame(
    waiting: deque[tuple[np.ndarray, float]], before: deque[float], limits: ClipLimits
) -> tuple[np.ndarray, bool]:
    """Takes the oldest frame off `waiting`, whose others are the frames after it."""
    frame, change = waiting.popleft()
    usual = max(_median(before), _median(later for _, later in waiting))
    is_first = change >= limits.shot_min_change and change > limits.shot_ratio * usual
    if not is_first:
        before.append(change)
    return frame, is_first


def _median(changes: Iterable[float]) -> float:
    moving = [change for change in changes if change > REPEATED]
    return float(np.median(moving)) if moving else 0.0
