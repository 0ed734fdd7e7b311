"""What the sampler asks of a host that manages memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.nodes import host, types
from svp_portrait.nodes.head_motion import SVPHeadKpsManual
from svp_portrait.nodes.loaders import read_model
from svp_portrait.nodes.sampler import SVPSampler
from svp_portrait.nodes.types import MANY_WINDOWS, LoadedModel
from svp_portrait.svp_models.checkpoints.model_file import load_model, save_model
from svp_portrait.svp_models.diffusion.acceleration import Acceleration
from svp_portrait.svp_models.diffusion.guidance import MemoryPlan
from svp_portrait.svp_models.diffusion.memory import CPU_BYTES, DEVICE_BYTES, PLANS, sampling_memory

SAMPLER = {
    "seed": 0, "steps": 2, "cfg": 2.0, "scheduler": "euler", "reference_weight": 1.0, "audio_weight": 1.0, "style_weight": 1.0,
    "fps": 25.0, "window": 0, "overlap": -1, "width": 0, "height": 0, "length": "audio",
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch) -> list:
    """What a host with little memory, `room` bytes of it, is asked to prepare."""
    seen: list = []
    for name in ("load_networks", "load_whole_networks"):
        monkeypatch.setattr(types, name, lambda handles, memory, name=name: seen.append((name, handles, memory)))
    return seen


def run(loaded, clip, **changes) -> torch.Tensor:
    points = "\n".join(f"{0.1 * index + 0.1}, {0.05 * index + 0.2}" for index in range(8))
    motion = SVPHeadKpsManual.execute(clip["portrait"], points).args[0]
    inputs = {**SAMPLER, "portrait": clip["portrait"], "audio": clip["audio"], **changes}
    return SVPSampler.execute(loaded[0], loaded[1], head_motion=motion, **inputs).args[0]["samples"]


def test_the_host_is_asked_for_what_the_plan_takes(loaded, clip, asked, monkeypatch):
    expected = run(loaded, clip)
    nothing = [("load_networks", [], 0), ("load_whole_networks", [], 0), ("load_networks", [], 0)]
    assert asked == nothing  # without a host nothing is managed and nothing asked for
    model = replace(loaded[0], denoising_handle="denoising", conditions_handle="conditions", encoder_handle="encoder")
    config = model.portrait.config
    together, apart = (sampling_memory(config, plan, 2.0, config.window, (32, 32), torch.float32) for plan in PLANS)
    for space, needed in ((together, together), (together - 1, apart), (0, apart)):
        asked.clear()
        monkeypatch.setattr(types, "available_memory", lambda handle, space=space: space)
        result = run((model, loaded[1]), clip)
        parts, whole = ("load_networks", ["conditions"], needed), ("load_whole_networks", ["encoder"], needed)
        assert asked == [parts, whole, ("load_networks", ["denoising"], needed)]
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


def test_a_shorter_clip_or_window_asks_for_less(loaded, clip, asked, monkeypatch):
    model = replace(loaded[0], denoising_handle="denoising", conditions_handle="conditions")
    monkeypatch.setattr(types, "available_memory", lambda handle: 10**12)
    run((model, loaded[1]), clip)
    run((model, loaded[1]), clip, window=2, overlap=0)
    alone = model.plan(2.0, 2, (32, 32))
    assert asked[-1][2] == 5 * alone[1] < asked[0][2]
    assert alone[0] == MemoryPlan()


def test_the_memory_for_windows_in_one_batch(loaded, monkeypatch):
    model, given = loaded[0], (2.0, 4, (32, 32))
    assert model.plan(*given, MANY_WINDOWS - 1) == (MemoryPlan(), 0)  # without a host
    plan, needed = model.plan(*given, MANY_WINDOWS)
    small = sampling_memory(model.portrait.config, MemoryPlan(), 2.0, 4, (32, 32), torch.float32)
    assert plan == MemoryPlan(windows=CPU_BYTES // small) and needed == plan.windows * small
    monkeypatch.setattr(types, "available_memory", lambda handle: 10**12)
    monkeypatch.setattr(types, "compute_device", lambda: torch.device("cuda"))
    assert model.plan(*given, 7) == (MemoryPlan(windows=7), 7 * small)
    assert model.plan(*given, 10_000)[0].windows == DEVICE_BYTES // small
    for asked in (1, 3):
        chosen = replace(model, acceleration=Acceleration(windows_together=asked))
        assert chosen.plan(*given, 7) == (MemoryPlan(windows=asked), asked * small)
    face = replace(model, acceleration=Acceleration(foreground_every=2))
    assert face.plan(*given, 7) == (MemoryPlan(), small)


def test_a_file_is_mapped_and_run_in_the_precision_of_the_host(model_file, tmp_path):
    path = tmp_path / "half.safetensors"
    save_model(path, load_model(model_file), {}, torch.float16)
    portrait = read_model(str(path))
    assert portrait.networks.denoiser.conv_in.weight.dtype == torch.float16  # as stored
    loaded = LoadedModel.of(portrait).portrait
    assert loaded.networks.denoiser.conv_in.weight.dtype == host.weights_dtype() == torch.float32
    vae, latents = host.Vae(portrait.vae, portrait.config.vae), torch.randn(1, 4, 2, 3)
    exact = load_model(path).vae.decode(latents)
    torch.testing.assert_close(vae.decode(latents), ((exact.detach() + 1) / 2).clamp(0, 1).movedim(1, -1))
