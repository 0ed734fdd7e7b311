from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from svp_portrait.svp_models.config import GuiderConfig, ModelConfig
from svp_portrait.svp_models.diffusion.conditioning import GUIDER_FRAMES
from svp_portrait.svp_models.diffusion.guidance import FASTEST, KEY_BYTES, MemoryPlan, guided_prediction
from svp_portrait.svp_models.diffusion.memory import (
    CPU_BYTES,
    DEVICE_BYTES,
    PLANS,
    PeakBytes,
    bank_shapes,
    choose_plan,
    sampling_memory,
    window_conditions,
)
from svp_portrait.svp_models.model import build_networks
from svp_portrait.svp_models.networks import attention
from svp_portrait.svp_models.networks.conditions import ConditionKeys, ConditionWeights
from svp_portrait.svp_models.networks.denoiser import Denoiser
from svp_portrait.svp_models.networks.pose_guider import PoseGuider
from svp_portrait.svp_models.networks.unet import ReferenceNet
from svp_portrait.svp_models.presets import PRESETS

APART = MemoryPlan(halves_together=False)
SD15 = PRESETS["sd15"]
MIDDLE = replace(
    SD15,
    unet=replace(SD15.unet, block_out_channels=(64, 128, 256, 256), cross_attention_dim=128),
    guider=GuiderConfig(channels=(4, 8, 16, 32)),
)


def predict(
    config: ModelConfig, denoiser: Denoiser, plan: MemoryPlan, frames: int, size: tuple[int, int], windows: int = 1
):
    """One guided prediction on real tensors, its inputs made here too."""
    generator = torch.Generator().manual_seed(1)
    cells = (size[1] // 8, size[0] // 8)
    conditions = window_conditions(config, frames, cells, torch.float32)
    for each in (*conditions.reference, conditions.audio, conditions.kps, conditions.style):
        each.normal_(generator=generator)
    for each in (conditions.reference_latent, conditions.reference_warped):
        if each is not None:
            each.normal_(generator=generator)
    latents = torch.randn(1, frames, config.unet.latent_channels, *cells, generator=generator)
    with torch.no_grad():
        keys = ConditionKeys(reference=denoiser.reference_keys(conditions.reference, frames))
        conditions = replace(conditions, keys=keys).repeat(windows)
        latents, timesteps = latents.repeat(windows, 1, 1, 1, 1), torch.full((windows,), 500)
        return guided_prediction(denoiser, latents, timesteps, conditions, ConditionWeights(), 3.5, plan)


def allocated(call) -> int:
    """The most bytes that torch's own allocator had handed out at a time during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [each for each in profiler.profiler.kineto_results.events() if each.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda each: each.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(
    ("config", "frames", "size"),
    [(PRESETS["demo"], 6, (128, 128)), (MIDDLE, 3, (128, 128)), (MIDDLE, 4, (200, 128))],
    ids=["demo", "middle", "odd"],
)
def test_the_estimate_is_what_the_allocator_hands_out(config, frames, size, plan, monkeypatch):
    monkeypatch.setattr(attention, "CPU_TOKENS", 2**20)  # as on a graphics card, which the estimate is for
    torch.manual_seed(0)
    denoiser = Denoiser(config.unet, style=True).eval()
    guider = PoseGuider(config.guider, config.unet.block_out_channels[0]).eval()

    def step() -> None:
        with torch.no_grad():
            guider(torch.zeros(1, min(frames, GUIDER_FRAMES), 3, size[1], size[0]))
        predict(config, denoiser, plan, frames, size)

    measured = allocated(step)
    estimate = sampling_memory(config, plan, 3.5, frames, size, torch.float32)
    assert 0.9 * measured <= estimate <= 1.3 * measured, (estimate, measured)


def test_the_plans_agree():
    for config, size in ((PRESETS["demo"], (64, 48)), (MIDDLE, (72, 64))):
        torch.manual_seed(0)
        denoiser = Denoiser(config.unet, style=True).eval()
        together, apart = (predict(config, denoiser, plan, 3, size) for plan in (FASTEST, APART))
        torch.testing.assert_close(together, apart, rtol=1e-5, atol=1e-5)


def test_peak_bytes_counts_what_lives_at_once():
    kept = torch.zeros(1000)
    with PeakBytes() as counted:
        first = torch.zeros(100)  # 400 bytes
        second = first.view(10, 10) + kept[:10]  # 400 more; views are what they are views of
        del first
        third = second * 2  # 400: the first is gone
        del second
        third.mul_(2)
    assert counted.peak == 800


def test_the_bank_is_as_the_reference_net_makes_it():
    for config, cells in ((PRESETS["demo"], (5, 7)), (MIDDLE, (16, 25))):
        with torch.device("meta"):
            bank = ReferenceNet(config.unet)(torch.empty(1, config.unet.latent_channels, *cells))
        assert [tuple(each.shape[1:]) for each in bank] == bank_shapes(config.unet, cells)


def test_the_full_model_fits_into_8_gigabytes():
    """512 x 512 in half precision: what the denoising keeps on the device, and what it works with."""
    with torch.device("meta"):
        networks = build_networks(SD15)
    weights = 2 * sum(each.numel() for part in (networks.denoiser, networks.guider) for each in part.parameters())
    everything = 2 * sum(each.numel() for each in networks.parameters())
    plan, needed = choose_plan(SD15, 3.5, SD15.window, (512, 512), torch.float16, budget=int(8e9) - weights)
    assert plan == FASTEST
    assert weights + needed < 8e9 and everything + needed < 8e9  # even if nothing else makes room
    plan, needed = choose_plan(SD15, 3.5, SD15.window, (512, 512), torch.float16, budget=int(4.5e9) - weights)
    assert not plan.halves_together and weights + needed + plan.key_bytes <= 4.5e9


def test_the_fastest_plan_that_fits_is_chosen():
    config, given = PRESETS["demo"], (6, (128, 128), torch.float32)
    together, apart = (sampling_memory(config, plan, 2.0, *given) for plan in PLANS)
    assert apart < together
    assert choose_plan(config, 2.0, *given, budget=together) == (replace(FASTEST, key_bytes=0), together)
    assert choose_plan(config, 2.0, *given, budget=together + 1000) == (replace(FASTEST, key_bytes=1000), together)
    assert choose_plan(config, 2.0, *given, budget=together + KEY_BYTES) == (FASTEST, together)
    plan, needed = choose_plan(config, 2.0, *given, budget=together - 1)
    assert not plan.halves_together and needed == apart
    nothing = MemoryPlan(halves_together=False, key_bytes=0)
    assert choose_plan(config, 2.0, *given, budget=0) == (nothing, apart)  # nothing fits: the least
    plan, alone = choose_plan(config, 1.0, *given, budget=0)
    assert plan.halves_together and alone <= apart  # without guidance there is one half only


def test_memory_grows_with_window_size_and_precision():
    config = PRESETS["demo"]
    small = sampling_memory(config, FASTEST, 2.0, 3, (128, 128), torch.float16)
    for larger in ((6, (128, 128), torch.float16), (3, (256, 128), torch.float16), (3, (128, 128), torch.float32)):
        assert 1.7 * small < sampling_memory(config, FASTEST, 2.0, *larger) < 2.1 * small


def test_windows_of_a_small_network_are_one_batch():
    config, given = PRESETS["demo"], (3.5, 6, (128, 128), torch.float32)
    alone, needed = choose_plan(config, *given, budget=2**34)
    assert alone.windows == 1
    assert choose_plan(config, *given, budget=2**34, windows=2) == (replace(alone, windows=2), 2 * needed)
    for on_cpu, room in ((True, CPU_BYTES), (False, DEVICE_BYTES)):
        most = room // needed
        assert most > 2
        found = choose_plan(config, *given, budget=2**34, windows=100, on_cpu=on_cpu)
        assert found == (replace(alone, windows=most), most * needed)
    little = choose_plan(config, *given, budget=3 * needed - 1, windows=100)
    assert little == (MemoryPlan(key_bytes=needed - 1, windows=2), 2 * needed)
    large = choose_plan(SD15, 3.5, 24, (512, 512), torch.float16, budget=2**37, windows=100, on_cpu=False)
    assert large[0].windows == 1


def test_a_batch_of_windows_takes_no_more_than_they_do(monkeypatch):
    monkeypatch.setattr(attention, "CPU_TOKENS", 2**20)
    config, size = PRESETS["demo"], (128, 128)
    torch.manual_seed(0)
    denoiser = Denoiser(config.unet, style=True).eval()
    measured = allocated(lambda: predict(config, denoiser, MemoryPlan(), 6, size, windows=4))
    assert measured <= 4 * sampling_memory(config, MemoryPlan(), 3.5, 6, size, torch.float32)
