"""Stable Diffusion's autoencoder (sd-vae-ft-mse) for weights that come without one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ..config import LEVELS, VaeConfig
from ..config_file import json_value
from ..errors import PortraitError
from ..networks.vae import StableDiffusionVae, build_vae
from .catalog import missing_file_error
from .foreign import SUFFIXES
from .sd15 import STEM, read_vae
from .tensor_file import load_strict

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
