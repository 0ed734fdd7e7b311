"""A small prepared dataset of drawn people, and a small model, shared by the tests of training."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.checkpoints.model_file import style_space_of
from svp_portrait.svp_models.config import GuiderConfig, ModelConfig, StyleConfig, UNetConfig, VaeConfig
from svp_portrait.svp_models.data.prepare import prepare
from svp_portrait.svp_models.data.schema import OutputOptions, PrepareConfig, SyntheticOptions
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.training.dataset import Clips, Expressions

SIZE = 64


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """Folder of 3 + 2 drawn people with 3 clips each, 64 pixels, 40 frames; two shards of train clips or more."""
    folder = tmp_path_factory.mktemp("data") / "shards"
    drawn = SyntheticOptions(speakers=3, test_speakers=2, clips_per_speaker=3, seed=1)
    prepare(None, folder, PrepareConfig(OutputOptions(size=SIZE, seconds=1.6, shard_clips=5), synthetic=drawn))
    return folder


@pytest.fixture(scope="session")
def config() -> ModelConfig:
    """The demo preset with tiny networks."""
    return replace(
        PRESETS["demo"],
        size=SIZE,
        unet=UNetConfig(
            latent_channels=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            attention_levels=(False, True),
            attention_heads=2,
            cross_attention_dim=80,
            norm_groups=4,
            reference_concat=True,
            reference_warp=True,
            condition_embedding=True,
            motion_heads=2,
            motion_groups=4,
        ),
        vae=VaeConfig(
            kind="portrait",
            latent_channels=8,
            scale=1.0,
            fold=4,
            encoder_widths=(8, 16),
            decoder_widths=(16, 8, 8),
            layers=1,
        ),
        guider=GuiderConfig(channels=(4, 4, 4, 4)),
        style=StyleConfig(style_size=8, layers=1, heads=2, feed_forward=16, max_frames=40, dropout=0.0),
    )


@pytest.fixture
def model(config) -> PortraitModel:
    torch.manual_seed(0)
    networks, vae = build_networks(config), build_vae(config.vae)
    return PortraitModel(config, networks, vae, None, style_space_of(networks.style_extractor))


@pytest.fixture(scope="session")
def train_clips(dataset, config) -> Expressions:
    return Expressions(Clips(dataset, "train", config.audio))


@pytest.fixture(scope="session")
def test_clips(dataset, config) -> Expressions:
    return Expressions(Clips(dataset, "test", config.audio))
