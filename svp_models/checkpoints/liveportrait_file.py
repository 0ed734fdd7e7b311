"""LivePortrait's networks as one file of this pack, and back as five files with the published names.

The single file has the kind `liveportrait` in its metadata, with format and version; names begin with the network
(`appearance.`, `motion.`, `warping.`, `generator.`, `stitching.`, `mouth.`, `eyes.`). `liveportrait` reads both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from ..errors import PortraitError
from ..io.files import whole_file
from .liveportrait import APPEARANCE, GENERATOR, KIND, MOTION, STITCHING, WARPING, LivePortraitNetworks
from .safetensors_io import WEIGHT_DTYPES, write_safetensors

# Convolutions of the SPADE blocks, which have spectral norm as published.
SPECTRAL_WEIGHT = re.compile(r"(G_middle|up)_\d+\.conv_[01s]\.weight")


def save_liveportrait(
    path: Path | str,
    networks: LivePortraitNetworks,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes the single file. metadata: further entries of its header; dtype: of all tensors but counters."""
    if dtype not in WEIGHT_DTYPES:
        raise PortraitError(f"{path}: weights cannot be saved as {dtype}: choose float16, bfloat16 or float32")
    tensors = {
        f"{part.name}.{name}": tensor.to(dtype) if tensor.is_floating_point() else tensor
        for part in fields(networks)
        for name, tensor in getattr(networks, part.name).state_dict().items()
    }
    write_safetensors(path, KIND, tensors, metadata or {})


def export_liveportrait(folder: Path | str, networks: LivePortraitNetworks) -> list[Path]:
    """Writes five files as LivePortrait's own code and other packs read them, atomically, and returns their paths.

    float32 safetensors with spectral norm: `weight_orig` is the folded weight, and u . W v is 1 for its vectors.
    """
    folder = Path(folder)
    retargeting = {"shoulder": networks.stitching, "mouth": networks.mouth, "eye": networks.eyes}
    files = {
        APPEARANCE: networks.appearance.state_dict(),
        MOTION: networks.motion.state_dict(),
        WARPING: networks.warping.state_dict(),
        GENERATOR: with_spectral_norm(networks.generator.state_dict()),
        STITCHING: {
            f"retarget_{part}_module.{name}": tensor
            for part, network in retargeting.items()
            for name, tensor in network.state_dict().items()
        },
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / f"{stem}.safetensors", tensors) for stem, tensors in files.items()]
    except (OSError, SafetensorError) as error:
        raise PortraitError(f"{folder}: cannot be written ({error}): check its rights and free space") from error


def with_spectral_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names as the SPADE blocks have them with spectral norm; evaluation's division by u . W v changes nothing."""
    stored = {}
    for name, tensor in tensors.items():
        if not SPECTRAL_WEIGHT.fullmatch(name):
            stored[name] = tensor
            continue
        matrix = tensor.flatten(1).double()
        left = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -1]
        right = functional.normalize(matrix.T @ left, dim=0)
        scale = left @ (matrix @ right)
        vectors = (left / scale).to(tensor), right.to(tensor)
        stored |= dict(zip((f"{name}{end}" for end in ("_orig", "_u", "_v")), (tensor, *vectors), strict=True))
    return stored


def _write(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    with whole_file(path) as temporary:
        save_file({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, temporary)
    return path
