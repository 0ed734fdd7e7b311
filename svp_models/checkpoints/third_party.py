"""Weights as others publish them: safetensors, or what torch.save wrote, read without running any code of theirs.

Deep3DFaceRecon's published file, `epoch_20.pth`: {'net_recon': weights, 'opt_00': ..., 'sched_00': ...}.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import PortraitError
from ..networks.deep3d import Deep3DNetwork
from .safetensors_io import load_strict

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


FILE = "epoch_20.pth"
WEIGHTS = "net_recon"
TRAINING_STATE = re.compile(r"(opt|sched)_\d{2}")  # states of optimisers and schedulers: of no use here
COUNTERS = (
    "num_batches_tracked"  # of the batch norms; files from before PyTorch 0.4.1 lack them, and nothing reads them
)


def load_deep3d(path: Path | str, network: Deep3DNetwork | None = None) -> tuple[Deep3DNetwork, tuple[str, ...]]:
    """The network in eval mode, float32 on the CPU, and the names of the file's other entries, which are not used.

    network: one of another size than the published, for tests. Every tensor of `net_recon` has to fit; an entry beside
    it that is no training state raises PortraitError.
    """
    content = read_content(path)
    if not isinstance(content, Mapping) or not isinstance(content.get(WEIGHTS), Mapping):
        held = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise PortraitError(
            f"{path}: it has no entry {WEIGHTS!r} of weights (it holds {held}): use {FILE} of Deep3DFaceRecon_pytorch"
        )
    others = tuple(str(name) for name in content if name != WEIGHTS)
    unknown = [name for name in others if not TRAINING_STATE.fullmatch(name)]
    if unknown:
        raise PortraitError(
            f"{path}: unknown entries {', '.join(unknown[:5])} beside {WEIGHTS!r}; known are opt_00, sched_00 and the "
            f"like: use {FILE} of Deep3DFaceRecon_pytorch"
        )
    if network is None:
        with torch.device("meta"):  # weights come from the file: no time is lost on drawing random ones
            network = Deep3DNetwork()
    load_strict(network, _complete(path, content[WEIGHTS], network), path, prefix=f"{WEIGHTS}.")
    return network.eval(), others


def _complete(path: Path | str, weights: Mapping[str, Tensor], network: Deep3DNetwork) -> dict[str, Tensor]:
    """The weights by name as float32, with the batch norms' counters where an old file has none."""
    tensors = {}
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise PortraitError(f"{path}: {WEIGHTS}.{name} is a {type(value).__name__}, a tensor is needed")
        tensors[str(name)] = value.float() if value.is_floating_point() else value
    for name in network.state_dict():
        if name.endswith(COUNTERS):
            tensors.setdefault(name, torch.zeros((), dtype=torch.long))
    return tensors
