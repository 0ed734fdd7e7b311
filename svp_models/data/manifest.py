"""`manifest.json`: what the shards hold and where, so that any member is read with one seek."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..errors import PortraitError
from ..io.file_names import printable
from ..io.files import whole_file
from ..io.strict_config import json_value, shown
from ..synthetic.clips import DATA_VERSION
from ..synthetic.performance import EMOTIONS
from ..synthetic.speakers import SPLITS
from .schema import FORMAT_VERSION, FPS, LARGEST_SIZE, MASK_CELL, MOST_FRAMES, Reject

FILE = "manifest.json"
NAMES_TOLD = 5  # rejects that a summary shows of each reason
SHARD = re.compile(r"\w[\w.-]*\.tar", re.ASCII)
KEY = re.compile(r"[\w-]+", re.ASCII)
HASH = re.compile(r"[0-9a-f]{64}")
INTENSITY = (0, 1, 2, 3)
PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


@dataclass(frozen=True)
class SampleEntry:
    """A clip and its members: ending -> (first byte in the tar, number of bytes)."""

    key: str
    identity: str
    emotion: str
    intensity: int
    frames: int
    group: str
    members: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class ShardEntry:
    """A shard file: size in bytes and SHA-256 of all of it."""

    name: str
    split: str
    bytes: int
    sha256: str
    samples: tuple[SampleEntry, ...]


@dataclass(frozen=True)
class Manifest:
    """A finished data set in `folder`. card: versions and options it was made with; see `make_card`."""

    folder: Path
    card: dict[str, Any]
    shards: tuple[ShardEntry, ...]
    rejects: tuple[Reject, ...] = field(default=())

    def samples(self, split: str | None = None) -> list[tuple[ShardEntry, SampleEntry]]:
        """Every clip (of a split) with the shard it is in, in the order of the shards."""
        return [(shard, sample) for shard in self.shards if split in (None, shard.split) for sample in shard.samples]

    def totals(self) -> dict[str, Any]:
        """Clips, hours and people: in all, by split, identity and emotion; and the rejects by reason."""
        by_split: dict[str, Any] = {}
        by_identity: dict[str, dict[str, Any]] = {}
        by_emotion: Counter[str] = Counter()
        frames: dict[str, int] = defaultdict(int)
        for shard, sample in self.samples():
            of_split = by_split.setdefault(shard.split, {"samples": 0, "frames": 0, "identities": set()})
            of_split["samples"] += 1
            of_split["frames"] += sample.frames
            of_split["identities"].add(sample.identity)
            person = by_identity.setdefault(sample.identity, {"split": shard.split, "samples": 0, "frames": 0})
            person["samples"] += 1
            person["frames"] += sample.frames
            by_emotion[sample.emotion] += 1
            frames[shard.split] += sample.frames
        for name, each in by_split.items():
            each["identities"] = len(each["identities"])
            each["hours"] = round(frames[name] / FPS / 3600, 4)
        return {
            "samples": sum(by_emotion.values()),
            "frames": sum(frames.values()),
            "hours": round(sum(frames.values()) / FPS / 3600, 4),
            "by_split": by_split,
            "by_identity": dict(sorted(by_identity.items())),
            "by_emotion": dict(sorted(by_emotion.items())),
            "rejects": dict(Counter(each.reason for each in self.rejects).most_common()),
        }


def summary(manifest: Manifest) -> list[str]:
    """What a data set holds, and what was left out and why."""
    totals = manifest.totals()
    lines = [f"{totals['samples']} clips, {totals['hours']:.2f} h, {len(manifest.shards)} shards"]
    if manifest.card["options"]["drawn"] is None:
        lines.append(f"films considered: {manifest.card['sources']['count']}")
    for split, each in totals["by_split"].items():
        lines.append(f"{split}: {each['samples']} clips, {each['hours']:.2f} h, {each['identities']} people")
    lines += [f"{emotion}: {count} clips" for emotion, count in totals["by_emotion"].items() if emotion]
    for reason, count in totals["rejects"].items():
        lines.append(f"left out, {reason}: {count}")
        some = [each for each in manifest.rejects if each.reason == reason][:NAMES_TOLD]
        lines += [f"  {each.source} at {each.start:.2f} s: {each.detail}" for each in some]
    return [printable(line) for line in lines]


def make_card(options: dict[str, Any], sources: str, count: int) -> dict[str, Any]:
    """What decides the bytes of a data set. options: plain values; sources: a digest of the `count` films or people."""
    return {
        "format": FORMAT_VERSION,
        "svp-portrait": own_version(),
        "synthetic": DATA_VERSION,
        "options": json.loads(json.dumps(options)),  # as it will be read again
        "sources": {"count": count, "digest": sources},
    }


def own_version() -> str:
    """The version of this pack; a folder among a host's custom nodes is not installed and says it in its pyproject.toml."""
    try:
        return version("svp-portrait")
    except PackageNotFoundError:
        return re.search(r'^version = "(.+)"$', PROJECT.read_text(encoding="utf-8"), re.MULTILINE)[1]


def write_manifest(manifest: Manifest) -> None:
    """Puts `manifest.json` in its folder, complete or not at all."""
    content = {
        **manifest.card,
        "totals": manifest.totals(),
        "shards": [asdict(each) for each in manifest.shards],
        "rejects": [asdict(each) for each in manifest.rejects],
    }
    write_json(manifest.folder / FILE, content)


def open_manifest(folder: Path | str) -> Manifest:
    """The data set in a folder; a folder without one, or one of another format, raises PortraitError."""
    path = Path(folder) / FILE
    content = read_json(path)
    if content is None:
        raise PortraitError(f"{path}: there is no such file: name a folder that svp prepare has finished")
    if content.get("format") != FORMAT_VERSION:
        raise PortraitError(
            f"{path}: format {content.get('format')!r}, this version reads {FORMAT_VERSION}: prepare the data again"
        )
    try:
        shards = tuple(map(_shard_from, content.pop("shards")))
        rejects = tuple(map(_reject_from, content.pop("rejects")))
        content.pop("totals")
        _check_card(content)
    except PortraitError as error:
        raise PortraitError(f"{path}: {error}: prepare the data again") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PortraitError(f"{path}: {error} is missing or of another kind: prepare the data again") from error
    return Manifest(Path(folder), content, shards, rejects)


def _check_card(content: dict[str, Any]) -> None:
    size = content["options"]["output"]["size"]
    if type(size) is not int or not MASK_CELL <= size <= LARGEST_SIZE or size % MASK_CELL:
        raise PortraitError(
            f"options.output.size is {shown(size)}: a multiple of {MASK_CELL} to {LARGEST_SIZE} is needed"
        )
    sources = content["sources"]
    if not (isinstance(sources["digest"], str) and type(sources["count"]) is int) or "drawn" not in content["options"]:
        raise PortraitError("sources.digest, sources.count or options.drawn is missing or of another kind")


def _shard_from(values: dict[str, Any]) -> ShardEntry:
    """A shard's entry from its JSON form. Its name must not lead out of the folder."""
    name, split, size, digest = (values[each] for each in ("name", "split", "bytes", "sha256"))
    if not (isinstance(name, str) and SHARD.fullmatch(name)):
        raise PortraitError(f"shard {shown(name)}: a plain name that ends in .tar is needed")
    if (
        split not in SPLITS
        or type(size) is not int
        or size < 1
        or not (isinstance(digest, str) and HASH.fullmatch(digest))
    ):
        raise PortraitError(
            f"shard {name}: split {shown(split)}, {shown(size)} bytes and SHA-256 {shown(digest)} are those of no shard"
        )
    samples = tuple(entry_from(each, f"shard {name}", size) for each in values["samples"])
    return ShardEntry(**{**values, "samples": samples})


def _reject_from(values: dict[str, Any]) -> Reject:
    reject = Reject(**values)
    texts = all(isinstance(each, str) for each in (reject.source, reject.reason, reject.detail))
    if not texts or type(reject.start) not in (int, float):
        raise PortraitError(f"reject {shown(values)}: source, start, reason and detail are needed")
    return reject


def entry_from(values: dict[str, Any], where: str, size: int) -> SampleEntry:
    """A sample's entry from its JSON form. size: bytes of the tar that it is in, which its members cannot leave."""
    members = {name: (at, count) for name, (at, count) in values["members"].items()}
    entry = SampleEntry(**{**values, "members": members})
    if not (isinstance(entry.key, str) and KEY.fullmatch(entry.key)):
        raise PortraitError(f"{where}: sample {shown(entry.key)}: letters, digits, - and _ are needed")
    for name, (at, count) in members.items():
        places = type(at) is int and type(count) is int and tarfile.BLOCKSIZE <= at and 0 <= count
        if not places or at + count > size:
            raise PortraitError(
                f"{where}: {entry.key}.{shown(name)} has {shown(count)} bytes from {shown(at)} on, the tar has {size}"
            )
    if type(entry.frames) is not int or not 1 <= entry.frames <= MOST_FRAMES:
        raise PortraitError(f"{where}: {entry.key} has {shown(entry.frames)} frames: 1 to {MOST_FRAMES} are allowed")
    texts = isinstance(entry.identity, str) and entry.identity and isinstance(entry.group, str)
    if not texts or entry.emotion not in ("", *EMOTIONS) or entry.intensity not in INTENSITY:
        raise PortraitError(
            f"{where}: {entry.key} is of identity {shown(entry.identity)}, group {shown(entry.group)}, emotion "
            f"{shown(entry.emotion)} and intensity {shown(entry.intensity)}, which are those of no clip"
        )
    return entry


def read_json(path: Path) -> dict[str, Any] | None:
    """An object, None where there is no file."""
    if not path.is_file():
        return None
    values = json_value(path.read_bytes(), str(path))
    if not isinstance(values, dict):
        raise PortraitError(f"{path}: it holds a {type(values).__name__}: remove it and repeat the command")
    return values


def write_json(path: Path, values: dict[str, Any]) -> None:
    """An object as a file, complete or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")
