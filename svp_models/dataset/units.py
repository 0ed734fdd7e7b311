"""The unit of work: one film, or one drawn person. What a finished one gave waits in `OUT/work` until all are finished."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import PortraitError
from .drawn import DrawnPerson, drawn_clips
from .films import film_clips
from .format import Reject, Sample
from .instruments import Instruments
from .manifest import SampleEntry, entry_from, read_json, write_json
from .options import Recipe
from .shards import TarWriter
from .sources import Source

Unit = Source | DrawnPerson


@dataclass(frozen=True)
class Finished:
    """What a unit gave: its samples with their split, in the tar at `path`, and what it did not."""

    path: Path
    samples: tuple[tuple[str, SampleEntry], ...]
    rejects: tuple[Reject, ...]


def clips_of(
    unit: Unit, root: Path, recipe: Recipe, instruments: Instruments, scratch: Path
) -> Iterator[Sample | Reject]:
    """The clips of a unit; root: the folder of films, which drawn people do not need."""
    if isinstance(unit, DrawnPerson):
        return drawn_clips(unit, recipe, instruments, scratch)
    return film_clips(root, unit, recipe, instruments, scratch)


def finish_unit(
    unit: Unit,
    root: Path,
    recipe: Recipe,
    instruments: Instruments,
    work: Path,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Does a unit: its clips go into `work/ID.tar`, and last `work/ID.json` says that it is finished. look: called for each
    clip; it may raise to stop."""
    samples, rejects = [], []
    scratch = (
        work / f".{unit.id}.{uuid.uuid4().hex}.part"
    )  # where a clip's video is written before it is read into the tar
    scratch.mkdir()
    try:
        with TarWriter(work / f"{unit.id}.tar") as tar:
            for clip in clips_of(unit, root, recipe, instruments, scratch):
                look()
                if isinstance(clip, Reject):
                    rejects.append(asdict(clip))
                    continue
                info = clip.info
                members = tar.add_sample(clip.key, clip.members.items())
                entry = SampleEntry(
                    clip.key, info.identity, info.emotion, info.intensity, info.frames, info.group, members
                )
                samples.append({"split": info.split, **asdict(entry)})
        write_json(work / f"{unit.id}.json", {"samples": samples, "rejects": rejects})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def finished_unit(unit: Unit, work: Path) -> Finished | None:
    """What a unit gave, None if it is not finished."""
    record = read_json(work / f"{unit.id}.json")
    path = work / f"{unit.id}.tar"
    if record is None or not path.is_file():
        return None
    samples, size = [], path.stat().st_size
    try:
        for values in record["samples"]:
            split = values.pop("split")
            samples.append((split, entry_from(values, path.name, size)))
        rejects = tuple(Reject(**each) for each in record["rejects"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PortraitError(
            f"{work / unit.id}.json: it is damaged ({error}): remove it and repeat the command"
        ) from error
    return Finished(path, tuple(samples), rejects)
