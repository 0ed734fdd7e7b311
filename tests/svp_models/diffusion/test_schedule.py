from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler

from svp_portrait.svp_models.config import SchedulerConfig
from svp_portrait.svp_models.diffusion.noise_schedule import (
    SCHEDULERS,
    add_noise,
    alphas_cumprod,
    inference_timesteps,
    make_scheduler,
    predicted_clean,
    predicted_noise,
    prediction_target,
    velocity_of_clean,
    velocity_target,
)
from svp_portrait.svp_models.errors import PortraitError

V = SchedulerConfig()
EPSILON = SchedulerConfig(prediction="epsilon", zero_terminal_snr=False)
CONFIGS = [
    SchedulerConfig(prediction=prediction, zero_terminal_snr=zero, timestep_spacing=spacing)
    for prediction in ("v_prediction", "epsilon", "sample")
    for zero in (True, False)
    for spacing in ("trailing", "leading", "linspace")
]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(name: str, config: SchedulerConfig, steps: int, start: torch.Tensor, clean_of) -> torch.Tensor:
    """The scheduler's loop with a network that predicts clean_of(noisy, a): f(unit-variance sample, a_t) -> x_0."""
    scheduler = make_scheduler(name, config, steps)
    sample = start * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        noisy = scheduler.scale_model_input(sample, t)
        a = alphas_cumprod(config)[t.long()].double()
        clean = clean_of(noisy.double(), a)
        noise = (noisy.double() - a.sqrt() * clean) / (1 - a).sqrt()
        prediction = noise if config.prediction == "epsilon" else a.sqrt() * noise - (1 - a).sqrt() * clean
        sample = scheduler.step(prediction.float(), t, sample).prev_sample
    return sample


def test_alphas_are_the_product_of_one_minus_beta():
    a = alphas_cumprod(EPSILON)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(a.double(), torch.cumprod(1 - betas, 0), rtol=1e-4, atol=1e-6)


def test_zero_terminal_snr_ends_at_two_to_minus_24_and_starts_unchanged():
    a = alphas_cumprod(V)
    assert a[-1] == 2**-24
    assert a[0].item() == pytest.approx(1 - 0.00085, abs=1e-6)
    assert (a.diff() < 0).all()


def test_an_exact_terminal_is_zero_and_ddim_is_that_of_diffusers_to_rounding():
    exact = replace(V, exact_terminal=True)
    assert alphas_cumprod(exact)[-1] == 0 and torch.equal(alphas_cumprod(exact)[:-1], alphas_cumprod(V)[:-1])
    assert torch.equal(
        alphas_cumprod(replace(EPSILON, prediction="sample", exact_terminal=True)), alphas_cumprod(EPSILON)
    )
    theirs = DDIMScheduler(
        beta_start=V.beta_start,
        beta_end=V.beta_end,
        beta_schedule=V.beta_schedule,
        prediction_type=V.prediction,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
    )
    theirs.set_timesteps(5)
    ours = make_scheduler("ddim", exact, 5)
    a = b = draw(2, 3)
    for t in ours.timesteps:
        a = ours.step(torch.sin(a), t, a).prev_sample
        b = theirs.step(torch.sin(b), t, b).prev_sample
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    with pytest.raises(PortraitError, match="exact_terminal asks for pure noise"):
        alphas_cumprod(replace(exact, prediction="epsilon"))


@pytest.mark.parametrize("config", [V, replace(V, prediction="epsilon"), replace(V, prediction="sample"), EPSILON])
def test_clean_and_noise_are_recovered_from_an_exact_prediction(config):
    clean, noise = draw(5, 2, 3, seed=1), draw(5, 2, 3, seed=2)
    t = torch.tensor([0, 1, 500, 900, 998])
    noisy = add_noise(clean, noise, t, config)
    prediction = prediction_target(clean, noise, t, config)
    torch.testing.assert_close(predicted_clean(prediction, noisy, t, config), clean, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(predicted_noise(prediction, noisy, t, config), noise, rtol=1e-4, atol=1e-4)


def test_velocity_of_the_clean_sample():
    clean, noise = draw(4, 3, seed=1), draw(4, 3, seed=2)
    t = torch.tensor([1, 300, 700, 999])
    expected = velocity_target(clean, noise, t, V)
    torch.testing.assert_close(
        velocity_of_clean(clean, add_noise(clean, noise, t, V), t, V), expected, rtol=1e-3, atol=1e-3
    )


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


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedulers_visit_the_same_timesteps(name):
    for steps in (1, 7, 25):
        torch.testing.assert_close(make_scheduler(name, V, steps).timesteps.long(), inference_timesteps(V, steps))


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.prediction}-{c.zero_terminal_snr}-{c.timestep_spacing}")
def test_a_network_that_knows_the_picture_ends_at_it(name, config):
    clean = draw(2, 4, seed=1)
    for steps in (1, 2, 7, 25):
        result = run(name, config, steps, draw(2, 4, seed=2), lambda noisy, a: clean.double())
        torch.testing.assert_close(result, clean, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "steps", "error"), [("euler", 200, 0.03), ("ddim", 200, 0.03), ("dpmpp_2m", 100, 0.03)]
)
@pytest.mark.parametrize("prediction", ["v_prediction", "epsilon"])
@pytest.mark.parametrize("zero", [True, False])
def test_gaussian_data_follow_the_exact_flow(name, steps, error, prediction, zero):
    # For x_0 ~ N(m, s^2) the ideal prediction is known, and the flow maps the noise n to about m + s n.
    config = SchedulerConfig(prediction=prediction, zero_terminal_snr=zero)
    m, s, start = 0.7, 0.4, draw(3, 5, seed=4)

    def ideal(noisy: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return m + a.sqrt() * s**2 / (a * s**2 + 1 - a) * (noisy - a.sqrt() * m)

    a = alphas_cumprod(config)[-1]
    exact = m + s * (start - a.sqrt() * m) / (a * s**2 + 1 - a).sqrt()
    result = run(name, config, steps, start, ideal)
    assert (result - exact).abs().max() < error


def test_ddim_is_that_of_diffusers_where_steps_divide_the_timesteps():
    theirs = DDIMScheduler(
        beta_start=V.beta_start,
        beta_end=V.beta_end,
        beta_schedule=V.beta_schedule,
        prediction_type=V.prediction,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
    )
    theirs.set_timesteps(20)
    ours = make_scheduler("ddim", V, 20)
    a = b = draw(2, 3)
    for t in ours.timesteps:
        a = ours.step(torch.sin(a), t, a).prev_sample
        b = theirs.step(torch.sin(b), t, b).prev_sample
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize(
    "config", CONFIGS[:12], ids=lambda c: f"{c.prediction}-{c.zero_terminal_snr}-{c.timestep_spacing}"
)
def test_euler_is_that_of_diffusers(config, betas):
    config = replace(config, beta_schedule=betas)
    theirs = EulerDiscreteScheduler(
        beta_start=config.beta_start,
        beta_end=config.beta_end,
        beta_schedule=betas,
        prediction_type=config.prediction,
        timestep_spacing=config.timestep_spacing,
        rescale_betas_zero_snr=config.zero_terminal_snr,
    )
    assert torch.equal(alphas_cumprod(config), theirs.alphas_cumprod)
    theirs.set_timesteps(timesteps=inference_timesteps(config, 9).tolist())
    ours = make_scheduler("euler", config, 9)
    assert torch.equal(ours.timesteps, theirs.timesteps)
    torch.testing.assert_close(torch.as_tensor(ours.init_noise_sigma), theirs.init_noise_sigma, rtol=1e-6, atol=0)
    a = b = draw(2, 3) * theirs.init_noise_sigma
    for t in theirs.timesteps:
        first, second = ours.scale_model_input(a, t), theirs.scale_model_input(b, t)
        a = ours.step(torch.sin(first), t, a).prev_sample
        b = theirs.step(torch.sin(second), t, b).prev_sample
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_ddim_and_euler_are_the_same_flow_for_any_step_count():
    start = draw(2, 3)
    for steps in (7, 30):
        results = [run(name, V, steps, start, lambda noisy, a: torch.sin(noisy)) for name in ("euler", "ddim")]
        torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "config", "steps", "message"),
    [
        ("heun", V, 5, "unknown scheduler 'heun'.*euler, ddim, dpmpp_2m"),
        ("euler", V, 0, "steps is 0: choose 1 to 1000"),
        ("ddim", V, 1001, "steps is 1001"),
    ],
)
def test_unusable_schedules_are_named(name, config, steps, message):
    with pytest.raises(PortraitError, match=message):
        make_scheduler(name, config, steps)
