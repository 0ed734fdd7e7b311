"""V-Express weights: five files in a folder, under V-Express' names, read in any format of `third_party`, and written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..errors import PortraitError
from ..io.files import whole_file
from ..model import PortraitModel, PortraitNetworks, build_networks
from ..networks.attention import sinusoidal_encoding
from ..networks.denoiser import Denoiser
from ..networks.layers import shapes_only
from ..networks.motion_module import TemporalBlock
from ..networks.style_extractor import StyleExtractor, StyleProjection
from ..presets import PRESETS
from .model_file import style_space_of
from .safetensors_io import check_numbers, check_tensors, load_strict
from .sd15 import POSITIONAL_ENCODING, find_sd_vae, load_vae, vae_folders
from .style_layers import OUTPUTS, style_tensors
from .third_party import find_weights, missing_stems, read_weights
from .vexpress_config import vexpress_config

DENOISER, MOTION, REFERENCE = "denoising_unet", "motion_module", "reference_net"
GUIDER, AUDIO = "v_kps_guider", "audio_projection"
FILES = (DENOISER, MOTION, REFERENCE, GUIDER, AUDIO)
FRESH_SEED = 0  # of the layers that V-Express lacks: their style space has to be the same in every session

# Our name -> V-Express' name in a layer of the audio projection; V-Express stores keys and values as one tensor.
AUDIO_LAYER = {
    "ln0": "0.norm1", "ln1": "0.norm2", "attn.to_q": "0.to_q", "attn.to_out.0": "0.to_out",
    "ff.0": "1.0", "ff.1.net.0.proj": "1.1", "ff.1.net.2": "1.3",
}  # fmt: skip
KEYS, VALUES, KEYS_AND_VALUES = "attn.to_k", "attn.to_v", "0.to_kv"
QUERY = "to_q.weight"
ENCODING_TOLERANCE = 2**-8  # of positional encodings: the rounding of bfloat16
ENCODING_EXACT = 1e-6


def holds_vexpress(names: Iterable[str]) -> bool:
    """Whether the five files of V-Express are among these names (without folders), in any of the known formats."""
    return not missing_files(names)


def missing_files(names: Iterable[str]) -> list[str]:
    """The files of V-Express, by their published names, that are not among these names in any of the known formats."""
    return [f"{stem}.bin" for stem in missing_stems(names, FILES)]


def load_vexpress(
    folder: Path | str,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    vae_path: Path | str | None = None,
) -> PortraitModel:
    """The model of a V-Express folder, networks in `dtype`, with its VAE (float32).

    vae_path: a path for `load_vae`, None to search `vae_folders`. The model has no face analyser. Its style layers are fresh:
    their output is zero, so that frames are those of V-Express.
    """
    folder = Path(folder)
    vae_path = vae_path or find_sd_vae(vae_folders(folder))  # an error comes before gigabytes are read
    config, networks = load_vexpress_networks(folder, dtype)
    vae_config, vae, _ = load_vae(vae_path, config.vae)
    style_space = style_space_of(
        networks.style_extractor
    )  # of the float32 weights, so that it is the same in every precision
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

    dtype: of the files' weights; None, or their stored dtype, leaves them in memory-mapped files. Layers that V-Express lacks
    are always float32. Every tensor of every file is used or checked: the first that is missing, unexpected or of another
    shape raises PortraitError with the file, its name there and both shapes.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PortraitError(f"{folder}: there is no such folder")
    config = vexpress_config(folder)
    paths = {stem: find_weights(folder, stem) for stem in FILES}
    with shapes_only():
        networks = build_networks(config)
    networks.style_projection, networks.style_extractor = _fresh_style(config)
    _load_denoiser(networks.denoiser, paths[DENOISER], paths[MOTION], dtype)
    for network, path in ((networks.reference, paths[REFERENCE]), (networks.guider, paths[GUIDER])):
        tensors = _read_floats(path, dtype)
        load_strict(network, tensors, path)
        check_numbers(tensors, path)
    _load_audio(networks.audio_projection, paths[AUDIO], dtype)
    return config, networks.eval()


def denoiser_names(names: Iterable[str]) -> dict[str, str]:
    """V-Express' name -> our name, for the tensors of the denoiser that V-Express has, with motion modules."""
    renamed = {}
    for name in names:
        if ".style_" in name:
            continue
        theirs = name.replace("reference_attn.", "attn1_5.").replace("reference_norm.", "norm1_5.")
        renamed[re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", theirs)] = name
    return renamed


def audio_names(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """V-Express' name -> our name, or our two names in the order in which V-Express stacks the tensors."""
    renamed: dict[str, tuple[str, ...]] = {}
    for name in names:
        if not name.startswith("layers."):
            renamed[name] = (name,)
            continue
        _, number, rest = name.split(".", 2)
        layer = f"layers.{number}"
        part, kind = rest.rsplit(".", 1)
        if part in (KEYS, VALUES):
            renamed[f"{layer}.{KEYS_AND_VALUES}.{kind}"] = (f"{layer}.{KEYS}.{kind}", f"{layer}.{VALUES}.{kind}")
        else:
            renamed[f"{layer}.{AUDIO_LAYER[part]}.{kind}"] = (name,)
    return renamed


def _load_denoiser(denoiser: Denoiser, spatial_path: Path, motion_path: Path, dtype: torch.dtype | None) -> None:
    """Loads the spatial layers from one file and the temporal ones from the other.

    Temporal layers in the first file are not used; their names and shapes are checked.
    """
    expected = denoiser.state_dict()
    names = denoiser_names(expected)
    encodings = _positional_encodings(denoiser)
    shapes = {theirs: expected[name].shape for theirs, name in names.items()}
    shapes |= {theirs: encoding.shape for theirs, encoding in encodings.items()}
    spatial, motion = _read_floats(spatial_path, dtype), _read_floats(motion_path, dtype)
    stale = {name: tensor for name, tensor in spatial.items() if _is_motion(name)}
    check_tensors({name: shape for name, shape in shapes.items() if _is_motion(name)}, motion, motion_path)
    check_tensors({name: shapes[name] for name in stale if name in shapes}, stale, spatial_path)
    spatial = {name: tensor for name, tensor in spatial.items() if not _is_motion(name)}
    check_tensors({name: shape for name, shape in shapes.items() if not _is_motion(name)}, spatial, spatial_path)
    _check_encodings(encodings, motion, motion_path)
    check_numbers(spatial, spatial_path)
    check_numbers(motion, motion_path)
    tensors = spatial | motion
    loaded = {ours: tensors[theirs] for theirs, ours in names.items()}
    load_strict(denoiser, loaded | _fresh_style_layers(denoiser), spatial_path)
    _set_rounded_encodings(denoiser, encodings, motion)


def _load_audio(projection: nn.Module, path: Path, dtype: torch.dtype | None) -> None:
    expected = projection.state_dict()
    names = audio_names(expected)
    shapes = {
        theirs: (sum(expected[name].shape[0] for name in ours), *expected[ours[0]].shape[1:])
        for theirs, ours in names.items()
    }
    tensors = _read_floats(path, dtype)
    check_tensors(shapes, tensors, path)
    check_numbers(tensors, path)
    loaded: dict[str, Tensor] = {}
    for theirs, ours in names.items():
        loaded |= zip(ours, tensors[theirs].chunk(len(ours)), strict=True)
    load_strict(projection, loaded, path)


def _positional_encodings(denoiser: Denoiser) -> dict[str, Tensor]:
    """The computed encodings of what V-Express stores with each temporal attention: name -> 1 positions channels."""
    computed: dict[tuple[int, int], Tensor] = {}
    encodings = {}
    for theirs, name in denoiser_names(denoiser.state_dict()).items():
        if match := re.match(r"(.*attention_blocks\.\d+)\.to_q\.weight$", theirs):
            channels = denoiser.get_parameter(name).shape[1]
            size = (_temporal_block(denoiser, name.split(".attention_blocks")[0]).positions, channels)
            if size not in computed:
                computed[size] = sinusoidal_encoding(*size, torch.zeros(()))[None]
            encodings[f"{match[1]}.{POSITIONAL_ENCODING}"] = computed[size]
    return encodings


def _temporal_block(denoiser: Denoiser, name: str) -> TemporalBlock:
    block = denoiser.get_submodule(name)
    if not isinstance(block, TemporalBlock):
        raise PortraitError(f"{name} of the denoiser is no temporal block: the files belong to another kind of model")
    return block


def _check_encodings(encodings: Mapping[str, Tensor], tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises PortraitError unless the stored encodings are the computed ones, up to the rounding of bfloat16."""
    for name in encodings.keys() & tensors.keys():
        difference = float((tensors[name].float() - encodings[name]).abs().max())
        if not difference <= ENCODING_TOLERANCE:
            raise PortraitError(
                f"{path}: {name} differs by up to {difference:g} from the sinusoidal positional encoding "
                f"({ENCODING_TOLERANCE:g} is allowed): these weights were made for another one and cannot be used"
            )


def _set_rounded_encodings(denoiser: Denoiser, encodings: Mapping[str, Tensor], motion: Mapping[str, Tensor]) -> None:
    """Gives the temporal layers the encodings of the file where it stores them rounded: V-Express uses those."""
    blocks: dict[str, list[str]] = {}
    for name in encodings:
        blocks.setdefault(name.split(".attention_blocks.")[0], []).append(name)
    for block, names in blocks.items():
        stored = torch.cat([motion[name] for name in names])  # 2 positions c
        computed = torch.cat([encodings[name] for name in names])
        if float((stored.float() - computed).abs().max()) > ENCODING_EXACT:
            denoiser.get_submodule(block.replace(".temporal_transformer", "")).positional_encoding = stored


def _is_motion(name: str) -> bool:
    return "motion_module" in name


def _read_floats(path: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """The tensors of a file in dtype, None: as stored. A tensor of integers raises PortraitError."""
    tensors = read_weights(path)
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise PortraitError(
                f"{path}: {name} holds {tensor.dtype}, weights are floats: use the file without quantisation"
            )
    return {name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}


def _fresh_style(config: ModelConfig) -> tuple[StyleProjection, StyleExtractor]:
    """Untrained style projection and extractor, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(FRESH_SEED)
        style = config.style
        return StyleProjection(style.style_size, style.tokens, config.unet.cross_attention_dim), StyleExtractor(style)


def _fresh_style_layers(denoiser: Denoiser) -> dict[str, Tensor]:
    """Untrained style layers of all blocks, always the same; output layers are zero (see TransformerBlock)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(FRESH_SEED)
        for block in denoiser.transformer_blocks():
            for part in (block.style_norm, block.style_attn):
                for layer in part.to_empty(device="cpu").modules():
                    if isinstance(layer, nn.Linear | nn.LayerNorm):
                        layer.reset_parameters()
            for parameter in block.style_attn.to_out[0].parameters():
                nn.init.zeros_(parameter)
    return {name: tensor for name, tensor in denoiser.state_dict().items() if ".style_" in name}


def vexpress_tensors(model: PortraitModel) -> dict[str, dict[str, Tensor]]:
    """The tensors of the five files: file name without suffix -> V-Express' name -> tensor, in the model's precision."""
    networks, positions = model.networks, model.config.unet.motion_positions
    denoiser = networks.denoiser.state_dict()
    files: dict[str, dict[str, Tensor]] = {stem: {} for stem in FILES}
    for theirs, name in denoiser_names(denoiser).items():
        file = files[MOTION if ".motion_modules." in name else DENOISER]
        file[theirs] = denoiser[name]
        if ".motion_modules." in name and theirs.endswith(QUERY):
            block, attention = name.removesuffix(f".{QUERY}").split(".attention_blocks.")
            stored = _temporal_block(networks.denoiser, block).positional_encoding
            computed = sinusoidal_encoding(positions, denoiser[name].shape[1], torch.empty(0))
            encoding = computed if stored is None else stored[int(attention)]
            file[theirs.removesuffix(QUERY) + POSITIONAL_ENCODING] = encoding[None].to(denoiser[name].dtype)
    files[REFERENCE] = dict(networks.reference.state_dict())
    files[GUIDER] = dict(networks.guider.state_dict())
    audio = networks.audio_projection.state_dict()
    files[AUDIO] = {theirs: torch.cat([audio[name] for name in ours]) for theirs, ours in audio_names(audio).items()}
    return files


def export_vexpress(folder: Path | str, model: PortraitModel) -> list[Path]:
    """Writes the five files atomically and returns their paths; `dropped` says what V-Express' files cannot store.

    A model with layers, keypoints or audio features of another kind than V-Express raises PortraitError.
    """
    folder, config, preset = Path(folder), model.config, PRESETS["vexpress"]
    unet = config.unet
    differences = [
        f"{name} is {value!r}, V-Express has {expected!r}"
        for name, value, expected in (
            ("keypoints", config.keypoints, preset.keypoints),
            ("audio.features", config.audio.features, preset.audio.features),
            ("vae.kind", config.vae.kind, preset.vae.kind),
            ("residual", config.residual, False),
            ("unet.reference_concat", unet.reference_concat, False),
            ("unet.reference_warp", unet.reference_warp, False),
            ("unet.condition_embedding", unet.condition_embedding, False),
        )
        if value != expected
    ]
    if differences:
        raise PortraitError(f"this model cannot be written as V-Express' files: {'; '.join(differences)}")
    files = vexpress_tensors(model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return [_write(folder / f"{stem}.bin", tensors) for stem, tensors in files.items()]
    except (OSError, RuntimeError) as error:  # RuntimeError: torch.save on a full disk
        raise PortraitError(f"{folder}: cannot be written ({error}): check its rights and free space") from error


def dropped(model: PortraitModel) -> list[str]:
    """A line about the style layers, which V-Express' files cannot store; no line if their output is zero (untrained)."""
    tensors = style_tensors(model.networks)
    if not any(bool(tensor.any()) for name, tensor in tensors.items() if name.endswith(OUTPUTS)):
        return []
    values = sum(tensor.numel() for tensor in tensors.values())
    return [
        f"dropped  style attention, style projection, style extractor  {len(tensors)} tensors  {values:,}  (V-Express has "
        "none: save them to their own file with Save Style Layers)"
    ]


def _write(path: Path, tensors: dict[str, Tensor]) -> Path:
    with whole_file(path) as temporary:
        # Clones, because torch.save writes all of the memory that a tensor is a view of.
        torch.save({key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}, temporary)
    return path
