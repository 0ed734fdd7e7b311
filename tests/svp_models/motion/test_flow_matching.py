from __future__ import annotations

import math

import pytest
import torch

from svp_portrait.svp_models.motion.flow_matching import (
    clean_of,
    level_steps,
    logit_normal,
    noisy_at,
    sample_flow,
    target_at,
    velocity_of,
)


@pytest.mark.parametrize("level", [0.0, 0.3, 0.5, 0.9])
def test_a_perfect_prediction_means_the_true_velocity_and_clean_motion(level):
    clean, noise = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    at = torch.tensor(level)
    noisy, target = noisy_at(clean, noise, at), target_at(clean, noise, at)
    torch.testing.assert_close(velocity_of(noisy, target, at), clean - noise)
    torch.testing.assert_close(clean_of(noisy, target, at), clean)


def test_targets_have_variance_one_and_noise_is_the_clean_motion_to_predict():
    clean, noise = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))
    for level in (0.1, 0.5, 0.8):
        assert float(target_at(clean, noise, torch.tensor(level)).var()) == pytest.approx(1, abs=0.01)
    torch.testing.assert_close(target_at(clean, noise, torch.tensor(0.0)), clean)


def test_the_sampler_reaches_a_known_gaussian():
    """Data N(m, d^2): the velocity is E[clean - noise | x] in closed form, and the flow maps noise z to m + d z."""
    mean, deviation = 2.0, 0.5

    def velocity(x, t):
        variance = (1 - t) ** 2 + (t * deviation) ** 2
        covariance = t * deviation**2 - (1 - t)
        return mean + covariance / variance * (x - t * mean)

    noise = torch.linspace(-2, 2, 9)
    fine = sample_flow(velocity, noise, level_steps(1000))
    torch.testing.assert_close(fine, mean + deviation * noise, atol=5e-3, rtol=0)
    errors = [float((sample_flow(velocity, noise, level_steps(steps)) - fine).abs().max()) for steps in (10, 20, 40)]
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.05


def test_levels_go_from_noise_to_clean_and_shift_towards_noise():
    plain, shifted = level_steps(4), level_steps(4, 3.0)
    torch.testing.assert_close(plain, torch.tensor([0, 0.25, 0.5, 0.75, 1]))
    torch.testing.assert_close(shifted, torch.tensor([0, 0.1, 0.25, 0.5, 1]))


def test_logit_normal_levels_have_their_median():
    levels = logit_normal((100_000,), -1.0, 0.5, torch.Generator().manual_seed(1))
    assert float(levels.median()) == pytest.approx(1 / (1 + math.e), abs=0.005)
    assert 0 < float(levels.min()) and float(levels.max()) < 1
