"""The file of the pack's motion generator: network, style predictor and lip expert with their configs, in one safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from ..errors import PortraitError
from ..io.strict_config import config_to_json
from ..networks.layers import shapes_only
from ..networks.motion_generator import MotionGeneratorConfig, MotionGeneratorNetwork
from .model_file import cast_weight
from .safetensors_io import load_strict, read_config, read_safetensors, write_safetensors

KIND = "motion_generator"
BUILT_IN = Path(__file__).parent / "weights" / "motion.safetensors"
GENERATOR = "generator."


@dataclass
class MotionGeneratorModel:
    """The pack's motion generator. style_space: of the styles that it was trained with."""

    generator: MotionGeneratorNetwork
    style_space: str
    metadata: dict[str, str] = field(default_factory=dict)


def save_motion_generator(
    path: Path | str, model: MotionGeneratorModel, metadata: Mapping[str, str], dtype: torch.dtype = torch.float16
) -> None:
    """Writes the networks with floats as dtype. metadata: further entries (seed, step, data_version, ...) of the header."""
    tensors = {
        f"{prefix}{name}": cast_weight(path, name, tensor, dtype)
        for prefix, network in _networks(model).items()
        for name, tensor in network.state_dict().items()
    }
    header = {**metadata, "config": config_to_json(model.generator.config), "style_space": model.style_space}
    write_safetensors(path, KIND, tensors, header)


def load_motion_generator(path: Path | str, device: torch.device | str = "cpu") -> MotionGeneratorModel:
    """Reads a file of `save_motion_generator`, in float32 and eval mode."""
    tensors, metadata = read_safetensors(path, KIND)
    config = read_config(path, metadata, MotionGeneratorConfig)
    with shapes_only():
        generator = MotionGeneratorNetwork(config)
    own = {
        name.removeprefix(GENERATOR): tensor.float() for name, tensor in tensors.items() if name.startswith(GENERATOR)
    }
    unexpected = [name for name in tensors if not name.startswith(GENERATOR)]
    if unexpected:
        raise PortraitError(
            f"{path}: {unexpected[0]} is unexpected, the model has no such tensor: file and config differ"
        )
    load_strict(generator, own, path)
    return MotionGeneratorModel(generator.to(device).eval(), metadata.get("style_space", ""), metadata)


def _networks(model: MotionGeneratorModel) -> dict[str, nn.Module]:
    return {GENERATOR: model.generator}
