"""What every figure of an evaluation is called, which way is better, and tables of figures: with bootstrap intervals over clips, or
with the spread over seeds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

RESAMPLES = 1000
CONFIDENCE = 0.95
HIGHER, LOWER, NEAR_ONE, NEUTRAL = "higher", "lower", "nearer to 1", ""


@dataclass(frozen=True)
class Figure:
    """How a figure is shown. better: HIGHER, LOWER, NEAR_ONE or NEUTRAL (to be compared with truth's own); digits: behind the point."""

    title: str
    unit: str
    better: str
    digits: int
    meaning: str


FIGURES: dict[str, Figure] = {
    "fvd": Figure("FVD", "", LOWER, 1, "Frechet distance of I3D features of 16 frames to those of the true clips"),
    "kvd": Figure("KVD", "", LOWER, 3, "polynomial-kernel distance of the same features"),
    "fid": Figure("FID", "", LOWER, 2, "Frechet distance of Inception features of frames to those of the true frames"),
    "psnr": Figure("PSNR", "dB", HIGHER, 2, "peak signal-to-noise ratio of the whole picture"),
    "ssim": Figure("SSIM", "", HIGHER, 4, "structural similarity of the whole picture"),
    "lpips": Figure("LPIPS", "", LOWER, 4, "learned perceptual distance (VGG)"),
    "sharpness": Figure("sharpness", "of truth's", NEAR_ONE, 2, "variance of the Laplacian over truth's"),
    "f_lmd": Figure("F-LMD", "eye distances", LOWER, 4, "mean distance of all 68 landmarks over the outer eye corners'"),
    "m_lmd": Figure("M-LMD", "eye distances", LOWER, 4, "mean distance of the mouth's 20 landmarks over the eye corners'"),
    "f_lmd_256": Figure("F-LMD", "px of 256", LOWER, 2, "mean distance of all 68 landmarks in a picture of 256 pixels"),
    "m_lmd_256": Figure("M-LMD", "px of 256", LOWER, 2, "mean distance of the mouth's 20 landmarks in 256 pixels"),
    "sync_offset": Figure("Sync offset", "frames", NEUTRAL, 2, "SyncNet's AV offset, positive where pictures are late"),
    "sync_confidence": Figure("Sync confidence", "", HIGHER, 2, "SyncNet's confidence"),
    "voice_lag": Figure("voice lag", "frames", NEUTRAL, 1, "lag at which the lower lip follows the voice's energy best"),
    "voice_corr": Figure("voice correlation", "", HIGHER, 3, "correlation of lower lip and voice energy at that lag"),
    "mouth_corr": Figure("mouth correlation", "", HIGHER, 3, "correlation of mouth opening with truth's, at lag 0"),
    "lid_corr": Figure("lid correlation", "", HIGHER, 3, "correlation of lid opening with truth's, over the clips whose lids move"),
    "blink_rate": Figure("blinks", "per minute", NEUTRAL, 1, "how often both lids close for less than half a second"),
    "still_flicker": Figure("still flicker", "of 255", LOWER, 3, "mean change of pixels between frames where truth stands still"),
    "colour_drift": Figure("colour drift", "of 255", LOWER, 2, "how far the mean colour wanders beyond what truth's does"),
    "jitter": Figure("jitter", "eye distances", NEUTRAL, 5, "mean second difference of the landmarks"),
    "seams": Figure("seams", "ratio", LOWER, 2, "second differences of pixels at window joins over those elsewhere"),
    "pose_diversity": Figure("pose diversity", "degrees", NEUTRAL, 2, "standard deviation of the head's angles"),
    "beat_alignment": Figure("beat alignment", "", HIGHER, 3, "how near the head's pauses are to the voice's onsets"),
    "identity": Figure("identity", "cosine", HIGHER, 3, "cosine of face embeddings with the portrait's"),
    "embedding_distance": Figure("embedding distance", "", LOWER, 4, "Frechet distance of face embeddings to those of the true frames, by the network named; not FID"),
    "stylesim": Figure("StyleSim", "cosine", HIGHER, 4, "cosine of the style codes of generated and true expressions"),
    "emotion_acc": Figure("emotion", "share", HIGHER, 3, "share of clips whose emotion is recognised"),
    "faces": Figure("faces found", "share", HIGHER, 3, "share of frames in which a face was found"),
}  # fmt: skip
for _region in ("mouth", "eyes", "brows", "rest"):
    FIGURES[f"{_region}_psnr"] = Figure(f"{_region} PSNR", "dB", HIGHER, 2, f"PSNR inside the region {_region}")
    FIGURES[f"{_region}_ssim"] = Figure(f"{_region} SSIM", "", HIGHER, 3, f"SSIM inside the region {_region}")
    FIGURES[f"{_region}_sharpness"] = Figure(
        f"{_region} sharpness",
        "of truth's",
        NEAR_ONE,
        2,
        f"variance of the Laplacian over truth's inside the region {_region}",
    )


@dataclass(frozen=True)
class Row:
    """One line of a table. values, intervals: by figure; competes: whether its figures may be the best (truth's may not)."""

    label: str
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    competes: bool = True
    note: str = ""


@dataclass(frozen=True)
class Table:
    """Figures of several systems. columns: keys of FIGURES, or titles of their own."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""

    def best(self, column: str) -> set[int]:
        """The numbers of the rows with the best figure, as it is printed; none where no direction is better."""
        figure = FIGURES.get(column)
        shown = {
            index: round(row.values[column], figure.digits)
            for index, row in enumerate(self.rows)
            if figure is not None and row.competes and column in row.values
        }
        if figure is None or figure.better == NEUTRAL or len(shown) < 2:
            return set()
        if figure.better == NEAR_ONE:
            shown = {index: round(abs(value - 1), figure.digits) for index, value in shown.items()}
        top = max(shown.values()) if figure.better == HIGHER else min(shown.values())
        return {index for index, value in shown.items() if value == top}


def summarize(
    label: str, clips: Mapping[str, Mapping[str, float]], seed: int = 0, competes: bool = True, note: str = ""
) -> Row:
    """Means over clips (name -> figure -> value) with bootstrap intervals. The order of the clips does not matter, and a figure
    counts the clips that have it."""
    names = sorted(clips)
    values, intervals = {}, {}
    for key in sorted({key for figures in clips.values() for key in figures}):
        found = np.array([clips[name][key] for name in names if key in clips[name]], np.float64)
        values[key] = float(found.mean())
        if len(found) > 1:
            intervals[key] = bootstrap_interval(found, seed)
    return Row(label, values, intervals, competes, note)


def bootstrap_interval(values: Sequence[float] | np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of the mean over clips (Efron 1979), from 1000 samples with replacement."""
    found = np.asarray(values, np.float64)
    picks = np.random.default_rng(seed).integers(len(found), size=(RESAMPLES, len(found)))
    low, high = np.quantile(found[picks].mean(1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def paper_rows(protocol: str) -> tuple[Row, ...]:
    """The published rows (the paper's section 4) beside which a protocol's are shown; its LMD have no unit of ours."""
    return tuple(Row(f"{label} (paper)", values, competes=False, note="published") for label, values in PAPER[protocol])


RECONSTRUCTION, STYLE_TRANSFER, VIDEOS = "reconstruction", "style_transfer", "videos"


def _published(fvd: float, fid: float, psnr: float, ssim: float, **more: float) -> dict[str, float]:
    return {"fvd": fvd, "fid": fid, "psnr": psnr, "ssim": ssim, **more}


PAPER: dict[str, tuple[tuple[str, dict[str, float]], ...]] = {
    RECONSTRUCTION: (
        (
            "V-Express, MEAD",
            _published(
                340.01, 33.66, 27.51, 0.8939, paper_f_lmd=5.28, paper_m_lmd=8.12, sync_offset=2.1, sync_confidence=4.59
            ),
        ),
        (
            "SVP, MEAD",
            _published(
                235.70, 28.80, 28.87, 0.9126, paper_f_lmd=4.64, paper_m_lmd=6.45, sync_offset=0.3, sync_confidence=4.76
            ),
        ),
        (
            "V-Express, HDTF",
            _published(
                125.36,
                12.33,
                26.35,
                0.8688,
                paper_f_lmd=30.58,
                paper_m_lmd=35.56,
                sync_offset=2.7,
                sync_confidence=6.05,
            ),
        ),
        (
            "SVP, HDTF",
            _published(
                102.40,
                10.39,
                26.38,
                0.8800,
                paper_f_lmd=22.95,
                paper_m_lmd=26.01,
                sync_offset=0.2,
                sync_confidence=5.40,
            ),
        ),
    ),
    STYLE_TRANSFER: (
        (
            "SVP without style, MEAD",
            _published(485.47, 57.96, 21.73, 0.8151, paper_f_lmd=8.49, paper_m_lmd=10.20, stylesim=0.7879),
        ),
        ("SVP, MEAD", _published(392.31, 56.69, 22.07, 0.8210, paper_f_lmd=6.76, paper_m_lmd=8.44, stylesim=0.8473)),
    ),
    VIDEOS: (),
}
FIGURES["paper_f_lmd"] = Figure("F-LMD", "as published", LOWER, 2, "all landmarks; the paper names no unit")
FIGURES["paper_m_lmd"] = Figure("M-LMD", "as published", LOWER, 2, "the mouth's landmarks; the paper names no unit")


SEED_COLUMNS = {
    "systems": ("psnr", "ssim", "sharpness", "mouth_psnr", "eyes_psnr", "m_lmd_256", "mouth_corr", "lid_corr", "still_flicker"),
    "style_transfer": ("emotion_acc", "stylesim", "psnr", "ssim", "mouth_psnr", "m_lmd_256", "mouth_corr"),
}  # fmt: skip
SEED_TITLES = {"systems": "Reconstruction", "style_transfer": "Style transfer and ablations"}
Found = Mapping[str, object]


def over_seeds(evaluations: Mapping[int, Found]) -> dict[str, object]:
    """Means over the seeds' figures (seed -> figures of `run_evaluation`), and under `spread` their standard deviations.

    Numbers are averaged wherever they stand, also in lists and under further names; what is no number is that of the first seed.
    `clips` counts the clips of all seeds. One seed has no spread.
    """
    every = list(evaluations.values())
    result = _averaged(every)
    result["clips"] = sum(int(str(figures["clips"])) for figures in every)
    del result["seed"]
    spread = _spread(every) if len(every) > 1 else {}
    return {
        **result,
        "seeds": list(evaluations),
        "spread": {key: spread[key] for key in spread if key not in ("clips", "seed")},
    }


def seed_tables(evaluations: Mapping[int, Found]) -> Iterator[Table]:
    """A table of means over seeds for reconstruction and one for style transfer."""
    figures = over_seeds(evaluations)
    spread = figures["spread"]
    note = (
        f"Means over the seeds {', '.join(map(str, evaluations))}, each with people and sentences of its own. Small numbers: the mean "
        "minus and plus the standard deviation over the seeds."
    )
    assert isinstance(spread, dict)
    for key, columns in SEED_COLUMNS.items():
        rows = []
        found, scatter = figures[key], spread.get(key, {})
        assert isinstance(found, dict)
        for label, values in found.items():
            if label.startswith("standard deviation"):
                continue
            deviations = scatter.get(label, {})
            spans = {name: (values[name] - deviations[name], values[name] + deviations[name]) for name in deviations}
            rows.append(Row(label, values, spans, competes=label not in ("truth", "VAE alone")))
        yield Table(f"{SEED_TITLES[key]}, {len(evaluations)} seeds", columns, tuple(rows), note)


def _averaged(values: Sequence[Found]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, rows in _common(values):
        if isinstance(rows[0], Mapping):
            found[key] = _averaged(rows)
        else:
            found[key] = np.mean(rows, axis=0).tolist() if _numbers(rows) else rows[0]
    return found


def _spread(values: Sequence[Found]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, rows in _common(values):
        if isinstance(rows[0], Mapping):
            found[key] = _spread(rows)
        elif _numbers(rows):
            found[key] = np.std(rows, axis=0, ddof=1).tolist()
    return found


def _common(values: Sequence[Found]) -> Iterator[tuple[str, list]]:
    """What all of the figures have, by name."""
    for key in values[0]:
        if all(key in figures for figures in values):
            yield key, [figures[key] for figures in values]


def _numbers(rows: Sequence[object]) -> bool:
    """Whether numbers, or lists of as many numbers, can be averaged."""
    lists = [row if isinstance(row, list) else [row] for row in rows]
    return len({len(row) for row in lists}) == 1 and all(
        isinstance(value, int | float) for row in lists for value in row
    )
