"""Samplers against diffusers' schedulers, closed forms and each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from svp_portrait.svp_models.config import SchedulerConfig
from svp_portrait.svp_models.diffusion.noise_schedule import (
    alphas_cumprod,
    inference_timesteps,
    pred_x0,
    sampling_schedule,
)
from svp_portrait.svp_models.diffusion.samplers import SAMPLERS, sampler_named
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.io.memory_map import Storage

V = SchedulerConfig()
CONFIGS = [
    SchedulerConfig(prediction=prediction, zero_terminal_snr=zero, timestep_spacing=spacing)
    for prediction in ("v_prediction", "epsilon", "sample")
    for zero in (True, False)
    for spacing in ("trailing", "leading", "linspace")
]


def name_of(config: SchedulerConfig) -> str:
    return f"{config.prediction}-{config.zero_terminal_snr}-{config.timestep_spacing}"


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(name: str, config: SchedulerConfig, steps: int, start: torch.Tensor, x0_of) -> torch.Tensor:
    """The sampler with a network that sees x0_of(x, a_t) in x."""
    schedule = sampling_schedule(config, steps)
    return SAMPLERS[name](lambda x, step: x0_of(x, schedule.alphas[step]), start.clone(), schedule)


def predicting(function, config: SchedulerConfig, schedule):
    """pred_x0 of a network whose prediction is function(x)."""
    return lambda x, step: pred_x0(function(x), x, schedule.timesteps[step], config)


def settings(config: SchedulerConfig) -> dict:
    return {
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "beta_schedule": config.beta_schedule,
        "prediction_type": config.prediction,
        "timestep_spacing": config.timestep_spacing,
        "rescale_betas_zero_snr": config.zero_terminal_snr,
    }


def loop(scheduler, start: torch.Tensor) -> torch.Tensor:
    """diffusers' own loop with a network that predicts sin(x)."""
    x = start * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(torch.sin(scheduler.scale_model_input(x, t)), t, x).prev_sample
    return x


def ours(name: str, config: SchedulerConfig, steps: int, start: torch.Tensor) -> torch.Tensor:
    schedule = sampling_schedule(config, steps)
    return SAMPLERS[name](predicting(torch.sin, config, schedule), start.clone(), schedule)


@pytest.mark.parametrize("betas", ["linear", "scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("config", CONFIGS[:12], ids=name_of)
def test_euler_is_that_of_diffusers(config, betas):
    config = replace(config, beta_schedule=betas)
    theirs = EulerDiscreteScheduler(**settings(config))
    assert torch.equal(alphas_cumprod(config), theirs.alphas_cumprod)
    theirs.set_timesteps(timesteps=inference_timesteps(config, 9).tolist())
    start = draw(2, 3)
    torch.testing.assert_close(ours("euler", config, 9, start), loop(theirs, start), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("exact", [False, True])
def test_ddim_is_that_of_diffusers_where_steps_divide_the_timesteps(exact):
    theirs = DDIMScheduler(**settings(V), clip_sample=False)
    theirs.set_timesteps(20)
    start, config = draw(2, 3), replace(V, exact_terminal=exact)
    tolerance = 1e-5 if exact else 1e-3  # diffusers' last alpha is exactly 0
    torch.testing.assert_close(ours("ddim", config, 20, start), loop(theirs, start), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("config", [config for config in CONFIGS if config.prediction != "sample"], ids=name_of)
def test_dpmpp_2m_is_that_of_diffusers(config):
    theirs = DPMSolverMultistepScheduler(
        **settings(config), algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
    )
    for steps in (1, 2, 9, 20):
        theirs.set_timesteps(timesteps=inference_timesteps(config, steps).tolist())
        start = draw(2, 3)
        torch.testing.assert_close(ours("dpmpp_2m", config, steps, start), loop(theirs, start), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("config", CONFIGS, ids=name_of)
def test_a_network_that_knows_the_picture_ends_at_it(name, config):
    clean = draw(2, 4, seed=1)
    for steps in (1, 2, 7, 25):
        result = run(name, config, steps, draw(2, 4, seed=2), lambda x, a: clean)
        torch.testing.assert_close(result, clean, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "steps", "error"), [("euler", 200, 0.03), ("ddim", 200, 0.03), ("dpmpp_2m", 100, 0.03)]
)
@pytest.mark.parametrize("zero", [True, False])
def test_gaussian_data_follow_the_exact_flow(name, steps, error, zero):
    # For x_0 ~ N(m, s^2) the ideal prediction is known, and the flow maps the noise n to about m + s n.
    config = SchedulerConfig(zero_terminal_snr=zero)
    m, s, start = 0.7, 0.4, draw(3, 5, seed=4)

    def ideal(x: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return m + a.sqrt() * s**2 / (a * s**2 + 1 - a) * (x - a.sqrt() * m)

    a = alphas_cumprod(config)[-1]
    exact = m + s * (start - a.sqrt() * m) / (a * s**2 + 1 - a).sqrt()
    result = run(name, config, steps, start, ideal)
    assert (result - exact).abs().max() < error


@pytest.mark.parametrize("name", SAMPLERS)
def test_in_a_file_and_in_memory_every_block_of_frames_is_stepped_alike(name, tmp_path):
    """70 frames are three blocks; every frame alone gives the same."""
    schedule, start = sampling_schedule(V, 5), draw(70, 2, 3)
    on_disk = Storage(str(tmp_path), budget=0)

    def as_file(frames: torch.Tensor):
        array = on_disk.zeros(frames.shape)
        array[:] = frames
        return array

    whole = SAMPLERS[name](lambda x, step: torch.sin(3 * x), start.clone(), schedule)
    mapped = SAMPLERS[name](lambda x, step: as_file(torch.sin(3 * x[:])), as_file(start), schedule)
    single = SAMPLERS[name](lambda x, step: torch.sin(3 * x), start[40:41].clone(), schedule)
    assert torch.equal(mapped[:], whole)
    torch.testing.assert_close(single, whole[40:41], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_callback_gets_the_latents_after_every_step(name):
    seen, schedule = [], sampling_schedule(V, 3)
    result = SAMPLERS[name](
        lambda x, step: torch.cos(x), draw(2, 3), schedule, lambda step, x: seen.append((step, x.clone()))
    )
    assert [step for step, _ in seen] == [0, 1, 2] and torch.equal(seen[-1][1], result)
    assert not torch.equal(seen[0][1], seen[1][1])


def test_an_unknown_sampler_is_named():
    with pytest.raises(PortraitError, match="unknown scheduler 'heun'.*euler, ddim, dpmpp_2m"):
        sampler_named("heun")
