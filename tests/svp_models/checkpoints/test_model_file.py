"""Model files: round trip and every way a file can be wrong."""

from __future__ import annotations

import json
import os
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from svp_portrait.svp_models.checkpoints.model_file import FACE_ANALYZER, load_model, save_model, style_space_of
from svp_portrait.svp_models.checkpoints.safetensors_io import read_metadata
from svp_portrait.svp_models.config import AudioConfig, FaceCropConfig, GuiderConfig, StyleConfig, UNetConfig, VaeConfig
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.attention import sinusoidal_encoding
from svp_portrait.svp_models.networks.motion_module import TemporalBlock, stored_encodings
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS

TINY = replace(
    PRESETS["demo"],
    unet=UNetConfig(
        latent_channels=8, block_out_channels=(8, 16), layers_per_block=1, attention_levels=(False, True),
        attention_heads=2, cross_attention_dim=12, norm_groups=4, motion_heads=2, motion_groups=4,
    ),
    vae=VaeConfig(kind="portrait", latent_channels=8, scale=1.0, fold=4, encoder_widths=(8, 8), decoder_widths=(8, 8, 8), layers=1),
    guider=GuiderConfig(channels=(4, 4, 4, 4)),
    audio=AudioConfig(features="mel", window=3, layers=1, heads=2, head_size=4, feature_size=20),
    style=StyleConfig(style_size=8, layers=1, heads=2, feed_forward=8, audio_size=20, expression_size=6),
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    networks = build_networks(TINY)
    space = style_space_of(networks.style_extractor)
    return PortraitModel(TINY, networks, build_vae(TINY.vae), b"onnx bytes", space)


@pytest.fixture
def path(model, tmp_path):
    file = tmp_path / "folder" / "model.safetensors"
    save_model(file, model, {"seed": "3", "step": "12", "data_version": "1"})
    return file


def test_a_network_for_dense_motion_is_kept_where_there_is_one(tmp_path):
    config = replace(TINY, face_crop=FaceCropConfig(32, 32, expression_warp=True, dense_width=8, dense_size=32))
    networks, file = build_networks(config), tmp_path / "dense.safetensors"
    torch.nn.init.normal_(networks.dense_motion.conv_out.weight)
    space = style_space_of(networks.style_extractor)
    save_model(file, PortraitModel(config, networks, build_vae(config.vae), None, space), {}, torch.float32)
    again = load_model(file)
    assert again.config == config
    for name, weight in networks.dense_motion.state_dict().items():
        assert torch.equal(again.networks.dense_motion.state_dict()[name], weight)


def rewrite(path, tensors=lambda each: each, metadata=lambda each: each):
    with safe_open(path, framework="pt") as file:
        have, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()
    save_file(tensors(have), path, metadata=metadata(header))


def test_round_trip(model, path):
    assert model.networks.dense_motion is None
    loaded = load_model(path)
    assert loaded.config == TINY and loaded.face_analyzer == b"onnx bytes" and loaded.style_space == model.style_space
    for name, tensor in model.networks.state_dict().items():
        again = loaded.networks.state_dict()[name]
        assert again.dtype == torch.float32 and torch.equal(again, tensor.half().float()), name
    for name, tensor in model.vae.state_dict().items():
        expected = tensor.half().float() if tensor.is_floating_point() else tensor
        assert torch.equal(loaded.vae.state_dict()[name], expected), name
    assert not loaded.networks.training and not loaded.vae.training
    assert not any(each.is_meta for each in [*loaded.networks.buffers(), *loaded.vae.buffers()])
    assert all(each.requires_grad for each in loaded.networks.parameters())
    header = read_metadata(path)
    assert loaded.metadata == header
    expected = {"format": "svp-portrait", "format_version": "1", "kind": "model", "seed": "3", "step": "12"}
    assert {key: header[key] for key in expected} == expected
    assert json.loads(header["config"])["name"] == "demo"


def test_saved_again_it_holds_the_same(path, tmp_path):
    again = tmp_path / "again.safetensors"
    save_model(again, load_model(path), {"seed": "3", "step": "12", "data_version": "1"})
    assert read_metadata(again) == read_metadata(path)
    with safe_open(path, framework="pt") as one, safe_open(again, framework="pt") as two:
        assert list(one.keys()) == list(two.keys())
        assert all(torch.equal(one.get_tensor(name), two.get_tensor(name)) for name in one.keys())
    assert [each.name for each in path.parent.iterdir()] == ["model.safetensors"]


def test_full_precision_keeps_every_bit_and_the_style_space(model, tmp_path):
    save_model(tmp_path / "full.safetensors", model, {}, dtype=torch.float32)
    loaded = load_model(tmp_path / "full.safetensors")
    assert loaded.style_space == model.style_space
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.networks.parameters(), model.networks.parameters(), strict=True)
    )


def mapped(path):
    """Ranges of addresses at which a file is mapped into this process."""
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    return [tuple(int(each, 16) for each in line[0].split("-")) for line in lines if line[-1] == str(path)]


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="the system does not list its mappings")
def test_as_stored_the_weights_stay_in_the_mapped_file(path):
    loaded = load_model(path, dtype=None)
    ranges = mapped(path)
    for name, each in [*loaded.networks.named_parameters(), *loaded.vae.named_parameters()]:
        assert each.dtype == torch.float16 and any(low <= each.data_ptr() < high for low, high in ranges), name
    with torch.no_grad():
        before = path.read_bytes()
        loaded.networks.guider.conv_in.bias.add_(1)  # training may change the weights, the file stays as it is
    assert path.read_bytes() == before
    loaded = load_model(path)
    assert not any(low <= each.data_ptr() < high for low, high in ranges for each in loaded.networks.parameters())


def test_bfloat16_is_written_with_a_style_space_that_holds(model, tmp_path):
    save_model(tmp_path / "coarse.safetensors", model, {}, dtype=torch.bfloat16)
    loaded = load_model(tmp_path / "coarse.safetensors", dtype=torch.bfloat16)
    assert loaded.style_space == load_model(tmp_path / "coarse.safetensors").style_space != model.style_space


def test_networks_compute_the_same(model, path):
    codes = torch.randn(3, 8)
    expected = model.networks.style_projection(codes)
    torch.testing.assert_close(load_model(path).networks.style_projection(codes), expected, atol=1e-2, rtol=1e-2)


def test_a_missing_key_an_extra_key_and_a_wrong_shape(path):
    name = "guider.conv_in.weight"
    good = path.read_bytes()
    rewrite(path, lambda have: {key: value for key, value in have.items() if key != name})
    with pytest.raises(
        PortraitError, match=r"model.safetensors: guider.conv_in.weight is missing, shape \[4, 3, 3, 3\]"
    ):
        load_model(path)
    path.write_bytes(good)
    rewrite(path, lambda have: {**have, name: torch.zeros(5, 3, 3, 3)})
    with pytest.raises(PortraitError, match=r"has shape \[5, 3, 3, 3\], \[4, 3, 3, 3\] is needed"):
        load_model(path)
    path.write_bytes(good)
    rewrite(path, lambda have: {**have, "vae.surplus": torch.zeros(2)})
    with pytest.raises(PortraitError, match=r"vae.surplus of shape \[2\] is unexpected"):
        load_model(path)


@pytest.mark.parametrize("kept", [0, 5, 200, -1000])
def test_truncated_files(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    for read in (load_model, read_metadata):
        with pytest.raises(PortraitError, match="model.safetensors: not a readable safetensors file"):
            read(path)


def test_garbage_and_absent_files(tmp_path):
    (tmp_path / "noise").write_bytes(os.urandom(4000))
    with pytest.raises(PortraitError, match="not a readable"):
        load_model(tmp_path / "noise")
    with pytest.raises(PortraitError, match="no such file"):
        load_model(tmp_path / "nothing")
    with pytest.raises(PortraitError, match="it is a folder, a file is needed"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "its format is other"),
        ({"format_version": "7"}, "format version 7, this release reads 1"),
        ({"kind": "style"}, "holds a style, a model is needed"),
        ({"config": "{"}, "config: not JSON"),
        ({"config": '{"name": "demo", "colour": 1}'}, "unknown key colour"),
        ({"style_space": "0" * 16}, "the file says 0000000000000000"),
        ({"style_space": "\x1b[2J"}, r"the file says \\x1b\[2J"),
        ({"kind": "\x1b[2J"}, r"holds a \\x1b\[2J, a model is needed"),
        ({"config": '{"name": "demo", "\\u001b[2J": 1}'}, r"unknown key \\x1b\[2J; known"),
    ],
)
def test_wrong_metadata(path, change, message):
    rewrite(path, metadata=lambda header: {**header, **change})
    with pytest.raises(PortraitError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "denoiser.conv_in.weight",
            torch.nan,
            "denoiser.conv_in.weight has 1 of {count} values that are not finite",
        ),
        ("vae.decoder.0.bias", -torch.inf, "vae.decoder.0.bias has 1 of {count} values that are not finite"),
        ("vae.statistics.variance", 0.0, "vae.statistics.variance goes down to 0: variances above 0 are needed"),
        ("style_extractor.pool.weight", torch.nan, "style_extractor.pool.weight has 1 of {count} values"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, None])
def test_weights_that_are_no_numbers_are_refused(path, name, value, message, dtype):
    counted = []

    def spoil(have):
        have[name].view(-1)[3] = value
        counted.append(have[name].numel())
        return have

    rewrite(path, spoil)
    with pytest.raises(PortraitError, match="model.safetensors: " + message.format(count=counted[0])):
        load_model(path, dtype)


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.int16, "guider.conv_in.weight is stored as int16"),
        (torch.float8_e4m3fn, "guider.conv_in.weight is stored as float8_e4m3fn: float16 or bfloat16"),
        (torch.bool, "guider.conv_in.weight is stored as bool"),
        (torch.uint8, "guider.conv_in.weight is stored as uint8: float16 or bfloat16 or float32 or float64 is needed"),
    ],
)
def test_weights_of_other_types_are_refused(path, dtype, message):
    rewrite(path, lambda have: {**have, "guider.conv_in.weight": torch.zeros(4, 3, 3, 3).to(dtype)})
    for wanted in (torch.float32, None):
        with pytest.raises(PortraitError, match=message):
            load_model(path, wanted)


def test_names_that_are_no_text_are_refused(path):
    rewrite(path, lambda have: {**have, "\x1b[2J": torch.zeros(3)})
    with pytest.raises(PortraitError, match=r"a tensor is called '\\x1b\[2J'"):
        load_model(path)


def test_a_face_analyzer_is_bytes(path):
    rewrite(path, lambda have: {**have, "face_analyzer.onnx": torch.zeros(3)})
    with pytest.raises(PortraitError, match=r"face_analyzer.onnx is torch.float32 of shape \[3\]: bytes are needed"):
        load_model(path)


def test_the_pack_s_own_face_analyzer_is_named_and_not_written_again(model, tmp_path):
    file, onnx = tmp_path / "model.safetensors", FACE_ANALYZER.read_bytes()
    save_model(file, replace(model, face_analyzer=onnx), {"step": "1"})
    loaded = load_model(file)
    assert file.stat().st_size < len(onnx) and loaded.face_analyzer == onnx
    save_model(file, replace(loaded, face_analyzer=b"another"), loaded.metadata)
    assert load_model(file).face_analyzer == b"another" and "face_analyzer" not in read_metadata(file)


def test_files_of_others_are_refused(tmp_path):
    save_file({"x": torch.zeros(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(PortraitError, match="its format is not given"):
        load_model(tmp_path / "plain.safetensors")


def test_values_too_large_for_half_are_refused(model, tmp_path):
    weight = model.networks.guider.conv_in.bias
    with torch.no_grad():
        before = weight.clone()
        weight[0] = 1e6
    with pytest.raises(PortraitError, match="guider.conv_in.bias reaches 1e\\+06"):
        save_model(tmp_path / "large.safetensors", model, {})
    assert not list(tmp_path.iterdir())
    with torch.no_grad():
        weight.copy_(before)


def test_a_write_that_fails_leaves_nothing(model, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    target = tmp_path / "model.safetensors"
    target.write_bytes(b"the old one")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(PortraitError, match="No space left"):
        save_model(target, model, {})
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"] and target.read_bytes() == b"the old one"
    with pytest.raises(PortraitError, match="cannot be written"):
        save_model(target / "below_a_file.safetensors", model, {})


def test_positions_that_weights_came_with_stay_theirs(model, path, tmp_path):
    """Temporal layers of V-Express files use the positions as they are rounded there: so does a model file made of them."""
    blocks = [each for each in model.networks.modules() if isinstance(each, TemporalBlock)]
    rounded = deepcopy(model)
    for block in (each for each in rounded.networks.modules() if isinstance(each, TemporalBlock)):
        table = sinusoidal_encoding(block.positions, block.ff_norm.normalized_shape[0], torch.zeros(()))
        block.positional_encoding = torch.stack([table, table]).half().float()
    file = tmp_path / "rounded.safetensors"
    save_model(file, rounded, {}, torch.float32)
    again = stored_encodings(load_model(file).networks)
    expected = stored_encodings(rounded.networks)
    assert len(again) == len(blocks) and again.keys() == expected.keys()
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert stored_encodings(load_model(path).networks) == {}
    name = next(iter(expected))
    rewrite(file, lambda tensors: {**tensors, name: tensors[name][:, :-1].contiguous()})
    with pytest.raises(
        PortraitError, match=rf"rounded.safetensors: {name} has shape \[2, 31, 8\], \[2, 32, 8\] is needed"
    ):
        load_model(file)
