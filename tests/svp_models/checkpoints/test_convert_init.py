"""Initialisation from Stable Diffusion 1.5: the origin of every tensor, and equal results to Stable Diffusion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from svp_portrait.svp_models.checkpoints.convert import init_from_sd15
from svp_portrait.svp_models.checkpoints.sd15 import (
    MotionModules,
    Published,
    motion_shapes,
    read_motion,
    read_unet,
    unet_shapes,
)
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.conditions import Conditions, ConditionWeights
from svp_portrait.svp_models.presets import PRESETS


@pytest.fixture(scope="module")
def base(config, single_file):
    return read_unet(single_file, config.unet)


def counted(report, networks):
    rows = [*report.loaded, *report.fresh]
    state = networks.state_dict()
    assert sum(row.tensors for row in rows) == len(state)
    assert sum(row.parameters for row in rows) == sum(tensor.numel() for tensor in state.values())
    return {row.part: row for row in rows}


def test_every_tensor_is_loaded_or_fresh(config, base, motion_file):
    built, networks, report = init_from_sd15(base, read_motion(motion_file(), config.unet), config)
    assert built == config
    rows = counted(report, networks)
    assert rows["ReferenceNet"].tensors == len(base.tensors) - 2
    assert rows["denoiser: temporal layers"].tensors == 7 * 26
    assert [row.part for row in report.fresh] == [
        "denoiser: output of the audio attention", "denoiser: style attention", "guider", "audio projection",
        "style projection", "style extractor",
    ]  # fmt: skip
    assert any("text encoder 2" in note and "noise schedule 4" in note for note in report.notes)
    assert len(report.lines()) == len(report.loaded) + len(report.fresh) + len(report.notes)
    own = networks.state_dict()
    for name, tensor in base.tensors.items():
        if not name.startswith("conv_norm_out."):
            assert torch.equal(own[f"reference.{name}"], tensor)
        zero = ".attn2.to_out.0." in name
        assert torch.equal(own[f"denoiser.{name}"], torch.zeros_like(tensor) if zero else tensor)
    place = "denoiser.mid_block.attentions.0.transformer_blocks.0."
    assert torch.equal(own[f"{place}reference_attn.to_v.weight"], own[f"{place}attn1.to_v.weight"])
    assert torch.equal(own[f"{place}reference_norm.bias"], own[f"{place}norm1.bias"])
    assert not own[f"{place}style_attn.to_out.0.weight"].any() and own[f"{place}style_attn.to_q.weight"].any()
    pointers = [tensor.data_ptr() for tensor in own.values() if tensor.numel()]
    assert len(set(pointers)) == len(pointers)  # training one network must not change another


def test_without_what_is_new_it_is_stable_diffusion(config, base, unet):
    """Reference weight 0, fresh temporal layers: only the text's attention is missing, which its UNet has with zero output."""
    _, networks, _ = init_from_sd15(base, None, config)
    sizes = config.unet
    theirs = UNet2DConditionModel(
        block_out_channels=sizes.block_out_channels, layers_per_block=1, norm_num_groups=8, cross_attention_dim=24,
        attention_head_dim=2, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    theirs.load_state_dict({name: each * 0 if ".attn2.to_out.0." in name else each for name, each in unet.items()})
    generator = torch.Generator().manual_seed(3)
    latents, tokens = torch.randn(3, 4, 8, 8, generator=generator), torch.randn(3, 5, 24, generator=generator)
    with torch.no_grad():
        expected = theirs(latents, 400, tokens).sample
        bank = networks.reference(latents[:1])
        conditions = Conditions(
            reference=bank, reference_latent=None, audio=tokens[None], kps=torch.zeros(1, 3, 16, 8, 8),
            style=torch.randn(1, 3, 16, 24, generator=generator),
        )  # fmt: skip
        weights = ConditionWeights(reference=0.0)
        have = networks.denoiser(latents[None], torch.tensor([400]), conditions, weights)[0]
    torch.testing.assert_close(have, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)


def test_a_motion_file_without_mid_block_leaves_that_one_fresh_and_says_so(config, base, motion_file):
    motion = read_motion(motion_file("v3_sd15_mm.ckpt", middle=False), config.unet)
    _, networks, report = init_from_sd15(base, motion, config)
    rows = counted(report, networks)
    assert rows["denoiser: temporal layers"].tensors == 6 * 26
    assert rows["denoiser: temporal layers of the mid block"].tensors == 26
    assert any("v3_sd15_mm.ckpt has no temporal layers for the mid block" in note for note in report.notes)
    assert not networks.denoiser.mid_block.motion_modules[0].proj_out.weight.any()


def test_fewer_positions_shorten_the_window(config, base, motion_file):
    built, networks, report = init_from_sd15(base, read_motion(motion_file(positions=6), config.unet), config)
    assert (built.unet.motion_positions, built.window, built.overlap) == (6, 6, 2)
    assert networks.denoiser.mid_block.motion_modules[0].transformer_blocks[0].positions == 6
    assert any("mm_sd_v15_v2.ckpt has 6 frame positions, the config 8: reduced to 6" in note for note in report.notes)


def test_the_seed_draws_what_is_fresh_and_leaves_the_global_generator_alone(config, base):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one, two, other = (init_from_sd15(base, None, config, seed)[1].state_dict() for seed in (4, 4, 5))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], two[name]) for name in one)
    name = "audio_projection.proj_in.weight"
    assert not torch.equal(one[name], other[name])


def test_half_precision(config, base):
    networks = init_from_sd15(base, None, config, dtype=torch.float16)[1]
    assert {parameter.dtype for parameter in networks.parameters()} == {torch.float16}


def test_a_denoiser_that_stable_diffusion_cannot_start(config, base):
    with pytest.raises(PortraitError, match=r"denoiser.conv_in.weight has shape \[16, 4, 3, 3\], \[16, 8, 3, 3\]"):
        init_from_sd15(base, None, replace(config, unet=replace(config.unet, reference_concat=True)))


def test_full_size_fills_every_tensor():
    config = PRESETS["sd15"]

    def empty(shapes):
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}

    base = Published((Path("v1-5-pruned-emaonly.safetensors"),), empty(unet_shapes(config.unet)), {})
    motion = MotionModules((Path("mm_sd_v15_v2.ckpt"),), empty(motion_shapes(config.unet)), 32, True, {})
    built, networks, report = init_from_sd15(base, motion, config)
    assert built == config
    rows = counted(report, networks)
    assert rows["ReferenceNet"].parameters == 859_520_964 - 640
    assert rows["denoiser: temporal layers"].tensors == 21 * 26
    assert rows["denoiser: reference attention"].tensors == 16 * 7
    assert sum(row.tensors for row in report.loaded) == 684 + (686 - 32) + 112 + 546
