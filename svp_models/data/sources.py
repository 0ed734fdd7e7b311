"""The films of a folder, and what their places say of them: MEAD's and HDTF's layouts, and plain folders.

| layout    | path                                            | identity       | emotion, intensity | group            |
|-----------|-------------------------------------------------|----------------|--------------------|------------------|
| `mead`    | `M003/video/front/angry/level_1/001.mp4`        | M003           | angry, 1           | the file         |
| `hdtf`    | `WDA_JimMcGovern1_000.mp4`, `RD/Radio10_0.mp4`  | JimMcGovern    | not known          | the clip's film  |
| `folders` | `anna/talk.mp4`, or `talk.mp4` in a flat folder | anna, or talk  | not known          | the file         |

MEAD keeps the sound beside the films (`M003/audio/angry/level_1/001.m4a`); it is taken where the film itself is silent. HDTF's
names end in the number of a person's film and the number of the clip from it. Its films `Radio1`, `Radio2`, ... do not say who
speaks: each counts as a person of its own, but all of them are in the same split, since several may show one person.

Which squares of a film (see `face.crop`) are good enough to learn from.
"""

from __future__ import annotations

import os
import re
import stat
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path

from ..errors import PortraitError
from ..face.crop import Square
from ..synthetic.performance import EMOTIONS
from .schema import FilmOptions, Reject

VIDEO_ENDINGS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".wmv", ".flv")
SOUND_ENDINGS = (".m4a", ".wav", ".mp3", ".aac", ".flac")
MEAD = re.compile(r"(?:^|.*/)([MW]\d{3})/video/([a-z]+(?:_\d+)?)/([a-z]+)/level_([123])/([^/]+)\.\w+")
HDTF = re.compile(r"(?:(RD|WDA|WRA)_)?(.+?)(\d*)_(\d+)(?:_cfr\d+)?")
HDTF_FOLDERS = ("RD", "WDA", "WRA")
MOST_NAMES = 2_000_000  # files and folders below one that is named: more than any collection of films has
MOST_FOLDERS, MOST_WATCHED = 1000, 20_000  # that are looked at for changes
NAMELESS = "Radio"  # HDTF's films whose names number them and do not say who speaks
HASH_BYTES = 6


@dataclass(frozen=True)
class Source:
    """A film. id: 12 hex digits of its path; path: relative to the folder, with slashes; kin: whoever of one kin is put in
    the same split, mostly the identity alone; sound: a sound file relative to the folder, "" for none."""

    id: str
    path: str
    identity: str
    kin: str
    split: str
    group: str
    emotion: str = ""
    intensity: int = 0
    sound: str = ""

    @property
    def title(self) -> str:
        """The path as text."""
        return readable(self.path)


def find_sources(
    root: Path, options: FilmOptions, look: Callable[[], None] = lambda: None
) -> tuple[list[Source], list[Reject]]:
    """The films below a folder in the order of their paths; and those that cannot be read or that a layout has no place for.

    look: called for each folder that is looked into; it may raise to stop.
    """
    if not root.is_dir():
        raise PortraitError(f"{root}: there is no such folder: name the folder that holds the films")
    paths, rejects = _films(root, look)
    if not paths:
        first = f"; {rejects[0].source}: {rejects[0].detail}" if rejects else ""
        raise PortraitError(f"{root}: it holds no film ({', '.join(VIDEO_ENDINGS)}{first}): name the folder that does")
    layout = layout_of(paths) if options.layout == "auto" else options.layout
    read = {"mead": _mead, "hdtf": _hdtf, "folders": _folders}[layout]
    sources = []
    for path in paths:
        found = read(root, path, options)
        if found is None:
            rejects.append(Reject(readable(path), 0.0, "outside the layout", f"not named as films of {layout} are"))
        elif layout != "mead" or MEAD.fullmatch(path)[2] in options.views:
            sources.append(found)
    if not sources:
        raise PortraitError(
            f"{root}: none of its {len(paths)} films is named as those of layout {layout} are (views "
            f"{', '.join(options.views)}): choose another --layout or --views"
        )
    _check_ids(sources)
    return _split(sources, options), rejects


def layout_of(paths: list[str]) -> str:
    """The layout of relative paths: mead if any is MEAD's, hdtf if all that is there is named as HDTF's, else folders."""
    if any(MEAD.fullmatch(each) for each in paths):
        return "mead"
    return "hdtf" if all(_hdtf_name(each) for each in paths) else "folders"


def readable(path: str) -> str:
    """A path as text: bytes of it that are no UTF-8, which a file's name may have, as \\x and two digits."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def newest_change(root: Path) -> float:
    """When films last came or went below a folder: the newest of the folders' times. No more than MOST_FOLDERS of them, those
    nearest to the root first, and MOST_WATCHED names are looked at."""
    newest, names, seen, waiting = 0.0, 0, set(), deque([os.fspath(root)])
    while waiting and len(seen) < MOST_FOLDERS and names < MOST_WATCHED:
        folder = waiting.popleft()
        with suppress(OSError):  # gone, or not to be read
            about = os.stat(folder)
            if (about.st_dev, about.st_ino) in seen:
                continue
            seen.add((about.st_dev, about.st_ino))
            newest = max(newest, about.st_mtime)
            with os.scandir(folder) as entries:
                for entry in islice(entries, MOST_WATCHED - names):
                    names += 1
                    if not entry.name.startswith(".") and entry.is_dir():
                        waiting.append(entry.path)
    return newest


def id_of(path: str) -> str:
    """12 hex digits of a path."""
    return blake2b(path.encode("utf-8", "surrogateescape"), digest_size=HASH_BYTES).hexdigest()


def in_test(kin: str, share: float) -> bool:
    """Whether a kin is in the test split: its name decides, so that more data never moves anybody."""
    return int.from_bytes(blake2b(kin.encode(), digest_size=8).digest(), "big") < share * 2**64


def _films(root: Path, look: Callable[[], None]) -> tuple[list[str], list[Reject]]:
    """The films that can be read, in order, and those that cannot."""
    found, walked, names_seen, closed = [], set(), 0, []
    for folder, below, names in os.walk(root, followlinks=True, onerror=closed.append):
        look()
        real = os.path.realpath(folder)
        if real in walked:  # a link back up, or a second one to the same folder
            below.clear()
            continue
        walked.add(real)
        names_seen += len(names) + len(below)
        if names_seen > MOST_NAMES:
            raise PortraitError(
                f"{root}: it holds more than {MOST_NAMES} files and folders: name the folder of the films"
            )
        below[:] = sorted(each for each in below if not each.startswith("."))
        inside = Path(folder).relative_to(root)
        films = [each for each in names if each.lower().endswith(VIDEO_ENDINGS) and not each.startswith(".")]
        found += [(inside / each).as_posix() for each in films]
    problems = {path: problem for path in found if (problem := _problem(root / path))}
    problems |= {os.path.relpath(error.filename, root): f"a folder: {error.strerror}" for error in closed}
    rejects = [Reject(readable(path), 0.0, "unreadable", problem) for path, problem in sorted(problems.items())]
    return sorted(path for path in found if path not in problems), rejects


def _problem(path: Path) -> str:
    """Why a file cannot be read, "" if it can."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return "not a file"
    except OSError as error:
        return f"a link to nothing ({error.strerror})" if path.is_symlink() else str(error.strerror)
    return "" if os.access(path, os.R_OK) else "it may not be read"


def _mead(root: Path, path: str, options: FilmOptions) -> Source | None:
    found = MEAD.fullmatch(path)
    if found is None or found[3] not in EMOTIONS:
        return None
    who, emotion, level, take = found[1], found[3], found[4], found[5]
    actor = path[: found.end(1)]
    sounds = [f"{actor}/audio/{emotion}/level_{level}/{take}{ending}" for ending in SOUND_ENDINGS]
    sound = next((each for each in sounds if (root / each).is_file()), "")
    return Source(id_of(path), path, who, who, "", id_of(path), emotion, int(level), sound)


def _hdtf_name(path: str) -> re.Match[str] | None:
    found = HDTF.fullmatch(Path(path).stem)
    return found if found and (found[1] or Path(path).parent.name in HDTF_FOLDERS) else None


def _hdtf(root: Path, path: str, options: FilmOptions) -> Source | None:
    found = _hdtf_name(path)
    if found is None:
        return None
    name, film = readable(found[2]), readable(found[2] + found[3])
    identity = film if name == NAMELESS else name
    return Source(id_of(path), path, identity, name, "", film)


def _folders(root: Path, path: str, options: FilmOptions) -> Source | None:
    identity = readable(path.split("/")[0] if "/" in path else Path(path).stem)
    return Source(id_of(path), path, identity, identity, "", id_of(path))


def _split(sources: list[Source], options: FilmOptions) -> list[Source]:
    known = {each.identity for each in sources}
    strangers = sorted(set(options.test_identities) - known)
    if strangers:
        raise PortraitError(
            f"--test-identities names {', '.join(strangers[:5])}, who is not among the {len(known)} identities "
            f"({', '.join(sorted(known)[:8])}, ...)"
        )
    named = {each.kin for each in sources if each.identity in options.test_identities}
    chosen = (
        named if options.test_identities else {each.kin for each in sources if in_test(each.kin, options.test_share)}
    )
    return [
        Source(**{**vars(each), "split": "test" if each.kin in chosen else "train"})  # a frozen copy
        for each in sources
    ]


def _check_ids(sources: list[Source]) -> None:
    seen: dict[str, str] = {}
    for each in sources:
        if each.id in seen:
            raise PortraitError(f"{seen[each.id]} and {each.path} have the same hash {each.id}: rename one of them")
        seen[each.id] = each.path


MOST_OUTSIDE = 1 / 3  # of the square's area


def outside_share(square: Square, width: int, height: int) -> float:
    """Share of the square's area that lies outside of the picture."""
    left, top, right, bottom = square.within(width, height)
    return 1 - max(0, right - left) / square.side * (max(0, bottom - top) / square.side)
