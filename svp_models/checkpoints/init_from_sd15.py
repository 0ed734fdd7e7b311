"""A start for training: ReferenceNet and denoiser from Stable Diffusion 1.5, temporal layers from AnimateDiff (sec. 3.3).

AnimateDiff's motion modules (v1 to v3, for Stable Diffusion 1.5) as the denoiser's temporal layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import PRESETS, ModelConfig, UNetConfig
from ..errors import PortraitError
from ..model import PortraitNetworks, build_networks
from ..networks.attention import sinusoidal_encoding
from ..networks.denoiser import Denoiser
from .safetensors_io import check_tensors, load_strict
from .sd15 import Published
from .third_party import read_weights

# Layers of the denoiser that Stable Diffusion does not have start as copies of those beside them: the bank holds features
# of the same kind as the block's own, so what attends to itself can attend to it. V-Express starts from these copies too.
COPIES = {".reference_norm.": ".norm1.", ".reference_attn.": ".attn1."}
# Output layers that start at zero: what leads to them changes nothing until it is trained.
AUDIO_OUTPUT, STYLE_OUTPUT, MOTION_OUTPUT = ".attn2.to_out.0.", ".style_attn.to_out.0.", ".proj_out."


@dataclass(frozen=True)
class Origin:
    """One line of a report: what was filled, with how many tensors and parameters, and from where."""

    part: str
    source: str
    tensors: int
    parameters: int


@dataclass(frozen=True)
class AssemblyReport:
    """taken: parts filled from files; fresh: parts that start untrained; notes: what the files hold beyond that, and changes
    to the config. Together `taken` and `fresh` name every tensor of the networks once."""

    taken: tuple[Origin, ...]
    fresh: tuple[Origin, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as aligned lines of text."""
        lines = []
        for title, rows in (("taken", self.taken), ("fresh", self.fresh)):
            for row in rows:
                lines.append(f"{title}  {row.part:<44}{row.tensors:>5} tensors {row.parameters:>13,}  {row.source}")
        return lines + [f"note   {note}" for note in self.notes]


def assemble(
    base: Published,
    motion: Motion | None,
    config: ModelConfig = PRESETS["sd15"],
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[ModelConfig, PortraitNetworks, AssemblyReport]:
    """Networks to start training from, every one with tensors of its own, in `dtype`.

    base: SD1.5's UNet at the sizes of `config.unet`; motion: temporal layers, None starts them all fresh; seed: draws the
    parts that start fresh. The config comes back with its window and positions cut to those the motion file knows.
    """
    notes = [_unused(each.files[0].name, each.unused) for each in (base, motion) if each and each.unused]
    if motion is not None:
        config, cut = _within(config, motion)
        notes += cut
    with torch.device("meta"):
        networks = build_networks(config)
    wanted = networks.denoiser.state_dict()
    unet, name = base.tensors, base.files[0].name
    parts: list[tuple[Origin, dict[str, Tensor]]] = []

    def add(part: str, source: str, tensors: Mapping[str, Tensor], prefix: str) -> None:
        if tensors:
            count = sum(tensor.numel() for tensor in tensors.values())
            # Always a copy: several networks take the same tensor, and the files stay mapped otherwise.
            own = {prefix + key: tensor.to(dtype, copy=True) for key, tensor in tensors.items()}
            parts.append((Origin(part, source, len(tensors), count), own))

    reference = {key: tensor for key, tensor in unet.items() if not key.startswith("conv_norm_out.")}
    add("ReferenceNet", name, reference, "reference.")
    silent = {key: torch.zeros_like(tensor) for key, tensor in unet.items() if AUDIO_OUTPUT in key}
    spatial = {key: tensor for key, tensor in unet.items() if key not in silent}
    add("denoiser: spatial layers, queries for audio", name, spatial, "denoiser.")
    copies = {key: unet[_original(key)] for key in wanted if _original(key) in unet and _original(key) != key}
    add("denoiser: reference attention", f"{name}, copies of its self-attention", copies, "denoiser.")
    if motion is not None:
        add("denoiser: temporal layers", motion.files[0].name, motion.tensors, "denoiser.")
    taken = len(parts)

    add("denoiser: output of the audio attention", "zero", silent, "denoiser.")
    have = {key for _, own in parts for key in own}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = _drawn(networks.denoiser, [key for key in wanted if f"denoiser.{key}" not in have])
        style = {key: tensor for key, tensor in drawn.items() if ".style_" in key}
        add("denoiser: style attention", "drawn, output zero", style, "denoiser.")
        temporal = {key: tensor for key, tensor in drawn.items() if ".motion_modules." in key}
        middle = motion is not None and all(key.startswith(MIDDLE) for key in temporal)
        where = "temporal layers of the mid block" if middle else "temporal layers"
        add(f"denoiser: {where}", "drawn, output zero", temporal, "denoiser.")
        for prefix, module in _rest(config).items():
            zero = ", output zero" if prefix == "guider." else ""
            add(prefix[:-1].replace("_", " "), f"drawn{zero}", module.state_dict(), prefix)
    if middle and temporal:
        notes.append(
            f"{motion.files[0].name} has no temporal layers for the mid block: they start fresh, with output zero"
        )
    load_strict(networks, {key: tensor for _, own in parts for key, tensor in own.items()}, name)
    origins = [origin for origin, _ in parts]
    return config, networks, AssemblyReport(tuple(origins[:taken]), tuple(origins[taken:]), tuple(notes))


def _within(config: ModelConfig, motion: Motion) -> tuple[ModelConfig, list[str]]:
    """The config with positions and window no longer than those of the motion file, and what was changed."""
    unet, file = config.unet, motion.files[0].name
    if motion.positions >= unet.motion_positions:
        return config, []
    notes = [
        f"{file} knows {motion.positions} positions of frames, the config has {unet.motion_positions}: cut to these"
    ]
    window = min(config.window, motion.positions)
    overlap = min(config.overlap, window - 1)
    if window < config.window:
        notes.append(f"the window of {config.window} frames was cut to {window}, the overlap to {overlap}")
    unet = replace(unet, motion_positions=motion.positions)
    return replace(config, unet=unet, window=window, overlap=overlap), notes


def _original(key: str) -> str:
    for own, original in COPIES.items():
        key = key.replace(own, original)
    return key


def _drawn(denoiser: nn.Module, keys: Iterable[str]) -> dict[str, Tensor]:
    """Freshly drawn tensors of single layers of the denoiser (which is on the meta device), outputs at zero."""
    drawn = {}
    for path in dict.fromkeys(key.rpartition(".")[0] for key in keys):
        layer = denoiser.get_submodule(path)
        if not isinstance(layer, (nn.Linear, nn.LayerNorm, nn.GroupNorm)):
            raise PortraitError(
                f"denoiser.{path} is not a layer of Stable Diffusion 1.5, and how it starts is not known: use the sd15 preset "
                "or a config without it"
            )
        layer = layer.to_empty(device="cpu")
        layer.reset_parameters()
        for name, parameter in layer.named_parameters():
            key = f"{path}.{name}"
            if STYLE_OUTPUT in f".{key}" or (".motion_modules." in key and MOTION_OUTPUT in key):
                nn.init.zeros_(parameter)
            drawn[key] = parameter.detach()
    return drawn


def _rest(config: ModelConfig) -> dict[str, nn.Module]:
    """Everything beside the two UNets, freshly drawn, by its prefix in the networks."""
    # None of it depends on more of the UNet than its first width, so a UNet of one small level saves gigabytes here.
    unet = replace(
        config.unet,
        block_out_channels=config.unet.block_out_channels[:1],
        attention_levels=(False,),
        attention_heads=config.unet.attention_heads if isinstance(config.unet.attention_heads, int) else 1,
        layers_per_block=1,
        motion_mid_block=False,
    )
    networks = build_networks(replace(config, unet=unet))
    return {f"{name}.": each for name, each in networks.named_children() if name not in ("denoiser", "reference")}


def _unused(file: str, parts: Mapping[str, int]) -> str:
    return f"{file} also holds: " + ", ".join(f"{part} {count}" for part, count in parts.items())


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
        expected = sinusoidal_encoding(*table.shape[1:], torch.empty(0, device=table.device))
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
