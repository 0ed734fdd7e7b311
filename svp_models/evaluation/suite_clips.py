"""One clip of a suite: what every system made of it, measured and written to files of its own, so that a run can be resumed.

`ID.json` comes last and says that the clip is finished; `ID.npz` has the features of networks, `ID.mp4` and `ID.png` are for the page.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..data.manifest import read_json, write_json
from ..errors import PortraitError
from ..io.file_names import folder_name
from ..io.files import whole_file, working_folder
from ..media.frame_stream import FrameSelection, file_stream
from ..media.writer import VideoWriter
from .feature_networks import FeatureNetworks, load_feature_networks
from .measure import ClipFigures, filled_landmarks, measure_clip
from .pictures import contact_row, png_bytes, resized, sheet, side_by_side
from .suite import TRUTH, VIDEOS, ClipJob, SuiteConfig, job_key
from .suite_models import model_inputs
from .suite_videos import ClipInputs, Made, video_inputs

SHOWN_FRAMES, SHOWN_SIDE = 125, 256  # of a clip on the page


@dataclass(frozen=True)
class SuiteContext:
    """What all jobs share. work: folder of the results; roots: models folders. All machines have to see them."""

    config: SuiteConfig
    work: Path
    roots: tuple[Path, ...] = ()


def measure_job(context: SuiteContext, job: ClipJob) -> str:
    """Measures all systems of a clip and returns its id; a finished one is not measured again."""
    if finished(context, job) is not None:
        return job.id
    config, stem = context.config, file_stem(context, job)
    networks = _networks(config, context.roots)
    with ExitStack() as stack:
        if config.protocol == VIDEOS:
            inputs = video_inputs(config, job, context.roots)
        else:
            inputs = model_inputs(config, job, context.roots)
        if config.reencode:
            folder = stack.enter_context(working_folder())
            inputs = replace(inputs, made=dict(_reencoded(inputs, config.reencode, folder)))
        found = {name: _measured(inputs, made, networks, config) for name, made in inputs.made.items()}
        truth = Made(inputs.true, inputs.audio, inputs.track)
        found[TRUTH] = _measured(inputs, truth, networks, config)
        _write_pictures(inputs, stem)
    features: dict[str, Any] = {
        f"{name}/{key}": rows for name, clip in found.items() for key, rows in clip.features.items()
    }
    with whole_file(stem.with_name(f"{stem.name}.npz")) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **features)
    write_json(
        stem.with_name(f"{stem.name}.json"),
        {
            "key": job_key(config, job),
            "id": job.id,
            "label": inputs.label,
            "figures": {name: clip.figures for name, clip in found.items()},
            "missing": {key: reason for clip in found.values() for key, reason in clip.missing.items()},
        },
    )
    return job.id


def finished(context: SuiteContext, job: ClipJob) -> dict | None:
    """The record of a finished clip; None if it is not finished, or was measured under another configuration."""
    stem = file_stem(context, job)
    record = read_json(stem.with_name(f"{stem.name}.json"))
    if record is None or record.get("key") != job_key(context.config, job):
        return None
    return record if stem.with_name(f"{stem.name}.npz").is_file() else None


def file_stem(context: SuiteContext, job: ClipJob) -> Path:
    """The path of a clip's files without their endings."""
    return context.work / folder_name(job.id)


@lru_cache(maxsize=1)
def _networks(config: SuiteConfig, roots: tuple[Path, ...]) -> FeatureNetworks:
    """Loaded once in each process."""
    return load_feature_networks(config.networks, roots)


def _measured(inputs: ClipInputs, made: Made, networks: FeatureNetworks, config: SuiteConfig) -> ClipFigures:
    reference = None
    if networks.embedding is not None and inputs.track is not None and inputs.track.present[0]:
        first = next(iter(inputs.true))
        reference = networks.embeddings(first[None], inputs.track.five_points[:1])[0]
    found = measure_clip(
        made.frames,
        inputs.true,
        made.track,
        inputs.track,
        inputs.fps,
        made.audio or inputs.audio,
        networks,
        made.joins,
        config.tolerance,
        reference,
    )
    return replace(found, figures={**found.figures, **made.extra})


def _reencoded(inputs: ClipInputs, crf: int, folder: Path) -> Iterator[tuple[str, Made]]:
    """What the systems made, after H.264 at a rate factor."""
    for number, (name, made) in enumerate(inputs.made.items()):
        path = folder / f"{number}.mp4"
        height, width = np.shape(next(iter(made.frames)))[:2]
        with VideoWriter(path, width, height, inputs.fps, crf=crf) as writer:
            for frame in made.frames:
                writer.write(frame[None])
        frames = file_stream(path, selection=FrameSelection(width=width, height=height)).counted()
        yield name, replace(made, frames=frames)


def _write_pictures(inputs: ClipInputs, stem: Path) -> None:
    """The clips beside one another as a video, and a row of the contact sheet."""
    clips: dict[str, Iterable[np.ndarray]] = {
        TRUTH: inputs.true,
        **{name: made.frames for name, made in inputs.made.items()},
    }
    shown = {
        name: np.stack([resized(frame, SHOWN_SIDE) for frame in islice(frames, SHOWN_FRAMES)])
        for name, frames in clips.items()
    }
    with whole_file(stem.with_name(f"{stem.name}.mp4")) as temporary:
        temporary.write_bytes(side_by_side(shown, inputs.fps, inputs.audio, SHOWN_SIDE))
    landmarks = None if inputs.track is None else filled_landmarks(inputs.track)
    if landmarks is None:
        return
    first = np.asarray(next(iter(inputs.true))) if inputs.portrait is None else inputs.portrait
    height, width = np.shape(next(iter(inputs.true)))[:2]
    scale = SHOWN_SIDE / max(width, height)
    border = (SHOWN_SIDE - np.array([width, height]) * scale) / 2
    row = contact_row(
        {"portrait": resized(first, SHOWN_SIDE)[None], **shown}, landmarks[:SHOWN_FRAMES] * scale + border
    )
    with whole_file(stem.with_name(f"{stem.name}.png")) as temporary:
        temporary.write_bytes(png_bytes(sheet([row])))


def load_record(context: SuiteContext, job: ClipJob) -> tuple[dict, dict[str, np.ndarray]]:
    """The record and the features of a finished clip."""
    record = finished(context, job)
    if record is None:
        raise PortraitError(f"{job.id}: the clip is not finished: repeat the command")
    stem = file_stem(context, job)
    with np.load(stem.with_name(f"{stem.name}.npz"), allow_pickle=False) as stored:
        return json.loads(json.dumps(record)), dict(stored)
