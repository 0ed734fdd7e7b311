"""The file of the pack's motion generator: generator, style predictor, lip expert and movement detector in one safetensors file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import PortraitError
from ..io.strict_config import Checked, config_to_json, limited
from ..networks.layers import shapes_only
from ..networks.motion_experts import LipExpert, LipExpertConfig, MovementDetector
from ..networks.motion_generator import MotionGeneratorConfig, MotionGeneratorNetwork
from ..networks.style_predictor import StylePredictor, StylePredictorConfig
from .model_file import cast_weight
from .safetensors_io import load_strict, read_config, read_safetensors, write_safetensors

KIND = "motion_generator"
SCALE = ".scale"  # of a matrix in whole numbers: its rows' factors
PACKED = ("style_predictor", "lip_expert")  # in half-precision files, their matrices are whole numbers of 8 bits
LEAST_PACKED, STEPS = 2**12, 127  # numbers of a packed matrix at least; steps from 0 to the largest number of a row
BUILT_IN_MOTION = Path(__file__).parent / "weights" / "motion.safetensors"
MAX_CLASSES = 1000


@dataclass(frozen=True)
class MotionModelConfig(Checked):
    """The configs of a file's networks; None and 0 are networks that it does not hold. classes: of the movement detector."""

    generator: MotionGeneratorConfig | None = None
    style_predictor: StylePredictorConfig | None = None
    lip_expert: LipExpertConfig | None = None
    classes: int = limited(0, 0, MAX_CLASSES)


@dataclass
class MotionModel:
    """The pack's motion generator, or the parts of it that are trained. style_space: of the styles that they were trained with."""

    style_space: str
    generator: MotionGeneratorNetwork | None = None
    style_predictor: StylePredictor | None = None
    lip_expert: LipExpert | None = None
    movement_detector: MovementDetector | None = None
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> MotionModelConfig:
        generator, predictor, expert, detector = (getattr(self, name) for name in BUILDERS)
        return MotionModelConfig(
            generator=None if generator is None else generator.config,
            style_predictor=None if predictor is None else predictor.config,
            lip_expert=None if expert is None else expert.config,
            classes=0 if detector is None else detector.out.out_channels,
        )

    @property
    def network(self) -> MotionGeneratorNetwork:
        """The generator; PortraitError where the file holds other parts alone."""
        if self.generator is None:
            raise PortraitError(
                "the file holds parts of a motion generator without the generator itself: choose another file"
            )
        return self.generator


def save_motion_model(
    path: Path | str, model: MotionModel, metadata: Mapping[str, str], dtype: torch.dtype = torch.float16
) -> None:
    """Writes the networks with floats as dtype; in float16, large matrices of the PACKED ones as rows of 8 bits with a factor.

    metadata: further entries (seed, step, data_version, ...) of the header.
    """
    tensors: dict[str, torch.Tensor] = {}
    for name in BUILDERS:
        network = getattr(model, name)
        if network is not None:
            packs = name in PACKED and dtype == torch.float16
            for key, tensor in network.state_dict().items():
                full = f"{name}.{key}"
                if packs and tensor.dim() > 1 and tensor.numel() >= LEAST_PACKED:
                    tensors[full], tensors[full + SCALE] = pack_rows(tensor)
                else:
                    tensors[full] = cast_weight(path, full, tensor, dtype)
    header = {**metadata, "config": config_to_json(model.config), "style_space": model.style_space}
    write_safetensors(path, KIND, tensors, header)


def load_motion_model(path: Path | str, device: torch.device | str = "cpu") -> MotionModel:
    """Reads a file of `save_motion_model`, in float32 and eval mode."""
    tensors, metadata = read_safetensors(path, KIND, also=(torch.int8,))
    tensors = unpack_all(path, tensors)
    config = read_config(path, metadata, MotionModelConfig)
    networks: dict[str, Any] = {}
    for name, build in BUILDERS.items():
        with shapes_only():
            network = build(config)
        own = {key: tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
        tensors = {key: tensor for key, tensor in tensors.items() if key not in own}
        if network is not None:
            inside = {key.removeprefix(f"{name}."): _float(tensor) for key, tensor in own.items()}
            load_strict(network, inside, path, prefix=f"{name}.")
            networks[name] = network.to(device).eval()
        elif own:
            tensors |= own
    if tensors:
        raise PortraitError(
            f"{path}: {next(iter(tensors))} is unexpected, the config has no such network: file and config differ"
        )
    return MotionModel(style_space=metadata.get("style_space", ""), metadata=metadata, **networks)


def pack_rows(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights n ... -> whole numbers of 8 bits n ... and the rows' factors n; off by half a step at most."""
    rows = matrix.float().flatten(1)
    scale = (rows.abs().amax(dim=1) / STEPS).clamp(min=torch.finfo(torch.float32).tiny)
    return (rows / scale[:, None]).round().to(torch.int8).view(matrix.shape), scale


def unpack_all(path: Path | str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of a file, those in 8 bits as the numbers that they mean."""
    found = dict(tensors)
    for key, tensor in tensors.items():
        if tensor.dtype == torch.int8:
            scale = found.pop(key + SCALE, None)
            if scale is None or scale.shape != (len(tensor),):
                raise PortraitError(f"{path}: {key}{SCALE} is missing or of another size: copy the file again")
            found[key] = tensor.float() * scale.float().view(-1, *[1] * (tensor.dim() - 1))
    return found


def _float(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


BUILDERS: dict[str, Callable[[MotionModelConfig], nn.Module | None]] = {
    "generator": lambda config: None if config.generator is None else MotionGeneratorNetwork(config.generator),
    "style_predictor": lambda config: (
        None if config.style_predictor is None else StylePredictor(config.style_predictor)
    ),
    "lip_expert": lambda config: None if config.lip_expert is None else LipExpert(config.lip_expert),
    "movement_detector": lambda config: MovementDetector(config.classes) if config.classes else None,
}
