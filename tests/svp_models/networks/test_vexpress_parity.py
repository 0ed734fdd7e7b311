"""Numbers of the networks against V-Express' own, on small random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from svp_portrait.svp_models.config import AudioConfig, GuiderConfig, UNetConfig
from svp_portrait.svp_models.networks.audio_projection import AudioProjection
from svp_portrait.svp_models.networks.conditions import Conditions, ConditionWeights, cat
from svp_portrait.svp_models.networks.denoiser import Denoiser
from svp_portrait.svp_models.networks.kps_guider import KpsGuider
from svp_portrait.svp_models.networks.reference import ReferenceNet

TINY = Path(__file__).parents[4] / "shared/goldens/vexpress_tiny"
UNET = UNetConfig(
    block_out_channels=(32, 32, 32, 64), attention_heads=4, cross_attention_dim=48, norm_groups=8, style_attention=False
)
AUDIO = AudioConfig(feature_size=40, window=10, rows_per_frame=2, layers=4, heads=2)
LAYER_NAMES = {
    "0.norm1": "ln0", "0.norm2": "ln1", "0.to_q": "attn.to_q", "0.to_out": "attn.to_out.0",
    "1.0": "ff.0", "1.1": "ff.1.net.0.proj", "1.3": "ff.1.net.2",
}  # fmt: skip


def weights(name: str) -> dict[str, torch.Tensor]:
    tensors = torch.load(TINY / f"{name}.bin", weights_only=True)
    return {key: tensor.float() for key, tensor in tensors.items()}


def unet_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renames = {"attn1_5": "reference_attn", "norm1_5": "reference_norm", "temporal_transformer.": ""}
    renamed = {}
    for key, tensor in tensors.items():
        for theirs, own in renames.items():
            key = key.replace(theirs, own)
        if not key.endswith("pos_encoder.pe"):
            renamed[key] = tensor
    return renamed


@pytest.fixture(scope="module")
def golden():
    if not TINY.is_dir():
        pytest.skip("the V-Express reference data is not at hand")
    return load_file(TINY / "io.safetensors")


def test_guider(golden):
    guider = KpsGuider(GuiderConfig(channels=(8, 16, 24, 32)), 32)
    guider.load_state_dict(weights("v_kps_guider"))
    features = guider(golden["kps_guider.images"].transpose(1, 2))
    torch.testing.assert_close(features.transpose(1, 2), golden["kps_guider.features"], atol=1e-5, rtol=1e-5)


def test_audio_projection(golden):
    projection = AudioProjection(AUDIO, 48)
    renamed = {}
    for key, tensor in weights("audio_projection").items():
        if key.startswith("layers."):
            _, layer, rest = key.split(".", 2)
            part, kind = rest.rsplit(".", 1)
            if part == "0.to_kv":
                half = tensor.chunk(2)
                renamed[f"layers.{layer}.attn.to_k.{kind}"], renamed[f"layers.{layer}.attn.to_v.{kind}"] = half
                continue
            key = f"layers.{layer}.{LAYER_NAMES[part]}.{kind}"
        renamed[key] = tensor
    projection.load_state_dict(renamed)
    output = projection(golden["audio_projection.input"])
    torch.testing.assert_close(output, golden["audio_projection.output"], atol=1e-5, rtol=1e-5)


def test_one_step_with_guidance_batch(golden):
    reference, denoiser = ReferenceNet(UNET), Denoiser(UNET, style=False)
    reference.load_state_dict(weights("reference_net"))
    denoiser.load_state_dict(unet_names({**weights("denoising_unet"), **weights("motion_module")}))
    with torch.no_grad():
        bank = reference(golden["reference_net.latents"])
        paths = [name for name, module in denoiser.named_modules() if name.endswith("transformer_blocks.0")]
        paths = [path for path in paths if ".attentions." in path]
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
