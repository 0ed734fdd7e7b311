"""Stable Diffusion 1.5 in both layouts and AnimateDiff's motion modules: every name is used, counted or an error."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file

from svp_portrait.svp_models.checkpoints.sd15 import (
    animatediff_name,
    motion_shapes,
    read_motion,
    read_unet,
    read_vae,
    unet_names,
    unet_shapes,
    vae_names,
    vae_shapes,
)
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.presets import PRESETS

FULL = PRESETS["sd15"]


def test_names_of_the_full_unet_are_those_that_diffusers_knows():
    names = unet_names(FULL.unet)
    assert len(names) == len(set(names.values())) == 686
    assert names["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"] == (
        "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    )
    assert names["up_blocks.1.upsamplers.0.conv.bias"] == "output_blocks.5.2.conv.bias"
    assert names["up_blocks.0.upsamplers.0.conv.bias"] == "output_blocks.2.1.conv.bias"
    published = {f"model.diffusion_model.{theirs}": own for own, theirs in names.items()}
    assert convert_ldm_unet_checkpoint(published, {"layers_per_block": 2}) == {own: own for own in names}


def test_names_of_the_full_vae_are_those_that_diffusers_knows():
    names = vae_names(FULL.vae)
    assert len(names) == len(set(names.values())) == 248
    index = {own: float(number) for number, own in enumerate(names)}
    published = {f"first_stage_model.{theirs}": torch.full((1, 1), index[own]) for own, theirs in names.items()}
    blocks = {"down_block_types": [None] * 4, "up_block_types": [None] * 4}
    converted = convert_ldm_vae_checkpoint(published, blocks)
    assert {own: float(each) for own, each in converted.items()} == index


def test_shapes_of_the_full_networks_sum_up_to_the_published_sizes():
    assert sum(shape.numel() for shape in unet_shapes(FULL.unet).values()) == 859_520_964
    assert sum(shape.numel() for shape in vae_shapes(FULL.vae).values()) == 83_653_863


def same(have, expected):
    assert have.keys() == expected.keys()
    assert all(torch.equal(have[name], expected[name]) for name in expected)


def test_single_file(config, single_file, unet, vae):
    published = read_unet(single_file, config.unet)
    same(published.tensors, unet)
    assert published.files == (single_file,)
    assert published.unused == {"VAE": len(vae), "text encoder": 2, "EMA copies": 2, "noise schedule": 4}
    same(read_vae(single_file, config.vae).tensors, vae)


def test_a_ckpt_with_a_wrapper_is_read_too(config, single_file, tmp_path, unet):
    torch.save({"state_dict": load_file(single_file), "global_step": 7}, tmp_path / "sd.ckpt")
    same(read_unet(tmp_path / "sd.ckpt", config.unet).tensors, unet)


def test_diffusers_folder(config, diffusers_folder, unet, vae):
    published = read_unet(diffusers_folder, config.unet)
    same(published.tensors, unet)
    assert published.unused == {} and published.files[0].parent.name == "unet"
    same(read_unet(diffusers_folder / "unet", config.unet).tensors, unet)
    same(read_vae(diffusers_folder, config.vae).tensors, vae)


def test_vae_alone_under_original_old_and_new_names(config, vae, original_vae, tmp_path):
    torch.save({"state_dict": {**original_vae, "loss.logvar": torch.zeros(())}}, tmp_path / "vae-ft-mse-840000.ckpt")
    original = read_vae(tmp_path / "vae-ft-mse-840000.ckpt", config.vae)
    same(original.tensors, vae)
    assert original.unused == {"training loss": 1}
    words = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    old = {}
    for name, tensor in vae.items():
        for new, former in words.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{former}.")
        old[name] = tensor
    assert sum("query" in name for name in old) == 4
    for number, tensors in enumerate((old, vae)):
        folder = tmp_path / str(number)
        folder.mkdir()
        save_file(tensors, folder / "diffusion_pytorch_model.fp16.safetensors")
        same(read_vae(folder, config.vae).tensors, vae)


def test_what_does_not_fit_is_named(config, single_file, tmp_path, vae):
    tensors = load_file(single_file)
    first = "model.diffusion_model.input_blocks.0.0.weight"
    cases = {
        r"missing, shape \[16, 4, 3, 3\]": {name: each for name, each in tensors.items() if name != first},
        r"has shape \[16, 9, 3, 3\], \[16, 4, 3, 3\] is needed": {**tensors, first: torch.zeros(16, 9, 3, 3)},
        "model.diffusion_model.extra of shape .* unexpected": {
            **tensors,
            "model.diffusion_model.extra": torch.zeros(2),
        },
        "control_model.x of shape .* belongs to no part": {**tensors, "control_model.x": torch.zeros(2)},
    }
    for message, changed in cases.items():
        save_file(changed, tmp_path / "changed.safetensors")
        with pytest.raises(PortraitError, match=message):
            read_unet(tmp_path / "changed.safetensors", config.unet)
    save_file({"betas": torch.zeros(3)}, tmp_path / "none.safetensors")
    with pytest.raises(PortraitError, match="no name in it begins with model.diffusion_model"):
        read_unet(tmp_path / "none.safetensors", config.unet)
    with pytest.raises(PortraitError, match="holds no autoencoder"):
        read_vae(tmp_path / "none.safetensors", config.vae)
    with pytest.raises(PortraitError, match="no diffusion_pytorch_model with one of the endings"):
        read_unet(tmp_path, config.unet)
    with pytest.raises(PortraitError, match="only 'sd15' has Stable Diffusion's tensors"):
        read_vae(single_file, PRESETS["demo"].vae)


def test_names_and_parameters_of_animatediff_at_full_size():
    shapes = motion_shapes(PRESETS["sd15"].unet)
    assert len(shapes) == 21 * 26
    names = {animatediff_name(name) for name in shapes}
    assert (
        "mid_block.motion_modules.0.temporal_transformer.transformer_blocks.0.attention_blocks.1.to_out.0.bias" in names
    )
    assert "down_blocks.3.motion_modules.1.temporal_transformer.proj_in.weight" in names
    # In float32 with the tables these are the bytes of the published v2 and v3 files, up to their headers.
    tables = {name: 32 * shape[1] for name, shape in shapes.items() if name.endswith("to_q.weight")}
    count = sum(shape.numel() for shape in shapes.values()) + sum(tables.values())
    middle = sum(shape.numel() for name, shape in shapes.items() if name.startswith("mid_block."))
    middle += sum(each for name, each in tables.items() if name.startswith("mid_block."))
    assert 0 < 1817888431 - 4 * count < 3e5 and 0 < 1673262583 - 4 * (count - middle) < 3e5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_animatediff_v2_is_read_completely(config, motion_file, dtype, wrapper):
    motion = read_motion(motion_file(dtype=dtype, wrapper=wrapper), config.unet)
    assert motion.tensors.keys() == motion_shapes(config.unet).keys()
    assert motion.mid_block and motion.positions == 8
    assert list(motion.unused.values()) == [2 * 7]  # one encoding for each of two attentions in 2 + 1 + 4 modules
    stored = torch.load(motion.files[0], weights_only=True)
    stored = stored[wrapper] if wrapper else stored
    name = "up_blocks.0.motion_modules.1.transformer_blocks.0.ff.net.2.weight"
    assert torch.equal(motion.tensors[name], stored[animatediff_name(name)])


def test_animatediff_v3_has_no_mid_block_and_v1_fewer_positions(config, motion_file):
    motion = read_motion(motion_file("v3_sd15_mm.ckpt", middle=False), config.unet)
    assert not motion.mid_block and not any(name.startswith("mid_block.") for name in motion.tensors)
    assert read_motion(motion_file(positions=6), config.unet).positions == 6


def test_an_unused_mid_block_is_counted(config, motion_file):
    motion = read_motion(motion_file(), replace(config.unet, motion_mid_block=False))
    assert motion.unused["temporal layers of the mid block"] == 26


def test_motion_files_that_do_not_fit(config, motion_file):
    path = motion_file()
    good = torch.load(path, weights_only=True)
    table = next(name for name in good if name.endswith("pos_encoder.pe"))
    first = next(iter(good))
    cases = {
        "differs by .* from the sinusoidal encoding": {**good, table: good[table].roll(1, dims=1)},
        "different lengths": {**good, table: good[table][:, :4]},
        "no positional encodings": {name: each for name, each in good.items() if not name.endswith("pos_encoder.pe")},
        f"{first} is missing": {name: each for name, each in good.items() if name != first},
        "extra of shape .* unexpected": {**good, "extra": torch.zeros(1)},
        "has shape .* 1 x positions x channels": {**good, table: good[table][0]},
    }
    for message, tensors in cases.items():
        torch.save(tensors, path)
        with pytest.raises(PortraitError, match=message):
            read_motion(path, config.unet)
