"""Synchrony of lips and voice: SyncNet's features, distances, offset and confidence; and a measure without any weights.

An offset or lag is in frames, positive where the picture is late: the sound comes first.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import PortraitError
from ...networks.syncnet import AUDIO_ROWS, FRAMES, SyncNet
from ...optional_deps import fft, ndimage
from .series import lagged_correlation

SAMPLE_RATE, FPS = 16000, 25.0
ROWS_PER_FRAME = 4  # of MFCC, 100 Hz
SHIFT = 15  # frames that audio and picture are moved against each other in either direction
SYLLABLES = 0.6  # seconds: slower changes of mouth and voice are not compared
BATCH = 16  # windows that SyncNet reads at once
FULL_SCALE = 32767  # of 16-bit audio, as which SyncNet's MFCC are computed

# MFCC as in python_speech_features, with its defaults.
WINDOW, STEP, POINTS = 400, 160, 512  # samples, samples, of the transform
FILTERS, COEFFICIENTS, LIFTER = 26, 13, 22
PREEMPHASIS = 0.97


def mfcc(samples: NDArray[np.floating]) -> NDArray[np.float64]:
    """Mel-frequency cepstral coefficients of 16 kHz samples (in 16-bit units): rows of 10 ms x 13, the first the log energy.

    Windows of 25 ms without tapering, 26 filters up to 8 kHz, sinusoidal liftering of 22: python_speech_features' defaults.
    """
    values = np.asarray(samples, np.float64)
    count = 1 if len(values) <= WINDOW else 1 + -(-(len(values) - WINDOW) // STEP)
    emphasised = np.append(values[:1], values[1:] - PREEMPHASIS * values[:-1])
    padded = np.zeros((count - 1) * STEP + WINDOW)
    padded[: len(values)] = emphasised[: len(padded)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::STEP]
    power = np.square(np.abs(np.fft.rfft(windows, POINTS))) / POINTS  # rows 257
    smallest = np.finfo(float).eps
    energy, filtered = (np.where(values == 0, smallest, values) for values in (power.sum(1), power @ mel_filters().T))
    cepstrum = fft.dct(np.log(filtered), type=2, axis=1, norm="ortho")[:, :COEFFICIENTS]
    cepstrum *= 1 + LIFTER / 2 * np.sin(np.pi * np.arange(COEFFICIENTS) / LIFTER)
    cepstrum[:, 0] = np.log(energy)
    return cepstrum


def mel_filters() -> NDArray[np.float64]:
    """Triangular filters on bins of the transform, evenly spaced on the mel scale up to half the sample rate: 26 x 257."""
    highest = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, highest, FILTERS + 2) / 2595) - 1)
    bins = np.floor((POINTS + 1) * edges / SAMPLE_RATE)
    index = np.arange(POINTS // 2 + 1)
    filters = np.zeros((FILTERS, len(index)))
    for row, (low, middle, high) in enumerate(zip(bins[:-2], bins[1:-1], bins[2:], strict=True)):
        rising, falling = (index >= low) & (index < middle), (index >= middle) & (index < high)
        filters[row, rising] = (index[rising] - low) / (middle - low)
        filters[row, falling] = (high - index[falling]) / (high - middle)
    return filters


def syncnet_features(network: SyncNet, faces: Tensor, samples: NDArray[np.floating]) -> tuple[Tensor, Tensor]:
    """Embeddings of all windows of 5 frames and of the sound that belongs to them: n x 1024 twice.

    faces: f 3 224 224, RGB in 0 .. 255, uint8 or float, at 25 fps; samples: 16 kHz mono in [-1, 1], sample 0 with frame 0.
    """
    seconds = len(samples) / SAMPLE_RATE
    count = min(len(faces), int(seconds * FPS + 1e-6)) - FRAMES
    if count < 1:
        raise PortraitError(
            f"{len(faces)} frames with {seconds:.2f} s of sound are too short for SyncNet: at least {FRAMES + 1} frames of 25 a "
            "second are needed"
        )
    rows = torch.from_numpy(mfcc(np.clip(samples, -1, 1) * FULL_SCALE)).float()
    sound = torch.stack([rows[ROWS_PER_FRAME * i : ROWS_PER_FRAME * i + AUDIO_ROWS].T for i in range(count)])[:, None]

    @torch.no_grad()
    def seen(first: Tensor) -> Tensor:
        windows = torch.stack(
            [faces[i : i + FRAMES].flip(1).movedim(0, 1) for i in first.tolist()]
        )  # b 3 5 224 224, BGR
        return network.embed_lips(windows.float())

    @torch.no_grad()
    def heard(windows: Tensor) -> Tensor:
        return network.embed_audio(windows)

    lips = torch.cat([seen(part) for part in torch.arange(count).split(BATCH)])
    return lips, torch.cat([heard(part) for part in sound.split(BATCH)])


def sync_distances(lips: Tensor, audio: Tensor, shift: int = SHIFT) -> Tensor:
    """Mean distance of the embeddings (n x d) at every shift of the audio: 2 shift + 1 values, index `shift` is none.

    Beyond its ends the audio's embeddings are zeros, as in the published procedure.
    """
    padded = torch.nn.functional.pad(audio, (0, 0, shift, shift))
    steps = range(2 * shift + 1)
    return torch.stack([torch.nn.functional.pairwise_distance(lips, padded[i : i + len(lips)]).mean() for i in steps])


def offset_and_confidence(distances: Tensor) -> tuple[int, float]:
    """SyncNet's AV offset in frames of 1/25 s and its confidence (LSE-C) from `sync_distances`.

    The offset is `shift` minus the index of the smallest distance; the confidence, the median distance minus the smallest.
    Source: Chung and Zisserman 2016 and their published procedure.
    """
    smallest, index = distances.min(0)
    return (len(distances) - 1) // 2 - int(index), float(distances.median() - smallest)


def speech_energy(
    samples: NDArray[np.floating], frames: int, fps: float, rate: int = SAMPLE_RATE
) -> NDArray[np.float64]:
    """Root mean square of the sound around the middle of every frame, over two frames under a Hann window: frames values.

    samples: mono, at `rate` Hz, sample 0 with the beginning of frame 0; silence beyond their end.
    """
    reach = round(rate / fps)
    window = np.hanning(2 * reach + 1)
    padded = np.zeros(max(len(samples), round(frames * rate / fps)) + 3 * reach)
    padded[reach : reach + len(samples)] = samples
    middles = np.rint((np.arange(frames) + 0.5) * rate / fps).astype(int)  # of `samples`: `padded` is one reach longer
    chunks = np.stack([padded[at : at + 2 * reach + 1] for at in middles])
    return np.sqrt((np.square(chunks) * window).sum(1) / window.sum())


def lip_sync(
    drop: NDArray[np.floating], energy: NDArray[np.floating], fps: float = FPS, reach: int = SHIFT
) -> tuple[int, float]:
    """Synchrony without weights: the lag (frames, positive: the mouth is late) at which the mouth goes best with the energy of the
    voice, and their correlation there.

    drop: `landmarks.lower_lip_drop`; energy: `speech_energy`; both one value a frame. What changes over more than 0.6 s (smiles,
    loud sentences) is removed from both first. Lags up to `reach` are tried. On filmed talking heads with their own sound the
    lag is 0 or 1, the correlation 0.2 to 0.6.
    """
    width = max(3, round(SYLLABLES * fps)) | 1
    quick = [
        values - ndimage.uniform_filter1d(np.asarray(values, np.float64), width, mode="nearest")
        for values in (drop, energy)
    ]
    curve = lagged_correlation(quick[0], quick[1], reach)
    best = int(np.argmax(curve))
    return best - reach, float(curve[best])
