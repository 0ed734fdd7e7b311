"""Stable Diffusion's autoencoder (sd-vae-ft-mse) lying beside weights that come without one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch

from ..config import VaeConfig
from ..errors import PortraitError
from ..networks.vae import StableDiffusionVae, build_vae
from .foreign import SUFFIXES
from .sd15 import read_vae
from .tensor_file import load_strict

NAME = "sd-vae-ft-mse"
STEMS = (NAME, "vae-ft-mse-840000-ema-pruned")  # as diffusers and as its makers call the file
FOLDERS = (NAME, "vae")
CONFIG_NAMES = {"latent_channels": "latent_channels", "layers_per_block": "layers", "scaling_factor": "scale"}
GROUPS = 32


def load_sd_vae(folder: Path | str, config: VaeConfig) -> tuple[VaeConfig, StableDiffusionVae]:
    """The VAE that lies in a folder, with its config: see `load_vae`."""
    config, vae, _ = load_vae(find_sd_vae(folder), config)
    return config, vae


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


def find_sd_vae(folder: Path | str) -> Path:
    """The VAE's file, or its diffusers folder; raises PortraitError saying what would do."""
    folder = Path(folder)
    files = [folder / f"{stem}{suffix}" for stem in STEMS for suffix in SUFFIXES]
    found = [path for path in files if path.is_file()] + [folder / name for name in FOLDERS if (folder / name).is_dir()]
    if not found:
        raise PortraitError(
            f"{folder}: its VAE is missing: put Stable Diffusion's {NAME} there, as {NAME}.safetensors (or "
            f"{', '.join(SUFFIXES[1:])}) in diffusers' or the original naming, or as diffusers' folder {NAME}/"
        )
    return found[0]


def _config(config: VaeConfig, path: Path) -> VaeConfig:
    """Sizes from diffusers' config.json."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        widths = tuple(int(each) for each in values.get("block_out_channels", config.encoder_widths))
        known = {own: type(getattr(config, own))(values[name]) for name, own in CONFIG_NAMES.items() if name in values}
    except (ValueError, TypeError, AttributeError) as error:
        raise PortraitError(f"{path}: not a VAE's configuration ({error}): copy or download it again") from error
    groups = values.get("norm_num_groups", GROUPS)
    if groups != GROUPS:
        raise PortraitError(f"{path}: norm_num_groups is {groups}, the VAE of this pack has {GROUPS}")
    return replace(
        config, encoder_widths=widths, decoder_widths=widths[::-1], downscale=2 ** (len(widths) - 1), **known
    )
