"""AnimateDiff's motion modules (v1 to v3, for Stable Diffusion 1.5) as the denoiser's temporal layers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..config import UNetConfig
from ..errors import PortraitError
from ..networks.denoiser import Denoiser
from ..networks.positions import sinusoidal_positions
from .foreign import read_weights
from .tensor_file import check_tensors

INNER = "temporal_transformer."  # a level of their names that the denoiser's do not have
TABLE = "pos_encoder.pe"
TABLE_TOLERANCE = 4e-3  # bfloat16 rounds values up to 1 by up to 2e-3; another layout of the table is off by 1
MIDDLE = "mid_block."


@dataclass(frozen=True)
class Motion:
    """Temporal layers by the denoiser's names. positions: longest window they were trained for, in frames;
    mid_block: whether the file has a module for it; unused: part -> number of tensors the config has no place for."""

    files: tuple[Path, ...]
    tensors: dict[str, Tensor]
    positions: int
    mid_block: bool
    unused: dict[str, int]


def motion_shapes(config: UNetConfig) -> dict[str, torch.Size]:
    """Names and shapes of the temporal layers in a denoiser of these sizes."""
    with torch.device("meta"):
        own = Denoiser(config, style=False).state_dict()
    return {name: tensor.shape for name, tensor in own.items() if ".motion_modules." in name}


def published_name(name: str) -> str:
    """down_blocks.0.motion_modules.1.norm.weight -> down_blocks.0.motion_modules.1.temporal_transformer.norm.weight"""
    head, found, rest = name.partition(".motion_modules.")
    index, _, inner = rest.partition(".")
    return f"{head}{found}{index}.{INNER}{inner}"


def read_motion(path: Path | str, config: UNetConfig) -> Motion:
    """Reads and checks a motion module file; its tables of positions have to be the ones that the denoiser computes."""
    path = Path(path)
    tensors = {name.removeprefix("module."): tensor for name, tensor in read_weights(path).items()}
    tables = {name: tensors.pop(name) for name in list(tensors) if name.endswith(TABLE)}
    unused = {f"tables of positions (computed, {len(tables)} compared)": len(tables)}
    has_middle = any(name.startswith(MIDDLE) for name in tensors)
    if has_middle and not config.motion_mid_block:
        middle = [name for name in tensors if name.startswith(MIDDLE)]
        unused["temporal layers of the mid block"] = len([tensors.pop(name) for name in middle])
    wanted = {name: shape for name, shape in motion_shapes(config).items() if has_middle or not name.startswith(MIDDLE)}
    check_tensors({published_name(name): shape for name, shape in wanted.items()}, tensors, path)
    taken = {name: tensors[published_name(name)] for name in wanted}
    return Motion((path,), taken, _checked_positions(path, tables), has_middle, unused)


def _checked_positions(path: Path, tables: dict[str, Tensor]) -> int:
    """The number of positions in the tables (1 x positions x channels each), which have to be sinusoidal ones."""
    if not tables:
        raise PortraitError(
            f"{path}: it has no tables of positions ({TABLE}): its layers were trained without frame positions, which this "
            "model adds: use a motion module of AnimateDiff v1, v2 or v3"
        )
    for name, table in tables.items():
        if table.ndim != 3 or table.shape[0] != 1 or table.shape[2] % 2:
            raise PortraitError(f"{path}: {name} has shape {list(table.shape)}, 1 x positions x channels is needed")
        expected = sinusoidal_positions(*table.shape[1:], torch.empty(0, device=table.device))
        if not table.is_meta and float((table[0].float() - expected).abs().max()) > TABLE_TOLERANCE:
            off = float((table[0].float() - expected).abs().max())
            raise PortraitError(
                f"{path}: {name} differs by {off:.3g} from the sinusoidal positions that this model computes (at most "
                f"{TABLE_TOLERANCE:g} is rounding): it cannot be used"
            )
    lengths = {table.shape[1] for table in tables.values()}
    if len(lengths) > 1:
        raise PortraitError(f"{path}: its tables of positions have different lengths {sorted(lengths)}: it is damaged")
    return lengths.pop()
