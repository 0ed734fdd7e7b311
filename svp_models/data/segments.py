"""Pieces of a film that show one face: shots cut to length, faces found while the film is read, gaps bridged.

Where one shot ends and the next begins, frame by frame while a film is read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..errors import PortraitError
from ..face.detection import FaceBackend, FaceDetection, FaceTrack, build_track, choose_faces, face_boxes
from ..face.tracking import smooth_track
from ..io.resampling import interpolate_missing
from ..optional_deps import cv2
from .schema import FPS, ONE_FACE, SHORTEST_FRAMES, FilmOptions, Recipe, Reject

BATCH_PIXELS = 64_000_000  # of the frames that a backend is given at once
BATCH_FRAMES = 32
LONGEST_GAP = 12  # frames without the face that are bridged; a longer gap ends a piece
SECOND_FACE = 0.25  # of the chosen face's area: a smaller one is in the background
SECOND_FRAMES = 0.1  # share of the frames that may show a second one: detectors err


@dataclass(frozen=True)
class Stretch:
    """Frames start .. start + len(found) - 1 of one shot and the faces found in each; pictures of width x height."""

    start: int
    found: list[list[FaceDetection]]
    width: int
    height: int


@dataclass(frozen=True)
class Piece:
    """Frames start .. start + len(track) - 1 of a film, all with the face: gaps are filled and listed in `interpolated`."""

    start: int
    track: FaceTrack
    interpolated: np.ndarray  # n bool


class Unreadable(PortraitError):
    """A film that cannot be decoded from some frame on."""


def stretches(frames: Iterable[np.ndarray], backend: FaceBackend, longest: int) -> Iterator[Stretch]:
    """Cuts a film (frames h w 3, uint8) into shots, these into stretches of at most `longest` frames, and finds the faces."""
    start, index = 0, 0
    batch: list[np.ndarray] = []
    found: list[list[FaceDetection]] = []
    for frame, cut in mark_cuts(frames):
        height, width = frame.shape[:2]
        if cut or index - start == longest:
            found += _detect(backend, batch)
            yield Stretch(start, found, width, height)
            start, found = index, []
        batch.append(frame)
        index += 1
        if len(batch) == max(1, min(BATCH_FRAMES, BATCH_PIXELS // (width * height))):
            found += _detect(backend, batch)
    found += _detect(backend, batch)
    if found:
        yield Stretch(start, found, width, height)


def pieces_of(stretch: Stretch, source: str, recipe: Recipe) -> Iterator[Piece | Reject]:
    """What a stretch gives: pieces, or why there are none. source: the film's path, for the rejects."""
    options = recipe.films
    count = len(stretch.found)

    def reject(reason: str, detail: str, start: int = stretch.start) -> Reject:
        return Reject(source, start / FPS, reason, detail)

    if count < SHORTEST_FRAMES:
        yield reject("too short", f"{count} of {SHORTEST_FRAMES} frames")
        return
    choice = "stays" if options.face == ONE_FACE else options.face
    most = max(len(faces) for faces in stretch.found)
    if most <= (options.face_index if choice == "left to right" else 0):
        yield reject("no face", f"at most {most} in each of {count} frames")
        return
    chosen = choose_faces(stretch.found, choice, options.face_index)
    second = _frames_with_a_second(stretch.found, chosen)
    if options.face == ONE_FACE and second > SECOND_FRAMES * count:
        yield reject("several faces", f"in {second} of {count} frames")
        return
    track = build_track(chosen, stretch.width, stretch.height)
    runs = present_runs(track.present)
    if all(stop - start < SHORTEST_FRAMES for start, stop in runs):
        longest = max(stop - start for start, stop in runs)
        yield reject("no face", f"for {SHORTEST_FRAMES} frames; the longest time is {longest}")
        return
    for start, stop in runs:
        if stop - start < SHORTEST_FRAMES:
            yield reject(
                "too short", f"{stop - start} of {SHORTEST_FRAMES} frames with the face", stretch.start + start
            )
            continue
        part = part_of(track, start, stop)
        missing = ~part.present
        part = without_gaps(smooth_track(part, FPS, options.smoothing) if options.smoothing else part)
        size = face_size(part)
        if size < least_face(options, recipe.output.size):
            least = least_face(options, recipe.output.size)
            yield reject("face too small", f"{size:.0f} of {least} pixels", stretch.start + start)
            continue
        yield Piece(stretch.start + start, part, missing)


def least_face(options: FilmOptions, size: int) -> int:
    """Pixels of the film that a face has to measure."""
    return options.min_face or size // 4


def face_size(track: FaceTrack) -> float:
    """Median over the frames of the longer side of the box from brows to chin, pixels."""
    boxes = face_boxes(track)
    return float(np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1)))


def present_runs(present: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of the runs of frames with a face, gaps of at most LONGEST_GAP frames inside them: n bool."""
    runs: list[list[int]] = []
    for index in np.flatnonzero(present).tolist():
        if runs and index - runs[-1][1] <= LONGEST_GAP:
            runs[-1][1] = index + 1
        else:
            runs.append([index, index + 1])
    return [(start, stop) for start, stop in runs]


def part_of(track: FaceTrack, start: int, stop: int) -> FaceTrack:
    """Frames start .. stop - 1 of a track."""
    arrays = {name: value[start:stop] for name, value in vars(track).items() if isinstance(value, np.ndarray)}
    return replace(track, **arrays)


def without_gaps(track: FaceTrack) -> FaceTrack:
    """The track with the frames without a face filled in between their neighbours; `present` is True everywhere."""
    arrays = {
        name: interpolate_missing(value, track.present)[0]
        for name, value in vars(track).items()
        if isinstance(value, np.ndarray) and name != "present"
    }
    return replace(track, **arrays, present=np.ones(len(track), bool))


def _detect(backend: FaceBackend, batch: list[np.ndarray]) -> list[list[FaceDetection]]:
    """The faces of the frames collected; the list is emptied."""
    if not batch:
        return []
    frames = np.stack(batch)
    batch.clear()
    return list(backend.detect(frames))


def _frames_with_a_second(found: list[list[FaceDetection]], chosen: list[FaceDetection | None]) -> int:
    return sum(
        best is not None and any(each is not best and each.area > SECOND_FACE * best.area for each in faces)
        for faces, best in zip(found, chosen, strict=True)
    )


SIDE = 48  # pixels a side that frames are compared at
BEFORE, AFTER = 12, 4  # frames whose change tells what is usual here
LEAST = 6.0  # mean difference of two frames of a cut, of 255
RATIO = 4.0  # of a cut's difference to what is usual; heads that turn fast reach 3.3
STILL = 0.05  # a frame that is repeated says nothing of what is usual


def mark_cuts(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """Frames (h w 3, uint8) each with whether a shot begins with it; the film's first frame begins none.

    A cut is a change from frame to frame (mean absolute difference of thumbnails) of at least LEAST that is more than RATIO
    times the usual one: the larger of the medians over the 12 frames before and the 4 after. Dissolves are not found, nor
    are cuts between pictures that differ no more than a head that turns.
    """
    held: deque[tuple[np.ndarray, float]] = deque()
    before: deque[float] = deque(maxlen=BEFORE)
    last = None
    for frame in frames:
        small = thumbnail(frame)
        held.append((frame, 0.0 if last is None else float(np.abs(small - last).mean())))
        last = small
        if len(held) > AFTER:
            yield _decided(held, before)
    while held:
        yield _decided(held, before)


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """48 48 3, float32."""
    return cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)


def _decided(held: deque[tuple[np.ndarray, float]], before: deque[float]) -> tuple[np.ndarray, bool]:
    """The oldest frame held; `held` keeps those after it."""
    frame, change = held.popleft()
    usual = max(_median(before), _median(each for _, each in held))
    cut = change >= LEAST and change > RATIO * usual
    if not cut:
        before.append(change)
    return frame, cut


def _median(changes: Iterable[float]) -> float:
    moving = [each for each in changes if each > STILL]
    return float(np.median(moving)) if moving else 0.0
