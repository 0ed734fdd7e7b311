from __future__ import annotations

import math

import pytest
import torch

from svp_portrait.svp_models.motion.flow_matching import (
    angle_steps,
    clean_of,
    level_at,
    logit_normal,
    noisy_at,
    prediction_of,
    sample_flow,
    target_at,
)


@pytest.mark.parametrize("level", [0.0, 0.3, 0.5, 0.9])
def test_a_perfect_prediction_means_the_clean_motion(level):
    clean, noise = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    at = torch.tensor(level)
    noisy, target = noisy_at(clean, noise, at), target_at(clean, noise, at)
    torch.testing.assert_close(clean_of(noisy, target, at), clean)
    torch.testing.assert_close(prediction_of(noisy, clean, at), target, rtol=1e-4, atol=1e-5)


def test_targets_have_variance_one_and_noise_is_the_clean_motion_to_predict():
    clean, noise = torch.randn(2, 200_000, generator=torch.Generator().manual_seed(0))
    for level in (0.1, 0.5, 0.8):
        assert float(target_at(clean, noise, torch.tensor(level)).var()) == pytest.approx(1, abs=0.01)
    torch.testing.assert_close(target_at(clean, noise, torch.tensor(0.0)), clean)


def gaussian(mean, deviation):
    """F of data N(mean, deviation^2) in closed form: E[((1 - t) clean - t noise) / s | x]."""

    def predict(x, t):
        size = math.hypot(t, 1 - t)
        variance = (1 - t) ** 2 + (t * deviation) ** 2
        slope = t * (1 - t) * (deviation**2 - 1) / (size * variance)
        return (1 - t) * mean / size + slope * (x - t * mean)

    return predict


def test_the_sampler_reaches_a_known_gaussian():
    """The flow maps noise z to mean + deviation z, and 10 steps are already near."""
    mean, deviation = 2.0, 0.5
    noise = torch.linspace(-2, 2, 9)
    exact = mean + deviation * noise
    errors = [
        float((sample_flow(gaussian(mean, deviation), noise, angle_steps(steps)) - exact).abs().max())
        for steps in (10, 20, 40, 400)
    ]
    assert errors[0] < 0.05 and errors[1] < errors[0] / 2.5 and errors[2] < errors[1] / 2.5 and errors[3] < 1e-3


def test_what_cannot_be_foretold_keeps_its_variance():
    noise = torch.linspace(-2, 2, 9)
    torch.testing.assert_close(sample_flow(gaussian(0.0, 1.0), noise, angle_steps(3)), noise)


def test_angles_go_from_noise_to_clean_and_shift_towards_noise():
    plain, shifted = angle_steps(4) * 2 / math.pi, angle_steps(4, 3.0) * 2 / math.pi
    torch.testing.assert_close(plain, torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=torch.float64))
    torch.testing.assert_close(shifted, torch.tensor([0, 0.1, 0.25, 0.5, 1], dtype=torch.float64))
    assert (
        level_at(0.0) == 0 and level_at(math.pi / 4) == pytest.approx(0.5) and level_at(math.pi / 2) == pytest.approx(1)
    )


def test_logit_normal_levels_have_their_median():
    levels = logit_normal((100_000,), -1.0, 0.5, torch.Generator().manual_seed(1))
    assert float(levels.median()) == pytest.approx(1 / (1 + math.e), abs=0.005)
    assert 0 < float(levels.min()) and float(levels.max()) < 1
