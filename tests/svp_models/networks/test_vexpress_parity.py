"""Numbers of the networks against V-Express' own, on small random weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from svp_portrait.svp_models.checkpoints.vexpress import load_vexpress_networks
from svp_portrait.svp_models.networks.attention import TransformerBlock
from svp_portrait.svp_models.networks.conditions import Conditions, ConditionWeights, cat


@pytest.fixture(scope="module")
def golden(parity_original):
    return load_file(parity_original / "io.safetensors")


@pytest.fixture(scope="module")
def networks(parity_original):
    return load_vexpress_networks(parity_original)[1]


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
        assert len(paths) == len(bank) == 10
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
        for name, step, reference, audio in (("t981", 981, 0.9, 2.0), ("t40.weights_1_0.5", 40, 1.0, 0.5)):
            time = torch.full((2,), step)
            noise = denoiser(latents, time, both, ConditionWeights(reference, audio))
            expected = golden[f"unet.cfg.{name}.noise_pred"].transpose(1, 2)
            torch.testing.assert_close(noise, expected, atol=2e-5, rtol=1e-4)
