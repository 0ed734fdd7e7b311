from __future__ import annotations

import json
import re

import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL
from svp_portrait.svp_models.checkpoints.style_layers import save_style_layer
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.cli.models import as_text, describe
from svp_portrait.svp_models.config import ModelConfig, config_from_dict
from svp_portrait.svp_models.diffusion.guidance import FASTEST
from svp_portrait.svp_models.diffusion.memory import sampling_memory
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.safetensors"
    tensors = {
        "networks.denoiser.weight": torch.zeros(2, 3, dtype=torch.float16),
        "networks.denoiser.bias": torch.zeros(2, dtype=torch.float16),
        "vae.encoder.weight": torch.zeros(5),
    }
    metadata = {"format": "svp-portrait", "kind": "model", "config": json.dumps({"name": "tiny"}), "seed": "7"}
    save_file(tensors, path, metadata)
    return path


def test_counts_per_part(file):
    described = describe(file)
    assert described["parts"] == {
        "denoiser": {"values": 8, "dtypes": ["F16"]},
        "vae": {"values": 5, "dtypes": ["F32"]},
    }
    assert described["config"] == {"name": "tiny"} and described["metadata"]["seed"] == "7"
    assert described["bytes"] == file.stat().st_size


def test_as_text_and_json(file, capsys):
    assert main(lambda folders, progress: [], ["info", str(file)]) == 0
    text = capsys.readouterr().out
    assert "kind            model" in text and 'config.name             "tiny"' in text
    assert "sampling        25 steps, cfg 3.5, 25 fps, 512 x 512 pixels, windows of 24 frames" in text
    assert main(lambda folders, progress: [], ["info", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["parts"]["vae"]["values"] == 5


def test_a_model_tells_how_it_is_sampled(file):
    described = describe(file)
    described["config"] |= {"steps": 2, "cfg": 1.0, "fps": 30.0}
    assert "2 steps, cfg 1, 30 fps" in as_text(described)


def test_style_layers_say_which_models_they_fit(tmp_path):
    torch.manual_seed(0)
    config = PRESETS["demo"]
    networks = build_networks(config)
    file = tmp_path / "layers.safetensors"
    save_style_layer(file, PortraitModel(config, networks, build_vae(config.vae), None, "0" * 16), {"step": "7"})
    described = describe(file)
    assert described["metadata"]["kind"] == "style_layer" and set(described["parts"]) == {
        "denoiser",
        "style_projection",
        "style_extractor",
    }
    text = as_text(described)
    assert "style layers for a model of widths 56, 72, 96 and tokens of 128; styles of 128 values from mel" in text
    assert f"style_space     {'0' * 16}" in text
    del described["config"]["style"]["expression_size"], described["config"]["style"]["tokens"]
    assert "and 64 coefficients" in as_text(described)


def test_memory_to_sample(capsys):
    assert main(lambda folders, progress: [], ["info", str(BUILTIN_MODEL), "--json", "--memory", "128x96"]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    config = config_from_dict(ModelConfig, describe(BUILTIN_MODEL)["config"])
    with torch.device("meta"):
        networks = build_networks(config)
    values = {
        name: sum(each.numel() for each in part.state_dict().values()) for name, part in networks.named_children()
    }
    assert (memory["width"], memory["height"], memory["window"]) == (128, 96, 6)
    for name, dtype in (("fp16", torch.float16), ("fp32", torch.float32)):
        needed = memory["bytes"][name]
        assert needed["weights_denoising"] == dtype.itemsize * (values["denoiser"] + values["guider"])
        assert needed["weights_denoising"] + needed["weights_before"] == dtype.itemsize * sum(values.values())
        assert needed["working"] == sampling_memory(config, FASTEST, config.cfg, 6, (128, 96), dtype)
        assert needed["working_halves_apart"] <= needed["working"]


@pytest.mark.parametrize(
    ("size", "message"),
    [("128", "write width x height"), ("100x96", "100 x 96 is not a multiple of 8"), ("x", "width x height in pixels")],
)
def test_memory_at_sizes_that_cannot_be(size, message, capsys):
    assert main(lambda folders, progress: [], ["info", str(BUILTIN_MODEL), "--memory", size]) == 1
    assert message in capsys.readouterr().err


def test_unreadable_files(file, tmp_path):
    with pytest.raises(PortraitError, match="no such file"):
        describe(tmp_path / "none.safetensors")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(PortraitError, match="not a whole safetensors file"):
        describe(file)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("null", "config is null: names and values are needed"),
        ("[1, 2]", "config is .*: names and values are needed"),
        ("{", "config: not JSON"),
        ("[" * 50_000 + "]" * 50_000, "config: not JSON"),
        ('{"name": "x", "fps": NaN}', "config.fps is nan: 1 to 240 is allowed"),
        ('{"name": "x", "unet": {"layers_per_block": 100000}}', "layers_per_block is 100000: 1 to 16 is allowed"),
        ('{"name": "x", "size": {}}', "config.size is .*: it must be a whole number"),
    ],
)
@pytest.mark.parametrize("kind", ["model", "style_layer"])
@pytest.mark.parametrize("options", [[], ["--json"], ["--memory", "64x64"]])
def test_a_broken_config_is_one_line(tmp_path, capsys, config, message, kind, options):
    path = tmp_path / "broken.safetensors"
    save_file({"vae.x": torch.zeros(5)}, path, {"format": "svp-portrait", "kind": kind, "config": config})
    assert main(lambda folders, progress: [], ["info", str(path), *options]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("svp: ") and printed.err.count("\n") == 1
    if options != ["--memory", "64x64"]:
        assert "vae" in printed.out  # the rest is described all the same
    if kind == "model":
        assert re.search(message, printed.err)


def test_what_others_wrote_into_a_file_is_shown_and_not_obeyed(tmp_path, capsys):
    path = tmp_path / "evil.safetensors"
    save_file({"\x1b[2Jnetworks.x": torch.zeros(5)}, path, {"label": "\x1b]0;title\x07", "\u202eseed": "a\nb"})
    assert main(lambda folders, progress: [], ["info", str(path)]) == 0
    text = capsys.readouterr().out
    assert r"\x1b]0;title\x07" in text and r"\x1b[2Jnetworks" in text and r"\u202eseed" in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_memory_of_a_model_without_a_part(tmp_path, capsys):
    path = tmp_path / "part.safetensors"
    header = {"format": "svp-portrait", "kind": "model", "config": json.dumps({"name": "x"})}
    save_file({"denoiser.x": torch.zeros(5)}, path, header)
    assert main(lambda folders, progress: [], ["info", str(path), "--memory", "512x512"]) == 1
    assert "it has no audio_projection: use the original file" in capsys.readouterr().err
