"""Stable Diffusion 1.5 in both layouts: the same tensors under the same names, every name accounted for."""

from __future__ import annotations

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file

from svp_portrait.svp_models.checkpoints.sd15 import read_unet, read_vae, unet_names, unet_shapes, vae_names, vae_shapes
from svp_portrait.svp_models.config import PRESETS
from svp_portrait.svp_models.errors import PortraitError

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
    with pytest.raises(PortraitError, match="only 'sd15' can take"):
        read_vae(single_file, PRESETS["demo"].vae)
