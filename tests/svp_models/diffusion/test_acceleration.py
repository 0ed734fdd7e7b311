"""What is left out is what the settings say; with the same inner features the result is the same."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from svp_portrait.svp_models.diffusion import noise_prediction
from svp_portrait.svp_models.diffusion.acceleration import EXACT, PRESETS, Acceleration, check_acceleration
from svp_portrait.svp_models.diffusion.face_region import face_box
from svp_portrait.svp_models.diffusion.feature_cache import FeatureCache, polynomial_weights
from svp_portrait.svp_models.diffusion.guidance import GuidedFeatures, MemoryPlan, guided_prediction
from svp_portrait.svp_models.diffusion.pipeline import (
    SamplerOptions,
    guidance_scales,
    resolve_options,
)
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.memory_map import IN_MEMORY, Storage
from svp_portrait.svp_models.model import build_networks
from svp_portrait.svp_models.networks.attention import BlockContext
from svp_portrait.svp_models.networks.conditions import ConditionWeights
from svp_portrait.svp_models.networks.foreground import Foreground
from svp_portrait.svp_models.networks.unet import DeepFeatures
from svp_portrait.svp_models.presets import PRESETS as MODELS

from .conftest import STEPS, encoded, fill, sample


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


def test_every_setting_takes_fewer_products_and_all_together_the_fewest(model, clip, monkeypatch):
    monkeypatch.setattr(
        noise_prediction, "face_box", lambda *_: (0.0, 0.5, 0.0, 0.5)
    )  # the tiny face fills its picture
    given = encoded(model, clip, 5)
    exact, products = sample(given, EXACT)
    spent = {}
    for name, acceleration in {
        "cache": Acceleration(cache_every=2),
        "guidance": Acceleration(guidance_end=0.5),
        "windows": Acceleration(even_windows=True),
        "similarity": Acceleration(guidance_similarity=0.1),
        "reference": Acceleration(drop_reference="up"),
        "foreground": Acceleration(foreground_every=4),
        "all": Acceleration(
            cache_every=4, foreground_every=4, guidance_similarity=0.1, drop_reference="up", even_windows=True
        ),
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


def test_thirty_frames_take_34_evaluations_with_even_windows(model, clip):
    config = replace(model.config, window=24, overlap=4, unet=replace(model.config.unet, motion_positions=24))
    long = replace(model, config=config, networks=fill(build_networks(config), 1))
    frames: list[int] = []
    long.networks.denoiser.register_forward_pre_hook(lambda module, args: frames.append(args[0].shape[1]))
    pipeline, inputs, conditions = encoded(long, clip, 30)
    for acceleration, evaluations in ((EXACT, 48), (Acceleration(even_windows=True), 34)):
        frames.clear()
        pipeline.denoise(inputs, conditions, 7, SamplerOptions(steps=3, cfg=2.0, acceleration=acceleration))
        assert sum(frames) == 3 * evaluations


@pytest.mark.parametrize("scheduler", ["ddim", "dpmpp_2m"])
def test_parallel_steps_of_which_one_is_ahead_change_nothing(model, clip, scheduler):
    """DDIM leads from the whole step to the next one as the estimate does; a sampler of second order does not."""
    pipeline, inputs, conditions = encoded(model, clip, 4)
    found = [
        pipeline.denoise(
            inputs,
            conditions,
            7,
            replace(STEPS, scheduler=scheduler, acceleration=Acceleration(2, parallel_steps=both)),
        )
        for both in (False, True)
    ]
    assert torch.allclose(*found, rtol=1e-4, atol=1e-4) == (scheduler == "ddim")


def test_parallel_steps_are_one_batch_and_cost_no_more(model, clip, calls):
    given = encoded(model, clip, 4)
    one, products = sample(given, Acceleration(4))
    assert calls == [2] * 8  # both halves, in eight steps
    calls.clear()
    other, same = sample(given, Acceleration(4, parallel_steps=True))
    assert calls == [2, 6, 2, 6] and same <= products  # larger batches save more
    assert not torch.equal(one, other) and (one - other).norm() < one.norm()
    calls.clear()
    sample(given, Acceleration(4, parallel_steps=True, guidance_end=0.75))  # two of the last three have no guidance
    assert calls == [2, 6, 2, 2, 2]


def test_the_polynomial_meets_what_is_one():
    for order, places in ((0, [4]), (1, [4, 1]), (2, [9, 4, 1])):
        values = [3 + 2 * place * (order > 0) + place**2 * (order > 1) for place in places]
        weights = polynomial_weights(places, 11)
        found = sum(weight * value for weight, value in zip(weights, values, strict=True))
        assert found == pytest.approx(3 + 22 * (order > 0) + 121 * (order > 1))


def test_deep_features_go_on_along_the_polynomial_of_the_last_whole_runs(model):
    cache = FeatureCache(Acceleration(3, taylor_order=1), model.networks.denoiser, IN_MEMORY)
    like, rows = torch.empty(0), torch.arange(6.0).view(1, 6, 1, 1)

    def store(step: int) -> None:
        half = DeepFeatures(1, rows * (1 + step))
        cache.store(0, GuidedFeatures(DeepFeatures(), half), step)

    def stored(step: int, window: int = 0, guided: bool = False):
        return cache.features(window, guided, step, like).conditional.stored

    store(0)
    torch.testing.assert_close(stored(2), rows)  # of one run nothing can be continued
    store(3)
    torch.testing.assert_close(stored(5), rows * 6)
    store(6)
    torch.testing.assert_close(stored(8), rows * 9)
    assert stored(9) is None and stored(8, window=1) is None  # all layers run; nothing was stored
    assert stored(8, guided=True) is None  # the unconditional half was never stored


@torch.no_grad()
def test_attention_around_a_box_is_that_of_the_whole_picture_in_it(model, clip):
    """One layer after another: inside the result is the same, elsewhere what the pass before has added is used again."""
    generator = torch.Generator().manual_seed(1)
    denoiser, size = model.networks.denoiser, (4, 6)
    _, _, conditions = encoded(model, clip, 2)
    tokens = conditions.window([0, 1], torch.empty(0)).audio.flatten(0, 1)
    transformer, temporal = denoiser.mid_block.attentions[0], denoiser.mid_block.motion_modules[0]
    bank = tuple(torch.randn(1, 24, 16, generator=generator) for _ in range(denoiser.bank_size))
    context = BlockContext(2, tokens, reference=bank)
    for layer, given in ((transformer, context), (temporal, 2)):

        def attend(foreground: Foreground, images: torch.Tensor, layer=layer, given=given) -> torch.Tensor:
            return foreground.run(layer, images, lambda region: layer(images, given, region))

        foreground = Foreground((0.25, 1.0, 0.1, 0.5))
        assert foreground.region(*size) == (slice(1, 4), slice(0, 3))
        before, images = (torch.randn(2, 16, *size, generator=generator) for _ in range(2))
        first = attend(foreground, before)
        torch.testing.assert_close(first, layer(before, given))
        found = attend(replace(foreground, reuse=True), images)
        whole = layer(images, given)
        torch.testing.assert_close(found[:, :, 1:4, 0:3], whole[:, :, 1:4, 0:3], rtol=1e-5, atol=1e-5)
        outside = torch.ones(size, dtype=torch.bool)
        outside[1:4, 0:3] = False
        expected = images + first - before
        torch.testing.assert_close(found[:, :, outside], expected[:, :, outside], rtol=1e-5, atol=1e-5)


def test_a_box_of_the_whole_picture_changes_nothing(model, clip, monkeypatch):
    given = encoded(model, clip, 4)
    monkeypatch.setattr(noise_prediction, "face_box", lambda *_: (0.0, 1.0, 0.0, 1.0))
    torch.testing.assert_close(
        sample(given, Acceleration(foreground_every=3))[0], sample(given, EXACT)[0], rtol=1e-4, atol=1e-4
    )


def test_the_face_is_where_the_keypoints_are(clip):
    motion = clip.motion(3)
    top, bottom, left, right = face_box(motion, [0, 1, 2], "head8")
    points = motion.keypoints
    assert left * 32 <= points[..., 0].min() and right * 32 >= points[..., 0].max()
    assert top * 24 <= points[..., 1].min() and bottom == 1.0
    assert face_box(motion, [0], "head8")[3] < right  # the head goes to the right
    drawn = torch.zeros(1, 3, 24, 32)
    assert face_box(drawn, [0, 1], "vexpress3") == (0.0, 1.0, 0.0, 1.0)
    drawn[0, 1, 8:12, 10:20] = 1
    assert face_box(drawn, [0, 1], "head8")[2:] == pytest.approx(((10.5 - 0.45) / 32, (19.5 + 0.45) / 32))


def test_guidance_ends_when_both_halves_agree(model, clip, calls):
    given = encoded(model, clip, 4)
    never, always = Acceleration(guidance_similarity=0.999999), Acceleration(guidance_similarity=1e-6)
    assert torch.equal(sample(given, never)[0], sample(given, EXACT)[0])
    calls.clear()
    sample(given, always)
    assert calls == [2] + [1] * 7


def test_separate_guidance_is_nested_and_goes_with_guidance_in_a_part_of_the_steps(model, clip, calls):
    """A step with guidance takes three evaluations, one without it takes one; equal scales are as before, to the bit."""
    pipeline, inputs, conditions = encoded(model, clip, 4)
    options = SamplerOptions(steps=4, cfg=2.0)

    def latents(**changes):
        return pipeline.denoise(inputs, conditions, 3, replace(options, **changes))

    plain = latents()
    assert torch.equal(plain, latents(audio_cfg=2.0, style_cfg=2.0))
    calls.clear()
    nested = latents(audio_cfg=2.0, style_cfg=3.0)
    assert calls == [1] * 12 and not torch.allclose(nested, plain)
    torch.testing.assert_close(latents(audio_cfg=2.0, style_cfg=2.0 + 1e-5), plain, rtol=1e-3, atol=1e-3)
    calls.clear()
    latents(style_cfg=3.0, acceleration=Acceleration(guidance_end=0.5))
    assert calls == [1] * (3 + 3 + 1 + 1)
    calls.clear()
    latents(style_cfg=3.0, acceleration=Acceleration(guidance_similarity=1e-6))
    assert calls == [1] * (3 + 1 + 1 + 1)


@pytest.mark.parametrize("name", ["cache_every", "foreground_every"])
def test_features_of_other_steps_do_not_go_with_separate_guidance(model, name):
    options = SamplerOptions(style_cfg=5.0, cfg=2.0, acceleration=Acceleration(**{name: 2}))
    with pytest.raises(PortraitError, match=f"audio_cfg is 2 and style_cfg 5, and {name} 2: .* set {name} to 1"):
        resolve_options(model.config, options)
    assert guidance_scales(resolve_options(model.config, replace(options, audio_cfg=5.0))) == (5, 5)


def test_blocks_that_do_not_look_at_the_portrait(model, clip):
    unet = model.config.unet  # one attention level: a block on the way down, one in the middle, two on the way up
    parts = {"none": set(), "down": {0}, "up": {2, 3}, "highest": {0, 2, 3}}
    for name, skipped in parts.items():
        assert Acceleration(drop_reference=name).without_reference(unet) == skipped
    sd = MODELS["sd15"].unet
    assert Acceleration(drop_reference="highest").without_reference(sd) == {0, 1, 13, 14, 15}
    given = encoded(model, clip, 4)
    pipeline, inputs, conditions = given
    silent = tuple(
        torch.full_like(bank, 7.0) if number in (2, 3) else bank for number, bank in enumerate(conditions.reference)
    )
    other = pipeline, inputs, replace(conditions, reference=silent)
    found = [sample(case, Acceleration(drop_reference="up"))[0] for case in (given, other)]
    assert torch.equal(*found) and not torch.equal(sample(given, EXACT)[0], sample(other, EXACT)[0])


def test_everything_at_once_works_with_halves_apart_and_in_a_file(model, clip, tmp_path):
    fast = Acceleration(
        3, taylor_order=2, parallel_steps=True, foreground_every=2, drop_reference="down", guidance_start=0.2,
        guidance_end=0.9, guidance_similarity=0.99999, even_windows=True,
    )  # fmt: skip
    expected, _ = sample(encoded(model, clip, 6), fast)
    mapped = encoded(model, clip, 6, Storage(str(tmp_path), budget=0))
    for plan in (MemoryPlan(), MemoryPlan(halves_together=False)):
        torch.testing.assert_close(sample(mapped, fast, plan)[0], expected, rtol=1e-3, atol=1e-3)


def test_contradictions_are_refused(model):
    with pytest.raises(PortraitError, match="cache_layers is 2 and cache_every 1"):
        Acceleration(cache_layers=2)
    with pytest.raises(PortraitError, match="guidance_start is 0.5 and guidance_end 0.5: the start must come before"):
        Acceleration(guidance_start=0.5, guidance_end=0.5)
    with pytest.raises(PortraitError, match="cache_every is 0: it must be 1 or more"):
        Acceleration(cache_every=0)
    for settings, message in (
        (
            {"taylor_order": 1},
            "taylor_order is 1 and cache_every 1, .*: set cache_every to 2 or more, or taylor_order to 0",
        ),
        ({"parallel_steps": True}, "parallel_steps is True and cache_every 1"),
        ({"cache_every": 2, "taylor_order": 3}, "taylor_order is 3: choose 0 to 2"),
        ({"drop_reference": "left"}, "drop_reference is 'left': choose one of none, down, up, highest"),
        ({"guidance_similarity": 0.0}, "guidance_similarity is 0: choose more than 0"),
        ({"foreground_every": 0}, "foreground_every is 0"),
        ({"windows_together": -1}, "windows_together is -1: it must be 0 or more"),
        (
            {"windows_together": 4, "foreground_every": 2},
            "windows_together is 4 and foreground_every 2, .*: set windows_together to 0, or foreground_every to 1",
        ),
        (
            {"windows_together": 4, "cache_every": 2, "parallel_steps": True},
            "windows_together is 4 and parallel_steps True",
        ),
    ):
        with pytest.raises(PortraitError, match=message):
            Acceleration(**settings)
    with pytest.raises(PortraitError, match="cache_layers is 3: the highest resolution of this model has 2 layers"):
        check_acceleration(Acceleration(cache_every=2, cache_layers=3), model.config.unet)
