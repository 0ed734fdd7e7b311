"""Motion modules of AnimateDiff: names, tables of positions, mid block."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.checkpoints.init_from_sd15 import motion_shapes, published_name, read_motion
from svp_portrait.svp_models.config import PRESETS
from svp_portrait.svp_models.errors import PortraitError


def test_names_and_parameters_at_full_size():
    shapes = motion_shapes(PRESETS["sd15"].unet)
    assert len(shapes) == 21 * 26
    names = {published_name(name) for name in shapes}
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
def test_v2_is_taken_whole(config, motion_file, dtype, wrapper):
    motion = read_motion(motion_file(dtype=dtype, wrapper=wrapper), config.unet)
    assert motion.tensors.keys() == motion_shapes(config.unet).keys()
    assert motion.mid_block and motion.positions == 8
    assert list(motion.unused.values()) == [2 * 7]  # a table for each of two attentions in 2 + 1 + 4 modules
    stored = torch.load(motion.files[0], weights_only=True)
    stored = stored[wrapper] if wrapper else stored
    name = "up_blocks.0.motion_modules.1.transformer_blocks.0.ff.net.2.weight"
    assert torch.equal(motion.tensors[name], stored[published_name(name)])


def test_v3_has_no_mid_block_and_v1_fewer_positions(config, motion_file):
    motion = read_motion(motion_file("v3_sd15_mm.ckpt", middle=False), config.unet)
    assert not motion.mid_block and not any(name.startswith("mid_block.") for name in motion.tensors)
    assert read_motion(motion_file(positions=6), config.unet).positions == 6


def test_a_mid_block_without_a_place_is_counted(config, motion_file):
    motion = read_motion(motion_file(), replace(config.unet, motion_mid_block=False))
    assert motion.unused["temporal layers of the mid block"] == 26


def test_files_that_do_not_fit(config, motion_file):
    path = motion_file()
    good = torch.load(path, weights_only=True)
    table = next(name for name in good if name.endswith("pos_encoder.pe"))
    first = next(iter(good))
    cases = {
        "differs by .* from the sinusoidal positions": {**good, table: good[table].roll(1, dims=1)},
        "different lengths": {**good, table: good[table][:, :4]},
        "no tables of positions": {name: each for name, each in good.items() if not name.endswith("pos_encoder.pe")},
        f"{first} is missing": {name: each for name, each in good.items() if name != first},
        "extra of shape .* unexpected": {**good, "extra": torch.zeros(1)},
        "has shape .* 1 x positions x channels": {**good, table: good[table][0]},
    }
    for message, tensors in cases.items():
        torch.save(tensors, path)
        with pytest.raises(PortraitError, match=message):
            read_motion(path, config.unet)
