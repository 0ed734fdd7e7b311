"""Our numbers against another project's own on a folder of its weights, inputs and outputs: every tensor in it is accounted for."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import PortraitError

TENSORS = "io.safetensors"
NETWORK, LOOP, MOTION_LOOP, PROCESSING, IDENTICAL = "network", "loop", "motion loop", "processing", "identical"
LIMITS = {NETWORK: 1e-5, LOOP: 1e-4, MOTION_LOOP: 1e-5, PROCESSING: 1e-5, IDENTICAL: 0.0}


@dataclass(frozen=True)
class Measure:
    """One comparison. error: relative L2 error, or for kind `identical` how many values differ; infinite where shapes differ,
    None if there is nothing to compare. note: what a reader has to know of it."""

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

    def values(self, file: str, *keys: str) -> Any:
        """Content of a JSON file; keys: those it has to have."""
        try:
            values = json.loads((self.path / file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise PortraitError(f"{self.path / file}: cannot be read ({error}): the folder is not complete") from error
        self._check_keys(values, keys, file)
        return values

    def entries(self, file: str, name: str, *keys: str) -> list[dict[str, Any]]:
        """The objects in the list of that name in a JSON file; keys: those that every object needs."""
        entries = self.values(file, name)[name]
        for entry in entries:
            self._check_keys(entry, keys, f"{file}: {name}")
        return entries

    def _check_keys(self, values: Any, keys: Sequence[str], where: str) -> None:
        for key in keys:
            if not isinstance(values, dict) or key not in values:
                raise PortraitError(f"{self.path / where}: {key} is missing: the folder is not complete")

    def images(self, file: str) -> dict[str, np.ndarray]:
        """Arrays of a numpy archive."""
        try:
            with np.load(self.path / file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise PortraitError(f"{self.path / file}: cannot be read ({error}): the folder is not complete") from error


def open_folder(path: Path | str) -> ParityFolder:
    """Raises PortraitError if it holds no readable reference data."""
    path = Path(path)
    if not (path / TENSORS).is_file():
        raise PortraitError(f"{path}: there is no {TENSORS}, V-Express' inputs and outputs: name a folder that has one")
    folder = ParityFolder(path, stored_tensors(path / TENSORS), {})
    folder.values("unet_config.json")  # read with the weights; without it they would be taken for full-size ones
    folder.extra = folder.values("extra_config.json")
    return folder


def stored_tensors(path: Path) -> dict[str, Tensor]:
    """Tensors of a safetensors file as float32."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise PortraitError(f"{path}: not a readable safetensors file ({error}): copy it again") from error
    return {name: tensor.float() for name, tensor in tensors.items()}


def check_inputs(folder: ParityFolder, wanted: Mapping[str, str], sizes: Mapping[str, int]) -> None:
    """Raises PortraitError for the first input that is missing, has a shape the networks cannot take, or is no numbers.

    wanted: name -> its axes, a number, a name in `sizes`, or a name that is the same size in all inputs of the group,
    which is what stands before the point.
    """
    bound: dict[tuple[str, str], int] = {}
    for name, axes in wanted.items():
        tensor, group = folder[name], name.split(".")[0]
        needed = [
            axis if axis.isdigit() else str(sizes.get(axis, bound.get((group, axis), axis))) for axis in axes.split()
        ]
        have = list(tensor.shape)
        if len(have) != len(needed) or any(
            n.isdigit() and int(n) != size for n, size in zip(needed, have, strict=True)
        ):
            raise PortraitError(
                f"{folder.path / TENSORS}: {name} has the shape {have}, [{', '.join(needed)}] is needed: files and "
                "configuration differ"
            )
        if not bool(tensor.isfinite().all()):
            raise PortraitError(f"{folder.path / TENSORS}: {name}, an input, has values that are no finite numbers")
        bound |= {(group, axis): size for axis, size in zip(axes.split(), have, strict=True)}


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """L2 norm of the difference over that of the reference, float32; infinite where the shapes differ."""
    if ours.shape != theirs.shape:
        return math.inf
    apart, size = float((ours.float() - theirs).norm()), float(theirs.norm())
    return apart / size if size else (0.0 if apart == 0 else math.inf)


def compared(folder: ParityFolder, name: str, ours: Tensor, kind: str, note: str = "") -> Measure:
    """Our value of a tensor of the folder against it."""
    return measured(name, kind, ours, folder[name], note)


def measured(name: str, kind: str, ours: Tensor, theirs: Tensor, note: str = "") -> Measure:
    """The relative error of ours."""
    if ours.shape != theirs.shape:
        note = f"ours has the shape {list(ours.shape)}, the reference {list(theirs.shape)}"
    return Measure(name, kind, relative_error(ours, theirs), note)


def largest(measures: list[Measure], kind: str) -> Measure:
    """The measure of a kind with the largest error; one that is no number counts as the largest."""
    found = [(measure, measure.error) for measure in measures if measure.kind == kind and measure.error is not None]
    if not found:
        raise PortraitError(f"nothing of the kind '{kind}' could be compared: the folder is not complete")
    return max(found, key=lambda pair: math.inf if math.isnan(pair[1]) else pair[1])[0]


def remaining(folder: ParityFolder, measures: Sequence[Measure]) -> Iterator[Measure]:
    """A measure for every tensor that has none yet: of an input without an error, of one that no check asked for a missed
    one, because a folder with more than is checked must not pass."""
    having = {measure.name for measure in measures}
    for name in folder.tensors:
        if name not in folder.used:
            yield Measure(name, IDENTICAL, math.inf, "no check knows this tensor")
        elif name not in having:
            yield Measure(name, IDENTICAL, None, "input")
