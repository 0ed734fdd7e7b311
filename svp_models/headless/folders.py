"""Where the headless nodes read and write: the host's input, output and temp folders and its naming of files."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

from ..errors import PortraitError

_MARKED = re.compile(r"^(?P<name>.*?)\s*\[(?P<folder>input|output|temp)\]$")


@dataclass(frozen=True)
class Folders:
    """The three folders of the host; all absolute."""

    input: Path
    output: Path
    temp: Path

    def of(self, kind: str) -> Path:
        return {"input": self.input, "output": self.output, "temp": self.temp}[kind]

    def find(self, name: str) -> Path:
        """The file a load node names: below input, `name [output]` and `name [temp]` below those, or any path."""
        marked = _MARKED.match(name)
        if marked:
            return self.of(marked["folder"]) / marked["name"]
        inside = self.input / name  # an absolute name stays as it is
        return inside if inside.exists() else Path(name).absolute()

    def has(self, name: str) -> bool:
        return self.find(name).is_file()

    def save_target(self, prefix: str, width: int, height: int, kind: str = "output") -> SaveTarget:
        """The next free number for `prefix`, which may have subfolders and %date% fields but stays in the folder."""
        folder = self.of(kind).resolve()
        prefix = os.path.normpath(_fill_fields(prefix, width, height))
        target = (folder / prefix).resolve()
        if not target.name or target == folder or not target.parent.is_relative_to(folder):
            raise PortraitError(
                f"file prefix {prefix!r} leads outside the {kind} folder {folder}: use a name inside it"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        numbered = re.compile(re.escape(target.name) + r"_(\d+)_?(?:\.|$)", re.IGNORECASE)
        taken = [int(found[1]) for each in target.parent.iterdir() if (found := numbered.match(each.name))]
        subfolder = target.parent.relative_to(folder).as_posix()
        return SaveTarget(
            target.parent, target.name, max(taken, default=0) + 1, "" if subfolder == "." else subfolder, kind
        )


@dataclass(frozen=True)
class SaveTarget:
    """A numbered name: folder/stem_00001_.suffix, counting from `counter`."""

    folder: Path
    stem: str
    counter: int
    subfolder: str
    kind: str

    def path(self, suffix: str, index: int = 0) -> Path:
        return self.folder / f"{self.stem}_{self.counter + index:05}_.{suffix}"

    def saved(self, path: Path) -> dict[str, str]:
        """What a node's ui says of a file written here."""
        return {"filename": path.name, "subfolder": self.subfolder, "type": self.kind}


def _fill_fields(prefix: str, width: int, height: int) -> str:
    now = time.localtime()
    fields = {
        "width": width,
        "height": height,
        "year": now.tm_year,
        "month": f"{now.tm_mon:02}",
        "day": f"{now.tm_mday:02}",
        "hour": f"{now.tm_hour:02}",
        "minute": f"{now.tm_min:02}",
        "second": f"{now.tm_sec:02}",
    }
    for name, value in fields.items():
        prefix = prefix.replace(f"%{name}%", str(value))
    return prefix
