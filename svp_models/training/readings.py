"""Expression coefficients as a face analyser reads them: what the style extractor will be given when it is used."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from ..evaluation.readings import ReadingError
from ..face.analyzer import FaceAnalyzer
from ..io.progress import Progress
from .checkpoint import write_atomically
from .clips import Clips
from .follow import Report

REPORT_EVERY = 200  # clips


class Expressions:
    """The expression coefficients that the style phases read: the labels' own, or an analyser's readings of them.

    readings: of the pictured clips, by clip; the others, which have no pictures to read, get the analyser's usual errors.
    """

    def __init__(self, clips: Clips, readings: dict[int, np.ndarray] | None = None):
        self.clips, self.readings = clips, readings
        if readings is not None:
            true = [clips.expression(clip) for clip in readings]
            self.error = ReadingError.between(list(readings.values()), true)

    def __call__(self, clip: int, rng: np.random.Generator) -> torch.Tensor:
        """n x 64, float32."""
        if self.readings is None:
            return torch.from_numpy(self.clips.expression(clip))
        found = self.readings.get(clip)
        return torch.from_numpy(self.error.spoil(self.clips.expression(clip), rng) if found is None else found)


def read_expressions(
    clips: Clips, analyzer: bytes, folder: Path, report: Report, progress: Progress | None = None
) -> Expressions:
    """Has the analyser read all pictured clips; the readings are kept in the folder. progress(clips done, clips)."""
    digest = hashlib.sha256(analyzer + clips.version.encode()).hexdigest()[:16]
    path = folder / f"{clips.split}-{digest}.npz"
    if not path.exists():
        face, found = FaceAnalyzer(analyzer), {}
        for clip in clips.pictured:
            found[str(clip)] = face.analyze(clips.pixels(clip, range(clips.info[clip].frames))).expression
            if progress is not None:
                progress(len(found), len(clips.pictured))
            if len(found) % REPORT_EVERY == 0:
                report(f"expressions read in {len(found)} of {len(clips.pictured)} clips")
        write_atomically(path, lambda partial: _save(partial, found))
    with np.load(path, allow_pickle=False) as stored:
        return Expressions(clips, {int(name): stored[name] for name in stored.files})


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # a file and not a name, to which numpy would add an ending
        np.savez(file, **arrays)
