"""Published weights of one or more sources -> one model file, with the hashes of the sources in its metadata.

Files and folders are recognised by the names in them. Stable Diffusion 1.5 with AnimateDiff becomes a start for training.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import PortraitError
from ..io.file_names import printable
from ..io.strict_config import json_value, shown
from ..model import PortraitModel, PortraitNetworks, build_networks
from ..networks.layers import shapes_only
from ..networks.vae import Vae
from ..presets import PRESETS
from .liveportrait import FILES as LIVEPORTRAIT_FILES
from .liveportrait import KIND, SUBFOLDERS, liveportrait_files, load_liveportrait
from .liveportrait_file import save_liveportrait
from .model_file import load_model, save_model, style_space_of
from .model_zoo import ENTRIES
from .safetensors_io import FORMAT, load_strict, read_metadata, sha256_of
from .sd15 import (
    MID_BLOCK,
    STEM,
    MotionModules,
    Published,
    find_sd_vae,
    load_vae,
    read_motion,
    read_unet,
    vae_folders,
)
from .third_party import find_weights, read_weights, weights_in
from .vexpress import DENOISER, FILES, load_vexpress_networks

MODEL_FILE, VEXPRESS, SD15, VAE, MOTION = "model file", "vexpress", "sd15", "vae", "animatediff"
LIVEPORTRAIT = "liveportrait"  # a folder of the five published files, or the pack's single file of them
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
LICENCES = {
    SD15: "sd15",
    VEXPRESS: "vexpress",
    VAE: "sd-vae-ft-mse",
    MOTION: "animatediff-v3",
    LIVEPORTRAIT: "liveportrait",
}  # entry of the model zoo

# Layers of the denoiser that Stable Diffusion lacks start as copies of similar ones: the reference bank holds features of the
# same kind as the block's own, so self-attention weights suit it. V-Express starts from these copies too.
COPIES = {".reference_norm.": ".norm1.", ".reference_attn.": ".attn1."}
# Output layers that start at zero: the layers before them change nothing until they are trained.
AUDIO_OUTPUT, STYLE_OUTPUT, MOTION_OUTPUT = ".attn2.to_out.0.", ".style_attn.to_out.0.", ".proj_out."


def convert(
    sources: Sequence[Path | str],
    out: Path | str,
    dtype: torch.dtype | None = None,
    config: ModelConfig = PRESETS["sd15"],
    seed: int = 0,
) -> list[str]:
    """Writes the model file `out` and returns the lines of a report.

    sources: a model file; SD1.5 (and AnimateDiff, and an autoencoder); a V-Express folder (and an autoencoder); or
    LivePortrait, which becomes its single file. dtype: None keeps the precision of a model file, means float32 for LivePortrait
    and float16 for all others. config, seed: see `init_from_sd15`.
    """
    kinds = _kinds([Path(source) for source in sources])
    if LIVEPORTRAIT in kinds:
        return _convert_liveportrait(kinds[LIVEPORTRAIT], Path(out), dtype or torch.float32)
    if MODEL_FILE in kinds:
        model, files, lines = _from_model_file(kinds[MODEL_FILE])
        dtype = dtype or next(model.networks.parameters()).dtype
    elif SD15 in kinds:
        model, files, lines = _from_sd15(kinds, config, dtype or torch.float16, seed)
    else:
        model, files, lines = _from_vexpress(kinds)
    known = _known_sources(model.metadata, files[0])
    licences = [model.metadata["licence"]] if model.metadata.get("licence") else []
    licences += [f"{kind}: {ENTRIES[LICENCES[kind]].licence}" for kind in kinds if kind in LICENCES]
    metadata = {
        **model.metadata,
        "sources": json.dumps({**known, **hashes_of(files)}),
        "licence": "; ".join(licences) or "not stated by the source",
    }
    save_model(out, model, metadata, dtype or torch.float16)
    return lines


def _known_sources(metadata: Mapping[str, str], file: Path) -> dict[str, str]:
    """Sources that a file of the pack names already."""
    known = json_value(metadata.get("sources", "{}"), f"{file}: sources")
    if not isinstance(known, dict):
        raise PortraitError(f"{file}: sources is {shown(known)}: names and hashes are needed, use the original file")
    return known


def _convert_liveportrait(source: Path, out: Path, dtype: torch.dtype) -> list[str]:
    networks = load_liveportrait(source)
    files = list(liveportrait_files(source).values()) if source.is_dir() else [source]
    known = _known_sources({} if source.is_dir() else read_metadata(source), source)
    licence = f"{LIVEPORTRAIT}: {ENTRIES[LICENCES[LIVEPORTRAIT]].licence}"
    save_liveportrait(out, networks, {"sources": json.dumps({**known, **hashes_of(files)}), "licence": licence}, dtype)
    return [_loaded(part.name, getattr(networks, part.name), source.name) for part in fields(networks)]


@dataclass(frozen=True)
class ReportRow:
    """Origin of one part of the networks: its source, and its number of tensors and parameters."""

    part: str
    source: str
    tensors: int
    parameters: int

    def line(self, title: str) -> str:
        """The row as aligned text."""
        return f"{title}  {self.part:<44}{self.tensors:>5} tensors {self.parameters:>13,}  {self.source}"


@dataclass(frozen=True)
class InitReport:
    """Where the tensors of new networks come from; every tensor is in one row.

    loaded: parts from files; fresh: untrained parts; notes: unused parts of the files, and changes of the config.
    """

    loaded: tuple[ReportRow, ...]
    fresh: tuple[ReportRow, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report as aligned lines of text."""
        loaded, fresh = [row.line("loaded") for row in self.loaded], [row.line("fresh ") for row in self.fresh]
        return [*loaded, *fresh, *(f"note    {note}" for note in self.notes)]


def init_from_sd15(
    base: Published,
    motion: MotionModules | None,
    config: ModelConfig = PRESETS["sd15"],
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> tuple[ModelConfig, PortraitNetworks, InitReport]:
    """Networks to start a training from (sec. 3.3), in `dtype`, with the config and a report.

    ReferenceNet and denoiser come from Stable Diffusion 1.5, temporal layers from AnimateDiff. base: SD1.5's UNet at the sizes
    of `config.unet`; motion: temporal layers, None makes them fresh; seed: of the fresh parts. Window and positions of the
    config become at most those of the motion file.
    """
    notes = [_unused_note(source.files[0].name, source.unused) for source in (base, motion) if source and source.unused]
    if motion is not None:
        config, changes = _limit_positions(config, motion)
        notes += changes
    with shapes_only():
        networks = build_networks(config)
    names = networks.denoiser.state_dict()
    unet, file = base.tensors, base.files[0].name
    parts: list[tuple[ReportRow, dict[str, Tensor]]] = []

    def add(part: str, source: str, tensors: Mapping[str, Tensor], prefix: str) -> None:
        if tensors:
            count = sum(tensor.numel() for tensor in tensors.values())
            # Copies, because several networks use one tensor, and because the files would stay mapped.
            copies = {prefix + key: tensor.to(dtype, copy=True) for key, tensor in tensors.items()}
            parts.append((ReportRow(part, source, len(tensors), count), copies))

    reference = {key: tensor for key, tensor in unet.items() if not key.startswith("conv_norm_out.")}
    add("ReferenceNet", file, reference, "reference.")
    zeros = {key: torch.zeros_like(tensor) for key, tensor in unet.items() if AUDIO_OUTPUT in key}
    spatial = {key: tensor for key, tensor in unet.items() if key not in zeros}
    add("denoiser: spatial layers, queries for audio", file, spatial, "denoiser.")
    copied = {key: unet[_original(key)] for key in names if _original(key) in unet and _original(key) != key}
    add("denoiser: reference attention", f"{file}, copies of its self-attention", copied, "denoiser.")
    if motion is not None:
        add("denoiser: temporal layers", motion.files[0].name, motion.tensors, "denoiser.")
    loaded = len(parts)

    add("denoiser: output of the audio attention", "zero", zeros, "denoiser.")
    done = {key for _, tensors in parts for key in tensors}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = _fresh_layers(networks.denoiser, [key for key in names if f"denoiser.{key}" not in done])
        style = {key: tensor for key, tensor in fresh.items() if ".style_" in key}
        add("denoiser: style attention", "random, output zero", style, "denoiser.")
        temporal = {key: tensor for key, tensor in fresh.items() if ".motion_modules." in key}
        mid_block = motion is not None and all(key.startswith(MID_BLOCK) for key in temporal)
        layers = "temporal layers of the mid block" if mid_block else "temporal layers"
        add(f"denoiser: {layers}", "random, output zero", temporal, "denoiser.")
        for prefix, module in _fresh_networks(config).items():
            zero = ", output zero" if prefix == "guider." else ""
            add(prefix[:-1].replace("_", " "), f"random{zero}", module.state_dict(), prefix)
    if motion is not None and mid_block and temporal:
        notes.append(
            f"{motion.files[0].name} has no temporal layers for the mid block: they are fresh, with output zero"
        )
    load_strict(networks, {key: tensor for _, tensors in parts for key, tensor in tensors.items()}, file)
    rows = [row for row, _ in parts]
    return config, networks, InitReport(tuple(rows[:loaded]), tuple(rows[loaded:]), tuple(notes))


def _limit_positions(config: ModelConfig, motion: MotionModules) -> tuple[ModelConfig, list[str]]:
    """The config with at most the positions of the motion file, and notes about the changes."""
    unet, file = config.unet, motion.files[0].name
    if motion.positions >= unet.motion_positions:
        return config, []
    notes = [
        f"{file} has {motion.positions} frame positions, the config {unet.motion_positions}: reduced to {motion.positions}"
    ]
    window = min(config.window, motion.positions)
    overlap = min(config.overlap, window - 1)
    if window < config.window:
        notes.append(f"the window of {config.window} frames was reduced to {window}, the overlap to {overlap}")
    unet = replace(unet, motion_positions=motion.positions)
    return replace(config, unet=unet, window=window, overlap=overlap), notes


def _original(key: str) -> str:
    for part, original in COPIES.items():
        key = key.replace(part, original)
    return key


def _fresh_layers(denoiser: nn.Module, keys: Iterable[str]) -> dict[str, Tensor]:
    """Random tensors for layers of the denoiser, which is on the meta device; output layers are zero."""
    fresh = {}
    for path in dict.fromkeys(key.rpartition(".")[0] for key in keys):
        layer = denoiser.get_submodule(path)
        if not isinstance(layer, (nn.Linear, nn.LayerNorm, nn.GroupNorm)):
            raise PortraitError(
                f"denoiser.{path} is not a layer of Stable Diffusion 1.5 and has no known start values: use the sd15 preset "
                "or a config without it"
            )
        layer = layer.to_empty(device="cpu")
        layer.reset_parameters()
        for name, parameter in layer.named_parameters():
            key = f"{path}.{name}"
            if STYLE_OUTPUT in f".{key}" or (".motion_modules." in key and MOTION_OUTPUT in key):
                nn.init.zeros_(parameter)
            fresh[key] = parameter.detach()
    return fresh


def _fresh_networks(config: ModelConfig) -> dict[str, nn.Module]:
    """All networks except the two UNets, with random weights, by their prefix."""
    # They depend on the first width of the UNet alone, so a UNet of one small level saves gigabytes here.
    unet = replace(
        config.unet,
        block_out_channels=config.unet.block_out_channels[:1],
        attention_levels=(False,),
        attention_heads=config.unet.attention_heads if isinstance(config.unet.attention_heads, int) else 1,
        layers_per_block=1,
        motion_mid_block=False,
    )
    networks = build_networks(replace(config, unet=unet))
    return {f"{name}.": module for name, module in networks.named_children() if name not in ("denoiser", "reference")}


def _unused_note(file: str, parts: Mapping[str, int]) -> str:
    return f"{file} also has: " + ", ".join(f"{part} {count}" for part, count in parts.items())


def kind_of(path: Path | str) -> str:
    """MODEL_FILE, VEXPRESS, SD15, VAE or MOTION. Another file or folder raises PortraitError."""
    path = Path(path)
    if path.is_dir():
        return _kind_of_folder(path)
    names, metadata = _names(path)
    if metadata.get("format") == FORMAT:
        return LIVEPORTRAIT if metadata.get("kind") == KIND else MODEL_FILE
    if any(name.startswith("model.diffusion_model.") for name in names):
        return SD15
    if any(".motion_modules." in name for name in names) and not any(".resnets." in name for name in names):
        return MOTION
    encoder = ("encoder.down.", "encoder.down_blocks.")
    if any(name.removeprefix("first_stage_model.").startswith(encoder) for name in names):
        return VAE
    first = printable(", ".join(sorted(names)[:3]))
    raise PortraitError(
        f"{path}: its {len(names)} names ({first}, ...) belong to no known model: a file of this pack, a Stable Diffusion "
        "1.5 checkpoint or autoencoder or an AnimateDiff motion module is needed"
    )


def _kind_of_folder(folder: Path) -> str:
    if weights_in(folder, DENOISER):
        return VEXPRESS
    if any(weights_in(folder / below, LIVEPORTRAIT_FILES[0]) for below in SUBFOLDERS):
        return LIVEPORTRAIT
    if (folder / "unet").is_dir():
        return SD15
    if weights_in(folder, STEM) or (folder / "vae").is_dir():
        return VAE
    raise PortraitError(
        f"{folder}: it has no denoising_unet (V-Express), unet/ (Stable Diffusion 1.5), {LIVEPORTRAIT_FILES[0]} "
        "(LivePortrait) or diffusion_pytorch_model (an autoencoder): name the folder with the weights"
    )


def _names(path: Path) -> tuple[list[str], dict[str, str]]:
    """The names in a file and its metadata, without the tensors if the format allows it."""
    if path.suffix != ".safetensors" or not path.is_file():
        return list(read_weights(path)), {}
    try:
        with safe_open(path, framework="pt") as file:
            return list(file.keys()), dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise PortraitError(
            f"{path}: not a readable safetensors file ({path.stat().st_size} bytes; {printable(error)}): it is truncated or of another "
            "format, copy or download it again"
        ) from error


def hashes_of(files: Iterable[Path]) -> dict[str, str]:
    """Folder and name of each file -> SHA-256, for the metadata of a model file."""
    return {f"{file.parent.name}/{file.name}": sha256_of(file) for file in dict.fromkeys(map(Path, files))}


def _kinds(paths: Sequence[Path]) -> dict[str, Path]:
    """Kind -> path of the sources of one model."""
    kinds: dict[str, Path] = {}
    for path in paths:
        kind = kind_of(path)
        if kind in kinds:
            raise PortraitError(f"{kinds[kind]} and {path} are both of kind {kind}: name one of them")
        kinds[kind] = path
    combinations = {
        SD15: {SD15, MOTION, VAE},
        VEXPRESS: {VEXPRESS, VAE},
        MODEL_FILE: {MODEL_FILE},
        LIVEPORTRAIT: {LIVEPORTRAIT},
    }
    main = [kind for kind in combinations if kind in kinds]
    if len(main) != 1 or not set(kinds) <= combinations[main[0]]:
        raise PortraitError(
            f"the sources are of kinds {', '.join(kinds) or 'none'}: give one model file of this pack, or Stable Diffusion "
            "1.5 (sd15, optionally with animatediff and vae), a V-Express folder (vexpress, optionally with vae), or a "
            "LivePortrait folder (liveportrait)"
        )
    return kinds


def _from_model_file(path: Path) -> tuple[PortraitModel, list[Path], list[str]]:
    model = load_model(path, dtype=None)
    return model, [path], [_loaded("networks", model.networks, path.name), _loaded("VAE", model.vae, path.name)]


def _from_sd15(
    kinds: dict[str, Path], config: ModelConfig, dtype: torch.dtype, seed: int
) -> tuple[PortraitModel, list[Path], list[str]]:
    base = read_unet(kinds[SD15], config.unet)
    motion = read_motion(kinds[MOTION], config.unet) if MOTION in kinds else None
    config, networks, report = init_from_sd15(base, motion, config, seed, dtype)
    vae_config, vae, file = load_vae(kinds.get(VAE, kinds[SD15]), config.vae)
    files = [*base.files, *(motion.files if motion else ()), file]
    model = replace(_model(replace(config, vae=vae_config), networks, vae), metadata={"seed": str(seed)})
    return model, files, [*report.lines(), _loaded("VAE", vae, file.name)]


def _from_vexpress(kinds: dict[str, Path]) -> tuple[PortraitModel, list[Path], list[str]]:
    folder = kinds[VEXPRESS]
    vae_path = kinds.get(VAE) or _vae_of(folder)
    config, networks = load_vexpress_networks(folder, dtype=None)
    vae_config, vae, file = load_vae(vae_path, config.vae)
    files = [find_weights(folder, stem) for stem in FILES]
    parts = (
        ("denoiser", networks.denoiser, f"{files[0].name}, {files[1].name}"),
        ("ReferenceNet", networks.reference, files[2].name),
        ("guider", networks.guider, files[3].name),
        ("audio projection", networks.audio_projection, files[4].name),
    )
    lines = [_loaded(*part) for part in parts] + [_loaded("VAE", vae, file.name)]
    lines.append("fresh   style attention (output zero), style projection, style extractor")
    return _model(replace(config, vae=vae_config), networks, vae), [*files, file], lines


def _vae_of(folder: Path) -> Path:
    try:
        return find_sd_vae(vae_folders(folder))
    except PortraitError as error:
        raise PortraitError(f"{error}; or name its file or folder as a second SOURCE") from error


def _loaded(part: str, module: nn.Module, source: str) -> str:
    tensors = module.state_dict().values()
    return ReportRow(part, source, len(tensors), sum(tensor.numel() for tensor in tensors)).line("loaded")


def _model(config: ModelConfig, networks: PortraitNetworks, vae: Vae) -> PortraitModel:
    return PortraitModel(config, networks, vae, None, style_space_of(networks.style_extractor))
