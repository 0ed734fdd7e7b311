"""Published weights of one or more makers -> one model file of the pack, with the proof of where it came from.

What a weight file or folder is, told by the names in it, and the proof of where a model came from.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ..config import PRESETS, ModelConfig
from ..errors import PortraitError
from ..io.file_names import printable
from ..io.strict_config import json_value, shown
from ..model import PortraitModel, PortraitNetworks
from . import model_zoo
from .init_from_sd15 import assemble, read_motion
from .model_file import load_model, save_model, style_space_of
from .safetensors_io import FORMAT, sha256_of
from .sd15 import find_sd_vae, load_vae, places_of_vae, read_unet
from .third_party import SUFFIXES, find_weights, read_weights
from .vexpress import DENOISER, FILES, load_vexpress_networks

NATIVE, VEXPRESS, SD15, VAE, MOTION = "native", "vexpress", "sd15", "vae", "animatediff"


def kind_of(path: Path | str) -> str:
    """NATIVE, VEXPRESS, SD15, VAE or MOTION; a path that is none of them raises PortraitError saying what was looked for."""
    path = Path(path)
    if path.is_dir():
        return _kind_of_folder(path)
    names, metadata = _names(path)
    if metadata.get("format") == FORMAT:
        return NATIVE
    if any(name.startswith("model.diffusion_model.") for name in names):
        return SD15
    if any(".motion_modules." in name for name in names) and not any(".resnets." in name for name in names):
        return MOTION
    if any(
        name.removeprefix("first_stage_model.").startswith(("encoder.down.", "encoder.down_blocks.")) for name in names
    ):
        return VAE
    first = printable(", ".join(sorted(names)[:3]))
    raise PortraitError(
        f"{path}: its {len(names)} names ({first}, ...) are those of no known model: a file of this pack, a Stable Diffusion "
        "1.5 checkpoint or autoencoder or an AnimateDiff motion module is needed"
    )


def _kind_of_folder(folder: Path) -> str:
    def has(place: Path, stem: str) -> bool:
        return any((place / f"{stem}{suffix}").is_file() for suffix in SUFFIXES)

    if has(folder, DENOISER):
        return VEXPRESS
    if (folder / "unet").is_dir():
        return SD15
    if has(folder, "diffusion_pytorch_model") or (folder / "vae").is_dir():
        return VAE
    raise PortraitError(
        f"{folder}: it holds neither denoising_unet (V-Express), nor unet/ (Stable Diffusion 1.5), nor "
        "diffusion_pytorch_model (an autoencoder): name the folder that does"
    )


def _names(path: Path) -> tuple[list[str], dict[str, str]]:
    """The names in a file and its metadata, without reading the tensors where the format allows it."""
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
    """Folder and name of each file -> SHA-256, as a model file's metadata keeps them."""
    return {f"{file.parent.name}/{file.name}": sha256_of(file) for file in dict.fromkeys(Path(each) for each in files)}


DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
# The catalogue's entry whose licence a kind of source has.
LICENSED_AS = {SD15: "sd15", VEXPRESS: "vexpress", VAE: "sd-vae-ft-mse", MOTION: "animatediff-v3"}


def convert(
    sources: Sequence[Path | str],
    out: Path | str,
    dtype: torch.dtype | None = None,
    config: ModelConfig = PRESETS["sd15"],
    seed: int = 0,
) -> list[str]:
    """Writes `out`, a single model file, from: a model file; SD1.5 (with AnimateDiff, with an autoencoder); or a V-Express
    folder (with an autoencoder). Returns lines saying what was taken from where.

    dtype: None keeps a model file's precision and makes float16 of all others. config, seed: see `assemble`.
    """
    kinds = _kinds([Path(each) for each in sources])
    if NATIVE in kinds:
        model, files, lines = _native(kinds[NATIVE])
        dtype = dtype or next(model.networks.parameters()).dtype
    elif SD15 in kinds:
        model, files, lines = _sd15(kinds, config, dtype or torch.float16, seed)
    else:
        model, files, lines = _vexpress(kinds)
    known = json_value(model.metadata.get("sources", "{}"), f"{files[0]}: sources")
    if not isinstance(known, dict):
        raise PortraitError(
            f"{files[0]}: sources is {shown(known)}: names and hashes are needed, get the original file"
        )
    licences = [model.metadata["licence"]] if model.metadata.get("licence") else []
    licences += [f"{kind}: {model_zoo.ENTRIES[LICENSED_AS[kind]].licence}" for kind in kinds if kind in LICENSED_AS]
    metadata = {
        **model.metadata,
        "sources": json.dumps({**known, **hashes_of(files)}),
        "licence": "; ".join(licences) or "not stated by the source",
    }
    save_model(out, model, metadata, dtype or torch.float16)
    return lines


def _kinds(paths: Sequence[Path]) -> dict[str, Path]:
    """Kind -> path, for sources that make up one model."""
    kinds: dict[str, Path] = {}
    for path in paths:
        kind = kind_of(path)
        if kind in kinds:
            raise PortraitError(f"{kinds[kind]} and {path} are both of kind {kind}: name one of them")
        kinds[kind] = path
    joined = {SD15: {SD15, MOTION, VAE}, VEXPRESS: {VEXPRESS, VAE}, NATIVE: {NATIVE}}
    main = [kind for kind in joined if kind in kinds]
    if len(main) != 1 or not set(kinds) <= joined[main[0]]:
        raise PortraitError(
            f"the sources are of kinds {', '.join(kinds) or 'none'}: give one model file of this pack, or Stable Diffusion "
            "1.5 (sd15, with animatediff and vae as you like), or a V-Express folder (vexpress, with vae as you like)"
        )
    return kinds


def _native(path: Path) -> tuple[PortraitModel, list[Path], list[str]]:
    model = load_model(path, dtype=None)
    return model, [path], [_taken("networks", model.networks, path), _taken("VAE", model.vae, path)]


def _sd15(
    kinds: dict[str, Path], config: ModelConfig, dtype: torch.dtype, seed: int
) -> tuple[PortraitModel, list[Path], list[str]]:
    base = read_unet(kinds[SD15], config.unet)
    motion = read_motion(kinds[MOTION], config.unet) if MOTION in kinds else None
    config, networks, report = assemble(base, motion, config, seed, dtype)
    of_vae, vae, file = load_vae(kinds.get(VAE, kinds[SD15]), config.vae)
    files = [*base.files, *(motion.files if motion else ()), file]
    model = replace(_model(replace(config, vae=of_vae), networks, vae), metadata={"seed": str(seed)})
    return model, files, [*report.lines(), _taken("VAE", vae, file)]


def _vexpress(kinds: dict[str, Path]) -> tuple[PortraitModel, list[Path], list[str]]:
    folder = kinds[VEXPRESS]
    vae_path = kinds.get(VAE) or _vae_of(folder)
    config, networks = load_vexpress_networks(folder, dtype=None)
    of_vae, vae, file = load_vae(vae_path, config.vae)
    files = [find_weights(folder, stem) for stem in FILES]
    parts = (
        ("denoiser", networks.denoiser, f"{files[0].name}, {files[1].name}"),
        ("ReferenceNet", networks.reference, files[2].name),
        ("guider", networks.guider, files[3].name),
        ("audio projection", networks.audio_projection, files[4].name),
    )
    lines = [_taken(*part) for part in parts] + [_taken("VAE", vae, file)]
    lines.append("fresh  style attention (output zero), style projection, style extractor")
    return _model(replace(config, vae=of_vae), networks, vae), [*files, file], lines


def _vae_of(folder: Path) -> Path:
    try:
        return find_sd_vae(places_of_vae(folder))
    except PortraitError as error:
        raise PortraitError(f"{error}; or name its file or folder as a second SOURCE") from error


def _taken(part: str, module: nn.Module, source: Path | str) -> str:
    state = module.state_dict().values()
    name = source.name if isinstance(source, Path) else source
    return f"taken  {part:<44}{len(state):>5} tensors {sum(tensor.numel() for tensor in state):>13,}  {name}"


def _model(config: ModelConfig, networks: PortraitNetworks, vae: nn.Module) -> PortraitModel:
    return PortraitModel(config, networks, vae, None, style_space_of(networks.style_extractor))
