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
from .safetensors_io import check_numbers, load_strict, read_config, read_safetensors, write_safetensors

BUILTIN_MODEL = Path(__file__).parent / "weights" / "demo.safetensors"  # whole frames of 128 pixels, trained by stages
PORTRAIT_MODEL = BUILTIN_MODEL.with_name("portrait.safetensors")  # crops of faces for portraits of 256 pixels and more
PORTRAIT_NAME, DEMO_NAME = "built-in", "built-in demo"  # as Load Portrait Model lists them
SHIPPED_MODELS = {PORTRAIT_NAME: PORTRAIT_MODEL, DEMO_NAME: BUILTIN_MODEL}
FACE_ANALYZER = BUILTIN_MODEL.with_name("face_analyzer.onnx")  # of synthetic people of both versions
FACE_READER = BUILTIN_MODEL.with_name(
    "face_reader.onnx"
)  # the same from other people and another seed: it scores, and drives nothing
ANALYZER_KEY = "face_analyzer.onnx"
ANALYZER_OF, PACK = (
    "face_analyzer",
    "pack",
)  # metadata of a file whose face analyser is FACE_ANALYZER, which need not lie in it too
STYLE_EXTRACTOR = "style_extractor."  # prefix of its tensors


def style_space_of(extractor: StyleExtractor) -> str:
    """Identifies a style space: 16 hex digits of the SHA-256 over the extractor's tensors as float16, in any precision."""
    return _hash(extractor.state_dict())


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        half = tensor.detach().cpu().to(torch.float16).contiguous()
        digest.update(f"{name}{list(half.shape)}".encode())
        digest.update(half.numpy().tobytes())
    return digest.hexdigest()[:16]


def save_model(
    path: Path | str, model: PortraitModel, metadata: Mapping[str, str], dtype: torch.dtype = torch.float16
) -> None:
    """Writes the model with floats as dtype. metadata: further entries (seed, step, data_version, ...) of the header."""
    tensors = {name: cast_weight(path, name, tensor, dtype) for name, tensor in model.networks.state_dict().items()}
    encodings = stored_encodings(model.networks).items()
    tensors |= {name: cast_weight(path, name, tensor, dtype) for name, tensor in encodings}
    for name, tensor in model.vae.state_dict().items():
        tensors[f"vae.{name}"] = cast_weight(path, f"vae.{name}", tensor, dtype)
    metadata = {name: value for name, value in metadata.items() if name != ANALYZER_OF}
    if model.face_analyzer == FACE_ANALYZER.read_bytes():
        metadata[ANALYZER_OF] = PACK
    elif model.face_analyzer is not None:
        tensors[ANALYZER_KEY] = torch.from_numpy(np.frombuffer(model.face_analyzer, dtype=np.uint8).copy())
    space = _hash(_extractor(tensors))  # of the written values: bfloat16 is coarse enough to change the space
    header = {**metadata, "config": config_to_json(model.config), "style_space": space}
    write_safetensors(path, "model", tensors, header)


def load_model(
    path: Path | str, dtype: torch.dtype | None = torch.float32, device: torch.device | str = "cpu"
) -> PortraitModel:
    """Reads a model file; networks and VAE are in eval mode. Tensors that differ from its config raise PortraitError.

    dtype: of floats; None leaves them as stored. Weights that need no conversion or move stay in the memory-mapped file: the
    system reads pages on first use and can drop them again.
    """
    tensors, metadata = read_safetensors(path, "model")
    config = read_config(path, metadata, ModelConfig)
    analyzer = tensors.pop(ANALYZER_KEY, None)
    if analyzer is not None and (analyzer.dtype, analyzer.ndim) != (torch.uint8, 1):
        raise PortraitError(
            f"{path}: {ANALYZER_KEY} is {analyzer.dtype} of shape {list(analyzer.shape)}: bytes are needed"
        )
    onnx = None if analyzer is None else analyzer.numpy().tobytes()
    if onnx is None and metadata.get(ANALYZER_OF) == PACK:
        onnx = FACE_ANALYZER.read_bytes()
    space = _hash(_extractor(tensors))
    # One by one, so that a tensor is freed as soon as it is converted.
    weights = {name: _as(tensors.pop(name), dtype) for name in list(tensors)}
    vae_weights = {name.removeprefix("vae."): weights.pop(name) for name in list(weights) if name.startswith("vae.")}
    encodings = {name: weights.pop(name) for name in list(weights) if name.endswith(f".{STORED_ENCODING}")}
    with shapes_only():
        networks, vae = build_networks(config), build_vae(config.vae)
    load_strict(networks, weights, path)
    check_numbers(encodings, path)
    set_encodings(networks, encodings, path)
    load_strict(vae, vae_weights, path, prefix="vae.")
    check_variances(vae, path)
    if space != metadata.get("style_space"):
        raise PortraitError(
            f"{path}: the style extractor is {space}, the file says {printable(metadata.get('style_space'))}: it was changed after "
            "saving, use the original file"
        )
    return PortraitModel(
        config=config,
        networks=networks.to(device).eval(),
        vae=vae.to(device).eval(),
        face_analyzer=onnx,
        style_space=space,
        metadata=metadata,
    )


def check_variances(vae: nn.Module, path: Path | str) -> None:
    """Raises PortraitError for a variance of 0 or less: latents are divided by its square root."""
    for name, buffer in vae.named_buffers():
        if name.endswith("statistics.variance") and float(buffer.min()) <= 0:
            raise PortraitError(
                f"{path}: vae.{name} goes down to {float(buffer.min()):g}: variances above 0 are needed, use another file"
            )


def _extractor(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(STYLE_EXTRACTOR): tensor
        for name, tensor in tensors.items()
        if name.startswith(STYLE_EXTRACTOR)
    }


def _as(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def cast_weight(path: Path | str, name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """A tensor for the file `path`, floats as dtype. Values beyond its range raise PortraitError."""
    if not tensor.is_floating_point():
        return tensor
    cast = tensor.detach().to(dtype)
    if not bool(cast.isfinite().all()):
        largest = float(tensor.detach().abs().max())
        raise PortraitError(f"{path}: {name} reaches {largest:g}, which is not finite as {dtype}: save it as float32")
    return cast
