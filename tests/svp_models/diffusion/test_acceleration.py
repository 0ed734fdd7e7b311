"""What is left out is what the settings say; with the same inner features the result is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from svp_portrait.svp_models.diffusion.acceleration import (
    EXACT,
    PRESETS,
    Acceleration,
    FeatureCache,
    check_acceleration,
)
from svp_portrait.svp_models.diffusion.guidance import FASTEST, GuidedFeatures, MemoryPlan, guided_prediction
from svp_portrait.svp_models.diffusion.inputs import ClipInputs
from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline, SamplerOptions
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.memory_map import IN_MEMORY, Storage
from svp_portrait.svp_models.networks.conditions import ConditionWeights
from svp_portrait.svp_models.networks.unet import DeepFeatures

STEPS = SamplerOptions(steps=8, cfg=2.0)


def encoded(model, clip, frames: int, storage: Storage = IN_MEMORY):
    pipeline = PortraitPipeline(model, storage=storage)
    inputs = ClipInputs(clip.latent, clip.audio, clip.motion(frames), clip.style, frames, 25.0, clip.size)
    return pipeline, inputs, pipeline.encode_conditions(inputs)


def sample(given, acceleration: Acceleration, plan: MemoryPlan = FASTEST) -> tuple[torch.Tensor, int]:
    """The latents, and the products that they took."""
    pipeline, inputs, conditions = given
    with FlopCounterMode(display=False) as counter:
        latents = pipeline.denoise(inputs, conditions, 7, replace(STEPS, acceleration=acceleration), plan=plan)
    return latents, counter.get_total_flops()


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("together", [True, False])
def test_on_its_own_inner_features_a_prediction_is_the_same(model, clip, layers, together):
    _, _, conditions = encoded(model, clip, 4)
    denoiser, like = model.networks.denoiser, torch.empty(0)
    latents = torch.randn(1, 4, *clip.latent.shape[1:], generator=torch.Generator().manual_seed(1))
    given = (latents, torch.tensor([400]), conditions.window([0, 1, 2, 3], like), ConditionWeights(), 2.5)
    features = GuidedFeatures(DeepFeatures(layers), DeepFeatures(layers))
    expected = guided_prediction(denoiser, *given)
    plan = MemoryPlan(together)
    with FlopCounterMode(display=False) as all_layers:
        stored = guided_prediction(denoiser, *given, plan, deep=features)
    with FlopCounterMode(display=False) as outer_layers:
        reused = guided_prediction(denoiser, *given, plan, deep=features)
    torch.testing.assert_close(stored, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(reused, expected, rtol=1e-5, atol=1e-5)
    assert outer_layers.get_total_flops() < 0.8 * all_layers.get_total_flops()


def test_exact_is_what_the_sampler_does_without_it(model, clip):
    given = encoded(model, clip, 6)
    pipeline, inputs, conditions = given
    assert torch.equal(sample(given, PRESETS["exact"])[0], pipeline.denoise(inputs, conditions, 7, STEPS))


def test_every_setting_takes_fewer_products_and_all_together_the_fewest(model, clip):
    given = encoded(model, clip, 5)
    exact, products = sample(given, EXACT)
    spent = {}
    for name, acceleration in {
        "cache": Acceleration(cache_every=2),
        "guidance": Acceleration(guidance_end=0.5),
        "windows": Acceleration(even_windows=True),
        "all": Acceleration(cache_every=2, guidance_end=0.5, even_windows=True),
    }.items():
        latents, spent[name] = sample(given, acceleration)
        assert latents.isfinite().all() and not torch.equal(latents, exact), name
    assert max(spent.values()) < products and min(spent, key=spent.__getitem__) == "all"


def test_features_in_a_file_and_halves_apart_change_nothing(model, clip, tmp_path):
    fast = Acceleration(cache_every=3, guidance_start=0.3, guidance_end=0.8)
    expected, _ = sample(encoded(model, clip, 6), fast)
    mapped = encoded(model, clip, 6, Storage(str(tmp_path), budget=0))
    for plan in (MemoryPlan(), MemoryPlan(halves_together=False)):
        torch.testing.assert_close(sample(mapped, fast, plan)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_half_that_was_not_stored_runs_all_layers():
    cache, x = FeatureCache(1, IN_MEMORY), torch.ones(2, 3, 1, 1)
    cache.store(0, GuidedFeatures(DeepFeatures(), DeepFeatures(1, x)))
    like = torch.empty(0)
    assert cache.features(0, False, False, like).conditional.stored.equal(x)
    for window, guided, whole in ((0, True, False), (1, False, False), (0, False, True)):
        assert cache.features(window, guided, whole, like).conditional.stored is None


def test_steps_with_guidance_and_with_all_layers():
    fast = Acceleration(cache_every=3, guidance_start=0.25, guidance_end=0.5)
    assert [step for step in range(8) if fast.whole(step)] == [0, 3, 6]
    assert [step for step in range(8) if fast.guides(step, 8)] == [2, 3]
    assert all(EXACT.whole(step) and EXACT.guides(step, 8) for step in range(8))


def test_even_windows_share_the_frames():
    even = Acceleration(even_windows=True)
    assert [(window[0], len(window)) for window in even.windows(30, 24, 4)] == [
        (0, 17),
        (13, 17),
    ]  # 34 and not 48 frames
    assert even.windows(20, 24, 4) == [list(range(20))]
    for frames in (25, 50, 77, 200):
        windows = even.windows(frames, 24, 4)
        assert len(windows) == len(EXACT.windows(frames, 24, 4)) and set(sum(windows, [])) == set(range(frames))


def test_contradictions_are_refused(model):
    with pytest.raises(PortraitError, match="cache_layers is 2 and cache_every 1"):
        Acceleration(cache_layers=2)
    with pytest.raises(PortraitError, match="guidance_start is 0.5 and guidance_end 0.5: the start must come before"):
        Acceleration(guidance_start=0.5, guidance_end=0.5)
    with pytest.raises(PortraitError, match="both must be 1 or more"):
        Acceleration(cache_every=0)
    with pytest.raises(PortraitError, match="cache_layers is 3: the highest resolution of this model has 2 layers"):
        check_acceleration(Acceleration(cache_every=2, cache_layers=3), model.config.unet)
