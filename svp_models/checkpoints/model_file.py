"""The pack's own model file: all networks, VAE, face analyser and config in one safetensors file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..config import ModelConfig, config_to_json
from ..errors import PortraitError
from ..io.file_names import printable
from ..model import PortraitModel, build_networks
from ..networks.layers import shapes_only
from ..networks.motion_module import STORED_ENCODING, set_encodings, stored_encodings
from ..networks.style_extractor import StyleExtractor
from ..networks.vae import build_vae
from .safetensors_io import check_numbers, load_strict, read_config, read_tensor_file, write_tensor_file

BUILTIN_MODEL = Path(__file__).parent / "weights" / "demo.safetensors"
ANALYZER_KEY = "face_analyzer.onnx"
EXTRACTOR = "style_extractor."


def style_space_of(extractor: StyleExtractor) -> str:
    """16 hex digits of the SHA-256 over the extractor's float16 tensors; the precision it is kept in does not matter."""
    return _space_of(extractor.state_dict())


def _space_of(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        half = tensor.detach().cpu().to(torch.float16).contiguous()
        digest.update(f"{name}{list(half.shape)}".encode())
        digest.update(half.numpy().tobytes())
    return digest.hexdigest()[:16]


def save_model(
    path: Path | str, model: PortraitModel, metadata: Mapping[str, str], dtype: torch.dtype = torch.float16
) -> None:
    """Writes the model with floats as dtype; metadata (seed, step, data_version, ...) joins config and style space."""
    tensors = {name: cast_weight(path, name, tensor, dtype) for name, tensor in model.networks.state_dict().items()}
    positions = stored_encodings(model.networks).items()
    tensors |= {name: cast_weight(path, name, tensor, dtype) for name, tensor in positions}
    for name, tensor in model.vae.state_dict().items():
        tensors[f"vae.{name}"] = cast_weight(path, f"vae.{name}", tensor, dtype)
    if model.face_analyzer is not None:
        tensors[ANALYZER_KEY] = torch.from_numpy(np.frombuffer(model.face_analyzer, dtype=np.uint8).copy())
    space = _space_of(_extractor(tensors))  # of what is written: bfloat16 is coarse enough to make another space
    header = {**metadata, "config": config_to_json(model.config), "style_space": space}
    write_tensor_file(path, "model", tensors, header)


def load_model(
    path: Path | str, dtype: torch.dtype | None = torch.float32, device: torch.device | str = "cpu"
) -> PortraitModel:
    """Reads a model file; networks and VAE come in eval mode. Any difference to its config raises PortraitError.

    dtype: what floats become; None leaves them as stored. Where nothing has to be converted or moved, the weights stay in
    the file, which is mapped into memory: pages are read when they are used and can be dropped again.
    """
    tensors, metadata = read_tensor_file(path, "model")
    config = read_config(path, metadata, ModelConfig)
    analyzer = tensors.pop(ANALYZER_KEY, None)
    if analyzer is not None and (analyzer.dtype, analyzer.ndim) != (torch.uint8, 1):
        raise PortraitError(
            f"{path}: {ANALYZER_KEY} is {analyzer.dtype} of shape {list(analyzer.shape)}: bytes are needed"
        )
    space = _space_of(_extractor(tensors))
    # One after the other, so that what was converted does not wait in memory for the last one.
    floats = {name: _as(tensors.pop(name), dtype) for name in list(tensors)}
    of_vae = {name.removeprefix("vae."): floats.pop(name) for name in list(floats) if name.startswith("vae.")}
    positions = {name: floats.pop(name) for name in list(floats) if name.endswith(f".{STORED_ENCODING}")}
    with shapes_only():  # weights come from the file: no time is lost on drawing random ones
        networks, vae = build_networks(config), build_vae(config.vae)
    load_strict(networks, floats, path)
    check_numbers(positions, path)
    set_encodings(networks, positions, path)
    load_strict(vae, of_vae, path, prefix="vae.")
    check_variances(vae, path)
    if space != metadata.get("style_space"):
        raise PortraitError(
            f"{path}: the style extractor is {space}, the file says {printable(metadata.get('style_space'))}: it was changed after "
            "saving, get the original file"
        )
    return PortraitModel(
        config=config,
        networks=networks.to(device).eval(),
        vae=vae.to(device).eval(),
        face_analyzer=None if analyzer is None else analyzer.numpy().tobytes(),
        style_space=space,
        metadata=metadata,
    )


def check_variances(vae: nn.Module, path: Path | str) -> None:
    """Latents are divided by their spread, which therefore has to be there: PortraitError names what is not."""
    for name, buffer in vae.named_buffers():
        if name.endswith("statistics.variance") and float(buffer.min()) <= 0:
            raise PortraitError(
                f"{path}: vae.{name} goes down to {float(buffer.min()):g}: variances above 0 are needed, get another file"
            )


def _extractor(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(EXTRACTOR): tensor for name, tensor in tensors.items() if name.startswith(EXTRACTOR)}


def _as(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def cast_weight(path: Path | str, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor to be saved at `path`, floats as dtype; values that do not fit into it raise PortraitError."""
    if not tensor.is_floating_point():
        return tensor
    cast = tensor.detach().to(dtype)
    if not bool(cast.isfinite().all()):
        largest = float(tensor.detach().abs().max())
        raise PortraitError(
            f"{path}: {name} reaches {largest:g}, too much for {dtype} or not a number: save it as float32"
        )
    return cast
