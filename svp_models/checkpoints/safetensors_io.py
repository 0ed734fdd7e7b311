"""Safetensors files of this pack: written as a whole, read and loaded strictly, with metadata that names their kind."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import PortraitError
from ..io.file_names import printable
from ..io.files import whole_file
from ..io.progress import Progress
from ..io.strict_config import config_from_dict, json_value, shown

FORMAT = "svp-portrait"
FORMAT_VERSION = "1"
WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INTEGER_DTYPES = (torch.uint8, torch.int32, torch.int64)  # of counters and bytes
DATA_PARALLEL = "module."  # prefix that torch's DataParallel adds to names
HASH_CHUNK = 1 << 22  # bytes


def write_safetensors(path: Path | str, kind: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a file atomically. kind: `model`, `style_layer`, ...; metadata: further entries of the header."""
    path = Path(path)
    header = {**metadata, "format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind}
    on_cpu = _unshared({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    try:
        with whole_file(path) as temporary:
            save_file(on_cpu, temporary, metadata=header)
    except (OSError, SafetensorError) as error:
        raise PortraitError(f"{path}: cannot be written ({error}): check the folder's rights and free space") from error


def _unshared(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without shared memory, which safetensors refuses to write: those that share it are copied.

    Some layers register one weight under two names, and tensors of a mapped file can be parts of it.
    """
    seen: set[int] = set()
    unshared = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() > tensor.nbytes
        seen.add(storage.data_ptr())
        unshared[name] = tensor.clone() if shared else tensor
    return unshared


def read_metadata(path: Path | str) -> dict[str, str]:
    """Metadata of a file of any kind. A file of another format or version raises PortraitError."""
    return read_safetensors(path, metadata_only=True)[1]


def read_safetensors(
    path: Path | str,
    kind: str | tuple[str, ...] | None = None,
    metadata_only: bool = False,
    also: Container[torch.dtype] = (),
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and metadata. kind: the expected kind or kinds, None for any; metadata_only: skips the tensors; also:
    dtypes that may occur beside those of weights."""
    path = Path(path)
    check_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            _check_header(path, metadata, kind)
            tensors = {} if metadata_only else {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        size = path.stat().st_size
        raise PortraitError(
            f"{path}: not a readable safetensors file ({size} bytes; {printable(error)}): it is truncated or of another format, "
            "copy or download it again"
        ) from error
    check_dtypes({name: tensor for name, tensor in tensors.items() if tensor.dtype not in also}, path)
    return tensors, metadata


def read_config(path: Path | str, metadata: Mapping[str, str], cls: type) -> Any:
    """The config in a file's metadata as the dataclass `cls`. PortraitError names the file and the wrong key."""
    return config_from_dict(cls, json_value(metadata.get("config", ""), f"{path}: config"), f"{path}: config")


def _check_header(path: Path, metadata: dict[str, str], kind: str | tuple[str, ...] | None) -> None:
    found = metadata.get("format")
    if found != FORMAT:
        raise PortraitError(
            f"{path}: its format is {printable(found or 'not given')}, {FORMAT} is needed: choose another file"
        )
    version = metadata.get("format_version")
    if version != FORMAT_VERSION:
        raise PortraitError(
            f"{path}: format version {printable(version)}, this release reads {FORMAT_VERSION}: use the release that wrote it"
        )
    kinds = (kind,) if isinstance(kind, str) else kind
    if kinds and metadata.get("kind") not in kinds:
        raise PortraitError(
            f"{path}: holds a {printable(metadata.get('kind'))}, a {' or '.join(kinds)} is needed: choose another file"
        )


def load_strict(
    module: nn.Module, tensors: Mapping[str, Tensor], path: Path | str, prefix: str = "", checked: Container[str] = ()
) -> None:
    """Replaces the tensors of a module, which may be on the meta device, by `tensors` (names without prefix).

    The first missing or unexpected name, wrong shape or non-finite value raises PortraitError with the file and the name.
    checked: names of tensors whose values need no check, because they come from another module.
    """
    expected = module.state_dict()
    check_tensors({name: tensor.shape for name, tensor in expected.items()}, tensors, path, prefix)
    unchecked = {name: tensor for name, tensor in tensors.items() if name not in checked}
    integers = [name for name, tensor in expected.items() if not tensor.is_floating_point()]
    check_numbers(unchecked, path, prefix, integers)
    module.load_state_dict(dict(tensors), strict=True, assign=True)


def check_tensors(
    expected: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor], path: Path | str, prefix: str = ""
) -> None:
    """Raises PortraitError for the first name that is missing or unexpected, or has another shape than expected."""
    for name, shape in expected.items():
        tensor = tensors.get(name)
        if tensor is None and f"{DATA_PARALLEL}{name}" in tensors:
            raise PortraitError(
                f"{path}: {prefix}{name} is missing, but {DATA_PARALLEL}{name} is there: the weights were saved from a "
                f"DataParallel wrapper, remove the prefix {DATA_PARALLEL!r} from every name"
            )
        if tensor is None:
            raise PortraitError(
                f"{path}: {prefix}{name} is missing, shape {list(shape)} is needed: file and config differ"
            )
        if tuple(tensor.shape) != tuple(shape):
            raise PortraitError(
                f"{path}: {prefix}{name} has shape {list(tensor.shape)}, {list(shape)} is needed: file and config differ"
            )
    for name, tensor in tensors.items():
        if name not in expected:
            raise PortraitError(
                f"{path}: {prefix}{name} of shape {list(tensor.shape)} is unexpected, the model has no such tensor: "
                "file and config differ"
            )


def check_dtypes(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Raises PortraitError for the first tensor of an unsupported dtype or with unprintable characters in its name."""
    for name, tensor in tensors.items():
        if not name.isprintable():
            raise PortraitError(
                f"{path}: a tensor is called {shown(name)}: names with such characters are not the pack's"
            )
        if tensor.dtype not in (*WEIGHT_DTYPES, *INTEGER_DTYPES):
            raise PortraitError(
                f"{path}: {name} is stored as {_name(tensor.dtype)}: {_names(WEIGHT_DTYPES)} can be read"
            )


def check_numbers(
    tensors: Mapping[str, Tensor], path: Path | str, prefix: str = "", integers: Sequence[str] = ()
) -> None:
    """Raises PortraitError for the first tensor that is not of floats, or holds infinite or NaN values.

    integers: names of the tensors that have to hold integers.
    """
    extremes: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for name, tensor in tensors.items():
        if name in integers:
            if tensor.dtype not in INTEGER_DTYPES:
                raise PortraitError(f"{path}: {prefix}{name} is stored as {_name(tensor.dtype)}: integers are needed")
            continue
        if not tensor.is_floating_point():
            raise PortraitError(
                f"{path}: {prefix}{name} is stored as {_name(tensor.dtype)}: {_names(WEIGHT_DTYPES)} is needed"
            )
        if not tensor.is_meta and tensor.numel():
            # Minimum and maximum are NaN if any value is. This is the fastest check, with one transfer per group.
            extremes.setdefault((tensor.dtype, tensor.device), []).extend(torch.aminmax(_computable(tensor)))
    if all(bool(torch.stack(group).isfinite().all()) for group in extremes.values()):
        return
    for name, tensor in tensors.items():
        bad = 0 if name in integers or tensor.is_meta else int((~_computable(tensor).isfinite()).sum())
        if bad:
            raise PortraitError(
                f"{path}: {prefix}{name} has {bad} of {tensor.numel()} values that are not finite: the file is damaged "
                "or its training diverged, use another file"
            )


def _computable(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in WEIGHT_DTYPES else tensor.float()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return " or ".join(map(_name, dtypes))


def check_file(path: Path) -> None:
    """Raises PortraitError unless the path is a file."""
    if path.is_dir():
        raise PortraitError(f"{path}: it is a folder, a file is needed")
    if not path.is_file():
        raise PortraitError(f"{path}: there is no such file")


def sha256_of(path: Path | str, progress: Progress | None = None) -> str:
    """SHA-256 of a file as hex digits. progress(bytes done, total bytes)."""
    path = Path(path)
    size, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if progress is not None:
                progress(done, size)
    return digest.hexdigest()
