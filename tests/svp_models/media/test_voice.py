from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.media.audio import (
    CLEAR_LEVELS,
    USUAL_LEVEL,
    downmix,
    is_silent,
    normalize_level,
    speech_level,
    warn_if_silent,
)
from svp_portrait.svp_models.types import Audio

RATE = 16000


def tone(level: float, seconds: float = 1.0, frequency: float = 250.0) -> torch.Tensor:
    """A sine with this root mean square."""
    time = torch.arange(round(seconds * RATE)) / RATE
    return level * math.sqrt(2) * (2 * math.pi * frequency * time).sin()


def test_pauses_do_not_count():
    spoken = np.concatenate([tone(0.1).numpy(), np.zeros(5 * RATE, np.float32), tone(0.004).numpy()])
    assert speech_level(spoken) == pytest.approx(0.1, rel=1e-3)
    assert speech_level(np.zeros(0, np.float32)) == 0


@pytest.mark.parametrize(
    "level, after",
    [(0.001, 0.001), (0.0012, USUAL_LEVEL), (0.05, USUAL_LEVEL), (0.076, 0.076), (0.15, 0.15), (0.3, USUAL_LEVEL)],
)
def test_levels(level, after):
    samples = tone(level * 0.999).numpy()
    assert speech_level(normalize_level(samples, CLEAR_LEVELS)) == pytest.approx(after, rel=2e-3)
    assert is_silent(samples) == (level == 0.001)


def test_one_channel_is_as_loud_as_the_louder_one():
    one, other = tone(0.1), tone(0.1, frequency=400.0)
    assert torch.equal(downmix(one[None]), one) and torch.equal(downmix(torch.stack([one, one])), one)
    torch.testing.assert_close(downmix(torch.stack([one, -one])), one)
    torch.testing.assert_close(downmix(torch.stack([one, torch.zeros_like(one)])), one)
    torch.testing.assert_close(downmix(torch.stack([0.01 * one, one])), one, atol=2e-3, rtol=0)
    both = downmix(torch.stack([one, other]))  # two people: both are there, as loud as one
    torch.testing.assert_close(both, (one + other) / math.sqrt(2), atol=1e-3, rtol=0)
    turns = torch.stack([torch.cat([one, 0 * one]), torch.cat([0 * one, other])])  # one after the other
    assert speech_level(downmix(turns).numpy()) == pytest.approx(0.1 / math.sqrt(2), rel=1e-2)
    assert not downmix(torch.zeros(2, 9)).any()


@pytest.mark.parametrize("waveform, named", [(torch.zeros(2, RATE), "peak 0;"), (tone(0.0007)[None], "peak -60 dB;")])
def test_silence_is_warned_of_with_its_level(caplog, waveform, named):
    with caplog.at_level(logging.WARNING):
        warn_if_silent(Audio(waveform, RATE))
    assert "the voice is silent" in caplog.text and named in caplog.text.replace(" a usual one", "").replace(
        "; has", ";"
    )


def test_a_quiet_voice_is_not_silence(caplog):
    warn_if_silent(Audio(torch.stack([tone(0.002), -tone(0.002)]), RATE))
    assert caplog.text == ""
