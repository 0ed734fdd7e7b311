from __future__ import annotations

import argparse
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.checkpoints.motion_generators import (
    load_joyvasa,
    load_joyvasa_scale,
    load_kdtalker,
    load_kdtalker_scale,
    load_wav2lip,
)
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.layers import shapes_only
from svp_portrait.svp_models.networks.motion_generators.kdtalker import KDTalkerNetwork
from svp_portrait.svp_models.networks.motion_generators.motion_scale import JOYVASA_ORDER, KDTALKER_ORDER

from ...reference.weights import full_size_liveportrait_shapes

# What JoyVASA's `args` may hold.
PLAIN = [argparse.Namespace, type(Path())]

FILES = {"KDTalker.pth": load_kdtalker, "wav2lip.pth": load_wav2lip, "motion_generator.pt": load_joyvasa}
ENTRIES = {"KDTalker.pth": "model", "wav2lip.pth": "state_dict", "motion_generator.pt": "model"}


def content_of(path):
    """A file of the fixture, read without executing anything."""
    with torch.serialization.safe_globals(PLAIN):
        return torch.load(path, weights_only=True)


def refused(loader, path, message):
    with pytest.raises(PortraitError, match=re.escape(message)) as error:
        loader(path)
    assert str(error.value).startswith(str(path))


def test_kdtalker_has_the_published_shapes():
    shapes = full_size_liveportrait_shapes()["kdtalker"]
    assert shapes.pop("positional_encoding.freq_bands") == [10]
    with shapes_only():
        own = KDTalkerNetwork().state_dict()
    assert {name: list(tensor.shape) for name, tensor in own.items()} == shapes


def test_sizes_follow_from_the_tensors(kdtalker, joyvasa):
    assert (kdtalker.config.dim, kdtalker.config.layers, kdtalker.config.heads, kdtalker.config.rotary) == (
        256,
        2,
        4,
        2,
    )
    config = joyvasa.config
    assert (config.feature_dim, config.layers, config.n_motions, config.n_prev_motions) == (32, 8, 12, 3)
    assert (config.n_diff_steps, config.align_width) == (6, 1)
    assert not kdtalker.training and not joyvasa.training


@pytest.mark.parametrize("file", FILES)
def test_safetensors_are_the_same(generators_folder, file):
    path, load = generators_folder / file, FILES[file]
    original = load(path)
    content = content_of(path)[ENTRIES[file]]
    save_file({name: tensor.contiguous() for name, tensor in content.items()}, path.with_suffix(".safetensors"))
    again = load(path.with_suffix(".safetensors")).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in original.state_dict().items())


@pytest.mark.parametrize(
    ("file", "name", "shape"),
    [
        ("KDTalker.pth", "point_model.model.output_projection.bias", [70]),
        ("KDTalker.pth", "point_model.model.input_projection.weight", [768, 70]),
        ("wav2lip.pth", "module.audio_encoder.9.conv_block.1.running_var", [256]),
        ("motion_generator.pt", "null_audio_feat", [1, 1, 32]),
        ("motion_generator.pt", "audio_encoder.encoder.layers.0.attention.k_proj.bias", [768]),
        ("motion_generator.pt", "denoising_net.transformer.layers.7.norm3.bias", [32]),
    ],
)
def test_a_missing_tensor_is_named_with_its_shape(generators_folder, file, name, shape):
    path = generators_folder / file
    content = content_of(path)
    del content[ENTRIES[file]][name]
    torch.save(content, path)
    refused(FILES[file], path, f"{name} is missing, shape {shape}")


@pytest.mark.parametrize("file", FILES)
def test_other_tensors_are_refused(generators_folder, file):
    path = generators_folder / file
    content = content_of(path)
    content[ENTRIES[file]]["point_model.model.module.audio_encoder.extra"] = torch.zeros(1)
    torch.save(content, path)
    refused(FILES[file], path, "extra")


def test_other_positions_and_masks_are_refused(generators_folder):
    path = generators_folder / "motion_generator.pt"
    content = content_of(path)
    table, mask = content["model"]["denoising_net.PE.pe"], content["model"]["denoising_net.alignment_mask"]
    content["model"]["denoising_net.PE.pe"] = table + 0.01
    torch.save(content, path)
    refused(load_joyvasa, path, "denoising_net.PE.pe is off the sinusoids by 1.0e-02")
    content["model"]["denoising_net.PE.pe"] = table
    mask[3, 4] = False
    torch.save(content, path)
    refused(load_joyvasa, path, "denoising_net.alignment_mask does not have bands of 1 frames")
    del content["model"]["denoising_net.alignment_mask"]
    torch.save(content, path)
    refused(load_joyvasa, path, "denoising_net.alignment_mask is missing")


def template() -> dict[str, np.ndarray]:
    """Every range is -1 to 3; expressions have the mean 0.5 and the deviation 2."""
    ranges = {f"{kind}_{name}": np.full(size, value, np.float32)
              for name, size in JOYVASA_ORDER.items() for kind, value in (("min", -1.0), ("max", 3.0))}  # fmt: skip
    return {**ranges, "mean_exp": np.full(63, 0.5), "std_exp": np.full(63, 2.0), "mean_R": np.eye(3).flatten()}


def test_the_template_of_joyvasa(tmp_path):
    path = tmp_path / "motion_template.pkl"
    for protocol in (2, 4, 5):
        path.write_bytes(pickle.dumps(template(), protocol=protocol))
        scale = load_joyvasa_scale(path)
        assert torch.equal(
            scale.values("pitch", torch.tensor([[0.0], [0.5], [1.0]])).flatten(), torch.tensor([-1.0, 1, 3])
        )
        assert torch.equal(scale.values("exp", torch.ones(1, 63)), torch.full((1, 63), 2.5))
    path.write_bytes(pickle.dumps({**template(), "std_exp": np.ones(62)}))
    refused(load_joyvasa_scale, path, "std_exp has 62 numbers, 63 finite ones are needed")
    path.write_bytes(pickle.dumps({"mean_exp": np.ones(63)}))
    refused(load_joyvasa_scale, path, "std_exp is missing")


def test_the_scale_of_kdtalker(tmp_path):
    path = tmp_path / "norm.npz"
    sizes = KDTALKER_ORDER | {"kp": 63}
    arrays = {f"{name}_{kind}": np.full(size, value) for name, size in sizes.items()
              for kind, value in (("mean", 3.0), ("std", 2.0))}  # fmt: skip
    np.savez(path, **arrays)
    scale = load_kdtalker_scale(path)
    assert torch.equal(scale.numbers("t", torch.full((1, 3), 7.0)), torch.full((1, 3), 2.0))
    del arrays["kp_std"]
    np.savez(path, **arrays)
    refused(load_kdtalker_scale, path, "kp_std is missing, 63 numbers are needed")
    path.write_bytes(b"no archive")
    refused(load_kdtalker_scale, path, "not a readable numpy archive")
