"""The windows of a clip in two processes: the frames of one process, and half of the work each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from svp_portrait.svp_models.diffusion.processes import joined_processes, least, own_windows, process_count

WORKFLOWS = Path(__file__).resolve().parents[3] / "workflows"
TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
SCRIPT = """
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.diffusion.acceleration import Acceleration
from svp_portrait.svp_models.diffusion.noise_prediction import NoisePredictor
from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline, SamplerOptions
from svp_portrait.svp_models.diffusion.processes import joined_processes
from svp_portrait.svp_models.io.memory_map import Storage
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.types import Audio, HeadMotion
from svp_portrait.tests.svp_models.diffusion.conftest import TINY, fill

out = Path(sys.argv[1])
model = PortraitModel(TINY, fill(build_networks(TINY), 1), fill(build_vae(TINY.vae), 2), None, "tiny-space", {})
drawn = torch.Generator().manual_seed(3)
portrait, sound = torch.rand(3, 48, 64, generator=drawn) * 2 - 1, 0.1 * torch.randn(1, 16000, generator=drawn)
points = torch.tensor([[4, 8], [5, 16], [28, 8], [27, 16], [11, 10], [21, 10], [16, 10], [16, 15]]).float()
motion = HeadMotion(points + torch.linspace(0, 3, 20)[:, None, None], 32, 24, 25.0)
computed = []
predict = NoisePredictor.__call__

def counted(self, numbers, windows, latents, steps):
    computed.extend(numbers)
    return predict(self, numbers, windows, latents, steps)

NoisePredictor.__call__ = counted
with joined_processes() as first:
    found = {}
    for name, acceleration, budget in (
        ("exact", Acceleration(), 2**30),
        ("in files", Acceleration(), 0),
        ("fast", Acceleration(cache_every=3, taylor_order=1, parallel_steps=True, even_windows=True), 2**30),
        ("adaptive", Acceleration(guidance_similarity=0.1), 2**30),
        ("windows in one batch", Acceleration(windows_together=3, cache_every=2), 2**30),
    ):
        pipeline = PortraitPipeline(model, storage=Storage(str(out), budget))
        inputs = pipeline.prepare(portrait, Audio(sound, 16000), motion, None, 20, 25.0, (32, 24))
        options = SamplerOptions(steps=7, cfg=2.0, acceleration=acceleration)
        computed.clear()
        found[name] = pipeline.denoise(inputs, pipeline.encode_conditions(inputs), 5, options).clone()
        (out / f"{name}-{'first' if first else 'second'}.json").write_text(json.dumps(computed))
    save_file(found, out / f"{'first' if first else 'second'}.safetensors")
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a run alone and of one in two processes."""
    folder = tmp_path_factory.mktemp("processes")
    (folder / "script.py").write_text(SCRIPT)
    for name, launch in (("alone", []), ("together", TOGETHER)):
        (folder / name).mkdir()
        command = [sys.executable, *launch, str(folder / "script.py"), str(folder / name)]
        subprocess.run(command, check=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return folder


@pytest.mark.parametrize("name", ["exact", "in files", "fast", "adaptive", "windows in one batch"])
def test_two_processes_make_the_latents_of_one(runs, name):
    expected = load_file(runs / "alone" / "first.safetensors")[name]
    first, second = (load_file(runs / "together" / f"{process}.safetensors")[name] for process in ("first", "second"))
    assert torch.equal(first, second)
    assert float((first - expected).norm() / expected.norm()) < 1e-5  # features of keypoints come in other batches
    alone = json.loads((runs / "alone" / f"{name}-first.json").read_text())
    shares = [json.loads((runs / "together" / f"{name}-{process}.json").read_text()) for process in ("first", "second")]
    assert not set(shares[0]) & set(shares[1])
    assert sorted([*shares[0], *shares[1]]) == sorted(alone)
    assert abs(len(shares[0]) - len(shares[1])) <= len(alone) // len(set(alone))  # at most one window in every step


def test_alone_all_windows_are_ones_own():
    with joined_processes() as first:
        assert first and process_count() == 1
        assert list(own_windows(5)) == [0, 1, 2, 3, 4] and least(3.0) == 3.0


def decoded(path: Path) -> np.ndarray:
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


@pytest.mark.slow
def test_a_workflow_runs_in_two_processes(tmp_path):
    """One file is written, with the frames of one process."""
    graph = json.loads((WORKFLOWS / "api" / "talk.json").read_text())
    run = ["-m", "svp_portrait.nodes.command", "run", str(WORKFLOWS / "api" / "talk.json")]
    sampler = next(key for key, node in graph.items() if node["class_type"] == "SVPSampler")
    given = ["--input", str(WORKFLOWS / "assets"), "--set", f"{sampler}.steps=3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name, launch in (("alone", []), ("together", TOGETHER)):
        command = [sys.executable, *launch, *run, *given, "--out", str(tmp_path / name)]
        subprocess.run(command, check=True, timeout=280, env=environment)
    (alone,), (together,) = (list((tmp_path / name).rglob("*.mp4")) for name in ("alone", "together"))
    assert [path.name for path in (tmp_path / "together").rglob("*") if path.is_file()] == [together.name]
    assert np.array_equal(decoded(together), decoded(alone))
