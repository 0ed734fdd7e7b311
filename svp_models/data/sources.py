"""The videos of a folder, and what their paths say about them: the layouts of MEAD and HDTF, and plain folders.

| layout    | path                                            | identity       | emotion, intensity | group             |
|-----------|-------------------------------------------------|----------------|--------------------|-------------------|
| `mead`    | `M003/video/front/angry/level_1/001.mp4`        | M003           | angry, 1           | the file          |
| `hdtf`    | `WDA_JimMcGovern1_000.mp4`, `RD/Radio10_0.mp4`  | JimMcGovern    | unknown            | the source video  |
| `folders` | `anna/talk.mp4`, or `talk.mp4` in a flat folder | anna, or talk  | unknown            | the file          |

MEAD has the audio beside the videos (`M003/audio/angry/level_1/001.m4a`); it is used where the video itself is silent. HDTF's
names end in the number of a person's video and the number of the clip from it. Its videos `Radio1`, `Radio2`, ... do not name
the speaker: each counts as a person of its own, but all of them are in the same split, since several may show one person.
"""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from ..errors import PortraitError
from ..face.crop import Square
from ..synthetic.performance import EMOTIONS
from .schema import Skipped, VideoOptions

VIDEO_EXTENSIONS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
AUDIO_EXTENSIONS = (".m4a", ".wav", ".mp3", ".aac", ".flac")
MEAD = re.compile(r"(?:^|.*/)([MW]\d{3})/video/([a-z]+(?:_\d+)?)/([a-z]+)/level_([123])/([^/]+)\.\w+")
HDTF = re.compile(r"(?:(RD|WDA|WRA)_)?(.+?)(\d*)_(\d+)(?:_cfr\d+)?")
HDTF_FOLDERS = ("RD", "WDA", "WRA")
MAX_NAMES = 2_000_000  # files and folders below one that is named: more than any collection of videos
MAX_FOLDERS, MAX_WATCHED = 1000, 20_000  # that are checked for changes
NAMELESS = "Radio"  # HDTF's videos whose names number them and do not name the speaker
HASH_BYTES = 6


@dataclass(frozen=True)
class Source:
    """A video. id: 12 hex digits of its path; path: relative to the folder, with slashes; split_key: people with the same key
    are in the same split, mostly the identity; audio_file: relative to the folder, "" for none."""

    id: str
    path: str
    identity: str
    split_key: str
    split: str
    group: str
    emotion: str = ""
    intensity: int = 0
    audio_file: str = ""

    @property
    def digest_text(self) -> str:
        """The text that enters a data set's digest, as in version 0.1.0."""
        names = {"split_key": "kin", "audio_file": "sound"}
        return f"Source({', '.join(f'{names.get(name, name)}={value!r}' for name, value in vars(self).items())})"

    @property
    def title(self) -> str:
        """The path as text."""
        return readable(self.path)


def find_sources(
    root: Path, options: VideoOptions, check_stop: Callable[[], None] = lambda: None
) -> tuple[list[Source], list[Skipped]]:
    """The videos below a folder in the order of their paths; and those that cannot be read or do not fit the layout.

    check_stop: called for each folder that is searched; it may raise to stop.
    """
    if not root.is_dir():
        raise PortraitError(f"{root}: there is no such folder: name the folder that holds the videos")
    paths, skipped = _video_files(root, check_stop)
    if not paths:
        first = f"; {skipped[0].source}: {skipped[0].detail}" if skipped else ""
        raise PortraitError(
            f"{root}: it holds no video ({', '.join(VIDEO_EXTENSIONS)}{first}): name the folder that does"
        )
    layout = layout_of(paths) if options.layout == "auto" else options.layout
    read = {"mead": _mead, "hdtf": _hdtf, "folders": _folders}[layout]
    sources = []
    for path in paths:
        found = read(root, path, options)
        if found is None:
            skipped.append(Skipped(readable(path), 0.0, "outside the layout", f"not named as videos of {layout} are"))
        elif layout != "mead" or ((name := MEAD.fullmatch(path)) and name[2] in options.views):
            sources.append(found)
    if not sources:
        raise PortraitError(
            f"{root}: none of its {len(paths)} videos is named as those of layout {layout} are (views "
            f"{', '.join(options.views)}): choose another --layout or --views"
        )
    _check_ids(sources)
    return _split(sources, options), skipped


def layout_of(paths: list[str]) -> str:
    """The layout of relative paths: mead if any is MEAD's, hdtf if all that is there is named as HDTF's, else folders."""
    if any(MEAD.fullmatch(path) for path in paths):
        return "mead"
    return "hdtf" if all(_hdtf_name(path) for path in paths) else "folders"


def readable(path: str) -> str:
    """A path as text: bytes of it that are no UTF-8, which a file's name may have, as \\x and two digits."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def newest_change(root: Path) -> float:
    """When videos were last added or removed below a folder: the newest of the folders' times. At most MAX_FOLDERS of them, those
    nearest to the root first, and MAX_WATCHED names are checked."""
    newest, names, waiting = 0.0, 0, deque([os.fspath(root)])
    seen: set[tuple[int, int]] = set()
    while waiting and len(seen) < MAX_FOLDERS and names < MAX_WATCHED:
        folder = waiting.popleft()
        with suppress(OSError):  # gone, or not to be read
            about = os.stat(folder)
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            newest = max(newest, about.st_mtime)
            with os.scandir(folder) as entries:
                for entry in islice(entries, MAX_WATCHED - names):
                    names += 1
                    if not entry.name.startswith(".") and entry.is_dir():
                        waiting.append(entry.path)
    return newest


def id_of(path: str) -> str:
    """12 hex digits of a path."""
    return blake2b(path.encode("utf-8", "surrogateescape"), digest_size=HASH_BYTES).hexdigest()


def in_test(split_key: str, share: float) -> bool:
    """Whether a split key is in the test split: a hash of it decides, so that more data never moves anyone."""
    return int.from_bytes(blake2b(split_key.encode(), digest_size=8).digest(), "big") < share * 2**64


def _video_files(root: Path, check_stop: Callable[[], None]) -> tuple[list[str], list[Skipped]]:
    """The video files that can be read, in order, and those that cannot."""
    found: list[str] = []
    walked: set[str] = set()
    closed: list[OSError] = []
    names_seen = 0
    for folder, below, names in os.walk(root, followlinks=True, onerror=closed.append):
        check_stop()
        real = os.path.realpath(folder)
        if real in walked:  # a link back up, or a second one to the same folder
            below.clear()
            continue
        walked.add(real)
        names_seen += len(names) + len(below)
        if names_seen > MAX_NAMES:
            raise PortraitError(
                f"{root}: it holds more than {MAX_NAMES} files and folders: name the folder of the videos"
            )
        below[:] = sorted(name for name in below if not name.startswith("."))
        inside = Path(folder).relative_to(root)
        videos = [name for name in names if name.lower().endswith(VIDEO_EXTENSIONS) and not name.startswith(".")]
        found += [(inside / name).as_posix() for name in videos]
    problems = {path: problem for path in found if (problem := _problem(root / path))}
    problems |= {os.path.relpath(error.filename, root): f"a folder: {error.strerror}" for error in closed}
    skipped = [Skipped(readable(path), 0.0, "unreadable", problem) for path, problem in sorted(problems.items())]
    return sorted(path for path in found if path not in problems), skipped


def _problem(path: Path) -> str:
    """Why a file cannot be read, "" if it can."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "not a file"
    except OSError as error:
        return f"a link to nothing ({error.strerror})" if path.is_symlink() else str(error.strerror)
    return "" if os.access(path, os.R_OK) else "it may not be read"


def _mead(root: Path, path: str, options: VideoOptions) -> Source | None:
    found = MEAD.fullmatch(path)
    if found is None or found[3] not in EMOTIONS:
        return None
    identity, emotion, level, take = found[1], found[3], found[4], found[5]
    actor = path[: found.end(1)]
    audio_files = [f"{actor}/audio/{emotion}/level_{level}/{take}{ending}" for ending in AUDIO_EXTENSIONS]
    audio_file = next((path for path in audio_files if (root / path).is_file()), "")
    return Source(id_of(path), path, identity, identity, "", id_of(path), emotion, int(level), audio_file)


def _hdtf_name(path: str) -> re.Match[str] | None:
    found = HDTF.fullmatch(Path(path).stem)
    return found if found and (found[1] or Path(path).parent.name in HDTF_FOLDERS) else None


def _hdtf(root: Path, path: str, options: VideoOptions) -> Source | None:
    found = _hdtf_name(path)
    if found is None:
        return None
    name, video = readable(found[2]), readable(found[2] + found[3])
    identity = video if name == NAMELESS else name
    return Source(id_of(path), path, identity, name, "", video)


def _folders(root: Path, path: str, options: VideoOptions) -> Source | None:
    identity = readable(path.split("/")[0] if "/" in path else Path(path).stem)
    return Source(id_of(path), path, identity, identity, "", id_of(path))


def _split(sources: list[Source], options: VideoOptions) -> list[Source]:
    known = {source.identity for source in sources}
    missing = sorted(set(options.test_identities) - known)
    if missing:
        raise PortraitError(
            f"--test-identities names {', '.join(missing[:5])}, who is not among the {len(known)} identities "
            f"({', '.join(sorted(known)[:8])}, ...)"
        )
    named = {source.split_key for source in sources if source.identity in options.test_identities}
    chosen = (
        named
        if options.test_identities
        else {source.split_key for source in sources if in_test(source.split_key, options.test_share)}
    )
    return [replace(source, split="test" if source.split_key in chosen else "train") for source in sources]


def _check_ids(sources: list[Source]) -> None:
    seen: dict[str, str] = {}
    for source in sources:
        if source.id in seen:
            raise PortraitError(
                f"{seen[source.id]} and {source.path} have the same hash {source.id}: rename one of them"
            )
        seen[source.id] = source.path


def outside_share(square: Square, width: int, height: int) -> float:
    """Share of the square's area that lies outside the frame."""
    left, top, right, bottom = square.within(width, height)
    return 1 - max(0, right - left) / square.side * (max(0, bottom - top) / square.side)
