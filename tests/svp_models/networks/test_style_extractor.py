"""Equations 2 to 4 in closed form, padding and missing modalities."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.config import StyleConfig
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.attention import sinusoidal_encoding
from svp_portrait.svp_models.networks.style_extractor import StyleExtractor, pooled_gaussian, sample_code

CONFIG = StyleConfig(
    expression_size=6, audio_size=10, style_size=16, layers=2, heads=2, feed_forward=32, dropout=0.1, max_frames=12
)


@pytest.fixture
def extractor():
    torch.manual_seed(0)
    return StyleExtractor(CONFIG).eval()


def test_pooling_by_hand():
    # Scores log 1, log 3 and a padded frame: shares 1/4, 3/4, 0.
    embedding = torch.tensor([[[0.0, 2.0], [torch.log(torch.tensor(3.0)), -2.0], [50.0, 50.0]]])
    mask = torch.tensor([[True, True, False]])
    mu, sigma = pooled_gaussian(embedding, torch.tensor([[1.0, 0.0]]), mask)
    log3 = 1.0986123
    torch.testing.assert_close(mu, torch.tensor([[0.75 * log3, -1.0]]))
    # Two-point distribution: variance = p (1 - p) distance^2.
    torch.testing.assert_close(sigma**2, torch.tensor([[0.1875 * log3**2, 0.1875 * 16.0]]))


def test_one_frame_has_no_spread_but_a_gradient():
    embedding = torch.randn(1, 1, 4, requires_grad=True)
    mu, sigma = pooled_gaussian(embedding, torch.ones(1, 4), torch.ones(1, 1, dtype=torch.bool))
    assert torch.equal(mu, embedding[:, 0]) and float(sigma.detach().max()) < 1e-3
    sigma.sum().backward()
    # sigma is the square root of 1e-8 + variance: its gradient at the mean itself is zero, not infinite.
    torch.testing.assert_close(sigma.detach(), torch.full((1, 4), 1e-4))
    assert torch.equal(embedding.grad, torch.zeros(1, 1, 4))


def test_sampled_codes_have_the_mean_and_spread():
    mu, sigma = torch.tensor([1.0, -2.0]).expand(4000, 2), torch.tensor([0.5, 2.0]).expand(4000, 2)
    codes = sample_code(mu, sigma, torch.Generator().manual_seed(3))
    torch.testing.assert_close(codes.mean(0), mu[0], atol=0.1, rtol=0)
    torch.testing.assert_close(codes.std(0), sigma[0], atol=0.1, rtol=0)
    assert torch.equal(sample_code(mu, sigma, torch.Generator().manual_seed(3)), codes)
    noise = torch.randn(4000, 2, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(codes, mu + sigma * noise)  # eq. 4
    assert torch.equal(sample_code(mu, sigma, torch.Generator(), temperature=0.0), mu)


@torch.no_grad()
def test_padding_changes_nothing(extractor):
    torch.manual_seed(1)
    audio, expression = torch.randn(2, 7, 10), torch.randn(2, 7, 6)
    mask = torch.ones(2, 7, dtype=torch.bool)
    short = extractor(audio, expression, mask)
    wide = [torch.cat([each, torch.full((2, 4, each.shape[-1]), 9.0)], dim=1) for each in (audio, expression)]
    padded = extractor(*wide, torch.cat([mask, torch.zeros(2, 4, dtype=torch.bool)], dim=1))
    for first, second in zip(short, padded, strict=True):
        assert first.shape == (2, 16)
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_expressions_ask_and_audio_answers(extractor):
    """Two encoders with positions, cross-attention with the expression's rows as queries, its result added, then pooling."""
    torch.manual_seed(1)
    audio, expression = torch.randn(2, 7, 10), torch.randn(2, 7, 6)
    mask = torch.arange(7) < torch.tensor([[7], [4]])
    encoded = []
    for rows, branch in ((audio, extractor.audio), (expression, extractor.expression)):
        hidden = branch.proj(rows) + sinusoidal_encoding(7, 16, rows)
        encoded.append(branch.encoder(hidden, src_key_padding_mask=~mask))
    crossed = extractor.cross(encoded[1], encoded[0], encoded[0], key_padding_mask=~mask, need_weights=False)[0]
    expected = pooled_gaussian(encoded[1] + crossed, extractor.pool.weight, mask)
    for found, wanted in zip(extractor(audio, expression, mask), expected, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_order_of_the_frames_counts(extractor):
    audio, expression, mask = torch.randn(1, 6, 10), torch.randn(1, 6, 6), torch.ones(1, 6, dtype=torch.bool)
    there, back = extractor(audio, expression, mask)[0], extractor(audio.flip(1), expression.flip(1), mask)[0]
    assert not torch.allclose(there, back, atol=1e-3)


@torch.no_grad()
def test_either_modality_alone(extractor):
    torch.manual_seed(2)
    audio, expression, mask = torch.randn(1, 5, 10), torch.randn(1, 5, 6), torch.ones(1, 5, dtype=torch.bool)
    both = extractor(audio, expression, mask)[0]
    audio_only = extractor(audio, torch.zeros_like(expression), mask)[0]
    expression_only = extractor(torch.zeros_like(audio), expression, mask)[0]
    assert not torch.allclose(both, audio_only) and not torch.allclose(both, expression_only)
    again = extractor(audio, torch.zeros_like(expression), mask)[0]
    assert torch.equal(audio_only, again), "a missing modality is zeros, not random numbers"


def test_every_parameter_learns(extractor):
    audio, expression = torch.randn(2, 6, 10), torch.randn(2, 6, 6)
    mu, sigma = extractor(audio, expression, torch.ones(2, 6, dtype=torch.bool))
    (mu.square().sum() + sigma.sum()).backward()
    assert [name for name, parameter in extractor.named_parameters() if not parameter.grad.abs().sum() > 0] == []


def test_limits_are_named(extractor):
    with pytest.raises(PortraitError, match="13 frames, at most 12"):
        extractor(torch.zeros(1, 13, 10), torch.zeros(1, 13, 6), torch.ones(1, 13, dtype=torch.bool))
    with pytest.raises(PortraitError, match="no valid frame"):
        extractor(torch.zeros(1, 3, 10), torch.zeros(1, 3, 6), torch.zeros(1, 3, dtype=torch.bool))
    with pytest.raises(PortraitError, match="no valid frame"):
        one_of_two = torch.tensor([[True, True, True], [False, False, False]])
        extractor(torch.zeros(2, 3, 10), torch.zeros(2, 3, 6), one_of_two)
