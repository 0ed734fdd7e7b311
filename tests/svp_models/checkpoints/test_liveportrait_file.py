"""LivePortrait's five files -> one file -> five files, and the single file read strictly."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from svp_portrait.svp_models.checkpoints.liveportrait import FILES, load_liveportrait
from svp_portrait.svp_models.checkpoints.liveportrait_file import (
    export_liveportrait,
    save_liveportrait,
    with_spectral_norm,
)
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.errors import PortraitError

from ...reference.weights import full_size_liveportrait_shapes

PARTS = ("appearance", "motion", "warping", "generator", "stitching", "mouth", "eyes")
GB = 10**9


def convert(*arguments):
    return main(lambda folders, progress: [], ["convert", *arguments])


def states(networks):
    return {f"{part}.{name}": tensor for part in PARTS for name, tensor in getattr(networks, part).state_dict().items()}


def assert_same(one, other, tolerance=0.0):
    ours, theirs = states(one), states(other)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=tolerance, atol=tolerance, msg=name)


def test_one_file_holds_the_same_networks(liveportrait_networks, tmp_path):
    path = tmp_path / "liveportrait.safetensors"
    save_liveportrait(path, liveportrait_networks)
    assert_same(load_liveportrait(path), liveportrait_networks)
    with safe_open(path, framework="pt") as file:
        assert {name.partition(".")[0] for name in file.keys()} == set(PARTS)
        metadata = file.metadata()
    assert (metadata["kind"], metadata["format"], metadata["format_version"]) == ("liveportrait", "svp-portrait", "1")


def test_half_precision_keeps_counters_and_rounds_the_rest(liveportrait_networks, tmp_path):
    path = tmp_path / "half.safetensors"
    save_liveportrait(path, liveportrait_networks, dtype=torch.float16)
    stored = load_file(path)
    counters = [name for name, tensor in stored.items() if tensor.dtype == torch.int64]
    assert counters and all(name.endswith("num_batches_tracked") for name in counters)
    loaded = states(load_liveportrait(path))
    for name, tensor in states(liveportrait_networks).items():
        assert torch.equal(loaded[name], tensor.half().to(tensor.dtype) if name not in counters else tensor)
    with pytest.raises(PortraitError, match="cannot be saved as torch.int8"):
        save_liveportrait(path, liveportrait_networks, dtype=torch.int8)


def test_the_command_converts_there_and_back(liveportrait_folder, liveportrait_networks, tmp_path, capsys):
    single, again, folder = tmp_path / "lp.safetensors", tmp_path / "again.safetensors", tmp_path / "back"
    assert convert(str(liveportrait_folder), "--out", str(single)) == 0
    assert "loaded  appearance" in capsys.readouterr().out
    assert_same(load_liveportrait(single), liveportrait_networks)
    with safe_open(single, framework="pt") as file:
        metadata = file.metadata()
    assert metadata["licence"] == "liveportrait: MIT"
    assert sorted(json.loads(metadata["sources"])) == sorted(f"liveportrait/{stem}.pth" for stem in FILES)
    assert convert(str(single), "--out", str(again), "--dtype", "fp16") == 0
    with safe_open(again, framework="pt") as file:
        assert f"{tmp_path.name}/lp.safetensors" in json.loads(file.metadata()["sources"])
        assert f"liveportrait/{FILES[0]}.pth" in json.loads(file.metadata()["sources"])
    assert convert(str(single), "--to", "liveportrait", "--out", str(folder)) == 0
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{stem}.safetensors" for stem in FILES)
    assert_same(load_liveportrait(folder), liveportrait_networks, 1e-5)


def test_files_written_back_have_the_published_names(liveportrait_folder, liveportrait_networks, tmp_path):
    export_liveportrait(tmp_path / "back", liveportrait_networks)
    for stem in FILES[:4]:
        theirs = torch.load(liveportrait_folder / f"{stem}.pth", weights_only=True)
        ours = load_file(tmp_path / "back" / f"{stem}.safetensors")
        assert {name: tensor.shape for name, tensor in ours.items()} == {
            name: tensor.shape for name, tensor in theirs.items()
        }
    names = load_file(tmp_path / "back" / f"{FILES[4]}.safetensors")
    assert {name.rpartition("_module.")[0] for name in names} == {"retarget_shoulder", "retarget_mouth", "retarget_eye"}


def test_spectral_norm_that_is_written_changes_nothing_in_their_layer():
    plain = nn.Conv2d(5, 4, 3)
    stored = with_spectral_norm({f"up_0.conv_0.{name}": tensor for name, tensor in plain.state_dict().items()})
    layer = nn.utils.spectral_norm(nn.Conv2d(5, 4, 3)).eval()
    layer.load_state_dict({name.removeprefix("up_0.conv_0."): tensor for name, tensor in stored.items()}, strict=True)
    x = torch.randn(1, 5, 6, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), functional.conv2d(x, plain.weight, plain.bias), rtol=1e-5, atol=1e-6)
    assert "fc.weight" in with_spectral_norm({"fc.weight": plain.weight})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("warping.fourth.bias", "warping.fourth.bias is missing, shape [32] is needed"),
        ("appearance.second.weight", "appearance.second.weight is missing, shape [512, 256, 1, 1] or of that layout"),
        ("eyes.mlp.0.weight", "eyes.mlp.0.weight is missing, shape [256, 66] or of that layout is needed"),
        ("+motion.extra", "motion.extra of shape [1] is unexpected"),
        ("+nose.mlp", "nose.mlp is unexpected: its names begin with appearance, motion, warping"),
    ],
)
def test_the_single_file_is_strict(liveportrait_networks, tmp_path, change, message):
    path = tmp_path / "liveportrait.safetensors"
    save_liveportrait(path, liveportrait_networks)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    if change.startswith("+"):
        tensors[change[1:]] = torch.zeros(1)
    else:
        del tensors[change]
    save_file(tensors, path, metadata)
    with pytest.raises(PortraitError, match=re.escape(f"{path}: {message}")):
        load_liveportrait(path)


def test_other_files_of_the_pack_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path, {"format": "svp-portrait", "format_version": "1", "kind": "model"})
    with pytest.raises(PortraitError, match="holds a model, a liveportrait is needed"):
        load_liveportrait(path)
    with pytest.raises(PortraitError, match="there is no such folder"):
        load_liveportrait(tmp_path / "nothing")


def full_size(shapes, generator):
    """Random tensors of these shapes as a published file has them: norms near 1, weights of a trained size."""
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("num_batches_tracked"):
            tensors[name] = torch.tensor(1)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            tensors[name] = torch.rand(shape, generator=generator) + 0.5
        else:
            tensors[name] = torch.randn(shape, generator=generator) / math.sqrt(max(1, math.prod(shape[1:])))
    return tensors


@pytest.mark.slow
def test_full_size_files_load_convert_and_come_back(tmp_path, capsys):
    if shutil.disk_usage(tmp_path).free < 3 * GB:
        pytest.skip("3 GB of free disk are needed")
    generator, folder, shapes = (
        torch.Generator().manual_seed(0),
        tmp_path / "published",
        full_size_liveportrait_shapes(),
    )
    folder.mkdir()
    for stem in FILES[:4]:
        torch.save(full_size(shapes[stem], generator), folder / f"{stem}.pth")
    widths = {
        "shoulder": (126, 128, 128, 64, 65),
        "mouth": (65, 128, 128, 64, 63),
        "eye": (66, 256, 256, 128, 128, 64, 63),
    }
    stitching = {
        f"retarget_{part}": {
            f"module.mlp.{2 * index}.{name}": torch.randn(shape, generator=generator)
            for index, (narrow, wide) in enumerate(itertools.pairwise(sizes))
            for name, shape in (("weight", (wide, narrow)), ("bias", (wide,)))
        }
        for part, sizes in widths.items()
    }  # fmt: skip
    torch.save(stitching, folder / f"{FILES[4]}.pth")
    single, back = tmp_path / "liveportrait.safetensors", tmp_path / "back"
    assert convert(str(folder), "--out", str(single)) == 0
    original = load_liveportrait(folder)
    assert sum(p.numel() for part in PARTS for p in getattr(original, part).parameters()) > 129e6
    assert_same(load_liveportrait(single), original)
    shutil.rmtree(folder)
    assert convert(str(single), "--to", "liveportrait", "--out", str(back)) == 0
    assert_same(load_liveportrait(back), original, 1e-5)
    assert {name: list(tensor.shape) for name, tensor in load_file(back / f"{FILES[3]}.safetensors").items()} == (
        shapes[FILES[3]]
    )
