"""The sound of a film of any length as 16 kHz mono, read in order with a moment of it in memory at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..libraries import soxr
from ..media.audio import audio_chunks
from .format import SAMPLE_RATE


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
