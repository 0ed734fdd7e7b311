"""Reference data of V-Express and LivePortrait: weights, and the inputs and outputs that their own code computed with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from svp_portrait.svp_models.checkpoints.liveportrait import LivePortraitNetworks, load_liveportrait

from ..reference.weights import LIVEPORTRAIT, VEXPRESS, liveportrait_weights, vexpress_weights

CONFIGS = ("unet_config.json", "extra_config.json")


@pytest.fixture(scope="session")
def vexpress_files() -> dict[str, dict[str, Tensor]]:
    """The five files of small weights, V-Express' names -> tensors; do not write to them."""
    return vexpress_weights()


@pytest.fixture(scope="session")
def parity_original(vexpress_files, tmp_path_factory) -> Path:
    """The reference data with the weights beside them; do not change it."""
    folder = Path(shutil.copytree(VEXPRESS, tmp_path_factory.mktemp("parity") / "vexpress"))
    for file, tensors in vexpress_files.items():
        torch.save(tensors, folder / f"{file}.bin")
    return folder


@pytest.fixture
def parity_folder(parity_original, tmp_path) -> Path:
    """A copy of it to be changed."""
    return Path(shutil.copytree(parity_original, tmp_path / "parity"))


@pytest.fixture
def vexpress_folder(parity_original, tmp_path) -> Path:
    """The weights and their configs alone, as V-Express publishes its own; a copy to be changed."""
    folder = tmp_path / "v-express"
    folder.mkdir()
    for path in [*parity_original.glob("*.bin"), *(parity_original / name for name in CONFIGS)]:
        shutil.copy(path, folder)
    return folder


@pytest.fixture(scope="session")
def liveportrait_original(tmp_path_factory) -> Path:
    """LivePortrait's five files of small weights, as published; do not change it."""
    folder = tmp_path_factory.mktemp("liveportrait")
    for file, content in liveportrait_weights().items():
        torch.save(content, folder / f"{file}.pth")
    return folder


@pytest.fixture
def liveportrait_folder(liveportrait_original, tmp_path) -> Path:
    """A copy of it to be changed."""
    return Path(shutil.copytree(liveportrait_original, tmp_path / "liveportrait"))


@pytest.fixture(scope="session")
def liveportrait_networks(liveportrait_original) -> LivePortraitNetworks:
    """The networks of those files."""
    return load_liveportrait(liveportrait_original)


@pytest.fixture(scope="session")
def liveportrait_io() -> dict[str, Tensor]:
    """What LivePortrait's own code computed with them; do not write to it."""
    return load_file(LIVEPORTRAIT / "io.safetensors")
