"""Outlines of the face and the mouth in a track, and how much of each cell of a grid they cover.

The sound of a film of any length as 16 kHz mono, read in order with a moment of it in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..face.detection import FaceTrack, face_points
from ..media.audio import audio_chunks
from ..optional_deps import cv2, soxr
from .schema import MASK_CELL, SAMPLE_RATE

FOREHEAD = 0.3  # of the way from the chin to the brows, how far the face reaches above them
BROWS, JAW, CHIN, LIPS = slice(17, 27), slice(0, 17), 8, slice(48, 60)
MOUTH_HALF_HEIGHT = 0.35  # without landmarks the lips' outline is an ellipse so many mouth widths high on either side
CANVAS = 2048  # pixels per side that outlines are filled at, at least
SHIFT = 4  # fractional bits of OpenCV's coordinates


def face_outline(track: FaceTrack, row: int) -> np.ndarray:
    """The face's outline in frame `row`, k 2: the hull of its points, with the brows' raised to the forehead."""
    points = face_points(track, row)
    brows, chin = (points[BROWS], points[CHIN]) if track.landmarks is not None else (points[4:6], points[6])
    forehead = brows + FOREHEAD * (brows.mean(axis=0) - chin)
    return _hull(np.concatenate([points, forehead]))


def mouth_outline(track: FaceTrack, row: int) -> np.ndarray:
    """The outer edge of the lips in frame `row`, k 2."""
    if track.landmarks is not None:
        return _hull(track.landmarks[row, LIPS])
    corners = track.five_points[row, 3:].astype(np.float64)
    along = (corners[1] - corners[0]) / 2
    across = np.array([-along[1], along[0]]) * 2 * MOUTH_HALF_HEIGHT
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return corners.mean(axis=0) + np.outer(np.cos(turn), along) + np.outer(np.sin(turn), across)


def coverage(outline: np.ndarray, size: int) -> np.ndarray:
    """An outline (k 2 pixels) in a picture of `size` pixels a side -> size/8 size/8, uint8: covered area, 255 is all."""
    factor = max(1, CANVAS // size)
    canvas = np.zeros((size * factor, size * factor), np.uint8)
    fixed = np.rint((outline * factor - 0.5) * 2**SHIFT).astype(np.int32)  # OpenCV's 0 is the first pixel's centre
    cv2.fillPoly(canvas, [fixed], 255, cv2.LINE_8, SHIFT)
    return shrink(canvas, size // MASK_CELL)


def shrink(mask: np.ndarray, cells: int) -> np.ndarray:
    """A mask (h w, uint8) -> cells cells, uint8, the mean of what each cell covers."""
    return cv2.resize(mask, (cells, cells), interpolation=cv2.INTER_AREA)


def _hull(points: np.ndarray) -> np.ndarray:
    return cv2.convexHull(points.astype(np.float32))[:, 0]


class SoundReader:
    """read(first, count): samples of a file at 16 kHz; each read begins where or after the one before began.

    origin: the time stamp in seconds of sample 0, None for the sound's own beginning. end: samples there are in all, known
    once they have been read.
    """

    def __init__(self, path: Path, origin: float | None) -> None:
        self._chunks = _resampled(path, origin)
        self._held = np.zeros(0, np.float32)
        self._first = 0  # sample that `_held` begins with
        self.end: int | None = None

    def read(self, first: int, count: int) -> np.ndarray:
        """`count` samples from sample `first`, or as many as there are: float32."""
        if first < self._first:
            raise ValueError(f"samples from {first} were asked for, those before {self._first} are gone")
        while self.end is None and self._first + len(self._held) < first + count:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.end = self._first + len(self._held)
                break
            self._held = np.concatenate([self._held, chunk])
            self._forget(first)
        self._forget(first)
        return self._held[:count].copy()

    def _forget(self, first: int) -> None:
        gone = min(first - self._first, len(self._held))
        self._held, self._first = self._held[gone:], self._first + gone


def _resampled(path: Path, origin: float | None) -> Iterator[np.ndarray]:
    stream = None
    for chunk, rate in audio_chunks(path, origin):
        mono = chunk.mean(axis=0, dtype=np.float32)
        if rate == SAMPLE_RATE:
            yield mono
            continue
        stream = stream or soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        yield stream.resample_chunk(mono)
    if stream is not None:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
