"""Numbers of the networks against V-Express' own, on small random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from svp_portrait.svp_models.checkpoints.vexpress import load_vexpress_networks
from svp_portrait.svp_models.networks.attention import TransformerBlock
from svp_portrait.svp_models.networks.conditions import Conditions, ConditionWeights, cat

TINY = Path(__file__).parents[4] / "shared/goldens/vexpress_tiny"


@pytest.fixture(scope="module")
def golden():
    if not TINY.is_dir():
        pytest.skip("the V-Express reference data is not at hand")
    return load_file(TINY / "io.safetensors")


@pytest.fixture(scope="module")
def networks(golden):
    return load_vexpress_networks(TINY)[1]


def test_guider(golden, networks):
    features = networks.guider(golden["kps_guider.images"].transpose(1, 2))
    torch.testing.assert_close(features.transpose(1, 2), golden["kps_guider.features"], atol=1e-5, rtol=1e-5)


def test_audio_projection(golden, networks):
    output = networks.audio_projection(golden["audio_projection.input"])
    torch.testing.assert_close(output, golden["audio_projection.output"], atol=1e-5, rtol=1e-5)


def test_one_step_with_guidance_batch(golden, networks):
    denoiser = networks.denoiser
    with torch.no_grad():
        bank = networks.reference(golden["reference_net.latents"])
        paths = [name for name, module in denoiser.named_modules() if isinstance(module, TransformerBlock)]
        assert len(paths) == len(bank) == 16
        for path, entry in zip(paths, bank, strict=True):
            torch.testing.assert_close(entry, golden[f"bank.{path}"], atol=1e-5, rtol=1e-5)
        conditions = Conditions(
            reference=bank,
            reference_latent=None,
            audio=golden["unet.audio_embeddings"][None],
            kps=golden["unet.kps_features"].transpose(1, 2),
            style=None,
        )
        both = cat(conditions.unconditional(), conditions)
        latents = golden["unet.latents"].transpose(1, 2).repeat(2, 1, 1, 1, 1)
        for step in (981, 500, 1):
            time = torch.full((2,), step)
            noise = denoiser(latents, time, both, ConditionWeights(reference=0.95, audio=3.0))
            expected = golden[f"unet.cfg.t{step}.noise_pred"].transpose(1, 2)
            torch.testing.assert_close(noise, expected, atol=2e-5, rtol=1e-4)
