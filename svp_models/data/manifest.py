"""`manifest.json`: what the shards of a data set hold and where, so that any member is read with one seek."""

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
from ..synthetic.clips import DATA_VERSIONS
from ..synthetic.performance import EMOTIONS
from ..synthetic.speakers import SPLITS
from ..types import LIVEPORTRAIT, SVP
from .schema import FORMAT_VERSION, FPS, MASK_CELL, MAX_FRAMES, MAX_SIZE, MOTION, ClipLimits, Skipped

FILE = "manifest.json"
SHOWN_SKIPPED = 5  # of each reason in a summary
# Keys of earlier versions, in manifests, unfinished preparations and the runs of the training nodes.
ALIASES = {"rejects": "skipped", "films": "videos", "drawn": "synthetic"}
SHARD = re.compile(r"\w[\w.-]*\.tar", re.ASCII)
KEY = re.compile(r"[\w-]+", re.ASCII)
HASH = re.compile(r"[0-9a-f]{64}")
INTENSITY = (0, 1, 2, 3)
PROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"


@dataclass(frozen=True)
class SampleEntry:
    """A clip and its members: extension -> (first byte in the tar, number of bytes)."""

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
    """A finished data set in `folder`. metadata: the versions and options that made it, see `make_metadata`."""

    folder: Path
    metadata: dict[str, Any]
    shards: tuple[ShardEntry, ...]
    skipped: tuple[Skipped, ...] = field(default=())

    def samples(self, split: str | None = None) -> list[tuple[ShardEntry, SampleEntry]]:
        """Every clip (of a split) with its shard, in the order of the shards."""
        return [(shard, sample) for shard in self.shards if split in (None, shard.split) for sample in shard.samples]

    def totals(self) -> dict[str, Any]:
        """Clips, hours and people: in all, by split, identity and emotion; and what was skipped, by reason."""
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
        for name, of_split in by_split.items():
            of_split["identities"] = len(of_split["identities"])
            of_split["hours"] = round(frames[name] / FPS / 3600, 4)
        return {
            "samples": sum(by_emotion.values()),
            "frames": sum(frames.values()),
            "hours": round(sum(frames.values()) / FPS / 3600, 4),
            "by_split": by_split,
            "by_identity": dict(sorted(by_identity.items())),
            "by_emotion": dict(sorted(by_emotion.items())),
            "skipped": dict(Counter(item.reason for item in self.skipped).most_common()),
        }


def summary(manifest: Manifest) -> list[str]:
    """Readable lines: what a data set holds, and what was skipped and why."""
    totals = manifest.totals()
    lines = [f"{totals['samples']} clips, {totals['hours']:.2f} h, {len(manifest.shards)} shards"]
    if manifest.metadata["options"]["synthetic"] is None:
        lines.append(f"videos found: {manifest.metadata['sources']['count']}")
    if any(MOTION in sample.members for _, sample in manifest.samples()):
        lines.append(f"motions: in the space {LIVEPORTRAIT}")
    for split, found in totals["by_split"].items():
        lines.append(f"{split}: {found['samples']} clips, {found['hours']:.2f} h, {found['identities']} people")
    lines += [f"{emotion}: {count} clips" for emotion, count in totals["by_emotion"].items() if emotion]
    for reason, count in totals["skipped"].items():
        lines.append(f"skipped, {reason}: {count}")
        some = [item for item in manifest.skipped if item.reason == reason][:SHOWN_SKIPPED]
        lines += [f"  {item.source} at {item.start:.2f} s: {item.detail}" for item in some]
    return [printable(line) for line in lines]


def make_metadata(options: dict[str, Any], sources: str, count: int) -> dict[str, Any]:
    """Everything that decides the bytes of a data set. options: plain values; sources: a digest of the `count` videos or people."""
    return {
        "format": FORMAT_VERSION,
        "svp-portrait": own_version(),
        "synthetic": DATA_VERSIONS[(options.get("synthetic") or {}).get("version", 1)],
        "options": json.loads(json.dumps(options)),  # as it will be read again
        "sources": {"count": count, "digest": sources},
    }


def own_version() -> str:
    """The version of this pack; one that is a folder of custom nodes is not installed and has it in its pyproject.toml."""
    try:
        return version("svp-portrait")
    except PackageNotFoundError:
        found = re.search(r'^version = "(.+)"$', PROJECT.read_text(encoding="utf-8"), re.MULTILINE)
        return found[1] if found else "unknown"


def write_manifest(manifest: Manifest) -> None:
    """Writes `manifest.json` into its folder, complete or not at all."""
    content = {
        **manifest.metadata,
        "totals": manifest.totals(),
        "shards": [asdict(shard) for shard in manifest.shards],
        "skipped": [asdict(item) for item in manifest.skipped],
    }
    write_json(manifest.folder / FILE, content)


def open_manifest(folder: Path | str) -> Manifest:
    """The data set in a folder; a folder without one, or one of another format, raises PortraitError."""
    path = Path(folder) / FILE
    content = read_record(path)
    if content is None:
        raise PortraitError(f"{path}: there is no such file: name a folder that svp prepare has finished")
    if content.get("format") != FORMAT_VERSION:
        raise PortraitError(
            f"{path}: format {content.get('format')!r}, this version reads {FORMAT_VERSION}: prepare the data again"
        )
    try:
        shards = tuple(map(_shard_from, content.pop("shards")))
        skipped = tuple(map(_skipped_from, content.pop("skipped")))
        content.pop("totals")
        _check_metadata(content)
    except PortraitError as error:
        raise PortraitError(f"{path}: {error}: prepare the data again") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PortraitError(f"{path}: {error} is missing or of another kind: prepare the data again") from error
    return Manifest(Path(folder), content, shards, skipped)


def _check_metadata(content: dict[str, Any]) -> None:
    size = content["options"]["output"]["size"]
    if type(size) is not int or not MASK_CELL <= size <= MAX_SIZE or size % MASK_CELL:
        raise PortraitError(f"options.output.size is {shown(size)}: a multiple of {MASK_CELL} to {MAX_SIZE} is needed")
    sources = content["sources"]
    if (
        not (isinstance(sources["digest"], str) and type(sources["count"]) is int)
        or "synthetic" not in content["options"]
    ):
        raise PortraitError("sources.digest, sources.count or options.synthetic is missing or of another kind")


def _shard_from(values: dict[str, Any]) -> ShardEntry:
    """A shard's entry from its JSON form. Its name must not lead out of the folder."""
    name, split, size, digest = (values[key] for key in ("name", "split", "bytes", "sha256"))
    if not (isinstance(name, str) and SHARD.fullmatch(name)):
        raise PortraitError(f"shard {shown(name)}: a plain name that ends in .tar is needed")
    if (
        split not in SPLITS
        or type(size) is not int
        or size < 1
        or not (isinstance(digest, str) and HASH.fullmatch(digest))
    ):
        raise PortraitError(
            f"shard {name}: split {shown(split)}, {shown(size)} bytes and SHA-256 {shown(digest)} belong to no shard"
        )
    samples = tuple(entry_from(entry, f"shard {name}", size) for entry in values["samples"])
    return ShardEntry(**{**values, "samples": samples})


def _skipped_from(values: dict[str, Any]) -> Skipped:
    skipped = Skipped(**values)
    texts = all(isinstance(text, str) for text in (skipped.source, skipped.reason, skipped.detail))
    if not texts or type(skipped.start) not in (int, float):
        raise PortraitError(f"skipped {shown(values)}: source, start, reason and detail are needed")
    return skipped


def entry_from(values: dict[str, Any], where: str, size: int) -> SampleEntry:
    """A sample's entry from its JSON form. size: bytes of its tar, which contains its members."""
    members = {name: (at, count) for name, (at, count) in values["members"].items()}
    entry = SampleEntry(**{**values, "members": members})
    if not (isinstance(entry.key, str) and KEY.fullmatch(entry.key)):
        raise PortraitError(f"{where}: sample {shown(entry.key)}: letters, digits, - and _ are needed")
    for name, (at, count) in members.items():
        valid = type(at) is int and type(count) is int and tarfile.BLOCKSIZE <= at and 0 <= count
        if not valid or at + count > size:
            raise PortraitError(
                f"{where}: {entry.key}.{shown(name)} has {shown(count)} bytes from {shown(at)} on, the tar has {size}"
            )
    if type(entry.frames) is not int or not 1 <= entry.frames <= MAX_FRAMES:
        raise PortraitError(f"{where}: {entry.key} has {shown(entry.frames)} frames: 1 to {MAX_FRAMES} are allowed")
    texts = isinstance(entry.identity, str) and entry.identity and isinstance(entry.group, str)
    if not texts or entry.emotion not in ("", *EMOTIONS) or entry.intensity not in INTENSITY:
        raise PortraitError(
            f"{where}: {entry.key} is of identity {shown(entry.identity)}, group {shown(entry.group)}, emotion "
            f"{shown(entry.emotion)} and intensity {shown(entry.intensity)}, which are not valid"
        )
    return entry


def read_record(path: Path) -> dict[str, Any] | None:
    """A manifest, the metadata of an unfinished preparation or the result of a job; None where there is no file."""
    content = read_json(path)
    return None if content is None else current_metadata(content)


def current_metadata(content: dict[str, Any]) -> dict[str, Any]:
    """A record of any version with the present keys: those of ALIASES are renamed, missing limits and versions get their defaults."""
    content = {ALIASES.get(key, key): value for key, value in content.items()}
    if isinstance(content.get("options"), dict):
        options = {ALIASES.get(key, key): value for key, value in content["options"].items()}
        if isinstance(options.get("videos"), dict):
            added = {"limits": asdict(ClipLimits()), "space": SVP}  # by later versions
            options["videos"] = {
                **options["videos"],
                **{name: options["videos"].get(name, value) for name, value in added.items()},
            }
        if isinstance(options.get("synthetic"), dict):
            options["synthetic"] = {"version": 1, **options["synthetic"]}
        content["options"] = options
    return content


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
