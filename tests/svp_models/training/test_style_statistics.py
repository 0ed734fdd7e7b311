"""The statistics of clips, the decoder that rebuilds them from style priors, and what a prior's deviation then says."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.training.style_statistics import (
    GAIN,
    LEAST_NOISE,
    StatisticsDecoder,
    clip_statistics,
    lid_statistics,
    statistic_groups,
)

FPS = 25.0


def clips_of(expression, pose, lids):
    """One clip with these labels."""
    labels = SimpleNamespace(pose=np.float32(pose), lids=lids)
    return SimpleNamespace(fps=FPS, labels=lambda clip: labels, expression=lambda clip: np.float32(expression))


def test_the_statistics_of_a_known_clip():
    time = np.arange(50)
    expression = np.stack([np.full(50, 0.25), np.where(time % 2, 1.0, -1.0)], axis=1)
    pose = np.stack([0.5 * time, np.full(50, -3.0), np.where(time % 2, 2.0, 0.0)], axis=1)
    lids = np.zeros((50, 2))
    lids[10:15] = lids[30:35] = 1.0  # two blinks of five frames in two seconds
    found = clip_statistics(clips_of(expression, pose, lids), 0)
    named = {name: found[columns] for name, columns in statistic_groups(2).items()}
    np.testing.assert_allclose(named["expression_mean"], [0.25, 0.0], atol=1e-6)
    np.testing.assert_allclose(named["expression_spread"], [0.0, 1.0], atol=1e-6)
    assert named["blink_rate"] == pytest.approx(1.0) and named["closed_share"] == pytest.approx(0.2)
    np.testing.assert_allclose(named["head_mean"], [12.25, -3.0, 1.0])
    np.testing.assert_allclose(named["head_spread"], [0.5 * time.std(), 0.0, 1.0], rtol=1e-6)
    np.testing.assert_allclose(named["head_speed"], [12.5, 0.0, 50.0])  # degrees a second
    assert len(found) == 2 * 2 + 2 + 9


def test_eyes_that_are_shut_from_the_start_are_a_blink_and_unknown_lids_are_unknown():
    lids = np.zeros((25, 2))
    lids[:5] = 0.8
    assert lid_statistics(lids, FPS) == pytest.approx((1.0, 0.2))
    lids[:, 0] = 0.0  # a wink closes one eye alone
    assert lid_statistics(lids, FPS) == (0.0, 0.0)
    assert np.isnan(lid_statistics(None, FPS)).all()


def test_the_statistics_of_real_labels_are_finite_where_the_labels_are_known(train_clips):
    clips = train_clips.clips
    assert np.isfinite(clip_statistics(clips, 0)).all()
    pose = np.full((40, 3), np.nan)
    found = clip_statistics(clips_of(clips.expression(0), pose, None), 0)
    assert np.isfinite(found).sum() == 2 * 64 and np.isnan(found[128:]).all()


def test_the_loss_is_the_gaussian_likelihood_with_the_code_integrated_out():
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    decoder = StatisticsDecoder(4, rng.normal(3.0, 2.0, (200, 5)))
    for value in decoder.parameters():
        torch.nn.init.normal_(value, std=0.5 / GAIN, generator=generator)
    mu, sigma = torch.randn(1, 4, generator=generator), torch.rand(1, 4, generator=generator)
    codes = mu + sigma * torch.randn(400_000, 4, generator=generator)
    noise = ((2 * GAIN * decoder.log_noise).exp() + LEAST_NOISE**2).sqrt()
    drawn = decoder(codes, torch.zeros_like(codes))[0] + noise * torch.randn(400_000, 5, generator=generator)
    mean, variance = decoder(mu, sigma)
    torch.testing.assert_close(mean[0], drawn.mean(0), atol=0.01, rtol=0)
    torch.testing.assert_close(variance[0], drawn.var(0), rtol=0.01, atol=0)
    wanted = torch.distributions.Normal(mean, variance.sqrt())
    target = torch.randn(1, 5, generator=generator)
    cost = -wanted.log_prob(target).mean() - 0.5 * np.log(2 * np.pi * LEAST_NOISE**2)
    torch.testing.assert_close(decoder.loss(mu, sigma, target * decoder.scale + decoder.mean), cost)


def test_statistics_are_standardised_over_the_training_clips_and_unknown_ones_are_left_out():
    rng = np.random.default_rng(0)
    statistics = rng.normal(3.0, 2.0, (100, 4))
    statistics[:50, 1] = np.nan
    statistics[:, 2] = np.nan
    statistics[:, 3] = 7.0  # never differs
    decoder = StatisticsDecoder(3, statistics)
    np.testing.assert_allclose(decoder.mean, [statistics[:, 0].mean(), statistics[50:, 1].mean(), 0, 7], rtol=1e-6)
    np.testing.assert_allclose(decoder.scale, [statistics[:, 0].std(), statistics[50:, 1].std(), 1, 1], rtol=1e-6)
    mu, sigma = torch.randn(100, 3), torch.rand(100, 3)
    known = torch.from_numpy(statistics).float()
    known[:, 1:3] = torch.nan
    loss = decoder.loss(mu, sigma, known)
    loss.backward()
    assert loss.isfinite() and decoder.weight.grad.isfinite().all()
    assert not decoder.weight.grad[1:3].any() and decoder.weight.grad[0].any()
    assert decoder.loss(mu, sigma, torch.full((100, 4), torch.nan)) == 0


def test_what_a_prior_is_unsure_of_makes_its_deviation_wide():
    """Half of the clips hide what the statistic is: their deviation grows, that of the others stays small."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(400, 1, generator=generator)
    hidden = torch.arange(400) % 2 == 1
    decoder = StatisticsDecoder(1, truth.numpy())
    mu = torch.where(hidden[:, None], 0.0, (truth - decoder.mean) / decoder.scale)
    logits = torch.zeros(2, requires_grad=True)  # log sigma of shown and of hidden clips
    with torch.no_grad():
        decoder.weight.fill_(1 / GAIN)
    optimizer = torch.optim.Adam([{"params": logits}, {"params": decoder.log_noise, "lr": 0.02 / GAIN}], 0.02)
    for _ in range(400):
        loss = decoder.loss(mu, logits.exp()[hidden.long()][:, None], truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shown, unsure = logits.exp().tolist()
    assert unsure > 5 * shown
    _, variance = decoder(mu[:2], logits.exp().detach()[:, None])
    hidden_variance = ((truth[hidden] - decoder.mean) / decoder.scale).square().mean().item()
    assert variance[1].item() == pytest.approx(hidden_variance, rel=0.1)
