"""A whole preparation: jobs found and run, shards written, manifest last. And the check of a data set against its manifest."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..errors import PortraitError
from ..io.files import locked_folder
from ..io.progress import Progress
from .executor import Job, JobContext, finished_job, run_jobs
from .manifest import (
    FILE,
    Manifest,
    SampleEntry,
    ShardEntry,
    make_metadata,
    open_manifest,
    read_record,
    write_json,
    write_manifest,
)
from .schema import (
    AUDIO,
    INFO,
    LABELS,
    MOTION,
    SAMPLES_PER_FRAME,
    VIDEO,
    PrepareConfig,
    Skipped,
    check_labels,
    check_motion,
)
from .shards import decode_audio, decode_frames, decode_info, decode_labels, decode_motion, read_member, write_shards
from .sources import Source, find_sources
from .synthetic_clips import synthetic_people

WORK, METADATA = "work", "metadata.json"
OLD_METADATA = "card.json"  # of preparations that version 0.1.0 has not finished


def prepare(
    root: Path | None,
    out: Path,
    config: PrepareConfig,
    processes: int = 1,
    ray: str = "",
    models: Sequence[Path] = (),
    progress: Progress | None = None,
    check_stop: Callable[[], None] = lambda: None,
) -> Manifest:
    """Prepares the videos below `root` (None: synthetic people) as shards in `out`; repeated after an interruption, it resumes.

    Only one process at a time works on a folder. processes, ray: see executor.run_jobs; models: see
    extract.load_preprocessors; progress(jobs done, all jobs). check_stop: called for each folder that is searched and each
    clip that this process makes; it and progress may raise to stop. A folder that was begun with other options, other videos
    or another version raises PortraitError.
    """
    jobs: list[Job] = []
    unusable: list[Skipped] = []
    if root is None:
        jobs += synthetic_people(config.for_synthetic())
    else:
        sources, unusable = find_sources(root, config.for_videos(), check_stop)
        jobs += sources
    metadata = make_metadata(asdict(config), _digest(root, jobs), len(jobs))
    if _finished(out, metadata):
        return open_manifest(out)
    _check_free(out)
    work = out / WORK
    with locked_folder(work, "svp prepare"):
        if _finished(out, metadata):  # by another process, meanwhile
            return open_manifest(out)
        if _begun(out) is None:
            write_json(work / METADATA, metadata)
        _clear(work)
        _clear(out)
        waiting = [job for job in jobs if finished_job(job, work) is None]
        done = len(jobs) - len(waiting)
        if progress is not None:
            progress(done, len(jobs))
        context = JobContext(
            (root or Path()).resolve(), config, work.resolve(), tuple(folder.resolve() for folder in models)
        )
        try:
            with closing(run_jobs(context, waiting, processes, ray, check_stop)) as finishing:
                for _ in finishing:
                    done += 1
                    if progress is not None:
                        progress(done, len(jobs))
        finally:
            _clear(work)  # unfinished files of processes that were ended
        manifest = _assembled(out, metadata, jobs, unusable, config)
    shutil.rmtree(work, ignore_errors=True)
    return manifest


def _finished(out: Path, metadata: dict[str, Any]) -> bool:
    """Whether `out` holds the finished data set; one that was begun with other metadata raises PortraitError."""
    finished = read_record(out / FILE)
    found = _begun(out) if finished is None else {name: finished.get(name) for name in metadata}
    if found is not None and found != metadata:
        raise PortraitError(
            f"{out} was begun with other options ({difference(found, metadata)}): use those, or choose another --out"
        )
    return finished is not None


def _begun(out: Path) -> dict[str, Any] | None:
    """The metadata of an unfinished preparation, None where there is none."""
    return read_record(out / WORK / METADATA) or read_record(out / WORK / OLD_METADATA)


def _check_free(out: Path) -> None:
    """Raises PortraitError for a folder that holds something and no preparation."""
    begun = _begun(out) is not None
    if not begun and out.exists() and any(path.name != WORK for path in out.iterdir()):
        raise PortraitError(f"{out}: it holds other files and no preparation: choose an empty folder")


def _assembled(
    out: Path, metadata: dict[str, Any], jobs: list[Job], unusable: list[Skipped], config: PrepareConfig
) -> Manifest:
    results = [result for job in jobs if (result := finished_job(job, out / WORK)) is not None]
    samples = [(split, result.path, entry) for result in results for split, entry in result.samples]
    skipped = [*unusable, *(item for result in results for item in result.skipped)]
    if not samples:
        reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(item.reason for item in skipped).items())
        first = f"; the first: {skipped[0].source}: {skipped[0].detail}" if skipped else ""
        raise PortraitError(
            f"none of the {len(jobs)} jobs gave a clip (skipped: {reasons or 'none'}{first}): choose other videos or options, "
            f"and another --out or remove {out}"
        )
    shards = write_shards(out, samples, config.output)
    manifest = Manifest(
        out, metadata, tuple(shards), tuple(sorted(skipped, key=lambda item: (item.source, item.start)))
    )
    write_manifest(manifest)
    return manifest


def _digest(root: Path | None, jobs: Sequence[Job]) -> str:
    """A hash of the jobs, and of the sizes of their videos."""
    sizes = [
        f" {(root / job.path).stat().st_size}" if root is not None and isinstance(job, Source) else "" for job in jobs
    ]
    lines = [job.digest_text + size for job, size in zip(jobs, sizes, strict=True)]
    return blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def difference(found: Any, wanted: Any, name: str = "") -> str:
    """The first value in which two nested records differ."""
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return f"{name}: {found!r} there, {wanted!r} now"
    for key in [*wanted, *found]:
        if found.get(key) != wanted.get(key):
            return difference(found.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    return "nothing"


def _clear(folder: Path) -> None:
    for path in folder.glob(".*.part"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


CHUNK = 1 << 22  # bytes read at a time


def check(folder: Path | str, progress: Progress | None = None) -> Manifest:
    """Checks every byte and label of a data set; PortraitError names the first error. progress(shards done, all shards)."""
    manifest = open_manifest(folder)
    splits: dict[str, str] = {}
    for number, shard in enumerate(manifest.shards):
        check_shard(manifest.folder, shard)
        for sample in shard.samples:
            if splits.setdefault(sample.identity, shard.split) != shard.split:
                raise PortraitError(f"{folder}: {sample.identity} is in both splits: prepare the data again")
            check_sample(manifest.folder, shard, sample)
        if progress is not None:
            progress(number + 1, len(manifest.shards))
    return manifest


def check_shard(folder: Path, shard: ShardEntry) -> None:
    """Checks size, SHA-256, and that the members lie in the tar where the manifest has them."""
    path = folder / shard.name
    if not path.is_file():
        raise PortraitError(f"{path}: the shard is missing: copy it again")
    size = path.stat().st_size
    if size != shard.bytes:
        raise PortraitError(f"{path}: {size} bytes, the manifest says {shard.bytes}: copy it again")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    found = digest.hexdigest()
    if found != shard.sha256:
        raise PortraitError(
            f"{path}: SHA-256 {found[:16]}..., the manifest says {shard.sha256[:16]}...: it is damaged, copy it again"
        )
    with tarfile.open(path) as tar:
        found_members = [(member.name, member.offset_data, member.size) for member in tar]
    expected = [
        (f"{sample.key}.{ending}", *place) for sample in shard.samples for ending, place in sample.members.items()
    ]
    if found_members != expected:
        raise PortraitError(
            f"{path}: its {len(found_members)} members are not the {len(expected)} of the manifest: prepare it again"
        )


def check_sample(folder: Path, shard: ShardEntry, sample: SampleEntry) -> None:
    """Checks a clip's description, labels, length of audio and last frame."""
    info = decode_info(read_member(folder, shard, sample, INFO))
    described = (info.identity, info.emotion, info.intensity, info.frames, info.group, info.split)
    listed = (sample.identity, sample.emotion, sample.intensity, sample.frames, sample.group, shard.split)
    if described != listed:
        raise PortraitError(
            f"{shard.name}: {sample.key} says {described}, the manifest {listed}: prepare the data again"
        )
    check_labels(decode_labels(read_member(folder, shard, sample, LABELS)), info.frames, info.size, sample.key)
    if MOTION in sample.members:
        check_motion(decode_motion(read_member(folder, shard, sample, MOTION)), info.frames, sample.key)
    samples = decode_audio(read_member(folder, shard, sample, AUDIO)).waveform.shape[-1]
    if samples != info.frames * SAMPLES_PER_FRAME:
        raise PortraitError(
            f"{shard.name}: {sample.key} has {samples} samples of audio for {info.frames} frames, "
            f"{info.frames * SAMPLES_PER_FRAME} are needed: prepare the data again"
        )
    if VIDEO not in sample.members:
        return
    frame = decode_frames(read_member(folder, shard, sample, VIDEO), info.frames - 1, 1)
    if frame.shape[1:] != (info.size, info.size, 3):
        raise PortraitError(
            f"{shard.name}: {sample.key} has frames of {frame.shape[2]} x {frame.shape[1]}, {info.size} are needed: "
            "prepare the data again"
        )
