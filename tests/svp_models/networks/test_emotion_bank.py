from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.emotion_bank import EmotionBank, EmotionBankConfig

CORNERS = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])


def bank_of(entries: int = 4, emotions: tuple[str, ...] = ("neutral", "happy", "sad")) -> EmotionBank:
    torch.manual_seed(0)
    return EmotionBank(EmotionBankConfig(emotions, 2, entries, 8))


def around_corners(count: int, seed: int = 0) -> torch.Tensor:
    noise = 0.1 * torch.randn(4 * count, 2, generator=torch.Generator().manual_seed(seed))
    return CORNERS.repeat(count, 1) + noise


def test_entries_begin_and_stay_at_the_clusters():
    bank = bank_of()
    bank.start(around_corners(20), torch.Generator().manual_seed(1))
    for step in range(50):
        error = bank.update(around_corners(20, step), 0.9)
    found = bank.centre + bank.unit * bank.entries
    assert sorted(found.round().tolist()) == sorted(CORNERS.tolist())
    assert error * float(bank.unit) ** 2 == pytest.approx(2 * 0.1**2, rel=0.2)
    assert bank.nearest(CORNERS).unique().numel() == 4


def test_an_entry_without_codes_moves_to_the_code_farthest_off():
    bank = bank_of(entries=2)
    bank.start(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.Generator().manual_seed(0))
    bank.entries[1] = 1e6
    codes = torch.tensor([[0.0, 0.0], [1.0, 0.0], [30.0, 0.0]])
    bank.update(codes, 0.0)
    torch.testing.assert_close(bank.centre + bank.unit * bank.entries[1], codes[2])


def test_all_emotions_are_one_at_strength_0_and_neutral_stays():
    bank = bank_of()
    bank.start(around_corners(5), torch.Generator().manual_seed(0))
    mu, sigma = bank(torch.tensor([0, 1, 2, 0]), torch.tensor([0.0, 0.0, 0.0, 1.0]))
    assert torch.equal(mu, mu[:1].expand(4, -1)) and torch.equal(sigma, sigma[:1].expand(4, -1))
    full, _ = bank(torch.tensor([1]), torch.tensor([1.0]))
    assert not torch.equal(full[0], mu[0])


def test_mean_and_deviation_are_mixed_by_the_attention():
    """Two entries with weights a and 1 - a: the mean lies between them, the variance is mixed."""
    bank = bank_of(entries=2)
    bank.centre.copy_(torch.tensor([1.0, 2.0]))
    bank.unit.fill_(2.0)
    bank.entries.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    with torch.no_grad():
        bank.log_deviation.copy_(torch.tensor([[1.0, 1.0], [3.0, 3.0]]).log())
    emotion, strength = torch.tensor([1]), torch.tensor([0.6])
    a, b = bank.attention(emotion, strength)[0].tolist()
    mu, sigma = bank(emotion, strength)
    assert a + b == pytest.approx(1)
    assert mu[0].tolist() == pytest.approx([1 + 2 * b, 2 - 2 * b])
    assert sigma[0].tolist() == pytest.approx([2 * (a + 9 * b) ** 0.5] * 2)


def test_names_are_told_apart():
    with pytest.raises(PortraitError, match="emotions name one twice"):
        EmotionBankConfig(("neutral", "happy", "happy"), 2)
