"""Small values in files: what nodes that save and load them share."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..svp_models.errors import PortraitError
from . import host
from .host import io

FROM_INPUT = "(from the file input)"
SAFETENSORS = (".safetensors",)


@dataclass(frozen=True)
class SavedKind:
    """A kind of value in files. name: of the input that lists the files; folder: below `models` and `output`, and of the entry
    for the interface; save, load: titles of its two nodes; unchosen: the message without a file; suffixes: of files that are
    listed."""

    name: str
    folder: str
    save: str
    load: str
    unchosen: str
    suffixes: tuple[str, ...] = SAFETENSORS

    def prefix_input(self) -> Any:
        """Of the node that saves: where to."""
        return io.String.Input(
            "filename_prefix",
            default=f"{self.folder}/{self.name}",
            tooltip=f"Name in the output folder; a number is added. {self.load} lists what lies in {self.folder}/.",
        )

    def file_output(self) -> Any:
        """Of the node that saves: what it has written."""
        return io.String.Output("file", tooltip=f"The file, for {self.load}.")

    def file_inputs(self) -> list[Any]:
        """Of the node that loads: a list of files, and one from the node that saves."""
        return [
            io.Combo.Input(
                self.name,
                options=[FROM_INPUT, *host.list_files(self.folder, self.suffixes)],
                default=FROM_INPUT,
                tooltip=f"A file of models/{self.folder} or output/{self.folder}.",
            ),
            io.String.Input(
                "file", optional=True, force_input=True, tooltip=f"A file from {self.save}, used instead of the list."
            ),
        ]

    def write(self, prefix: str, save: Callable[[str], None]) -> io.NodeOutput:
        """Saves into a new numbered file; the node's result is its name in the output folder."""
        with host.output_file(prefix, "safetensors") as (path, saved):
            save(path)
        return io.NodeOutput(os.path.join(saved["subfolder"], saved["filename"]), ui={self.folder: [saved]})

    def path(self, choice: str, file: str | None) -> str:
        """The path of the file to load: `file`, else the one chosen in the list."""
        if file is None and choice == FROM_INPUT:
            raise PortraitError(f"{self.unchosen}: choose a file in the list, or connect 'file' of {self.save}")
        return host.find_file(self.folder, choice, self.suffixes) if file is None else host.saved_file(file)

    def changed(self, choice: str, file: str | None) -> float:
        """For `fingerprint_inputs`: when the chosen file was written; a file from another node is new with that node."""
        return 0.0 if choice == FROM_INPUT or file else Path(self.path(choice, None)).stat().st_mtime
