"""A recipe from start to end: every phase from the file of the one before, and models that load."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.checkpoints.model_file import load_model, save_model
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.networks.layers import shapes_only
from svp_portrait.svp_models.networks.vae import StableDiffusionVae
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.training.recipe import recipe_from_dict
from svp_portrait.svp_models.training.run import Run


@pytest.fixture
def values(model, dataset, tmp_path):
    """A recipe on the tiny model and dataset, as key_name values."""
    start = tmp_path / "start.safetensors"
    save_model(start, model, {"step": "3"}, torch.float32)
    settings = {"steps": 2, "batch_size": 2, "warmup_steps": 1}
    stage = {"audio": True, "reference_margin": 0, "settings": settings}
    return {
        "name": "tiny",
        "model": {"file": str(start)},
        "data": {"folder": str(dataset), "cache_frames": True},
        "show": {"frames": 6, "steps": 1, "cfg": 1.0},
        "style": {"emotions": 2, "min_frames": 10, "settings": {**settings, "batch_size": 4}},
        "projections": {"settings": settings},
        "stage1": {"trainable": ["spatial"], "temporal": False, "settings": settings},
        "stage3": {
            "trainable": ["style"],
            "style": True,
            "frames": 2,
            **stage,
            "settings": {**settings, "sample_steps": 2},
        },
    }


def test_a_recipe_ends_with_a_model_that_says_where_it_comes_from(values, tmp_path):
    lines = []
    run = Run(recipe_from_dict(values), tmp_path / "run", lines.append)
    made = [run.phase(name) for name in run.recipe.phases()]
    first, last = load_model(values["model"]["file"]), load_model(made[-1])
    assert last.metadata["step"] == str(3 + 4 * 2) and last.metadata["recipe"] == "tiny"
    assert json.loads(last.metadata["training"])["phase"]["trainable"] == ["style"]
    assert last.metadata["data_version"] == run.build("stage3", last).clips.version
    assert last.style_space != first.style_space  # the extractor was trained
    changed = {
        name.split(".")[0]
        for name, value in last.networks.state_dict().items()
        if not torch.equal(value, first.networks.state_dict()[name])
    }
    assert changed == {"denoiser", "style_extractor", "style_projection", "audio_projection"}
    shown = load_video(tmp_path / "run" / "stage3" / "samples" / "step-0000002.mp4")
    assert shown.frames.shape[1:3] == (64, 128) and len(shown.frames) == 6 and shown.audio is not None

    stamps = [path.stat().st_mtime_ns for path in made]
    assert [
        Run(run.recipe, run.folder, lines.append).phase(name).stat().st_mtime_ns for name in run.recipe.phases()
    ] == stamps


SCRIPT = """
import json
import sys
from pathlib import Path

from svp_portrait.svp_models.training.recipe import recipe_from_dict
from svp_portrait.svp_models.training.run import Run, this_process

folder = Path(sys.argv[1])
lines = []
Run(recipe_from_dict(json.loads((folder / "recipe.json").read_text())), folder / sys.argv[2], lines.append).phase("style")
process = this_process()
(folder / f"{sys.argv[2]}-{process.process_index}-of-{process.num_processes}").write_text("\\n".join(lines))
"""


def test_processes_on_the_cpu_share_a_run(values, tmp_path):
    (tmp_path / "recipe.json").write_text(json.dumps(values))
    (tmp_path / "script.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    alone = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [str(tmp_path / "script.py"), str(tmp_path)]
    subprocess.run([*launch, *command, "two"], check=True, timeout=200, env=alone)
    Run(recipe_from_dict(values), tmp_path / "one", str).phase("style")
    told = (tmp_path / "two-0-of-2").read_text()
    assert "style" in told and (tmp_path / "two-1-of-2").read_text() == ""  # only the first one talks, and writes
    logs = [[json.loads(line) for line in (tmp_path / name / "style/log.jsonl").open()] for name in ("one", "two")]
    for one, two in zip(*logs, strict=True):
        assert two["step"] == one["step"]
    assert load_model(tmp_path / "two/style/model.safetensors").metadata["step"] == "5"


class Stop(Exception):
    """Raised to end a run, as a host's cancel button does."""


@pytest.mark.parametrize(
    "stage",
    [
        {"trainable": ["spatial", "reference", "guider"], "temporal": False},
        {
            "trainable": ["spatial", "reference", "temporal", "audio"],
            "single_frame_prob": 0.5,
            "frames": 2,
            "audio": True,
        },
    ],
    ids=["frames", "clips and frames"],
)
def test_a_stopped_stage_ends_with_the_same_bits(values, tmp_path, stage):
    def stop(done, total):
        if done == 1:
            raise Stop

    stage = {**stage, "reference_margin": 0, "settings": {**values["stage1"]["settings"], "steps": 3}}
    recipe = recipe_from_dict({key: values[key] for key in ("name", "model", "data", "show")} | {"stage1": stage})
    whole, lines = load_model(Run(recipe, tmp_path / "whole", str).phase("stage1")), []
    with pytest.raises(Stop):
        Run(recipe, tmp_path / "parts", str, stop).phase("stage1")
    parts = load_model(Run(recipe, tmp_path / "parts", lines.append).phase("stage1"))
    assert "stage1: resumes at step 1 of 3" in lines
    expected = whole.networks.state_dict()
    assert [name for name, value in parts.networks.state_dict().items() if not torch.equal(value, expected[name])] == []


def test_a_phase_waits_for_the_one_before(values, tmp_path):
    run = Run(recipe_from_dict(values), tmp_path / "run")
    with pytest.raises(PortraitError, match=r"stage3 starts from .*stage1.model\.safetensors, .*: train stage1 first"):
        run.phase("stage3")
    with pytest.raises(PortraitError, match="has no phase 'stage2'; it has style, projections, stage1, stage3"):
        run.phase("stage2")


def test_only_the_packs_vae_is_trained(values, model, tmp_path):
    settings = values["style"]["settings"]
    run = Run(recipe_from_dict({**values, "autoencoder": {"settings": settings}}), tmp_path / "run")
    with shapes_only():
        large = StableDiffusionVae(PRESETS["sd15"].vae)
    with pytest.raises(PortraitError, match="trains the pack's small VAE, and 'demo' has the VAE of Stable"):
        run.build("autoencoder", replace(model, vae=large))


def test_the_plan_of_a_phase(values, tmp_path):
    text = "\n".join(Run(recipe_from_dict(values), tmp_path / "run").describe("style"))
    assert "trained  extractor" in text and "2 steps of 4 samples" in text
    assert "9 clips of 3 people" in text
    assert not (tmp_path / "run" / "style").exists()


def test_reading_expressions_needs_an_analyser(values, tmp_path):
    values["data"]["predict_expressions"] = True
    with pytest.raises(PortraitError, match="needs a model with a face analyser"):
        Run(recipe_from_dict(values), tmp_path / "run").phase("style")
