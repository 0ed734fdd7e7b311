from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.media.prosody import PROSODY_SIZE, TEMPI, prosody

TIMES = np.arange(4 * 16000) / 16000  # s
MEDIAN, RANGE, RATES = 4, 8, slice(18, 26)  # of the pitch; modulation by rate


def tone(hertz, swing: float = 0.0) -> np.ndarray:
    """A voice of ten harmonics whose loudness swings 4.5 times a second."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(hertz, TIMES.shape)) / 16000
    loudness = 0.1 * (1 + swing * np.sin(2 * np.pi * 4.5 * TIMES))
    return loudness * sum(np.sin(k * phase) / k for k in range(1, 11))


@pytest.mark.parametrize("hertz", [90.0, 140.0, 220.0, 250.0])
def test_the_pitch_is_that_of_the_voice(hertz):
    found = prosody(tone(hertz))
    assert found[MEDIAN] == pytest.approx(np.log2(hertz), abs=0.02)
    assert found[RANGE] == pytest.approx(0, abs=0.02)


def test_a_pitch_that_moves_has_a_range():
    found = prosody(tone(180 * 2 ** (0.2 * np.sin(2 * np.pi * 0.5 * TIMES))))
    assert found[MEDIAN] == pytest.approx(np.log2(180), abs=0.05)
    assert found[RANGE] == pytest.approx(0.4, abs=0.05)  # nine tenths of a sine lie within 0.988 of its amplitude


def test_twice_as_loud_is_six_decibels_and_nothing_else():
    voice = tone(150.0, 0.5) + 0.01 * np.random.default_rng(0).normal(size=len(TIMES))
    soft, loud = prosody(voice), prosody(2 * voice)
    assert loud[0] - soft[0] == pytest.approx(20 * np.log10(2), abs=1e-3)
    assert np.abs(loud[2:] - soft[2:]).max() < 0.02


def test_the_tempo_is_that_of_the_loudness():
    rates = prosody(tone(150.0, 0.8))[RATES]
    assert TEMPI[int(rates.argmax())] == (4, 5)


@pytest.mark.parametrize("samples", [0, 100, 16000])
def test_silence_and_short_voices_have_finite_numbers(samples):
    found = prosody(np.zeros(samples, np.float32))
    assert found.shape == (PROSODY_SIZE,) and np.isfinite(found).all()
