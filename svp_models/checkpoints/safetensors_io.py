"""The container of everything the pack saves: a safetensors file whose metadata says what it is."""

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
WHOLE_DTYPES = (torch.uint8, torch.int32, torch.int64)  # of what are no weights
PARALLEL = "module."  # what torch's DataParallel puts before names
CHUNK = 1 << 22  # bytes read at a time


def write_tensor_file(path: Path | str, kind: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes all or nothing: to a temporary file beside `path`, moved into place once it is complete."""
    path = Path(path)
    header = {**metadata, "format": FORMAT, "format_version": FORMAT_VERSION, "kind": kind}
    on_cpu = _apart({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    try:
        with whole_file(path) as temporary:
            save_file(on_cpu, temporary, metadata=header)
    except (OSError, SafetensorError) as error:
        raise PortraitError(f"{path}: cannot be written ({error}): check the folder's rights and free space") from error


def _apart(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, those copied that share their memory with others: safetensors refuses to write such ones.

    Some layers register one weight under two names, and those of a mapped file may be parts of it.
    """
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        shared = storage.data_ptr() in seen or storage.nbytes() > tensor.nbytes
        seen.add(storage.data_ptr())
        apart[name] = tensor.clone() if shared else tensor
    return apart


def read_metadata(path: Path | str) -> dict[str, str]:
    """Metadata of a file of any kind; a file that is not the pack's, or of another version, raises PortraitError."""
    return read_tensor_file(path, names_only=True)[1]


def read_tensor_file(
    path: Path | str, kind: str | tuple[str, ...] | None = None, names_only: bool = False
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name and metadata; kind: what the file has to be, None for any. names_only leaves the tensors unread."""
    path = Path(path)
    if not path.is_file():
        raise PortraitError(f"{path}: there is no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            _check_header(path, metadata, kind)
            tensors = {} if names_only else {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        size = path.stat().st_size
        raise PortraitError(
            f"{path}: not a readable safetensors file ({size} bytes; {printable(error)}): it is truncated or of another format, "
            "copy or download it again"
        ) from error
    check_dtypes(tensors, path)
    return tensors, metadata


def read_config(path: Path | str, metadata: Mapping[str, str], cls: type) -> Any:
    """The config in a file's metadata as the dataclass `cls`; PortraitError names file and key of what is wrong with it."""
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
    """Puts tensors (names without prefix) into the module in place of its own, which may be on the meta device.

    The first missing or unexpected name, wrong shape or value that is no number raises PortraitError with the file and the
    name in it. checked: names of tensors that come from a module whose values are known to be good.
    """
    wanted = module.state_dict()
    check_tensors({name: own.shape for name, own in wanted.items()}, tensors, path, prefix)
    new = {name: tensor for name, tensor in tensors.items() if name not in checked}
    check_numbers(new, path, prefix, [name for name, own in wanted.items() if not own.is_floating_point()])
    module.load_state_dict(dict(tensors), strict=True, assign=True)


def check_tensors(
    wanted: Mapping[str, Sequence[int]], tensors: Mapping[str, Tensor], path: Path | str, prefix: str = ""
) -> None:
    """Raises PortraitError for the first name that is missing, of another shape than `wanted` has it, or not wanted."""
    for name, shape in wanted.items():
        have = tensors.get(name)
        if have is None and f"{PARALLEL}{name}" in tensors:
            raise PortraitError(
                f"{path}: {prefix}{name} is missing, but {PARALLEL}{name} is there: the weights were saved from a "
                f"DataParallel wrapper, take {PARALLEL!r} off the beginning of every name"
            )
        if have is None:
            raise PortraitError(
                f"{path}: {prefix}{name} is missing, shape {list(shape)} is needed: file and config differ"
            )
        if tuple(have.shape) != tuple(shape):
            raise PortraitError(
                f"{path}: {prefix}{name} has shape {list(have.shape)}, {list(shape)} is needed: file and config differ"
            )
    for name, have in tensors.items():
        if name not in wanted:
            raise PortraitError(
                f"{path}: {prefix}{name} of shape {list(have.shape)} is unexpected, the model has no such tensor: "
                "file and config differ"
            )


def check_dtypes(tensors: Mapping[str, Tensor], path: Path | str) -> None:
    """Raises PortraitError for the first tensor whose numbers nothing here can compute with, or whose name is no text."""
    for name, tensor in tensors.items():
        if not name.isprintable():
            raise PortraitError(
                f"{path}: a tensor is called {shown(name)}: names with such characters are not the pack's"
            )
        if tensor.dtype not in (*WEIGHT_DTYPES, *WHOLE_DTYPES):
            raise PortraitError(f"{path}: {name} is stored as {_kind(tensor)}: {_kinds(WEIGHT_DTYPES)} can be read")


def check_numbers(tensors: Mapping[str, Tensor], path: Path | str, prefix: str = "", whole: Sequence[str] = ()) -> None:
    """Raises PortraitError for the first tensor that holds infinity or what is not a number, or that is not of floats, but for
    those that have to be whole numbers (by name)."""
    ends: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for name, tensor in tensors.items():
        if name in whole:
            if tensor.dtype not in WHOLE_DTYPES:
                raise PortraitError(f"{path}: {prefix}{name} is stored as {_kind(tensor)}: whole numbers are needed")
            continue
        if not tensor.is_floating_point():
            raise PortraitError(
                f"{path}: {prefix}{name} is stored as {_kind(tensor)}: {_kinds(WEIGHT_DTYPES)} is needed"
            )
        if not tensor.is_meta and tensor.numel():
            # Both ends are not a number if any value is not. Of all ways this one is the fastest, and asked for once.
            ends.setdefault((tensor.dtype, tensor.device), []).extend(torch.aminmax(_computable(tensor)))
    if all(bool(torch.stack(group).isfinite().all()) for group in ends.values()):
        return
    for name, tensor in tensors.items():
        bad = 0 if name in whole or tensor.is_meta else int((~_computable(tensor).isfinite()).sum())
        if bad:
            raise PortraitError(
                f"{path}: {prefix}{name} has {bad} of {tensor.numel()} values that are no finite numbers: the file is damaged "
                "or its training failed, take another"
            )


def _computable(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype in WEIGHT_DTYPES else tensor.float()


def _kind(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _kinds(dtypes: Sequence[torch.dtype]) -> str:
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def sha256_of(path: Path | str, progress: Progress | None = None) -> str:
    """Hex digits of a file's SHA-256, read in pieces. progress: (bytes done, bytes in all)."""
    path = Path(path)
    size, done, digest = path.stat().st_size, 0, hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
            done += len(piece)
            if progress is not None:
                progress(done, size)
    return digest.hexdigest()
