"""Stable Diffusion 1.5's UNet and autoencoder as published: one file with the original (LDM) names, or diffusers' folders.

Both come out under diffusers' names, which the pack's networks share; no name of a file is passed over in silence.

Stable Diffusion's autoencoder (sd-vae-ft-mse) for weights that come without one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..config import LEVELS, UNetConfig, VaeConfig
from ..errors import PortraitError
from ..io.strict_config import json_value
from ..networks.unet import ReferenceNet
from ..networks.vae import StableDiffusionVae, build_vae
from .model_zoo import missing_file_error
from .safetensors_io import check_tensors, load_strict
from .third_party import SUFFIXES, find_weights, read_weights

STEM = "diffusion_pytorch_model"  # what diffusers calls the weights of every network
UNET, VAE = "model.diffusion_model.", "first_stage_model."
# What else such files hold, by the beginning of the name. The schedule's tables lie between them under their own names.
OTHER_PARTS = {"cond_stage_model.": "text encoder", "model_ema.": "EMA copies", "loss.": "training loss"}
SCHEDULE = (
    "betas", "alphas_cumprod", "sqrt_", "log_one_minus_", "posterior_", "logvar", "lvlb_weights", "scale_factor",
)  # fmt: skip

# diffusers' name -> original name, by the place of a layer and then inside of it
UNET_PLACES = {
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


@dataclass(frozen=True)
class Published:
    """Tensors of one network by the pack's names. files: where from; unused: other parts of them -> number of tensors."""

    files: tuple[Path, ...]
    tensors: dict[str, Tensor]
    unused: dict[str, int]


def unet_shapes(config: UNetConfig) -> dict[str, torch.Size]:
    """Names and shapes of SD1.5's UNet at these sizes: the ReferenceNet's and the norm that it leaves out."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in ReferenceNet(config).state_dict().items()}
    width = torch.Size([config.block_out_channels[0]])
    return {**shapes, "conv_norm_out.weight": width, "conv_norm_out.bias": width}


def vae_shapes(config: VaeConfig) -> dict[str, torch.Size]:
    """Names and shapes of SD1.5's autoencoder at these sizes, as diffusers names them."""
    if config.kind != "sd15":
        raise PortraitError(
            f"the VAE of this config is '{config.kind}': only 'sd15' can take Stable Diffusion's weights"
        )
    with torch.device("meta"):
        autoencoder = StableDiffusionVae(config).autoencoder
    return {name: tensor.shape for name, tensor in autoencoder.state_dict().items()}


def read_unet(path: Path | str, config: UNetConfig) -> Published:
    """The UNet of a single file, of a folder with `unet/`, or of such a `unet` folder itself."""
    path, shapes = Path(path), unet_shapes(config)
    if path.is_dir():
        file = _weights_of_folder(path, "unet")
        return Published((file,), _take(file, read_weights(file), {name: name for name in shapes}, shapes), {})
    parts, unused = _split(path, read_weights(path))
    if not parts[UNET]:
        raise PortraitError(f"{path}: no name in it begins with {UNET}: it is not a Stable Diffusion 1.x checkpoint")
    names = {name: UNET + original for name, original in unet_names(config).items()}
    autoencoder = len(parts[VAE]) + len(parts[""])
    unused = {**({"VAE": autoencoder} if autoencoder else {}), **unused}
    return Published((path,), _take(path, parts[UNET], names, shapes), unused)


def read_vae(path: Path | str, config: VaeConfig) -> Published:
    """The autoencoder of a single file (a whole checkpoint or the autoencoder alone), a folder with `vae/` or of itself."""
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
        names = {name: _inside(name, OLD_VAE_LAYERS) for name in shapes}
    else:
        names = {name: name for name in shapes}
    if not any(name.startswith(f"{prefix}encoder.") for name in tensors):
        raise PortraitError(
            f"{file}: it holds no autoencoder (no name begins with {VAE} or encoder.): choose another file"
        )
    return Published((file,), _take(file, tensors, names, shapes), unused)


def unet_names(config: UNetConfig) -> dict[str, str]:
    """diffusers' name -> name in an original checkpoint, without the prefix, of every tensor of the UNet."""
    layers, levels = config.layers_per_block, len(config.block_out_channels)
    places = dict(UNET_PLACES)
    for level in range(levels):
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        first = level * (layers + 1)  # a level's layers and what changes the resolution are numbered in one go
        for layer in range(layers):
            places[f"{down}.resnets.{layer}"] = f"input_blocks.{first + layer + 1}.0"
            places[f"{down}.attentions.{layer}"] = f"input_blocks.{first + layer + 1}.1"
        places[f"{down}.downsamplers.0.conv"] = f"input_blocks.{first + layers + 1}.0.op"
        for layer in range(layers + 1):
            places[f"{up}.resnets.{layer}"] = f"output_blocks.{first + layer}.0"
            places[f"{up}.attentions.{layer}"] = f"output_blocks.{first + layer}.1"
        behind = 1 + config.attention_levels[levels - 1 - level]
        places[f"{up}.upsamplers.0.conv"] = f"output_blocks.{first + layers}.{behind}.conv"
    return _renamed(unet_shapes(config), places, UNET_LAYERS)


def vae_names(config: VaeConfig) -> dict[str, str]:
    """diffusers' name -> name in an original checkpoint, without the prefix, of every tensor of the autoencoder."""
    levels = len(config.encoder_widths)
    places = {name: name for name in ("quant_conv", "post_quant_conv")}
    for half in ("encoder", "decoder"):
        places |= {f"{half}.{name}": f"{half}.{name}" for name in ("conv_in", "conv_out")}
        places[f"{half}.conv_norm_out"] = f"{half}.norm_out"
        places |= {f"{half}.mid_block.resnets.{index}": f"{half}.mid.block_{index + 1}" for index in range(2)}
        places[f"{half}.mid_block.attentions.0"] = f"{half}.mid.attn_1"
    for level in range(levels):
        down, up = f"encoder.down_blocks.{level}", f"decoder.up_blocks.{level}"
        back = levels - 1 - level  # the original numbers the decoder's levels by resolution
        places[f"{down}.downsamplers.0.conv"] = f"encoder.down.{level}.downsample.conv"
        places[f"{up}.upsamplers.0.conv"] = f"decoder.up.{back}.upsample.conv"
        for layer in range(config.layers + 1):
            places[f"{down}.resnets.{layer}"] = f"encoder.down.{level}.block.{layer}"
            places[f"{up}.resnets.{layer}"] = f"decoder.up.{back}.block.{layer}"
    return _renamed(vae_shapes(config), places, VAE_LAYERS)


def _renamed(
    names: Iterable[str], places: Mapping[str, str], layers: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    renamed = {}
    for name in names:
        place = next(each for each in places if name.startswith(f"{each}."))
        renamed[name] = places[place] + _inside(name, layers)[len(place) :]
    return renamed


def _inside(name: str, layers: Mapping[str, Mapping[str, str]]) -> str:
    """A name with the words for what is inside of its layer replaced, its place left as it is."""
    for kind, words in layers.items():
        head, found, rest = name.partition(f".{kind}.")
        if found:
            index, _, inner = rest.partition(".")
            word = next((each for each in words if inner.startswith(f"{each}.")), "")
            return f"{head}{found}{index}.{words[word]}{inner[len(word) :]}" if word else name
    return name


def _split(path: Path, tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, int]]:
    """The file's tensors by part (UNet, VAE, "" for a VAE alone) under their full names, and the counts of the others."""
    parts: dict[str, dict[str, Tensor]] = {UNET: {}, VAE: {}, "": {}}
    unused: dict[str, int] = {}
    for name, tensor in tensors.items():
        part = next((each for each in parts if each and name.startswith(each)), None)
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


def _take(
    path: Path, tensors: Mapping[str, Tensor], names: Mapping[str, str], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """Tensors by our names; `names` gives the file's. Attention of the VAE may be stored as 1x1 convolutions."""
    wanted = {theirs: shapes[name] for name, theirs in names.items()}
    flat = {
        name: tensor[..., 0, 0] if tensor.shape == (*wanted.get(name, ()), 1, 1) else tensor
        for name, tensor in tensors.items()
    }
    check_tensors(wanted, flat, path)
    return {name: flat[theirs] for name, theirs in names.items()}


def _weights_of_folder(folder: Path, part: str) -> Path:
    """The weights diffusers keeps in `folder/part`, or in the folder itself."""
    inside = folder / part if (folder / part).is_dir() else folder
    half = inside / f"{STEM}.fp16.safetensors"
    return half if half.is_file() and not any(inside.glob(f"{STEM}.[!f]*")) else find_weights(inside, STEM)


NAME = "sd-vae-ft-mse"
STEMS = (NAME, "vae-ft-mse-840000-ema-pruned")  # as diffusers and as its makers call the file
FOLDERS = (NAME, "vae")  # what diffusers' folder with it is called
MODELS = "svp"  # this pack's folder among the kinds of models
CONFIG_NAMES = {"latent_channels": "latent_channels", "layers_per_block": "layers", "scaling_factor": "scale"}
GROUPS = 32


def load_vae(path: Path | str, config: VaeConfig) -> tuple[VaeConfig, StableDiffusionVae, Path]:
    """The VAE at a path, float32, its config and its file.

    The path is one that `read_vae` takes; the config is `config`, with the sizes of diffusers' config.json if there is one.
    """
    path = Path(path)
    if (path / "vae").is_dir():
        path = path / "vae"
    if (path / "config.json").is_file():
        config = _config(config, path / "config.json")
    with torch.device("meta"):
        vae = build_vae(config)
    published = read_vae(path, config)
    tensors = {name: tensor.float() for name, tensor in published.tensors.items()}
    load_strict(vae.autoencoder, tensors, published.files[0])
    return config, vae.eval(), published.files[0]


def find_sd_vae(folders: Sequence[Path | str], models: Path | str | None = None) -> Path:
    """The VAE's file, or its diffusers folder: the first in these folders, or in one directly below them.

    None raises PortraitError saying where to get it; models: see `missing_file_error`.
    """
    for folder in map(Path, folders):
        below = sorted(filter(os.path.isdir, folder.glob("*")))
        for place in (folder, *below):
            for stem in STEMS:
                if path := _with_suffix(place, stem):
                    return path
        for place in below:
            if place.name in FOLDERS and _with_suffix(place, STEM):
                return place
    raise missing_file_error(NAME, folders, models=models)


def places_of_vae(folder: Path | str) -> list[Path]:
    """Where the VAE of a folder of weights may lie: in it, beside it, and in `models/vae` where it is in `models/svp`."""
    folder = Path(folder)
    roots = [each.parent for each in folder.resolve().parents if each.name == MODELS]
    return [folder, folder.parent, *(root / "vae" for root in roots)]


def _with_suffix(folder: Path, stem: str) -> Path | None:
    paths = (folder / f"{stem}{suffix}" for suffix in SUFFIXES)
    return next(filter(os.path.isfile, paths), None)


def _config(config: VaeConfig, path: Path) -> VaeConfig:
    """Sizes from diffusers' config.json."""
    values = json_value(path.read_bytes(), str(path))
    try:
        widths = tuple(int(each) for each in values.get("block_out_channels", config.encoder_widths))
        known = {own: type(getattr(config, own))(values[name]) for name, own in CONFIG_NAMES.items() if name in values}
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise PortraitError(f"{path}: not a VAE's configuration ({error}): copy or download it again") from error
    groups = values.get("norm_num_groups", GROUPS)
    if groups != GROUPS:
        raise PortraitError(f"{path}: norm_num_groups is {groups}, the VAE of this pack has {GROUPS}")
    if not 1 <= len(widths) <= LEVELS:
        raise PortraitError(f"{path}: block_out_channels has {len(widths)} values: 1 to {LEVELS} are allowed")
    sizes = {"encoder_widths": widths, "decoder_widths": widths[::-1], "downscale": 2 ** (len(widths) - 1)}
    try:
        return replace(config, **sizes, **known)
    except PortraitError as error:
        raise PortraitError(f"{path}: {error}") from error
