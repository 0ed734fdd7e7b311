from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from svp_portrait.svp_models.config import SchedulerConfig
from svp_portrait.svp_models.diffusion.noise_schedule import (
    add_noise,
    alphas_cumprod,
    inference_timesteps,
    pred_x0,
    prediction_target,
    sampling_schedule,
    velocity_target,
)
from svp_portrait.svp_models.errors import PortraitError

V = SchedulerConfig()
EPSILON = SchedulerConfig(prediction="epsilon", zero_terminal_snr=False)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_alphas_are_the_product_of_one_minus_beta():
    a = alphas_cumprod(EPSILON)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(a.double(), torch.cumprod(1 - betas, 0), rtol=1e-4, atol=1e-6)


def test_zero_terminal_snr_ends_at_two_to_minus_24_and_starts_unchanged():
    a = alphas_cumprod(V)
    assert a[-1] == 2**-24
    assert a[0].item() == pytest.approx(1 - 0.00085, abs=1e-6)
    assert (a.diff() < 0).all()


def test_an_exact_terminal_is_zero():
    exact = replace(V, exact_terminal=True)
    assert alphas_cumprod(exact)[-1] == 0 and torch.equal(alphas_cumprod(exact)[:-1], alphas_cumprod(V)[:-1])
    assert torch.equal(
        alphas_cumprod(replace(EPSILON, prediction="sample", exact_terminal=True)), alphas_cumprod(EPSILON)
    )
    with pytest.raises(PortraitError, match="exact_terminal asks for pure noise"):
        alphas_cumprod(replace(exact, prediction="epsilon"))


@pytest.mark.parametrize("config", [V, replace(V, prediction="epsilon"), replace(V, prediction="sample"), EPSILON])
def test_x0_is_recovered_from_an_exact_prediction(config):
    clean, noise = draw(5, 2, 3, seed=1), draw(5, 2, 3, seed=2)
    t = torch.tensor([0, 1, 500, 900, 998])
    noisy = add_noise(clean, noise, t, config)
    prediction = prediction_target(clean, noise, t, config)
    torch.testing.assert_close(pred_x0(prediction, noisy, t, config), clean, rtol=1e-4, atol=1e-3)


def test_velocity_at_the_ends():
    clean, noise = draw(4, 3, seed=1), draw(4, 3, seed=2)
    last = torch.tensor(999)  # one timestep for the whole batch
    torch.testing.assert_close(velocity_target(clean, noise, last, V), -clean, rtol=0, atol=2e-3)
    torch.testing.assert_close(add_noise(clean, noise, last, V), noise, rtol=0, atol=2e-3)
    a = 1 - 0.00085
    expected = a**0.5 * noise - (1 - a) ** 0.5 * clean
    torch.testing.assert_close(velocity_target(clean, noise, torch.zeros(4), V), expected, rtol=1e-4, atol=1e-4)


def test_timesteps():
    assert inference_timesteps(V, 4).tolist() == [999, 749, 499, 249]
    assert inference_timesteps(replace(V, timestep_spacing="leading"), 4).tolist() == [751, 501, 251, 1]
    assert inference_timesteps(replace(V, timestep_spacing="linspace"), 4).tolist() == [999, 666, 333, 0]
    assert inference_timesteps(V, 1).tolist() == [999]


def test_trailing_timesteps_are_those_of_diffusers():
    scheduler = DDIMScheduler(timestep_spacing="trailing")
    for steps in range(1, 61):  # among them 48, where ties are rounded
        scheduler.set_timesteps(steps)
        torch.testing.assert_close(inference_timesteps(V, steps), scheduler.timesteps)


@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_timesteps_of_every_step_count(spacing):
    config = replace(V, timestep_spacing=spacing)
    for steps in range(1, 1001):
        t = inference_timesteps(config, steps)
        assert len(t) == steps and t[-1] >= 0 and t[0] <= 999 and (t.diff() < 0).all()
        assert spacing == "leading" or t[0] == 999


def test_every_step_leads_to_the_next_timestep_and_the_last_to_no_noise():
    schedule = sampling_schedule(V, 7)
    assert torch.equal(schedule.timesteps, inference_timesteps(V, 7)) and len(schedule) == 7
    levels = alphas_cumprod(V)[schedule.timesteps].double()
    assert torch.equal(schedule.alphas, levels)
    assert schedule.next_alphas.tolist() == [*levels[1:].tolist(), 1.0]


@pytest.mark.parametrize(("steps", "message"), [(0, "steps is 0: choose 1 to 1000"), (1001, "steps is 1001")])
def test_unusable_schedules_are_named(steps, message):
    with pytest.raises(PortraitError, match=message):
        sampling_schedule(V, steps)
