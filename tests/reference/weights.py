"""The weights of the reference networks, from their names and shapes: whole numbers of a fixed generator times powers of two.

Every value is exact in float32, float16 and bfloat16, so any of them gives the networks that the outputs were computed with.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

VEXPRESS = Path(__file__).parent / "vexpress"
LIVEPORTRAIT = Path(__file__).parent / "liveportrait"
EVALUATION = Path(__file__).parent / "evaluation.npz"
GENERATORS = {"KDTalker": "model", "wav2lip": "state_dict", "motion_generator": "model"}  # file -> entry of its weights
RESIDUAL = ("to_out.0.weight", "proj_out.weight", "conv2.weight", "ff.net.2.weight")  # written to a stream: smaller


def full_size_shapes() -> dict[str, dict[str, list[int]]]:
    """V-Express' five files at the size of SD1.5: file -> name -> shape."""
    return json.loads(gzip.decompress((VEXPRESS / "sd15_shapes.json.gz").read_bytes()))


def vexpress_weights() -> dict[str, dict[str, Tensor]]:
    """The five small files of the reference data: file -> V-Express' name -> tensor."""
    listing = json.loads((VEXPRESS / "weights.json").read_text(encoding="utf-8"))
    return {file: reference_weights(file, shapes) for file, shapes in listing.items()}


def reference_weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The tensor of that name; its generator is numpy's RandomState, whose streams do not change, seeded by the name."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(1)
    if name.endswith("rotary_emb.freqs"):
        return 10000.0 ** (-torch.arange(shape[0]) / shape[0])
    if name.endswith("norm.gamma"):  # of KDTalker's tokens, 1 1 c
        return reference_weight(f"{name}.scale", shape[-1:]).view(shape)
    if name.endswith(("running_mean", "bias", "norm.beta")):
        values = random.randint(-127, 128, shape) / 1024
    elif len(shape) == 1:  # a norm's scale or variance
        values = 1 + random.randint(-25, 26, shape) / 128
    else:
        exponent = round(math.log2(73 * math.sqrt(math.prod(shape[1:])))) + 2 * name.endswith(RESIDUAL)
        values = random.randint(-127, 128, shape) / 2.0**exponent
    return torch.from_numpy(values).float()


def reference_weights(file: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """All tensors of a file; those of spectral norm (weight_u, weight_v) belong to their weight, after one power iteration."""
    tensors = {name: reference_weight(f"{file}.{name}", tuple(shape)) for name, shape in shapes.items()}
    for name in shapes:
        if name.endswith("pos_encoder.pe"):
            tensors[name] = sinusoidal_table(*shapes[name][1:])
        elif name.endswith(".weight_orig"):
            base, matrix = name.removesuffix("orig"), tensors[name].flatten(1).double()
            right = functional.normalize(matrix.T @ tensors[f"{base}u"].double(), dim=0)
            tensors[f"{base}u"] = functional.normalize(matrix @ right, dim=0).float()
            tensors[f"{base}v"] = right.float()
    return tensors


def sinusoidal_table(positions: int, channels: int) -> Tensor:
    """Sines and cosines of the frames' positions, interleaved: 1 positions channels."""
    rates = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angles = torch.arange(positions)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]


def liveportrait_weights() -> dict[str, dict[str, Any]]:
    """LivePortrait's five small files as published: file -> name -> tensor, in the last one -> part -> name -> tensor."""
    listing = json.loads((LIVEPORTRAIT / "weights.json").read_text(encoding="utf-8"))
    files: dict[str, dict[str, Any]] = {file: reference_weights(file, shapes) for file, shapes in listing.items()}
    parts = {name: files.pop(name) for name in list(files) if name.startswith("retarget_")}
    files = {name: content for name, content in files.items() if name not in GENERATORS}
    files["stitching_retargeting_module"] = {
        part: {f"module.{name}": tensor for name, tensor in tensors.items()} for part, tensors in parts.items()
    }
    return files


def generator_weights() -> dict[str, dict[str, Any]]:
    """KDTalker's, Wav2Lip's and JoyVASA's small files as published, without JoyVASA's tables, mask and schedule."""
    listing = json.loads((LIVEPORTRAIT / "weights.json").read_text(encoding="utf-8"))
    return {file: {entry: reference_weights(file, listing[file])} for file, entry in GENERATORS.items()}


def full_size_liveportrait_shapes() -> dict[str, dict[str, list[int]]]:
    """LivePortrait's four large files and KDTalker's at the published size: file -> name -> shape."""
    return json.loads(gzip.decompress((LIVEPORTRAIT / "full_size_shapes.json.gz").read_bytes()))
