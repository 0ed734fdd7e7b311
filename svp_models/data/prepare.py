"""A preparation from beginning to end: units found, done or found done, shards written, manifest last.

A data set compared with its manifest: every byte, every label, and that no person is in both splits.
"""

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
from .executor import Job, Unit, do_units, finished_unit
from .manifest import (
    FILE,
    Manifest,
    SampleEntry,
    ShardEntry,
    make_card,
    open_manifest,
    read_json,
    write_json,
    write_manifest,
)
from .schema import AUDIO, INFO, LABELS, SAMPLES_PER_FRAME, VIDEO, Recipe, Reject, check_labels
from .shards import decode_audio, decode_frames, decode_info, decode_labels, read_member, write_shards
from .sources import find_sources
from .synthetic_clips import drawn_people

WORK, CARD = "work", "card.json"


def prepare(
    root: Path | None,
    out: Path,
    recipe: Recipe,
    workers: int = 1,
    ray: str = "",
    models: Sequence[Path] = (),
    progress: Progress | None = None,
    look: Callable[[], None] = lambda: None,
) -> Manifest:
    """Prepares the films below `root` (None: drawn clips) into shards in `out`; a killed run goes on when repeated.

    One process at a time works on a folder; another one is told which. ray: see workers.do_units; models: see
    instruments.load_instruments; progress(units done, units in all). look: called for each folder that is looked into and
    each clip that this process makes; both may raise to stop. A folder that was begun with other options, other films or
    another version raises PortraitError.
    """
    units, outside = find_sources(root, recipe.films, look) if root is not None else (drawn_people(recipe.drawn), [])
    card = make_card(asdict(recipe), _digest(root, units), len(units))
    if _finished(out, card):
        return open_manifest(out)
    _check_free(out)
    work = out / WORK
    with locked_folder(work, "svp prepare"):
        if _finished(out, card):  # by whoever had it before
            return open_manifest(out)
        if read_json(work / CARD) is None:
            write_json(work / CARD, card)
        _clear(work)
        _clear(out)
        waiting = [each for each in units if finished_unit(each, work) is None]
        done = len(units) - len(waiting)
        if progress is not None:
            progress(done, len(units))
        job = Job((root or Path()).resolve(), recipe, work.resolve(), tuple(each.resolve() for each in models))
        try:
            with closing(do_units(job, waiting, workers, ray, look)) as finishing:
                for _ in finishing:
                    done += 1
                    if progress is not None:
                        progress(done, len(units))
        finally:
            _clear(work)  # what ended workers have left half-written
        manifest = _assembled(out, card, units, outside, recipe)
    shutil.rmtree(work, ignore_errors=True)
    return manifest


def _finished(out: Path, card: dict[str, Any]) -> bool:
    """Whether `out` holds the finished data set; one that was begun with another card raises PortraitError."""
    finished = read_json(out / FILE)
    found = read_json(out / WORK / CARD) if finished is None else {name: finished.get(name) for name in card}
    if found is not None and found != card:
        raise PortraitError(
            f"{out} was begun with other options ({difference(found, card)}): repeat those, or choose another --out"
        )
    return finished is not None


def _check_free(out: Path) -> None:
    """Raises PortraitError for a folder that holds something and no preparation."""
    begun = (out / WORK / CARD).exists() or not out.exists()
    if not begun and any(each.name != WORK for each in out.iterdir()):
        raise PortraitError(f"{out}: it holds other files and no preparation: choose an empty folder")


def _assembled(out: Path, card: dict[str, Any], units: list[Unit], outside: list[Reject], recipe: Recipe) -> Manifest:
    finished = [finished_unit(each, out / WORK) for each in units]
    samples = [(split, each.path, entry) for each in finished for split, entry in each.samples]
    rejects = [*outside, *(reject for each in finished for reject in each.rejects)]
    if not samples:
        reasons = ", ".join(f"{reason} {count}" for reason, count in Counter(each.reason for each in rejects).items())
        first = f"; the first: {rejects[0].source}: {rejects[0].detail}" if rejects else ""
        raise PortraitError(
            f"none of the {len(units)} units gave a clip (rejects: {reasons or 'none'}{first}): choose other films or options, "
            f"and another --out or remove {out}"
        )
    shards = write_shards(out, samples, recipe.output)
    manifest = Manifest(out, card, tuple(shards), tuple(sorted(rejects, key=lambda each: (each.source, each.start))))
    write_manifest(manifest)
    return manifest


def _digest(root: Path | None, units: Sequence[Unit]) -> str:
    """A hash of the units, and of the sizes of their films."""
    lines = [f"{each} {(root / each.path).stat().st_size}" if root is not None else str(each) for each in units]
    return blake2b("\n".join(lines).encode(), digest_size=16).hexdigest()


def difference(found: Any, wanted: Any, name: str = "") -> str:
    """The first value that two nested records, such as cards, do not share."""
    if not (isinstance(found, dict) and isinstance(wanted, dict)):
        return f"{name}: {found!r} there, {wanted!r} now"
    for key in [*wanted, *found]:
        if found.get(key) != wanted.get(key):
            return difference(found.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    return "nothing"


def _clear(folder: Path) -> None:
    for each in folder.glob(".*.part"):
        shutil.rmtree(each) if each.is_dir() else each.unlink(missing_ok=True)


PIECE = 1 << 22  # bytes read at a time


def check(folder: Path | str, progress: Progress | None = None) -> Manifest:
    """Raises PortraitError that names the first thing that is wrong; progress(shards done, shards in all)."""
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
    """Size, SHA-256, and that a reader who goes through the tar meets the members where the manifest has them."""
    path = folder / shard.name
    if not path.is_file():
        raise PortraitError(f"{path}: the shard is missing: copy it again")
    size = path.stat().st_size
    if size != shard.bytes:
        raise PortraitError(f"{path}: {size} bytes, the manifest says {shard.bytes}: copy it again")
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    found = digest.hexdigest()
    if found != shard.sha256:
        raise PortraitError(
            f"{path}: SHA-256 {found[:16]}..., the manifest says {shard.sha256[:16]}...: it is damaged, copy it again"
        )
    with tarfile.open(path) as tar:
        met = [(each.name, each.offset_data, each.size) for each in tar]
    wanted = [
        (f"{sample.key}.{ending}", *place) for sample in shard.samples for ending, place in sample.members.items()
    ]
    if met != wanted:
        raise PortraitError(
            f"{path}: its {len(met)} members are not the {len(wanted)} of the manifest: prepare it again"
        )


def check_sample(folder: Path, shard: ShardEntry, sample: SampleEntry) -> None:
    """A clip's description, labels, length of sound and last picture."""
    info = decode_info(read_member(folder, shard, sample, INFO))
    told = (info.identity, info.emotion, info.intensity, info.frames, info.group, info.split)
    listed = (sample.identity, sample.emotion, sample.intensity, sample.frames, sample.group, shard.split)
    if told != listed:
        raise PortraitError(f"{shard.name}: {sample.key} says {told}, the manifest {listed}: prepare the data again")
    check_labels(decode_labels(read_member(folder, shard, sample, LABELS)), info.frames, info.size, sample.key)
    samples = decode_audio(read_member(folder, shard, sample, AUDIO)).waveform.shape[-1]
    if samples != info.frames * SAMPLES_PER_FRAME:
        raise PortraitError(
            f"{shard.name}: {sample.key} has {samples} samples of sound for {info.frames} frames, "
            f"{info.frames * SAMPLES_PER_FRAME} are needed: prepare the data again"
        )
    if VIDEO not in sample.members:
        return
    picture = decode_frames(read_member(folder, shard, sample, VIDEO), info.frames - 1, 1)
    if picture.shape[1:] != (info.size, info.size, 3):
        raise PortraitError(
            f"{shard.name}: {sample.key} has pictures of {picture.shape[2]} x {picture.shape[1]}, {info.size} are needed: "
            "prepare the data again"
        )
