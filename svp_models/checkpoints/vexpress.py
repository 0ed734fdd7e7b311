"""V-Express weights: five files in a folder, under V-Express' own names, any of them in any format of `foreign`.

Writes a model as V-Express' five files, for programs that read those.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import PRESETS, ModelConfig
from ..errors import PortraitError
from ..io.files import whole_file
from ..model import PortraitModel, PortraitNetworks, build_networks
from ..networks.attention import sinusoidal_encoding
from ..networks.denoiser import Denoiser
from ..networks.layers import shapes_only
from ..networks.style_extractor import StyleExtractor, StyleProjection
from .init_from_sd15 import TABLE
from .model_file import style_space_of
from .safetensors_io import check_numbers, check_tensors, load_strict
from .sd15 import find_sd_vae, load_vae, places_of_vae
from .style_layers import OUTPUTS, style_tensors
from .third_party import SUFFIXES, find_weights, read_weights
from .vexpress_config import vexpress_config

DENOISER, MOTION, REFERENCE = "denoising_unet", "motion_module", "reference_net"
GUIDER, AUDIO = "v_kps_guider", "audio_projection"
FILES = (DENOISER, MOTION, REFERENCE, GUIDER, AUDIO)
FRESH_SEED = 0  # of the layers that V-Express has not: the style space has to be the same at every loading

# Their names of a layer of the audio projection for ours; ours keeps keys and values apart.
AUDIO_LAYER = {
    "ln0": "0.norm1", "ln1": "0.norm2", "attn.to_q": "0.to_q", "attn.to_out.0": "0.to_out",
    "ff.0": "1.0", "ff.1.net.0.proj": "1.1", "ff.1.net.2": "1.3",
}  # fmt: skip
KEYS, VALUES, KEYS_AND_VALUES = "attn.to_k", "attn.to_v", "0.to_kv"
POSITIONS = "pos_encoder.pe"
POSITIONS_APART = 2**-8
POSITIONS_EXACT = 1e-6


def holds_vexpress(names: Iterable[str]) -> bool:
    """Whether files of these names (no folders) are the five of V-Express, each in one of the known formats."""
    return not missing_files(names)


def missing_files(names: Iterable[str]) -> list[str]:
    """Those of the five, as published, that are not among files of these names in any of the known formats."""
    names = set(names)
    return [f"{stem}.bin" for stem in FILES if not any(f"{stem}{suffix}" in names for suffix in SUFFIXES)]


def load_vexpress(
    folder: Path | str,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    vae_path: Path | str | None = None,
) -> PortraitModel:
    """The model of a V-Express folder, networks in `dtype`, with its VAE (float32).

    vae_path: as `load_vae` takes it; None looks for it in `places_of_vae`. The model has no face analyser, and its style
    layers are new: their output is zero, so that the pictures are V-Express' own.
    """
    folder = Path(folder)
    vae_path = vae_path or find_sd_vae(places_of_vae(folder))  # its absence is told before gigabytes are read
    config, networks = load_vexpress_networks(folder, dtype)
    vae_config, vae, _ = load_vae(vae_path, config.vae)
    style_space = style_space_of(networks.style_extractor)  # of the unrounded weights: the same in every precision
    return PortraitModel(
        config=replace(config, vae=vae_config),
        networks=networks.to(device=device, dtype=dtype),
        vae=vae.to(device=device),
        face_analyzer=None,
        style_space=style_space,
        metadata={"source": folder.name},
    )


def load_vexpress_networks(
    folder: Path | str, dtype: torch.dtype | None = torch.float32
) -> tuple[ModelConfig, PortraitNetworks]:
    """Config and networks (on the CPU, eval mode) from the five files and the JSON files beside them.

    dtype: what the files' weights become; None, or what they are stored in, leaves them in files that are mapped into memory.
    The layers that V-Express has not are float32 in either case. Every tensor of every file is used or checked; the first
    that is missing, unexpected or of another shape raises PortraitError with the file, its name there and both shapes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PortraitError(f"{folder}: there is no such folder")
    config = vexpress_config(folder)
    paths = {stem: find_weights(folder, stem) for stem in FILES}
    with shapes_only():  # weights come from the files: no time is lost on drawing random ones
        networks = build_networks(config)
    networks.style_projection, networks.style_extractor = _fresh_style(config)
    _load_denoiser(networks.denoiser, paths[DENOISER], paths[MOTION], dtype)
    for network, path in ((networks.reference, paths[REFERENCE]), (networks.guider, paths[GUIDER])):
        tensors = _read_floats(path, dtype)
        load_strict(network, tensors, path)
        check_numbers(tensors, path)
    _load_audio(networks.audio_projection, paths[AUDIO], dtype)
    return config, networks.eval()


def denoiser_names(own: Iterable[str]) -> dict[str, str]:
    """V-Express' name -> ours, for the denoiser's tensors that V-Express has; motion modules included."""
    named = {}
    for name in own:
        if ".style_" in name:
            continue
        theirs = name.replace("reference_attn.", "attn1_5.").replace("reference_norm.", "norm1_5.")
        named[re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", theirs)] = name
    return named


def audio_names(own: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """V-Express' name -> ours; where V-Express has one tensor for two of ours, both, in the order they are stacked."""
    named: dict[str, tuple[str, ...]] = {}
    for name in own:
        if not name.startswith("layers."):
            named[name] = (name,)
            continue
        layer, rest = re.match(r"(layers\.\d+)\.(.*)", name).groups()
        part, kind = rest.rsplit(".", 1)
        if part in (KEYS, VALUES):
            named[f"{layer}.{KEYS_AND_VALUES}.{kind}"] = tuple(f"{layer}.{each}.{kind}" for each in (KEYS, VALUES))
        else:
            named[f"{layer}.{AUDIO_LAYER[part]}.{kind}"] = (name,)
    return named


def _load_denoiser(denoiser: Denoiser, spatial_path: Path, motion_path: Path, dtype: torch.dtype | None) -> None:
    """The spatial layers from one file, the temporal ones from the other, which wins: of temporal ones in the first only
    names and shapes are checked."""
    own = denoiser.state_dict()
    names = denoiser_names(own)
    tables = _position_tables(denoiser)
    shapes = {theirs: own[name].shape for theirs, name in names.items()}
    shapes |= {theirs: table.shape for theirs, table in tables.items()}
    spatial, motion = _read_floats(spatial_path, dtype), _read_floats(motion_path, dtype)
    stale = {name: tensor for name, tensor in spatial.items() if _is_motion(name)}
    check_tensors({name: shape for name, shape in shapes.items() if _is_motion(name)}, motion, motion_path)
    check_tensors({name: shapes[name] for name in stale if name in shapes}, stale, spatial_path)
    spatial = {name: tensor for name, tensor in spatial.items() if not _is_motion(name)}
    check_tensors({name: shape for name, shape in shapes.items() if not _is_motion(name)}, spatial, spatial_path)
    _check_positions(tables, motion, motion_path)
    check_numbers(spatial, spatial_path)
    check_numbers(motion, motion_path)
    theirs = spatial | motion
    loaded = {ours: theirs[name] for name, ours in names.items()}
    load_strict(denoiser, loaded | _fresh_style_layers(denoiser), spatial_path)
    _keep_positions(denoiser, tables, motion)


def _load_audio(projection: nn.Module, path: Path, dtype: torch.dtype | None) -> None:
    own = projection.state_dict()
    names = audio_names(own)
    shapes = {
        theirs: (sum(own[name].shape[0] for name in ours), *own[ours[0]].shape[1:]) for theirs, ours in names.items()
    }
    tensors = _read_floats(path, dtype)
    check_tensors(shapes, tensors, path)
    check_numbers(tensors, path)
    loaded: dict[str, Tensor] = {}
    for theirs, ours in names.items():
        loaded |= zip(ours, tensors[theirs].chunk(len(ours)), strict=True)
    load_strict(projection, loaded, path)


def _position_tables(denoiser: Denoiser) -> dict[str, Tensor]:
    """The frame positions that V-Express stores with every temporal attention: name -> 1 positions channels."""
    tables: dict[tuple[int, int], Tensor] = {}
    named = {}
    for theirs, name in denoiser_names(denoiser.state_dict()).items():
        if match := re.match(r"(.*attention_blocks\.\d+)\.to_q\.weight$", theirs):
            channels = denoiser.get_parameter(name).shape[1]
            block = denoiser.get_submodule(name.split(".attention_blocks")[0])
            size = (block.positions, channels)
            if size not in tables:
                tables[size] = sinusoidal_encoding(*size, torch.zeros(()))[None]
            named[f"{match[1]}.{POSITIONS}"] = tables[size]
    return named


def _check_positions(tables: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises PortraitError unless stored positions are the sinusoidal ones, up to the rounding of bfloat16."""
    for name in tables.keys() & tensors.keys():
        apart = float((tensors[name].float() - tables[name]).abs().max())
        if not apart <= POSITIONS_APART:
            raise PortraitError(
                f"{path}: {name} is up to {apart:g} off the sinusoidal positions ({POSITIONS_APART:g} is allowed): these "
                "weights were made for other positions and cannot be used"
            )


def _keep_positions(denoiser: Denoiser, tables: Mapping[str, Tensor], motion: Mapping[str, Tensor]) -> None:
    """Positions that the file holds rounded are used as they are there, as V-Express does."""
    blocks: dict[str, list[str]] = {}
    for name in tables:
        blocks.setdefault(name.split(".attention_blocks.")[0], []).append(name)
    for block, names in blocks.items():
        stored = torch.cat([motion[name] for name in names])  # 2 positions c
        computed = torch.cat([tables[name] for name in names])
        if float((stored.float() - computed).abs().max()) > POSITIONS_EXACT:
            denoiser.get_submodule(block.replace(".temporal_transformer", "")).positional_encoding = stored


def _is_motion(name: str) -> bool:
    return "motion_module" in name


def _read_floats(path: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors of a file in dtype, None: as stored; one that holds whole numbers is no weight."""
    tensors = read_weights(path)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise PortraitError(f"{path}: {name} holds {tensor.dtype}, weights are floats: take the unquantised file")
    return {name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}


def _fresh_style(config: ModelConfig) -> tuple[StyleProjection, StyleExtractor]:
    """What reads styles, untrained and always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(FRESH_SEED)
        style = config.style
        return StyleProjection(style.style_size, style.tokens, config.unet.cross_attention_dim), StyleExtractor(style)


def _fresh_style_layers(denoiser: Denoiser) -> dict[str, Tensor]:
    """Untrained style layers of all blocks, always the same; those at the output are zero (see TransformerBlock)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(FRESH_SEED)
        for block in denoiser.transformer_blocks():
            for part in (block.style_norm, block.style_attn):
                for layer in part.to_empty(device="cpu").modules():
                    if isinstance(layer, nn.Linear | nn.LayerNorm):
                        layer.reset_parameters()
            for last in block.style_attn.to_out[0].parameters():
                nn.init.zeros_(last)
    return {name: tensor for name, tensor in denoiser.state_dict().items() if ".style_" in name}


QUERY = "to_q.weight"


def vexpress_tensors(model: PortraitModel) -> dict[str, dict[str, Tensor]]:
    """Name of each of the five files, without its ending -> its tensors by V-Express' names, in the model's precision."""
    networks, positions = model.networks, model.config.unet.motion_positions
    own = networks.denoiser.state_dict()
    files: dict[str, dict[str, Tensor]] = {stem: {} for stem in FILES}
    for theirs, name in denoiser_names(own).items():
        file = files[MOTION if ".motion_modules." in name else DENOISER]
        file[theirs] = own[name]
        if ".motion_modules." in name and theirs.endswith(QUERY):
            block, attention = name.removesuffix(f".{QUERY}").split(".attention_blocks.")
            kept = networks.denoiser.get_submodule(block).positional_encoding
            computed = sinusoidal_encoding(positions, own[name].shape[1], torch.empty(0))
            table = computed if kept is None else kept[int(attention)]
            file[theirs.removesuffix(QUERY) + TABLE] = table[None].to(own[name].dtype)
    files[REFERENCE] = dict(networks.reference.state_dict())
    files[GUIDER] = dict(networks.guider.state_dict())
    audio = networks.audio_projection.state_dict()
    files[AUDIO] = {theirs: torch.cat([audio[each] for each in ours]) for theirs, ours in audio_names(audio).items()}
    return files


def export_vexpress(folder: Path | str, model: PortraitModel) -> list[Path]:
    """Writes the five files, each all or nothing, and returns their paths. What has no place there is told by `dropped`.

    A model that V-Express has no room for (layers, keypoints or audio features of another kind) raises PortraitError.
    """
    folder, config, theirs = Path(folder), model.config, PRESETS["vexpress"]
    unet = config.unet
    wrong = [
        f"{name} is {have!r}, V-Express has {needed!r}"
        for name, have, needed in (
            ("keypoints", config.keypoints, theirs.keypoints),
            ("audio.features", config.audio.features, theirs.audio.features),
            ("vae.kind", config.vae.kind, theirs.vae.kind),
            ("residual", config.residual, False),
            ("unet.reference_concat", unet.reference_concat, False),
            ("unet.reference_warp", unet.reference_warp, False),
            ("unet.condition_embedding", unet.condition_embedding, False),
        )
        if have != needed
    ]
    if wrong:
        raise PortraitError(f"this model cannot be written as V-Express' files: {'; '.join(wrong)}")
    files = vexpress_tensors(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / f"{stem}.bin", tensors) for stem, tensors in files.items()]
    except (OSError, RuntimeError) as error:  # the latter is what torch.save makes of a full disk
        raise PortraitError(f"{folder}: cannot be written ({error}): check its rights and free space") from error


def dropped(model: PortraitModel) -> list[str]:
    """A line about the style layers that V-Express' files have no place for; none if they do nothing, as fresh ones."""
    tensors = style_tensors(model.networks)
    if not any(bool(tensor.any()) for name, tensor in tensors.items() if name.endswith(OUTPUTS)):
        return []
    numbers = sum(tensor.numel() for tensor in tensors.values())
    return [
        f"dropped  style attention, style projection, style extractor  {len(tensors)} tensors  {numbers:,}  (V-Express has no "
        "place for them: keep them in a file of their own with Save Style Layers)"
    ]


def _write(path: Path, tensors: dict[str, Tensor]) -> Path:
    with whole_file(path) as temporary:
        # Clones: torch.save would write the whole of the memory that a tensor is a part of.
        torch.save({key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}, temporary)
    return path
