from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.headless.cli import main
from svp_portrait.svp_models.headless.commands.info import describe


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


def test_unreadable_files(file, tmp_path):
    with pytest.raises(PortraitError, match="no such file"):
        describe(tmp_path / "none.safetensors")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(PortraitError, match="not a whole safetensors file"):
        describe(file)
