"""Third-party files: safetensors, torch.save files and pickled arrays, read without running code; Deep3DFaceRecon's file."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..errors import PortraitError
from ..io.strict_config import json_value
from ..networks.deep3d import Deep3DNetwork
from ..networks.layers import shapes_only
from .safetensors_io import check_file, load_strict

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")  # in the order of the search
WRAPPERS = ("state_dict", "module", "model")  # keys under which trainers save the weights
SAFETENSORS_HEADER = 8  # bytes before the JSON of a safetensors file: its length
PICKLE = b"\x80"  # first byte of a pickle
DEEP3D_FILE = "epoch_20.pth"  # {'net_recon': weights, 'opt_00': ..., 'sched_00': ...}
DEEP3D_WEIGHTS = "net_recon"
TRAINING_STATE = re.compile(r"(opt|sched)_\d{2}")  # optimiser and scheduler states, which are not used
COUNTERS = "num_batches_tracked"  # of batch norms; files from before PyTorch 0.4.1 lack them, and nothing reads them


def weights_in(folder: Path, stem: str) -> Path | None:
    """The file `stem` with the first of SUFFIXES that is in a folder, None without one."""
    files = (folder / f"{stem}{suffix}" for suffix in SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def missing_stems(names: Iterable[str], stems: Iterable[str]) -> list[str]:
    """The stems that are not among these file names (without folders) with any of SUFFIXES."""
    present = set(names)
    return [stem for stem in stems if not any(f"{stem}{suffix}" in present for suffix in SUFFIXES)]


def find_weights(folder: Path | str, stem: str) -> Path:
    """The file `stem` with any of SUFFIXES in a folder. PortraitError says which file is missing."""
    folder = Path(folder)
    if file := weights_in(folder, stem):
        return file
    for suffix in SUFFIXES:
        path, index = folder / f"{stem}{suffix}", folder / f"{stem}{suffix}.index.json"
        if index.is_file():
            raise PortraitError(f"{index}: the weights are split into several files: use {path.name}, a single file")
        if path.is_dir():
            raise PortraitError(f"{path}: it is a folder, the file of that name is needed: put it there")
    raise PortraitError(f"{folder}: there is no {stem} with one of the endings {', '.join(SUFFIXES)}: put it there")


def read_weights(path: Path | str) -> dict[str, Tensor]:
    """Tensors of a file by name, as stored (memory-mapped if the format allows it), without wrappers (`state_dict`, ...).

    Truncated files, files without tensors, and pickles with anything but tensors and plain values raise PortraitError.
    """
    path = Path(path)
    content = read_content(path)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    tensors = dict(_tensors(content)) if isinstance(content, dict) else {}
    if not tensors:
        raise PortraitError(f"{path}: it holds no tensors by name, but {_describe(content)}: choose another file")
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.layout != torch.strided:
            kind = "without values (meta)" if tensor.is_meta else f"of the layout {tensor.layout}"
            raise PortraitError(f"{path}: {name} is a tensor {kind}: a file with plain tensors is needed")
    return tensors


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file that belongs to weights, None without such a file. Other content raises PortraitError."""
    if not path.is_file():
        return None
    values = json_value(path.read_bytes(), str(path))
    if not isinstance(values, dict):
        raise PortraitError(f"{path}: holds a {type(values).__name__}, an object with settings is needed")
    return values


def load_deep3d(path: Path | str, network: Deep3DNetwork | None = None) -> tuple[Deep3DNetwork, tuple[str, ...]]:
    """Deep3DFaceRecon's network in eval mode, float32 on the CPU, and the names of the file's unused entries.

    network: a network of another size than the published one, for tests. Every tensor of `net_recon` has to fit; an unknown
    entry beside it raises PortraitError.
    """
    content = read_content(Path(path))
    if not isinstance(content, Mapping) or not isinstance(content.get(DEEP3D_WEIGHTS), Mapping):
        raise PortraitError(
            f"{path}: it has no entry {DEEP3D_WEIGHTS!r} with weights but {_describe(content)}: use {DEEP3D_FILE} of "
            "Deep3DFaceRecon_pytorch"
        )
    others = tuple(str(name) for name in content if name != DEEP3D_WEIGHTS)
    unknown = [name for name in others if not TRAINING_STATE.fullmatch(name)]
    if unknown:
        raise PortraitError(
            f"{path}: unknown entries {', '.join(unknown[:5])} beside {DEEP3D_WEIGHTS!r}; known are opt_00, sched_00 and the "
            f"like: use {DEEP3D_FILE} of Deep3DFaceRecon_pytorch"
        )
    if network is None:
        with shapes_only():
            network = Deep3DNetwork()
    load_strict(network, _with_counters(path, content[DEEP3D_WEIGHTS], network), path, prefix=f"{DEEP3D_WEIGHTS}.")
    return network.eval(), others


def read_content(path: Path) -> Any:
    """All that a file holds, as stored; for files that are no plain dict of tensors. Errors as in `read_weights`."""
    check_file(path)
    size = path.stat().st_size
    if size == 0:
        raise PortraitError(f"{path}: the file is empty, 0 bytes: copy or download it again")
    _check_suffix(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise PortraitError(
                f"{path}: its pickle holds more than tensors ({found[1]}), and code in weights is never run: use a "
                "safetensors version of it"
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


def read_pickled_arrays(path: Path | str) -> dict[str, Any]:
    """A pickled dict of numpy arrays and numbers; whatever else the pickle asks for raises PortraitError before it is run."""
    path = Path(path)
    check_file(path)
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file).load()
    except (
        pickle.UnpicklingError,
        EOFError,
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OSError,
    ) as error:
        raise PortraitError(f"{path}: not a readable dict of arrays ({error}): copy or download it again") from error
    if not isinstance(content, dict):
        raise PortraitError(
            f"{path}: it holds a {type(content).__name__}, a dict of arrays is needed: choose another file"
        )
    return content


def latin_bytes(text: str, encoding: str) -> bytes:
    """The bytes that an old pickle holds as text."""
    return text.encode("latin-1")


class _ArrayUnpickler(pickle.Unpickler):
    """Knows numpy's arrays and numbers alone."""

    # numpy's own functions that make arrays and numbers again; names depend on the versions of numpy and of the pickle.
    known: dict[tuple[str, str], Any] = {
        ("numpy.core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0],
        ("numpy.core.multiarray", "scalar"): np.float32(0).__reduce__()[0],
        ("numpy._core.multiarray", "scalar"): np.float32(0).__reduce__()[0],
        ("numpy.core.numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
        ("numpy._core.numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
        ("_codecs", "encode"): latin_bytes,  # how old pickles hold bytes
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and code in files is never run")
        return self.known[module, name]


def _check_suffix(path: Path) -> None:
    """Raises PortraitError if a file with the suffix of one of the two formats is of the other."""
    start, size = _start(path), path.stat().st_size
    length = int.from_bytes(start[:SAFETENSORS_HEADER], "little")
    safetensors = start[SAFETENSORS_HEADER:][:1] == b"{"  # the first byte of the length can equal that of a pickle
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


def _describe(content: Any) -> str:
    return (
        f"a dict of {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) else type(content).__name__
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _with_counters(path: Path | str, weights: Mapping[str, Tensor], network: Deep3DNetwork) -> dict[str, Tensor]:
    """The weights by name as float32, with the batch norms' counters that old files lack."""
    tensors = {}
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise PortraitError(f"{path}: {DEEP3D_WEIGHTS}.{name} is a {type(value).__name__}, a tensor is needed")
        tensors[str(name)] = value.float() if value.is_floating_point() else value
    for name in network.state_dict():
        if name.endswith(COUNTERS):
            tensors.setdefault(name, torch.zeros((), dtype=torch.long))
    return tensors
