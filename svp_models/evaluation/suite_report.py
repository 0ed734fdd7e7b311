"""A suite from its clips to its report: the clips measured in as many processes as asked for, summed up in the order of names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from ..data.executor import map_jobs
from ..io.files import locked_folder
from .figures import RECONSTRUCTION, STYLE_TRANSFER, VIDEOS, Row, Table, paper_rows, summarize
from .metrics.features import FeatureStatistics, frechet_distance, kernel_distance
from .report import Clip, Picture, Report, Section, installed_versions
from .suite import TRUTH, ClipJob, SuiteConfig, list_jobs
from .suite_clips import SuiteContext, file_stem, finished, load_record, measure_job

CLIPS, WORST, ROWS = 3, 3, 4  # shown on the page
FRECHET = {"inception": "fid", "embedding": "embedding_distance"}  # features of single frames -> the distance of them
COLUMNS = (
    *(
        "fvd",
        "kvd",
        "fid",
        "psnr",
        "ssim",
        "lpips",
        "f_lmd",
        "m_lmd",
        "f_lmd_256",
        "m_lmd_256",
        "sync_offset",
        "sync_confidence",
    ),
    *("voice_lag", "voice_corr", "mouth_corr", "lid_corr", "stylesim", "emotion_acc", "identity", "embedding_distance"),
)
MORE = (
    *(
        "sharpness",
        "mouth_psnr",
        "mouth_ssim",
        "mouth_sharpness",
        "eyes_psnr",
        "eyes_sharpness",
        "brows_psnr",
        "rest_psnr",
    ),
    *("still_flicker", "colour_drift", "jitter", "seams", "blink_rate", "pose_diversity", "beat_alignment", "faces"),
)
PAPER_COLUMNS = (
    "fvd",
    "fid",
    "psnr",
    "ssim",
    "paper_f_lmd",
    "paper_m_lmd",
    "sync_offset",
    "sync_confidence",
    "stylesim",
)
SUMMARY = {
    VIDEOS: "Finished videos of every system against the true ones, at their frame rate and size.",
    RECONSTRUCTION: "Every clip from its own first frame, its voice and head movement; the style is another clip's of the person.",
    STYLE_TRANSFER: "Every clip from a portrait of the person in another emotion, with a style of somebody else who shows the clip's.",
}


def run_suite(
    config: SuiteConfig,
    work: Path,
    roots: Sequence[Path] = (),
    processes: int = 1,
    ray: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Measures what is not finished yet in the folder `work`, and sums up. progress(clips done, clips in all)."""
    work.mkdir(parents=True, exist_ok=True)
    context = SuiteContext(config, work, tuple(roots))
    jobs = list_jobs(config)
    with locked_folder(work, "svp evaluate"):
        open_jobs = [job for job in jobs if finished(context, job) is None]
        done = len(jobs) - len(open_jobs)
        if progress is not None:
            progress(done, len(jobs))
        for _ in map_jobs(partial(measure_job, context), open_jobs, processes, ray):
            done += 1
            if progress is not None:
                progress(done, len(jobs))
        return suite_report(context, jobs)


def suite_report(context: SuiteContext, jobs: Sequence[ClipJob]) -> Report:
    """The report of finished clips."""
    config = context.config
    clips: dict[str, dict[str, dict[str, float]]] = {name: {} for name in config.rows}
    features: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in config.rows}
    statistics: dict[tuple[str, str], FeatureStatistics] = {}  # of a system, by figure
    missing: dict[str, str] = {}
    for job in jobs:
        record, stored = load_record(context, job)
        missing |= record["missing"]
        for name, figures in record["figures"].items():
            clips[name][job.id] = figures
        for key, found in stored.items():
            name, network = key.rsplit("/", 1)
            if network in FRECHET and len(found):
                own, at = FeatureStatistics.of(found), (name, FRECHET[network])
                statistics[at] = statistics[at] + own if at in statistics else own
            elif len(found):
                features[name].setdefault(network, []).append(found)
    distances = {name: _distances(name, statistics, features) for name in config.rows}
    rows = [_row(name, clips[name], distances[name], config) for name in config.rows if clips[name]]
    present = {key for row in rows for key in row.values}
    missing = {key: reason for key, reason in missing.items() if key not in present}
    tables = tuple(
        Table(title, tuple(key for key in columns if key in present), tuple(rows))
        for title, columns in (("Figures of the paper", COLUMNS), ("More figures", MORE))
    )
    sections = [
        Section("Figures", tables=tuple(table for table in tables if table.columns)),
        Section("Clips", clips=tuple(_clip(context, job) for job in jobs[:CLIPS])),
        *_worst(context, jobs, clips),
        Section("Contact sheet", pictures=tuple(_pictures(context, jobs[:ROWS]))),
    ]
    if config.protocol != VIDEOS:
        sections.insert(1, _beside_paper(config, rows))
    return Report(
        f"Evaluation: {config.name}",
        f"{SUMMARY[config.protocol]} {len(jobs)} clips.",
        tuple(section for section in sections if section.tables or section.clips or section.pictures),
        missing,
        asdict(config),
        installed_versions(),
    )


def _row(name: str, clips: dict[str, dict[str, float]], distances: dict[str, float], config: SuiteConfig) -> Row:
    row = summarize(name, clips, config.seed, competes=name not in (TRUTH, "VAE alone"))
    count = f"{len(clips)} clips"
    return Row(row.label, {**distances, **row.values}, row.intervals, row.competes, count)


def _distances(
    name: str, statistics: dict[tuple[str, str], FeatureStatistics], features: dict[str, dict[str, list[np.ndarray]]]
) -> dict[str, float]:
    """FID, FVD, KVD and the distance of face embeddings, of a system's features to truth's, where there are two of both at least."""
    found = {}
    for figure in FRECHET.values():
        own, true = statistics.get((name, figure)), statistics.get((TRUTH, figure))
        if own is not None and true is not None and min(own.count, true.count) > 1:
            found[figure] = frechet_distance(own, true)
    videos = [features[key].get("i3d", []) for key in (name, TRUTH)]
    if all(videos):
        made, real = (np.concatenate(rows) for rows in videos)
        if min(len(made), len(real)) > 1:
            found["fvd"] = frechet_distance(FeatureStatistics.of(made), FeatureStatistics.of(real))
            found["kvd"] = kernel_distance(made, real)
    return found


def _beside_paper(config: SuiteConfig, rows: Sequence[Row]) -> Section:
    names = {system.name for system in config.systems}
    ours = [Row(row.label, row.values, row.intervals, False, row.note) for row in rows if row.label in names]
    published = paper_rows(config.protocol)
    present = {key for row in (*published, *ours) for key in row.values}
    columns = tuple(key for key in PAPER_COLUMNS if key in present)
    table = Table("Beside the paper", columns, (*published, *ours))
    return Section(
        "The paper's figures",
        "A comparison only if the data are MEAD's or HDTF's test split at 512 pixels, prepared as the paper's.",
        tables=(table,),
    )


def _clip(context: SuiteContext, job: ClipJob, note: str = "") -> Clip:
    stem = file_stem(context, job)
    names = [name for name in context.config.rows if name != TRUTH]
    shown = ", ".join([TRUTH, *names])
    mp4 = stem.with_name(f"{stem.name}.mp4").read_bytes()
    return Clip(
        f"{job.id}. Row by row from the left: {shown}.{note}",
        f"{job.id}: {shown} beside one another, with the speech",
        mp4,
    )


def _worst(
    context: SuiteContext, jobs: Sequence[ClipJob], clips: dict[str, dict[str, dict[str, float]]]
) -> list[Section]:
    """The clips in which each system is farthest from truth."""
    found = []
    by_id = {job.id: job for job in jobs}
    for system in context.config.systems:
        ranked = sorted((figures["psnr"], name) for name, figures in clips[system.name].items() if "psnr" in figures)[
            :WORST
        ]
        shown = tuple(_clip(context, by_id[name], f" PSNR {psnr:.2f} dB.") for psnr, name in ranked)
        found.append(Section(f"Worst clips of {system.name}", "Those with the lowest PSNR.", clips=shown))
    return found


def _pictures(context: SuiteContext, jobs: Sequence[ClipJob]) -> list[Picture]:
    found = []
    for job in jobs:
        stem = file_stem(context, job)
        path = stem.with_name(f"{stem.name}.png")
        if path.is_file():
            caption = f"{job.id}: the frame with the widest mouth, then mouths and eyes enlarged."
            found.append(
                Picture(
                    caption, f"Portrait, truth and systems in {job.id}; mouths and eyes enlarged", path.read_bytes()
                )
            )
    return found
