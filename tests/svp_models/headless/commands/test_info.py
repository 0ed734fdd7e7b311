from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.checkpoints.native import PortraitModel
from svp_portrait.svp_models.checkpoints.style_layer import save_style_layer
from svp_portrait.svp_models.config import PRESETS
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.headless.cli import main
from svp_portrait.svp_models.headless.commands.info import as_text, describe
from svp_portrait.svp_models.networks.portrait_model import build_networks
from svp_portrait.svp_models.networks.vae import build_vae


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
    assert main(lambda folders, progress: [], ["info", "--json", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["parts"]["vae"]["values"] == 5


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
    assert "style layers for a model of widths 56, 72, 96 and tokens of 128; styles of 128 numbers from mel" in text
    assert f"style_space     {'0' * 16}" in text


def test_unreadable_files(file, tmp_path):
    with pytest.raises(PortraitError, match="no such file"):
        describe(tmp_path / "none.safetensors")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(PortraitError, match="not a whole safetensors file"):
        describe(file)
