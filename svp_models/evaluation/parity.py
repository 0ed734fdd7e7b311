"""Our numbers against V-Express' own on a folder of its weights, inputs and outputs: every tensor in it is accounted for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import PortraitError

TENSORS = "io.safetensors"
NETWORK, LOOP, PROCESSING, IDENTICAL = "network", "loop", "processing", "identical"
LIMITS = {NETWORK: 1e-5, LOOP: 1e-4, PROCESSING: 1e-5, IDENTICAL: 0.0}


@dataclass(frozen=True)
class Measure:
    """One comparison. error: relative L2 error, or for kind `identical` how many values differ; None if there is nothing
    to compare with. note: what a reader has to know of it."""

    name: str
    kind: str
    error: float | None
    note: str = ""

    @property
    def missed(self) -> bool:
        return self.error is not None and not self.error <= LIMITS[self.kind]  # also where it is no number


@dataclass
class ParityFolder:
    """The files of a folder beside the weights; remembers which tensors were asked for."""

    path: Path
    tensors: dict[str, Tensor]
    extra: dict[str, Any]
    used: set[str] = field(default_factory=set)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self.tensors:
            raise PortraitError(f"{self.path / TENSORS}: {name} is missing: the folder is not complete")
        self.used.add(name)
        return self.tensors[name]

    def below(self, prefix: str) -> list[str]:
        """Names that begin so, in the file's order."""
        return [name for name in self.tensors if name.startswith(prefix)]

    def setting(self, *names: str) -> Any:
        """A value of extra_config.json."""
        value: Any = self.extra
        for name in names:
            if not isinstance(value, dict) or name not in value:
                raise PortraitError(f"{self.path / 'extra_config.json'}: {'.'.join(names)} is missing")
            value = value[name]
        return value

    def values(self, file: str) -> Any:
        """Content of a JSON file."""
        try:
            return json.loads((self.path / file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PortraitError(f"{self.path / file}: cannot be read ({error}): the folder is not complete") from error

    def pictures(self, file: str) -> dict[str, np.ndarray]:
        """Arrays of a numpy archive."""
        try:
            with np.load(self.path / file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError) as error:
            raise PortraitError(f"{self.path / file}: cannot be read ({error}): the folder is not complete") from error


def open_folder(path: Path | str) -> ParityFolder:
    """Raises PortraitError if it holds no readable reference data."""
    path = Path(path)
    if not (path / TENSORS).is_file():
        raise PortraitError(f"{path}: there is no {TENSORS}, V-Express' inputs and outputs: name a folder that has one")
    try:
        tensors = load_file(path / TENSORS)
    except (OSError, SafetensorError) as error:
        raise PortraitError(f"{path / TENSORS}: not a readable safetensors file ({error}): copy it again") from error
    folder = ParityFolder(path, {name: tensor.float() for name, tensor in tensors.items()}, {})
    folder.extra = folder.values("extra_config.json")
    return folder


def relative_error(ours: Tensor, theirs: Tensor, name: str) -> float:
    """L2 norm of the difference over that of the reference, float32."""
    if ours.shape != theirs.shape:
        raise PortraitError(f"{name}: ours has the shape {list(ours.shape)}, the reference {list(theirs.shape)}")
    apart, size = float((ours.float() - theirs).norm()), float(theirs.norm())
    return apart / size if size else (0.0 if apart == 0 else math.inf)


def compared(folder: ParityFolder, name: str, ours: Tensor, kind: str, note: str = "") -> Measure:
    """Our value of a tensor of the folder against it."""
    return Measure(name, kind, relative_error(ours, folder[name], name), note)


def largest(measures: list[Measure], kind: str) -> Measure:
    """The measure of a kind with the largest error; one that is no number counts as the largest."""
    found = [each for each in measures if each.kind == kind and each.error is not None]
    if not found:
        raise PortraitError(f"nothing of the kind '{kind}' could be compared: the folder is not complete")
    return max(found, key=lambda each: math.inf if math.isnan(each.error) else each.error)


def unused(folder: ParityFolder) -> Iterator[Measure]:
    """A missed measure for every tensor that no check asked for: a folder with more than is checked must not pass."""
    for name in folder.tensors:
        if name not in folder.used:
            yield Measure(name, IDENTICAL, math.inf, "no check knows this tensor")
