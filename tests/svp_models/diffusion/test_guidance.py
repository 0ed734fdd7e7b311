from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from svp_portrait.svp_models.diffusion.guidance import MemoryPlan, guided, guided_prediction
from svp_portrait.svp_models.networks.conditions import Conditions, ConditionWeights

WEIGHTS = ConditionWeights(0.5, 2.0, 1.5)


def conditions(style: bool = True) -> Conditions:
    return Conditions(
        reference=(torch.full((1, 4, 3), 2.0), torch.full((1, 2, 3), 3.0)),
        reference_latent=torch.full((1, 4, 2, 2), 4.0),
        audio=torch.full((1, 5, 2, 3), 5.0),
        kps=torch.full((1, 5, 8, 2, 2), 6.0),
        style=torch.full((1, 5, 3, 3), 7.0) if style else None,
    )


class Recorder:
    """A denoiser that adds one number per condition and remembers its calls."""

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, latents, timestep, given, weights):
        self.calls.append((latents, timestep, given, weights))
        total = given.audio.mean((1, 2, 3)) + given.reference[0].mean((1, 2))
        if given.style is not None:
            total = total + given.style.mean((1, 2, 3))
        total = given.kps.mean((1, 2, 3, 4)) + functional.pad(total, (given.unconditional_clips, 0))
        return latents + total[:, None, None, None, None]


def test_guided():
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -2.0])
    assert guided(a, b, 0).tolist() == [1, 2]
    assert guided(a, b, 1).tolist() == [3, -2]
    assert guided(a, b, 3.5).tolist() == [8, -12]
    assert torch.equal(guided(a, a, 7.5), a)


def test_scale_one_runs_the_conditional_half_alone():
    recorder = Recorder()
    latents, t = torch.zeros(1, 5, 4, 2, 2), torch.tensor([7])
    result = guided_prediction(recorder, latents, t, conditions(), WEIGHTS, 1)
    (call,) = recorder.calls
    assert call[0].shape[0] == 1 and call[3] is WEIGHTS
    assert torch.equal(result, torch.full_like(latents, 20))  # 6 + 5 + 2 + 7


def test_a_scale_below_one_is_between_both_halves():
    latents, t = torch.zeros(1, 5, 4, 2, 2), torch.tensor([7])
    for plan in (MemoryPlan(), MemoryPlan(halves_together=False)):
        for scale, expected in ((0.0, 0.0), (0.5, 10.0)):
            result = guided_prediction(Recorder(), latents, t, conditions(), WEIGHTS, scale, plan)
            assert torch.equal(result, torch.full_like(latents, expected))


def test_the_unconditional_half_has_no_conditions():
    recorder = Recorder()
    latents, t = torch.ones(1, 5, 4, 2, 2), torch.tensor([7])
    result = guided_prediction(recorder, latents, t, conditions(), WEIGHTS, 2.5)
    ((doubled, times, given, weights),) = recorder.calls
    assert torch.equal(doubled, torch.ones(2, 5, 4, 2, 2)) and times.tolist() == [7, 7] and weights is WEIGHTS
    assert all((value[0] == 0).all() and (value[1] > 0).all() for value in (given.reference_latent, given.kps))
    attended = [*given.reference, given.audio, given.style]
    assert given.unconditional_clips == 1 and all(len(value) == 1 and (value > 0).all() for value in attended)
    assert torch.equal(result, torch.full_like(latents, 1 + 2.5 * 20))


def test_the_halves_one_after_the_other():
    together, apart = Recorder(), Recorder()
    latents, t = torch.randn(1, 5, 4, 2, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([7])
    given = (latents, t, conditions(), WEIGHTS, 2.5)
    result = guided_prediction(apart, *given, MemoryPlan(halves_together=False))
    torch.testing.assert_close(result, guided_prediction(together, *given), rtol=1e-5, atol=1e-5)
    assert [len(call[0]) for call in apart.calls] == [1, 1] and [len(call[0]) for call in together.calls] == [2]
    assert not len(apart.calls[0][2].audio) and apart.calls[1][2].audio.all()


def test_no_style_stays_no_style():
    recorder = Recorder()
    guided_prediction(recorder, torch.ones(1, 5, 4, 2, 2), torch.tensor([7]), conditions(style=False), WEIGHTS, 2)
    assert recorder.calls[0][2].style is None


def test_any_scale_gives_the_same_where_conditions_are_zero():
    latents, t = torch.randn(1, 5, 4, 2, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([7])
    given = conditions()
    nothing = replace(given, audio=0 * given.audio, kps=0 * given.kps, style=None, reference=(torch.zeros(1, 4, 3),))
    results = [guided_prediction(Recorder(), latents, t, nothing, WEIGHTS, cfg) for cfg in (1, 3.5)]
    assert torch.equal(results[0], results[1])


@pytest.mark.parametrize(
    ("audio", "style", "expected", "evaluations"),
    [
        (3.0, 6.0, 3 * 13 + 6 * 7, 3),  # the Recorder's conditions are 6 + 5 + 2, the style 7
        (2.0, 0.0, 2 * 13, 2),
        (1.0, 4.0, 13 + 4 * 7, 2),
        (0.0, 1.0, 7, 3),
        (2.0, 2.0, 2 * 20, 1),
    ],
)
def test_voice_and_style_have_their_own_scales(audio, style, expected, evaluations):
    recorder, latents, t = Recorder(), torch.ones(1, 5, 4, 2, 2), torch.tensor([7])
    result = guided_prediction(recorder, latents, t, conditions(), WEIGHTS, audio, style_cfg=style)
    torch.testing.assert_close(result, torch.full_like(latents, 1.0 + expected))
    assert len(recorder.calls) == evaluations
    if audio != style:
        styles = [call[2].style for call in recorder.calls]
        assert styles[0] is None and all(len(call[0]) == 1 for call in recorder.calls)


def test_equal_scales_and_a_missing_style_change_nothing():
    latents, t = torch.randn(1, 5, 4, 2, 2, generator=torch.Generator().manual_seed(1)), torch.tensor([7])
    for given, style in ((conditions(), 2.5), (conditions(), None), (conditions(style=False), 7.0)):
        plain, nested = Recorder(), Recorder()
        before = guided_prediction(plain, latents, t, given, WEIGHTS, 2.5)
        assert torch.equal(before, guided_prediction(nested, latents, t, given, WEIGHTS, 2.5, style_cfg=style))
        assert len(nested.calls) == len(plain.calls)


def test_nested_guidance_reports_its_weakest_and_strongest_half():
    latents, t, halves = torch.zeros(1, 5, 4, 2, 2), torch.tensor([7]), []
    for audio, style in ((3.0, 6.0), (1.0, 4.0), (2.0, 0.0)):
        guided_prediction(
            Recorder(), latents, t, conditions(), WEIGHTS, audio, style_cfg=style,
            on_halves=lambda weak, strong: halves.append((float(weak.mean()), float(strong.mean()))),
        )  # fmt: skip
    assert halves == [(0, 20), (13, 20), (0, 13)]
