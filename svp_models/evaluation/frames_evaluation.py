"""Made frames of any system against true ones: a table as text, the same as JSON, and a plot frame by frame."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..errors import PortraitError
from ..face.tracking import FaceTracker, resolve_tracker
from ..io.progress import Progress, shared
from ..media.frame_stream import Frames
from ..types import Audio
from .figures import FIGURES
from .measure import ClipFigures, measure_clip
from .metrics.frames import PEAK
from .plots import panels
from .report import number, unit

SMALLEST_ERROR = PEAK**2 / 10**9.9  # of 255^2: a frame without any error is plotted at 99 dB


@dataclass(frozen=True)
class FramesEvaluation:
    """text: one line a figure, made and truth; values: made, truth, missing, by figure; plot: h w 3, uint8."""

    text: str
    values: dict[str, dict[str, object]]
    plot: np.ndarray

    @property
    def json(self) -> str:
        return json.dumps(self.values, indent=2)


def evaluate_frames(
    made: Frames,
    true: Frames,
    fps: float,
    audio: Audio | None = None,
    tracker: FaceTracker | None = None,
    tolerance: int = 0,
    progress: Progress | None = None,
) -> FramesEvaluation:
    """made, true: n h w 3 of one size; the longer clip is cut. tracker: finds the faces, None leaves out what needs them.

    tolerance: of 255, up to which true pixels stand still. progress(done, total) may raise to stop the work.
    """
    if made.shape[1:3] != true.shape[1:3]:
        raise PortraitError(
            f"the made frames are {made.shape[2]} x {made.shape[1]} pixels, the true ones {true.shape[2]} x {true.shape[1]}: scale "
            "one of them to the size of the other"
        )
    parts = shared(progress, *([2, 2] if tracker is not None else [0, 0]), 1, 1)
    tracks = [
        None if tracker is None else resolve_tracker(tracker, frames, what).analyze(frames, part, fps)
        for frames, what, part in ((made, "the made frames", parts[0]), (true, "the true frames", parts[1]))
    ]
    found = measure_clip(_counted(made, parts[2]), true, tracks[0], tracks[1], fps, audio, tolerance=tolerance)
    truth = measure_clip(_counted(true, parts[3]), true, tracks[1], tracks[1], fps, audio, tolerance=tolerance)
    missing = (
        {} if tracker is not None else {"landmarks": "connect a face analyser: faces are not looked for without one"}
    )
    missing |= {key: reason for key, reason in found.missing.items()}
    values: dict[str, dict[str, object]] = {
        "made": dict(found.figures),
        "truth": dict(truth.figures),
        "missing": dict(missing),
        "frames": {"fps": fps, "count": len(found.series["error"])},
    }
    return FramesEvaluation(_text(found, truth, missing), values, panels(_curves(found, truth)))


def _counted(frames: Frames, progress: Progress | None) -> Iterator[np.ndarray]:
    for index, frame in enumerate(frames):
        yield frame
        if progress is not None:
            progress(min(index + 1, len(frames)), len(frames))


def _text(found: ClipFigures, truth: ClipFigures, missing: dict[str, str]) -> str:
    """Columns of text: title and unit, made, truth."""
    lines = [f"{'figure':<34}{'made':>12}{'truth':>12}", "-" * 58]
    for key, figure in FIGURES.items():
        if key in found.figures:
            title = f"{figure.title} ({unit(key)})" if unit(key) else figure.title
            own = number(key, truth.figures[key]) if key in truth.figures else "-"
            lines.append(f"{title:<34}{number(key, found.figures[key]):>12}{own:>12}")
    if "psnr" not in found.figures:
        lines.append("The frames are the same: PSNR is infinite.")
    lines += [f"{key}: {reason}" for key, reason in missing.items()]
    return "\n".join(lines)


def _curves(found: ClipFigures, truth: ClipFigures) -> dict[str, dict[str, list[float]]]:
    decibels = [10 * math.log10(PEAK**2 / max(error, SMALLEST_ERROR)) for error in found.series["error"]]
    curves = {"PSNR, dB": {"made": decibels}}
    for key, title in (
        ("roughness", "change of pixels, of 255"),
        ("mouth", "mouth opening, eye distances"),
        ("lids", "lid opening"),
    ):
        if key in found.series:
            curves[title] = {"made": found.series[key], "truth": truth.series.get(key, [])}
    return curves
