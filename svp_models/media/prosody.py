"""How a voice speaks, whatever it says: loudness, pitch and its range, tempo, timbre, as a few numbers of a whole clip.

They are what tells a speaking style from a voice alone (Eyben et al. 2016, the GeMAPS set, has numbers of the same kinds).
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

SAMPLE_RATE = 16000  # Hz, of the voice
HOP, WINDOW, SPECTRUM = 160, 800, 2048  # samples: 10 ms, 50 ms, of the Fourier transform
SHORTEST = 8000  # samples; silence follows shorter voices
LOUD = 0.1  # of the loudest frame: from there on a frame sounds
LOWEST, HIGHEST = 60.0, 480.0  # Hz of the pitch
SHORT_LAGS = 0.0002  # what a lag costs per sample, so that of equal periods the shortest counts
VOICED = 0.6  # autocorrelation at the period from which a frame is voiced
OUTLIER = 0.7  # octaves from the median beyond which a pitch is an error
SLOPES = 0.2  # octaves between two frames beyond which the pitch jumps
QUANTILES = (5, 25, 50, 75, 95)
TEMPI = ((1, 2), (2, 3), (3, 4), (4, 5), (5, 6.5), (6.5, 8), (8, 11), (11, 16))  # Hz, parts of the loudness' modulation
BANDS = (60, 250, 500, 1000, 2000, 3000, 4000, 6000, 8000)  # Hz, edges
PROSODY_SIZE = 37


def prosody(samples: NDArray[np.floating]) -> NDArray[np.float32]:
    """PROSODY_SIZE numbers of a voice, mono at 16 kHz: level in dB and as a logarithm; quantiles, deviation, ranges and slope of
    the pitch in octaves; shares of voiced and sounding frames, tempo; modulation by rate; level by frequency band; tilt."""
    voice = np.pad(samples.astype(np.float32), (0, max(0, SHORTEST - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(voice, WINDOW)[::HOP]  # n WINDOW
    level = np.sqrt((frames**2).mean(axis=1) + 1e-10)
    sounding = level > LOUD * level.max()
    decibels = 20 * np.log10(level + 1e-5)
    centred = frames[sounding] - frames[sounding].mean(axis=1, keepdims=True)
    window = np.hanning(WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(centred * window, SPECTRUM)) ** 2
    likeness, own = _autocorrelation(power, window)
    total = float(np.sqrt((level[sounding] ** 2).mean()))
    found: list[ArrayLike] = [
        [20 * np.log10(total + 1e-6), np.log(total + 1e-6)],
        _pitch(likeness / own),
        [sounding.mean()],
        _tempo(decibels, sounding, power),
        _bands(power),
        [likeness[:, 1].mean(), likeness[:, 2].mean(), np.log(1 - likeness[:, 1].mean() + 1e-3)],
    ]
    return np.concatenate([np.asarray(numbers) for numbers in found]).astype(np.float32)


def _autocorrelation(
    power: NDArray[np.floating], window: NDArray[np.float32]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Of windowed frames, n lags, 1 at lag 0, and of the window."""
    lags = SAMPLE_RATE // int(LOWEST) + 2
    found = np.fft.irfft(power, SPECTRUM)[:, :lags]
    own = np.fft.irfft(np.abs(np.fft.rfft(window, SPECTRUM)) ** 2, SPECTRUM)[:lags]
    return found / (found[:, :1] + 1e-12), own / own[0]


def _pitch(likeness: NDArray[np.floating]) -> NDArray[np.floating]:
    """Quantiles 5, deviation, both ranges, slope, and the share of voiced frames; octaves."""
    shortest, longest = int(SAMPLE_RATE / HIGHEST), int(SAMPLE_RATE / LOWEST)
    costs = SHORT_LAGS * np.arange(shortest, longest)
    period = (likeness[:, shortest:longest] - costs).argmax(axis=1) + shortest
    voiced = likeness[np.arange(len(likeness)), period] > VOICED
    octaves = np.log2(SAMPLE_RATE / period)
    pitches = octaves[voiced] if voiced.sum() >= len(QUANTILES) else np.full(len(QUANTILES), np.log2(HIGHEST / 4))
    pitches = pitches[np.abs(pitches - np.median(pitches)) < OUTLIER]
    quantiles = np.percentile(pitches, QUANTILES)
    slopes = np.abs(np.diff(np.where(voiced, octaves, np.nan)))
    slopes = slopes[slopes < SLOPES]
    ranges = [quantiles[4] - quantiles[0], quantiles[3] - quantiles[1], slopes.mean() if len(slopes) else 0.0]
    return np.array([*quantiles, pitches.std(), *ranges, voiced.mean()])


def _tempo(
    decibels: NDArray[np.floating], sounding: NDArray[np.bool_], power: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Centre of the modulation in Hz, change of the spectrum, length of sounding runs in seconds, peaks of the smoothed and the
    plain loudness a second, and the modulation by rate."""
    loudness = np.where(sounding, decibels, decibels[sounding].min())
    loudness = loudness - loudness.mean()
    modulation = np.abs(np.fft.rfft(loudness * np.hanning(len(loudness)))) ** 2 + 1e-9
    rates = np.fft.rfftfreq(len(loudness), HOP / SAMPLE_RATE)
    whole = (rates > TEMPI[0][0]) & (rates < TEMPI[-1][1])
    total = modulation[whole].sum() + 1e-9
    shares = [modulation[(rates >= low) & (rates < high)].sum() / total for low, high in TEMPI]
    change = np.abs(np.diff(np.log(power[:, 4:512:8] + 1e-6), axis=0))
    edges = np.flatnonzero(np.diff(np.concatenate([[0], sounding.astype(int), [0]])))
    weights = np.hanning(9) / np.hanning(9).sum()
    seconds = sounding.sum() * HOP / SAMPLE_RATE
    smooth = np.convolve(loudness, weights, "same")
    counts = [(_peaks(curve) & sounding[1:-1]).sum() / seconds for curve in (smooth, loudness)]
    centre = (modulation[whole] * rates[whole]).sum() / total
    return np.array(
        [
            centre,
            change.mean() if len(change) else 0.0,
            np.diff(edges)[::2].mean() * HOP / SAMPLE_RATE,
            *counts,
            *np.log(np.array(shares) + 1e-4),
        ]
    )


def _peaks(curve: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Where a curve is higher than before and not lower than after, without its ends."""
    return (curve[1:-1] > curve[:-2]) & (curve[1:-1] >= curve[2:])


def _bands(power: NDArray[np.floating]) -> NDArray[np.floating]:
    """Level of the BANDS in dB, relative to their mean."""
    frequencies = np.fft.rfftfreq(SPECTRUM, 1 / SAMPLE_RATE)
    levels = [
        10 * np.log10(power[:, (frequencies >= low) & (frequencies < high)].mean() + 1e-9)
        for low, high in pairwise(BANDS)
    ]
    return np.array(levels) - np.mean(levels)
