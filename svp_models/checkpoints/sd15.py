"""Stable Diffusion 1.5 and what belongs to it, as published: UNet, autoencoder (also sd-vae-ft-mse), AnimateDiff's temporal layers.

A checkpoint is one file with the original (LDM) names or a diffusers folder. Tensors get diffusers' names, which the pack's
networks share. Every name in a file is used, counted or an error. Unlike diffusers' converters, errors name file, key and shape.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..config import MAX_LEVELS, UNetConfig, VaeConfig
from ..errors import PortraitError
from ..networks.attention import sinusoidal_encoding
from ..networks.denoiser import Denoiser
from ..networks.layers import shapes_only
from ..networks.unet import ReferenceNet
from ..networks.vae import StableDiffusionVae
from .model_zoo import missing_file_error
from .safetensors_io import DATA_PARALLEL, check_tensors, load_strict
from .third_party import find_weights, read_json, read_weights, weights_in

STEM = "diffusion_pytorch_model"  # diffusers' name for the weights of a network
UNET, VAE = "model.diffusion_model.", "first_stage_model."
# Other parts of such files, by the prefix of the name; the tables of the noise schedule have no common prefix.
OTHER_PARTS = {"cond_stage_model.": "text encoder", "model_ema.": "EMA copies", "loss.": "training loss"}
SCHEDULE = (
    "betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_", "logvar", "lvlb_weights", "scale_factor",
)  # fmt: skip

# diffusers' name -> original name: of modules, and of the layers inside them
UNET_MODULES = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_LAYERS = {
    "resnets": {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
}
VAE_LAYERS = {
    "resnets": {"conv_shortcut": "nin_shortcut"},
    "attentions": {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"},
}
OLD_VAE_LAYERS = {"attentions": {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}}

VAE_NAME = "sd-vae-ft-mse"
VAE_STEMS = (VAE_NAME, "vae-ft-mse-840000-ema-pruned")  # file names of diffusers and of its authors
VAE_FOLDERS = (VAE_NAME, "vae")  # names of its diffusers folder
VAE_CONFIG_NAMES = {"latent_channels": "latent_channels", "layers_per_block": "layers", "scaling_factor": "scale"}
VAE_GROUPS = 32
MODELS_SUBFOLDER = "svp"  # this pack's folder in a models folder

ANIMATEDIFF_LEVEL = "temporal_transformer."  # a level of AnimateDiff's names that the denoiser's names lack
POSITIONAL_ENCODING = "pos_encoder.pe"
ENCODING_TOLERANCE = 4e-3  # bfloat16 rounds values up to 1 by up to 2e-3; another layout of the encoding is off by 1
MID_BLOCK = "mid_block."


@dataclass(frozen=True)
class Published:
    """Tensors of one network by the pack's names. files: their source; unused: other part of it -> number of tensors."""

    files: tuple[Path, ...]
    tensors: dict[str, Tensor]
    unused: dict[str, int]


def unet_shapes(config: UNetConfig) -> dict[str, torch.Size]:
    """Names and shapes of SD1.5's UNet at these sizes: those of the ReferenceNet and the last norm, which it lacks."""
    with shapes_only():
        shapes = {name: tensor.shape for name, tensor in ReferenceNet(config).state_dict().items()}
    width = torch.Size([config.block_out_channels[0]])
    return {**shapes, "conv_norm_out.weight": width, "conv_norm_out.bias": width}


def vae_shapes(config: VaeConfig) -> dict[str, torch.Size]:
    """Names and shapes of SD1.5's autoencoder at these sizes, as diffusers names them."""
    if config.kind != "sd15":
        raise PortraitError(f"the VAE of this config is '{config.kind}': only 'sd15' has Stable Diffusion's tensors")
    with shapes_only():
        autoencoder = StableDiffusionVae(config).autoencoder
    return {name: tensor.shape for name, tensor in autoencoder.state_dict().items()}


def read_unet(path: Path | str, config: UNetConfig) -> Published:
    """The UNet of a single file, of a folder with `unet/`, or of that folder itself."""
    path, shapes = Path(path), unet_shapes(config)
    if path.is_dir():
        file = _weights_of_folder(path, "unet")
        return Published((file,), _rename(file, read_weights(file), {name: name for name in shapes}, shapes), {})
    parts, unused = _split(path, read_weights(path))
    if not parts[UNET]:
        raise PortraitError(f"{path}: no name in it begins with {UNET}: it is not a Stable Diffusion 1.x checkpoint")
    names = {name: UNET + original for name, original in unet_names(config).items()}
    autoencoder = len(parts[VAE]) + len(parts[""])
    unused = {**({"VAE": autoencoder} if autoencoder else {}), **unused}
    return Published((path,), _rename(path, parts[UNET], names, shapes), unused)


def read_vae(path: Path | str, config: VaeConfig) -> Published:
    """The autoencoder of a single file (a checkpoint or the autoencoder alone) or a folder (with `vae/`, or that folder)."""
    path, shapes = Path(path), vae_shapes(config)
    file = _weights_of_folder(path, "vae") if path.is_dir() else path
    tensors, prefix = read_weights(file), ""
    unused: dict[str, int] = {}
    if not any(name.startswith("encoder.down_blocks.") for name in tensors):
        parts, unused = _split(file, tensors)
        tensors, prefix = {**parts[VAE], **parts[""]}, VAE if parts[VAE] else ""
        unused = {**({"UNet": len(parts[UNET])} if parts[UNET] else {}), **unused}
        names = {name: prefix + original for name, original in vae_names(config).items()}
    elif any(".query." in name for name in tensors):
        names = {name: _rename_layer(name, OLD_VAE_LAYERS) for name in shapes}
    else:
        names = {name: name for name in shapes}
    if not any(name.startswith(f"{prefix}encoder.") for name in tensors):
        raise PortraitError(
            f"{file}: it holds no autoencoder (no name begins with {VAE} or encoder.): choose another file"
        )
    return Published((file,), _rename(file, tensors, names, shapes), unused)


def unet_names(config: UNetConfig) -> dict[str, str]:
    """diffusers' name -> name in an original checkpoint, without the prefix, of every tensor of the UNet."""
    layers, levels = config.layers_per_block, len(config.block_out_channels)
    modules = dict(UNET_MODULES)
    for level in range(levels):
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        first = level * (layers + 1)  # the layers of a level and its resampling layer share one numbering
        for layer in range(layers):
            modules[f"{down}.resnets.{layer}"] = f"input_blocks.{first + layer + 1}.0"
            modules[f"{down}.attentions.{layer}"] = f"input_blocks.{first + layer + 1}.1"
        modules[f"{down}.downsamplers.0.conv"] = f"input_blocks.{first + layers + 1}.0.op"
        for layer in range(layers + 1):
            modules[f"{up}.resnets.{layer}"] = f"output_blocks.{first + layer}.0"
            modules[f"{up}.attentions.{layer}"] = f"output_blocks.{first + layer}.1"
        position = 1 + config.attention_levels[levels - 1 - level]
        modules[f"{up}.upsamplers.0.conv"] = f"output_blocks.{first + layers}.{position}.conv"
    return _renamed(unet_shapes(config), modules, UNET_LAYERS)


def vae_names(config: VaeConfig) -> dict[str, str]:
    """diffusers' name -> name in an original checkpoint, without the prefix, of every tensor of the autoencoder."""
    levels = len(config.encoder_widths)
    modules = {name: name for name in ("quant_conv", "post_quant_conv")}
    for half in ("encoder", "decoder"):
        modules |= {f"{half}.{name}": f"{half}.{name}" for name in ("conv_in", "conv_out")}
        modules[f"{half}.conv_norm_out"] = f"{half}.norm_out"
        modules |= {f"{half}.mid_block.resnets.{index}": f"{half}.mid.block_{index + 1}" for index in range(2)}
        modules[f"{half}.mid_block.attentions.0"] = f"{half}.mid.attn_1"
    for level in range(levels):
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{level}"
        reverse = levels - 1 - level  # the original numbers the decoder's levels by resolution
        modules[f"{down}.downsamplers.0.conv"] = f"encoder.down.{level}.downsample.conv"
        modules[f"{up}.upsamplers.0.conv"] = f"decoder.up.{reverse}.upsample.conv"
        for layer in range(config.layers + 1):
            modules[f"{down}.resnets.{layer}"] = f"encoder.down.{level}.block.{layer}"
            modules[f"{up}.resnets.{layer}"] = f"decoder.up.{reverse}.block.{layer}"
    return _renamed(vae_shapes(config), modules, VAE_LAYERS)


def _renamed(
    names: Iterable[str], modules: Mapping[str, str], layers: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    renamed = {}
    for name in names:
        module = next(module for module in modules if name.startswith(f"{module}."))
        renamed[name] = modules[module] + _rename_layer(name, layers)[len(module) :]
    return renamed


def _rename_layer(name: str, layers: Mapping[str, Mapping[str, str]]) -> str:
    """A name with the part inside of its module renamed."""
    for kind, names in layers.items():
        head, found, rest = name.partition(f".{kind}.")
        if found:
            index, _, inner = rest.partition(".")
            layer = next((layer for layer in names if inner.startswith(f"{layer}.")), "")
            return f"{head}{found}{index}.{names[layer]}{inner[len(layer) :]}" if layer else name
    return name


def _split(path: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, int]]:
    """The tensors by part (UNet, VAE, "" for a VAE alone) under their full names, and the number of the others by part."""
    parts: dict[str, dict[str, Tensor]] = {UNET: {}, VAE: {}, "": {}}
    unused: dict[str, int] = {}
    for name, tensor in tensors.items():
        part = next((prefix for prefix in parts if prefix and name.startswith(prefix)), None)
        other = next((label for prefix, label in OTHER_PARTS.items() if name.startswith(prefix)), None)
        if part is not None:
            parts[part][name] = tensor
        elif other is not None or name.startswith(SCHEDULE):
            label = other or "noise schedule"
            unused[label] = unused.get(label, 0) + 1
        elif name.startswith(("encoder.", "decoder.", "quant_conv.", "post_quant_conv.")):
            parts[""][name] = tensor
        else:
            raise PortraitError(
                f"{path}: {name} of shape {list(tensor.shape)} belongs to no part of a Stable Diffusion 1.x checkpoint: "
                "choose another file"
            )
    return parts, unused


def _rename(
    path: Path, tensors: Mapping[str, Tensor], names: Mapping[str, str], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Tensors by our names. names: our name -> name in the file. Attention can be stored as 1x1 convolutions (VAE)."""
    expected = {theirs: shapes[name] for name, theirs in names.items()}
    flat = {
        name: tensor[..., 0, 0] if tensor.shape == (*expected.get(name, ()), 1, 1) else tensor
        for name, tensor in tensors.items()
    }
    check_tensors(expected, flat, path)
    return {name: flat[theirs] for name, theirs in names.items()}


def _weights_of_folder(folder: Path, part: str) -> Path:
    """The weight file of diffusers in `folder/part`, or in the folder itself."""
    inside = folder / part if (folder / part).is_dir() else folder
    half = inside / f"{STEM}.fp16.safetensors"
    return half if half.is_file() and not any(inside.glob(f"{STEM}.[!f]*")) else find_weights(inside, STEM)


def load_vae(path: Path | str, config: VaeConfig) -> tuple[VaeConfig, StableDiffusionVae, Path]:
    """The config, the VAE (float32) and the file of a path as in `read_vae`.

    The config is `config`, with the sizes of diffusers' config.json if there is one.
    """
    path = Path(path)
    if (path / "vae").is_dir():
        path = path / "vae"
    if (path / "config.json").is_file():
        config = _vae_config(config, path / "config.json")
    with shapes_only():
        vae = StableDiffusionVae(config)
    published = read_vae(path, config)
    tensors = {name: tensor.float() for name, tensor in published.tensors.items()}
    load_strict(vae.autoencoder, tensors, published.files[0])
    return config, vae.eval(), published.files[0]


def find_sd_vae(folders: Sequence[Path | str], models: Path | str | None = None) -> Path:
    """The file of sd-vae-ft-mse, or its diffusers folder: the first in these folders or their subfolders.

    Without one, PortraitError says how to get it. models: see `missing_file_error`.
    """
    for folder in map(Path, folders):
        subfolders = sorted(filter(os.path.isdir, folder.glob("*")))
        for candidate in (folder, *subfolders):
            for stem in VAE_STEMS:
                if path := weights_in(candidate, stem):
                    return path
        for subfolder in subfolders:
            if subfolder.name in VAE_FOLDERS and weights_in(subfolder, STEM):
                return subfolder
    raise missing_file_error(VAE_NAME, folders, models=models)


def vae_folders(folder: Path | str) -> list[Path]:
    """Folders to search for the VAE of a weight folder: it, its parent, and `models/vae` if it is in `models/svp`."""
    folder = Path(folder)
    roots = [parent.parent for parent in folder.resolve().parents if parent.name == MODELS_SUBFOLDER]
    return [folder, folder.parent, *(root / "vae" for root in roots)]


def _vae_config(config: VaeConfig, path: Path) -> VaeConfig:
    """The config with the sizes of diffusers' config.json."""
    values = read_json(path) or {}
    try:
        widths = tuple(int(width) for width in values.get("block_out_channels", config.encoder_widths))
        known = {
            own: type(getattr(config, own))(values[name]) for name, own in VAE_CONFIG_NAMES.items() if name in values
        }
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise PortraitError(f"{path}: not a VAE's configuration ({error}): copy or download it again") from error
    groups = values.get("norm_num_groups", VAE_GROUPS)
    if groups != VAE_GROUPS:
        raise PortraitError(f"{path}: norm_num_groups is {groups}, the VAE of this pack has {VAE_GROUPS}")
    if not 1 <= len(widths) <= MAX_LEVELS:
        raise PortraitError(f"{path}: block_out_channels has {len(widths)} values: 1 to {MAX_LEVELS} are allowed")
    sizes = {"encoder_widths": widths, "decoder_widths": widths[::-1], "downscale": 2 ** (len(widths) - 1)}
    try:
        return replace(config, **sizes, **known)
    except PortraitError as error:
        raise PortraitError(f"{path}: {error}") from error


@dataclass(frozen=True)
class MotionModules:
    """AnimateDiff's temporal layers by the denoiser's names.

    positions: longest window they were trained on, in frames; mid_block: whether the file has a module for the mid block;
    unused: part of the file -> number of its tensors that the config does not use.
    """

    files: tuple[Path, ...]
    tensors: dict[str, Tensor]
    positions: int
    mid_block: bool
    unused: dict[str, int]


def motion_shapes(config: UNetConfig) -> dict[str, torch.Size]:
    """Names and shapes of the temporal layers in a denoiser of these sizes."""
    with shapes_only():
        tensors = Denoiser(config, style=False).state_dict()
    return {name: tensor.shape for name, tensor in tensors.items() if ".motion_modules." in name}


def animatediff_name(name: str) -> str:
    """down_blocks.0.motion_modules.1.norm.weight -> down_blocks.0.motion_modules.1.temporal_transformer.norm.weight"""
    head, found, rest = name.partition(".motion_modules.")
    index, _, inner = rest.partition(".")
    return f"{head}{found}{index}.{ANIMATEDIFF_LEVEL}{inner}"


def read_motion(path: Path | str, config: UNetConfig) -> MotionModules:
    """Reads a motion module file. Its positional encodings have to be those that the denoiser computes."""
    path = Path(path)
    tensors = {name.removeprefix(DATA_PARALLEL): tensor for name, tensor in read_weights(path).items()}
    encodings = {name: tensors.pop(name) for name in list(tensors) if name.endswith(POSITIONAL_ENCODING)}
    unused = {f"positional encodings (computed, {len(encodings)} compared)": len(encodings)}
    has_mid_block = any(name.startswith(MID_BLOCK) for name in tensors)
    if has_mid_block and not config.motion_mid_block:
        unused["temporal layers of the mid block"] = sum(name.startswith(MID_BLOCK) for name in tensors)
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(MID_BLOCK)}
    shapes = motion_shapes(config)
    if not has_mid_block:
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith(MID_BLOCK)}
    check_tensors({animatediff_name(name): shape for name, shape in shapes.items()}, tensors, path)
    renamed = {name: tensors[animatediff_name(name)] for name in shapes}
    return MotionModules((path,), renamed, _positions_of(path, encodings), has_mid_block, unused)


def _positions_of(path: Path, encodings: dict[str, Tensor]) -> int:
    """The number of positions in the encodings (1 x positions x channels), which have to be sinusoidal ones."""
    if not encodings:
        raise PortraitError(
            f"{path}: it has no positional encodings ({POSITIONAL_ENCODING}): its layers were trained without them, but this "
            "model adds them: use a motion module of AnimateDiff v1, v2 or v3"
        )
    for name, encoding in encodings.items():
        if encoding.ndim != 3 or encoding.shape[0] != 1 or encoding.shape[2] % 2:
            raise PortraitError(f"{path}: {name} has shape {list(encoding.shape)}, 1 x positions x channels is needed")
        if encoding.is_meta:
            continue
        expected = sinusoidal_encoding(encoding.shape[1], encoding.shape[2], torch.empty(0, device=encoding.device))
        difference = float((encoding[0].float() - expected).abs().max())
        if not difference <= ENCODING_TOLERANCE:
            raise PortraitError(
                f"{path}: {name} differs by {difference:.3g} from the sinusoidal encoding that this model computes (at most "
                f"{ENCODING_TOLERANCE:g} is rounding): it cannot be used"
            )
    lengths = {encoding.shape[1] for encoding in encodings.values()}
    if len(lengths) > 1:
        raise PortraitError(
            f"{path}: its positional encodings have different lengths {sorted(lengths)}: the file is damaged"
        )
    return lengths.pop()
