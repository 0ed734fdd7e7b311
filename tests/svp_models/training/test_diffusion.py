from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from svp_portrait.svp_models.config import PRESETS, GuiderConfig, StyleConfig, UNetConfig
from svp_portrait.svp_models.networks.portrait_model import build_networks, parameter_group
from svp_portrait.svp_models.training.corpus import ClipLabel
from svp_portrait.svp_models.training.diffusion import (
    DiffusionData,
    Stage,
    StageBatches,
    stage_loss,
    trained_parameters,
)

CLIPS, FRAMES, SIZE = 8, 6, 32


@pytest.fixture(scope="module")
def config():
    demo = PRESETS["demo"]
    return replace(
        demo,
        unet=UNetConfig(
            latent_channels=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            attention_levels=(False, True),
            attention_heads=2,
            cross_attention_dim=16,
            norm_groups=4,
            reference_concat=True,
            reference_warp=True,
            condition_embedding=True,
            motion_heads=2,
            motion_groups=4,
        ),
        guider=GuiderConfig(channels=(4, 4, 4, 4)),
        style=StyleConfig(style_size=8, layers=1, heads=2, feed_forward=16),
    )


@pytest.fixture
def networks(config):
    torch.manual_seed(0)
    return build_networks(config)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    # Two speakers, each with two emotions and two clips an emotion.
    labels = [ClipLabel(index // 4, index // 2 % 2, 3, index) for index in range(CLIPS)]
    corpus = SimpleNamespace(
        config=SimpleNamespace(clips=CLIPS, frames=FRAMES, size=SIZE),
        labels=labels,
        images=rng.integers(0, 256, (CLIPS, FRAMES, SIZE, SIZE, 3), np.uint8),
        landmarks=rng.uniform(8, 24, (CLIPS, FRAMES, 68, 2)).astype(np.float32),
        head_keypoints=rng.uniform(8, 24, (CLIPS, FRAMES, 8, 2)).astype(np.float32),
        mel=rng.standard_normal((CLIPS, FRAMES, 1920)).astype(np.float16),
    )
    # Every clip's latent is its own number, so that a batch tells where its portrait came from.
    latents = torch.arange(CLIPS).half()[:, None, None, None, None].expand(-1, FRAMES, 8, 4, 4)
    vae = SimpleNamespace(encode=lambda images: nn.functional.avg_pool2d(images, 8).repeat(1, 3, 1, 1)[:, :8])
    return DiffusionData(corpus, latents, vae, torch.zeros(3, 2, CLIPS, 8), torch.ones(3, 2, CLIPS, 8))


STAGE = Stage("x", (), clips=3, frames=4, audio=True, style=True)


@pytest.mark.parametrize(
    "groups",
    [
        ("spatial", "reference", "guider"),
        ("temporal", "audio", "audio_projection"),
        ("style", "style_projection"),
    ],
)
def test_a_stage_moves_its_parameters_and_no_other(networks, data, config, groups):
    stage = replace(STAGE, trains=groups, no_style=0.0, unconditional=0.0)
    # The output layers of style and motion start at zero; away from it the gradient reaches what lies before them.
    for parameter in networks.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    before = {name: parameter.clone() for name, parameter in networks.named_parameters()}
    optimizer = torch.optim.SGD(list(trained_parameters(networks, groups)), lr=0.1)
    rng = np.random.default_rng(1)
    batch = StageBatches(data, config, stage).draw(rng)
    stage_loss(networks, batch, stage, config, rng).backward()
    optimizer.step()
    moved = {
        parameter_group(name) for name, parameter in networks.named_parameters() if not parameter.equal(before[name])
    }
    assert moved == set(groups)


def test_groups_cover_every_parameter(networks):
    groups = {parameter_group(name) for name, _ in networks.named_parameters()}
    assert groups == {
        "spatial", "temporal", "audio", "style", "reference", "guider", "audio_projection", "style_projection",
        "style_extractor",
    }  # fmt: skip
    style = {name for name, _ in networks.denoiser.named_parameters() if parameter_group(f"denoiser.{name}") == "style"}
    assert style == {name for name, _ in networks.denoiser.named_parameters() if "style_" in name}


def test_batch_shapes(data, config):
    batch = StageBatches(data, config, replace(STAGE, no_style=0.0)).draw(np.random.default_rng(0))
    assert {key: tuple(value.shape) for key, value in batch.items()} == {
        "target": (3, 4, 8, 4, 4),
        "portrait": (3, 8, 4, 4),
        "kps": (3, 4, 3, SIZE, SIZE),
        "audio": (3, 4, config.audio.window, 1920),
        "style": (3, 8),
        "weight": (3, 4, 1, 4, 4),
        "bent": (3, 4, 8, 4, 4),
    }


def test_without_a_style_the_portrait_shows_the_emotion_already(data, config):
    batches = StageBatches(data, config, replace(STAGE, cross_emotion=1.0, no_style=1.0))
    for seed in range(5):
        batch = batches.draw(np.random.default_rng(seed))
        assert "style" not in batch
        assert torch.equal(batch["target"][:, 0], batch["portrait"])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_portraits_come_from_the_same_speaker_in_the_emotion_asked_for(data, config, share):
    batches = StageBatches(data, config, replace(STAGE, cross_emotion=share, no_style=0.0))
    for seed in range(5):
        batch = batches.draw(np.random.default_rng(seed))
        for target, portrait in zip(batch["target"][:, 0, 0, 0, 0], batch["portrait"][:, 0, 0, 0], strict=True):
            shown, lent = data.corpus.labels[int(target)], data.corpus.labels[int(portrait)]
            assert shown.speaker == lent.speaker
            assert (shown.emotion != lent.emotion) == bool(share)


def test_a_dropped_clip_sees_no_condition(networks, data, config):
    stage = replace(STAGE, unconditional=1.0, no_style=0.0)
    config = replace(config, residual=False)  # the target itself would move with the portrait
    first = StageBatches(data, config, stage).draw(np.random.default_rng(0))
    other = {**first, **{key: torch.rand_like(first[key]) for key in ("portrait", "bent", "kps", "audio", "style")}}
    losses = [stage_loss(networks, batch, stage, config, np.random.default_rng(5)) for batch in (first, other)]
    assert torch.equal(*losses)
