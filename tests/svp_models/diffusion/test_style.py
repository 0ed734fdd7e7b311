from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.diffusion.checks import check_style
from svp_portrait.svp_models.diffusion.style import (
    EASINGS,
    emotion_prior,
    extract_style,
    interpolate_styles,
    mixture_moments,
    resample_rows,
    sample_style,
)
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.audio_encoder import mel_features
from svp_portrait.svp_models.networks.emotion_bank import EmotionBank, EmotionBankConfig
from svp_portrait.svp_models.types import Audio, Style, StylePrior


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sound(seconds: float, rate: int = 16000) -> Audio:
    return Audio(0.3 * draw(1, int(seconds * rate)), rate)


def extracted(model, audio: torch.Tensor, expression: torch.Tensor):
    """The extractor's own answer for one short clip."""
    mask = torch.ones(1, len(audio), dtype=torch.bool)
    with torch.no_grad():
        mu, sigma = model.networks.style_extractor(audio[None], expression[None], mask)
    return mu[0], sigma[0]


def test_a_short_clip_is_what_the_extractor_says(model):
    expression, audio = draw(8, 64), sound(8 / 25)
    prior = extract_style(model, expression, audio, 25, "cheerful")
    mu, sigma = extracted(model, mel_features(audio, 8, 25), expression)
    torch.testing.assert_close(prior.mu, mu)
    torch.testing.assert_close(prior.sigma, sigma)
    assert (prior.style_space, prior.label) == ("tiny-space", "cheerful")
    assert prior.mu.shape == (16,) and not prior.mu.requires_grad


def test_a_missing_modality_enters_as_zeros(model):
    expression, audio = draw(8, 64), sound(8 / 25)
    silent = extract_style(model, expression, None, 25)
    torch.testing.assert_close(silent.mu, extracted(model, torch.zeros(8, 1920), expression)[0])
    faceless = extract_style(model, None, audio, 25)
    torch.testing.assert_close(faceless.mu, extracted(model, mel_features(audio, 8, 25), torch.zeros(8, 64))[0])
    with pytest.raises(PortraitError, match="frames or audio"):
        extract_style(model, None, None, 25)


def test_the_shorter_of_both_counts(model):
    prior = extract_style(model, draw(9, 64), sound(4 / 25), 25)
    alone = extract_style(model, draw(9, 64)[:4], sound(4 / 25), 25)
    assert torch.equal(prior.mu, alone.mu)


def test_long_clips_are_read_in_segments(model):
    expression = draw(23, 64)  # max_frames is 10: 8 + 8 + 7
    prior = extract_style(model, expression, None, 25)
    parts = [extracted(model, torch.zeros(len(part), 1920), part) for part in expression.split(8)]
    mu = sum(n * part[0] for n, part in zip((8, 8, 7), parts, strict=True)) / 23
    square = sum(n * (part[1] ** 2 + part[0] ** 2) for n, part in zip((8, 8, 7), parts, strict=True)) / 23
    torch.testing.assert_close(prior.mu, mu)
    torch.testing.assert_close(prior.sigma, (square - mu**2).sqrt(), rtol=1e-3, atol=1e-4)


def test_progress_and_cancelling(model):
    """A quarter of the bar for the extractor's segments; hearing mel features takes no time worth telling."""
    seen = []
    extract_style(model, draw(23, 64), sound(23 / 25), 25, progress=lambda done, total: seen.append(done / total))
    assert seen == pytest.approx([0.75 + 0.25 * each / 3 for each in (1, 2, 3)], abs=1e-4)

    def stop(done, total):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        extract_style(model, draw(23, 64), None, 25, progress=stop)


def test_extraction_ignores_and_keeps_training_mode(model):
    extractor = model.networks.style_extractor
    expected = extract_style(model, draw(8, 64), None, 25)
    extractor.train()
    try:
        assert torch.equal(extract_style(model, draw(8, 64), None, 25).mu, expected.mu)
        assert extractor.training
    finally:
        extractor.eval()


def test_mixture_moments():
    mean, spread = mixture_moments(
        [(1, torch.tensor([0.0]), torch.tensor([1.0])), (3, torch.tensor([4.0]), torch.tensor([1.0]))]
    )
    assert mean.item() == pytest.approx(3)
    assert spread.item() == pytest.approx((1 + 0.25 * 9 + 0.75 * 1) ** 0.5)
    mean, spread = mixture_moments([(7, torch.tensor([2.0]), torch.tensor([0.5]))])
    assert (mean.item(), spread.item()) == (2, 0.5)


def test_resampling_keeps_the_time():
    rows = torch.arange(50.0)[:, None] / 50  # value of frame i is its start, in seconds
    halved = resample_rows(rows, 50, 25)
    assert halved.shape == (25, 1)
    torch.testing.assert_close(halved[:, 0] + 0.01, (torch.arange(25) + 0.5) / 25)  # centres
    assert len(resample_rows(rows, 30, 25)) == 42 and len(resample_rows(rows[:1], 60, 25)) == 1
    assert resample_rows(rows, 25, 25) is rows
    with pytest.raises(PortraitError, match="frame rate is 0"):
        resample_rows(rows, 0, 25)


def test_expression_at_another_rate(model):
    expression = draw(16, 64)
    prior = extract_style(model, expression, None, 50)
    assert torch.equal(prior.mu, extract_style(model, resample_rows(expression, 50, 25), None, 25).mu)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (torch.zeros(0, 64), r"\(0, 64\)"),
        (torch.zeros(4, 50), r"\(4, 50\)"),
        (torch.full((4, 64), torch.nan), "not finite"),
    ],
)
def test_unusable_expressions(model, expression, message):
    with pytest.raises(PortraitError, match=message):
        extract_style(model, expression, None, 25)


def test_other_audio_features_are_named(model):
    config = replace(model.config, audio=replace(model.config.audio, features="whisper"))
    with pytest.raises(PortraitError, match="whisper"):
        extract_style(replace(model, config=config), None, sound(1), 25)


def test_sampling_a_prior():
    prior = StylePrior(draw(16, seed=1), draw(16, seed=2).abs(), "tiny-space", "sad")
    eps = torch.randn(16, generator=torch.Generator().manual_seed(5))
    style = sample_style(prior, 5, 0.5)
    torch.testing.assert_close(style.codes, (prior.mu + 0.5 * prior.sigma * eps)[None])
    assert (style.style_space, style.label) == ("tiny-space", "sad")
    assert torch.equal(sample_style(prior, 9, 0).codes[0], prior.mu)
    assert torch.equal(sample_style(prior, 5).codes, sample_style(prior, 5).codes)
    assert not torch.equal(sample_style(prior, 5).codes, sample_style(prior, 6).codes)
    many = torch.cat([sample_style(prior, seed).codes for seed in range(2000)])
    torch.testing.assert_close(many.mean(0), prior.mu, rtol=0, atol=0.2)
    torch.testing.assert_close(many.std(0), prior.sigma, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("temperature", [-1, float("nan")])
def test_impossible_temperature(temperature):
    with pytest.raises(PortraitError, match="temperature"):
        sample_style(StylePrior(torch.zeros(4), torch.ones(4), "s"), 0, temperature)


def test_easings():
    t = torch.linspace(0, 1, 101)
    for easing in EASINGS.values():
        eased = easing(t)
        assert eased[0] == 0 and eased[-1] == 1 and (eased.diff() > 0).all()
    half = {name: easing(torch.tensor(0.5)).item() for name, easing in EASINGS.items()}
    assert half == {"linear": 0.5, "ease_in_out": 0.5, "ease_in": 0.25, "ease_out": 0.75}


def test_interpolation():
    a, b = Style(torch.zeros(1, 4), "s", "calm"), Style(torch.ones(1, 4), "s", "loud")
    mixed = interpolate_styles(a, b)
    torch.testing.assert_close(mixed.codes[:, 0], torch.linspace(0, 1, 64))
    assert mixed.label == "calm > loud" and mixed.style_space == "s"
    torch.testing.assert_close(mixed.at(5)[:, 2], torch.linspace(0, 1, 5))
    torch.testing.assert_close(interpolate_styles(a, b, 0.3, 0.3).codes, torch.full((64, 4), 0.3))
    back = interpolate_styles(a, b, 1, 0, "ease_in")
    torch.testing.assert_close(back.codes[:, 0], 1 - torch.linspace(0, 1, 64) ** 2)


def test_interpolation_of_changing_styles():
    rising = interpolate_styles(Style(torch.zeros(1, 4), "s"), Style(torch.ones(1, 4), "s"))
    t = torch.linspace(0, 1, 64)
    mixed = interpolate_styles(rising, Style(torch.full((1, 4), 3.0), "s"))
    torch.testing.assert_close(mixed.codes[:, 1], (1 - t) * t + 3 * t)


@pytest.mark.parametrize(
    ("b", "easing", "end", "message"),
    [
        (Style(torch.ones(1, 4), "other"), "linear", 1.0, "'s' with 4 numbers, the other of 'other'"),
        (Style(torch.ones(1, 5), "s"), "linear", 1.0, "4 numbers, the other of 's' with 5"),
        (Style(torch.ones(1, 4), "s"), "bounce", 1.0, "unknown easing 'bounce'"),
        (Style(torch.ones(1, 4), "s"), "linear", float("inf"), "0.0 and inf"),
    ],
)
def test_impossible_interpolations(b, easing, end, message):
    with pytest.raises(PortraitError, match=message):
        interpolate_styles(Style(torch.zeros(1, 4), "s"), b, 0.0, end, easing)


def test_check_style(model):
    check_style(Style(torch.zeros(3, 16), "tiny-space"), model)
    check_style(StylePrior(torch.zeros(16), torch.ones(16), "tiny-space"), model)
    with pytest.raises(PortraitError, match="'elsewhere', the model reads 'tiny-space'"):
        check_style(Style(torch.zeros(1, 16), "elsewhere"), model)
    with pytest.raises(PortraitError, match=r"\(1, 8\), the model reads codes of 16"):
        check_style(Style(torch.zeros(1, 8), "tiny-space"), model)
    with pytest.raises(PortraitError, match="not finite"):
        check_style(Style(torch.full((1, 16), torch.inf), "tiny-space"), model)


class Ray(EmotionBank):
    """Emotion k leads along axis k as the square root of strength, with a deviation of k; neutral is the origin."""

    def forward(self, emotion, strength):
        axes = torch.eye(4)[emotion] * (emotion != 0)[:, None]
        return 10 * strength.sqrt()[:, None] * axes, emotion[:, None].float().expand(-1, 4)


@pytest.fixture
def rays() -> Ray:
    return Ray(EmotionBankConfig(("neutral", "happy", "sad"), 4, 2, 2))


def test_an_emotion_is_a_prior_of_its_strength(rays):
    prior = emotion_prior(rays, "space", {"happy": 2.0}, 0.25)
    assert prior.mu.tolist() == [0, 5, 0, 0] and prior.sigma.tolist() == [1] * 4
    assert (prior.style_space, prior.label) == ("space", "happy at 0.25")


def test_emotions_are_mixed_by_their_shares(rays):
    prior = emotion_prior(rays, "space", {"happy": 3.0, "sad": 1.0}, 1.0)
    assert prior.mu.tolist() == pytest.approx([0, 7.5, 2.5, 0])
    assert prior.sigma.tolist() == pytest.approx([(0.75 * 1 + 0.25 * 4) ** 0.5] * 4)


def test_beyond_1_an_emotion_goes_on_as_fast_as_it_grew(rays):
    last = 10 * (1 - 0.75**0.5)  # from 0.75 to 1
    prior = emotion_prior(rays, "space", {"sad": 1.0}, 1.5)
    assert prior.mu.tolist() == pytest.approx([0, 0, 10 + 2 * last, 0])
    assert emotion_prior(rays, "space", {"neutral": 1.0}, 1.5).mu.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("shares", "strength", "message"),
    [
        ({"joy": 1.0}, 1.0, "has no emotion 'joy': choose one of neutral, happy, sad"),
        ({"happy": 1.0}, 1.6, "strength is 1.6: 0 .neutral. to 1.5"),
        ({"happy": 1.0}, float("nan"), "strength is nan"),
        ({"happy": 0.0}, 1.0, "one of them above 0"),
        ({"happy": -1.0, "sad": 2.0}, 1.0, "one of them above 0"),
    ],
)
def test_impossible_emotions_are_refused(rays, shares, strength, message):
    with pytest.raises(PortraitError, match=message):
        emotion_prior(rays, "space", shares, strength)
