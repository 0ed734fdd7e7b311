"""Reference data of V-Express and LivePortrait: weights, and the inputs and outputs that their own code computed with them."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from svp_portrait.svp_models.checkpoints.liveportrait import LivePortraitNetworks, load_liveportrait
from svp_portrait.svp_models.checkpoints.motion_generators import load_joyvasa, load_kdtalker, load_wav2lip
from svp_portrait.svp_models.networks.attention import sinusoidal_encoding
from svp_portrait.svp_models.networks.motion_generators.joyvasa import DiffusionSchedule, JoyVasaNetwork, alignment_mask
from svp_portrait.svp_models.networks.motion_generators.kdtalker import KDTalkerNetwork
from svp_portrait.svp_models.networks.motion_generators.wav2lip import Wav2LipAudioEncoder

from ..reference.weights import (
    EVALUATION,
    LIVEPORTRAIT,
    VEXPRESS,
    generator_weights,
    liveportrait_weights,
    vexpress_weights,
)

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


@pytest.fixture(scope="session")
def generators_original(tmp_path_factory) -> Path:
    """KDTalker's, Wav2Lip's and JoyVASA's files of small weights, as published; do not change them."""
    folder = tmp_path_factory.mktemp("generators")
    files = generator_weights()
    encoder = files["wav2lip"]["state_dict"]
    files["wav2lip"]["state_dict"] = {
        **{name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in encoder.items()},
        "module.output_block.1.bias": torch.zeros(3),  # of Wav2Lip's picture, which is not used
    }
    generator, width = files["motion_generator"]["model"], 32
    like = torch.zeros(())
    generator |= {
        "denoising_net.alignment_mask": alignment_mask(15, 1),
        "denoising_net.TE.pe": sinusoidal_encoding(501, width, like)[None],
        "denoising_net.PE.pe": sinusoidal_encoding(600, width, like)[None],
        **{f"diffusion_sched.{name}": tensor for name, tensor in DiffusionSchedule(6).state_dict().items()},
    }
    files["motion_generator"]["args"] = argparse.Namespace(fps=25, data_root=Path("data"), use_indicator=None)
    for file, content in files.items():
        torch.save(content, folder / f"{file}.{'pt' if file == 'motion_generator' else 'pth'}")
    return folder


@pytest.fixture
def generators_folder(generators_original, tmp_path) -> Path:
    """A copy of them to be changed."""
    return Path(shutil.copytree(generators_original, tmp_path / "generators"))


@pytest.fixture(scope="session")
def kdtalker(generators_original) -> KDTalkerNetwork:
    return load_kdtalker(generators_original / "KDTalker.pth")


@pytest.fixture(scope="session")
def kdtalker_encoder(generators_original) -> Wav2LipAudioEncoder:
    return load_wav2lip(generators_original / "wav2lip.pth")


@pytest.fixture(scope="session")
def joyvasa(generators_original) -> JoyVasaNetwork:
    return load_joyvasa(generators_original / "motion_generator.pt")


@pytest.fixture(scope="session")
def kdtalker_io() -> dict[str, Tensor]:
    """What KDTalker's own code computed with them; do not write to it."""
    return load_file(LIVEPORTRAIT / "kdtalker.safetensors")


@pytest.fixture(scope="session")
def kdtalker_audio() -> dict[str, Tensor]:
    """KDTalker's spectrogram and audio features of one second; do not write to it."""
    return load_file(LIVEPORTRAIT / "kdtalker_audio.safetensors")


@pytest.fixture(scope="session")
def joyvasa_io() -> dict[str, Tensor]:
    """What JoyVASA's own code computed with them; do not write to it."""
    return load_file(LIVEPORTRAIT / "joyvasa.safetensors")


@pytest.fixture(scope="session")
def evaluation_io() -> dict[str, np.ndarray]:
    """What SyncNet's, FID's and python_speech_features' own code computed; do not write to it."""
    with np.load(EVALUATION) as stored:
        return dict(stored)


@pytest.fixture(scope="session")
def close():
    """Asserts that a tensor is that of the other project's own code, within 1e-5 of its size."""

    def check(ours: Tensor, theirs: Tensor) -> None:
        assert ours.shape == theirs.shape
        assert float((ours - theirs).norm() / theirs.norm()) < 1e-5

    return check
