"""Names and shapes of the full-size presets against diffusers' SD1.5 UNet and the V-Express manifest."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from svp_portrait.svp_models.model import build_networks
from svp_portrait.svp_models.networks.attention import TransformerBlock
from svp_portrait.svp_models.networks.motion_module import MotionModule
from svp_portrait.svp_models.presets import PRESETS

from ...reference.weights import full_size_shapes


def shapes(module: torch.nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def vexpress():
    with torch.device("meta"):
        return build_networks(PRESETS["vexpress"])


@pytest.fixture(scope="module")
def manifest():
    return full_size_shapes()


def test_spatial_keys_are_those_of_sd15():
    with torch.device("meta"):
        networks = build_networks(PRESETS["sd15"])
        sd15 = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8)
    own, theirs = shapes(networks.denoiser), shapes(sd15)
    assert len(theirs) == 686
    assert {name: own.get(name) for name in theirs} == theirs
    extra = {name for name in own if name not in theirs}
    assert all(any(part in name for part in ("motion_modules", "reference_", "style_")) for name in extra)
    stock = {name: shape for name, shape in theirs.items() if not name.startswith("conv_norm_out")}
    assert shapes(networks.reference) == stock


def test_counts(vexpress):
    assert sum(isinstance(module, TransformerBlock) for module in vexpress.denoiser.modules()) == 16
    assert sum(isinstance(module, MotionModule) for module in vexpress.denoiser.modules()) == 21
    assert [block.index for block in vexpress.denoiser.transformer_blocks()] == list(range(16))


def test_denoiser_has_the_manifest_keys(vexpress, manifest):
    own = shapes(vexpress.denoiser)
    spatial = {
        name.replace("attn1_5", "reference_attn").replace("norm1_5", "reference_norm"): shape
        for name, shape in manifest["denoising_unet"].items()
    }
    motion = {
        name.replace("temporal_transformer.", ""): shape
        for name, shape in manifest["motion_module"].items()
        if not name.endswith("pos_encoder.pe")
    }
    assert len(spatial) == 798 and len(motion) == 21 * 26
    style = {name: shape for name, shape in own.items() if ".style_" in name}
    assert own == {**spatial, **motion, **style}


def test_reference_and_guider_have_the_manifest_keys(vexpress, manifest):
    assert shapes(vexpress.reference) == manifest["reference_net"]
    assert shapes(vexpress.guider) == manifest["v_kps_guider"]


def test_audio_projection_has_the_manifest_sizes(vexpress, manifest):
    theirs, own = manifest["audio_projection"], shapes(vexpress.audio_projection)

    def count(sizes: dict[str, list[int]]) -> int:
        return sum(torch.Size(shape).numel() for shape in sizes.values())

    assert count(own) == count(theirs) == sum(p.numel() for p in vexpress.audio_projection.parameters())
    shared = [name for name in theirs if not name.startswith("layers.")]
    assert {name: own[name] for name in shared} == {name: theirs[name] for name in shared}
