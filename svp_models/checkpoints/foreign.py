"""Weights as others publish them: safetensors, or what torch.save wrote, read without running any code of theirs."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import PortraitError

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")  # in the order they are looked for
WRAPPERS = ("state_dict", "module", "model")  # keys under which trainers put the weights
SAFETENSORS_HEADER = 8  # bytes of a safetensors file before its JSON: the length of that
PICKLE = b"\x80"


def find_weights(folder: Path | str, stem: str) -> Path:
    """The file `stem` with any of the known suffixes in a folder; raises PortraitError naming what was looked for."""
    folder = Path(folder)
    for suffix in SUFFIXES:
        if (folder / f"{stem}{suffix}").is_file():
            return folder / f"{stem}{suffix}"
    for suffix in SUFFIXES:
        path, index = folder / f"{stem}{suffix}", folder / f"{stem}{suffix}.index.json"
        if index.is_file():
            raise PortraitError(f"{index}: the weights are split into several files: take {path.name}, all in one file")
        if path.is_dir():
            raise PortraitError(f"{path}: it is a folder, the file of that name is needed: put it there")
    raise PortraitError(f"{folder}: there is no {stem} with one of the endings {', '.join(SUFFIXES)}: put it there")


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Tensors of a file by name, as stored (memory-mapped where the format allows it).

    A wrapper (`state_dict`, ...) around them is taken off. Files whose pickle holds anything but tensors and plain values,
    truncated files and files without tensors raise PortraitError.
    """
    path = Path(path)
    content = _read(path)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = dict(_tensors(content)) if isinstance(content, dict) else {}
    if not tensors:
        raise PortraitError(f"{path}: it holds no tensors by name, but {_described(content)}: choose another file")
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.layout != torch.strided:
            kind = "without numbers (meta)" if tensor.is_meta else f"of the layout {tensor.layout}"
            raise PortraitError(f"{path}: {name} is a tensor {kind}: a file with plain tensors is needed")
    return tensors


def read_content(path: Path | str) -> Any:
    """Whatever a file holds, as stored, for formats that keep more than one set of weights in it; errors as above."""
    return _read(Path(path))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise PortraitError(f"{path}: there is no such file")
    size = path.stat().st_size
    if size == 0:
        raise PortraitError(f"{path}: the file is empty, 0 bytes: copy or download it again")
    _check_ending(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise PortraitError(
                f"{path}: its pickle holds more than tensors, it asks for {found[1]}, and code in weights is never run: use "
                "a safetensors version of it"
            ) from error
        raise PortraitError(
            f"{path}: not a readable weight file ({size} bytes, beginning with {_start(path)!r}): it is of another format, "
            "copy or download it again"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise PortraitError(
            f"{path}: not a readable weight file ({size} bytes; {_first_line(error)}): it is truncated or "
            "of another format, copy or download it again"
        ) from error


def _check_ending(path: Path) -> None:
    """Raises PortraitError if the file is of the other of the two formats than its ending says."""
    start, size = _start(path), path.stat().st_size
    length = int.from_bytes(start[:SAFETENSORS_HEADER], "little")
    safetensors = start[SAFETENSORS_HEADER:][:1] == b"{"  # of a length may also be the first byte of a pickle
    if safetensors and SAFETENSORS_HEADER + length <= size and path.suffix != ".safetensors":
        raise PortraitError(f"{path}: it holds safetensors: rename it to {path.stem}.safetensors")
    if path.suffix == ".safetensors" and not safetensors and (start.startswith(PICKLE) or zipfile.is_zipfile(path)):
        raise PortraitError(
            f"{path}: it is a zip or a pickle, as torch.save writes, and not safetensors: rename it to {path.stem}.bin"
        )


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(2 * SAFETENSORS_HEADER)


def _tensors(content: dict[Any, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in content.items():
        if isinstance(value, Tensor):
            yield str(name), value


def _described(content: Any) -> str:
    return (
        f"a dict of {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) else type(content).__name__
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
