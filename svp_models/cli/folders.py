"""The host's input, output and temp folders for the command line, and its names of saved files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PortraitError
from ..io.file_names import fill_fields, prefix_problem
from ..io.files import clear_leftovers, reserved_file

_ANNOTATED = re.compile(r"^(?P<name>.*?)\s*\[(?P<folder>input|output|temp)\]$")


@dataclass(frozen=True)
class Folders:
    """The three folders of the host, absolute. earlier: the output folder of other runs, also searched for models."""

    input: Path
    output: Path
    temp: Path
    earlier: Path | None = None

    def of(self, kind: str) -> Path:
        return {"input": self.input, "output": self.output, "temp": self.temp}[kind]

    def find(self, name: str) -> Path:
        """The file for a name in a load node: below input; below output or temp for `name [output]` or `name [temp]`; or a path."""
        annotated = _ANNOTATED.match(name)
        if annotated:
            return self.of(annotated["folder"]) / annotated["name"]
        inside = self.input / name  # an absolute name stays as it is
        return inside if inside.exists() else Path(name).absolute()

    def has(self, name: str) -> bool:
        try:
            return self.find(name).is_file()
        except (OSError, ValueError):  # not a valid file name
            return False

    def prefix_problem(self, prefix: str | None) -> bool | str:
        """For a save node's `validate_inputs`: True, or the problem of the prefix. None: an input that is not known yet."""
        return True if prefix is None else prefix_problem(self.output, prefix) or True

    def save_target(self, prefix: str, width: int, height: int, kind: str = "output") -> SaveTarget:
        """The next free number for `prefix`, which may have subfolders and %date% fields but stays in the folder."""
        folder = self.of(kind).resolve()
        if problem := prefix_problem(folder, prefix):
            raise PortraitError(problem)
        target = (folder / os.path.normpath(fill_fields(prefix, width, height))).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(target.parent)
        numbered = re.compile(re.escape(target.name) + r"_(\d+)_?(?:\.|$)", re.IGNORECASE)
        taken = [int(found[1]) for path in target.parent.iterdir() if (found := numbered.match(path.name))]
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

    def reserved(self, suffix: str, index: int = 0) -> AbstractContextManager[Path]:
        """Reserves the path of a new file, see `reserved_file`. index: of a file among several that are saved together."""
        return reserved_file(self.folder, self.stem, suffix, self.counter + index, clear=False)

    def saved(self, path: Path) -> dict[str, str]:
        """The entry of a saved file in a node's ui."""
        return {"filename": path.name, "subfolder": self.subfolder, "type": self.kind}


# Prepares the pack's nodes with folders and a progress callback (done, total), and returns the node classes.
OpenNodes = Callable[[Folders, Callable[[int, int], None]], Iterable[Any]]
