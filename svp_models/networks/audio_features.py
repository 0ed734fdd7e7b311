"""Audio -> one row of 1920 log-mel features per video frame, and the windows of rows around the frames."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..config import AudioConfig
from ..errors import PortraitError
from ..media.audio import to_mono
from ..media.voice import CLEAR, KNOWN, levelled, one_channel
from ..values import Audio

SAMPLE_RATE = 16000
HOP = 160  # 10 ms
MEL_WINDOW = 400  # 25 ms
MEL_BANDS = 80
MEL_ROWS = 24  # 240 ms around a frame
MEL_FLOOR = 1e-5
ROWS_AT_ONCE = 4096  # of a spectrogram, 40 s


def mel_features(audio: Audio, frames: int, fps: float) -> Tensor:
    """frames x 1920 float32: 24 log-mel rows x 80 bands, 10 ms apart, around each frame's centre (i + 0.5) / fps.

    The scale is fixed, about [-0.25, 1.4], so that a clip's rows do not depend on what else the clip holds. Row j of the
    spectrogram is centred on (j + 0.5) x 10 ms; before and after the audio there is silence. Soft and loud voices stay so as
    far as speech goes: from these features styles are read.
    """
    return mel_rows(mono_samples(audio, KNOWN), 0, frames, fps)


def mel_spectrogram(samples: np.ndarray) -> np.ndarray:
    """Power of mono sound at 16 kHz in the mel bands, rows bands float32: rows HOP apart, the first from sample 0 on.

    The numbers are those of librosa's `feature.melspectrogram(center=False)`, which the models learned from.
    """
    windows = np.lib.stride_tricks.sliding_window_view(samples, MEL_WINDOW)[::HOP]  # rows 400, not in memory
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(MEL_WINDOW) / MEL_WINDOW)
    rows = [
        np.abs(np.fft.rfft(windows[start : start + ROWS_AT_ONCE] * hann)) ** 2 @ _mel_bands().T
        for start in range(0, len(windows), ROWS_AT_ONCE)
    ]
    return np.concatenate(rows).astype(np.float32)


@lru_cache(maxsize=1)
def _mel_bands() -> np.ndarray:
    """Triangles over the 201 frequencies of a window, each of area 1: bands 201. Slaney's mel scale: 15 mel up to 1 kHz,
    evenly; from there 27 mel for a factor of 6.4."""
    top = 15 + 27 * np.log(SAMPLE_RATE / 2 / 1000) / np.log(6.4)
    mel = np.linspace(0, top, MEL_BANDS + 2)
    corners = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))[:, None]  # Hz
    frequencies = np.linspace(0, SAMPLE_RATE / 2, MEL_WINDOW // 2 + 1)
    rising = (frequencies - corners[:-2]) / (corners[1:-1] - corners[:-2])
    falling = (corners[2:] - frequencies) / (corners[2:] - corners[1:-1])
    return (np.maximum(0, np.minimum(rising, falling)) * 2 / (corners[2:] - corners[:-2])).astype(np.float32)


def mel_rows(samples: np.ndarray, start: int, stop: int, fps: float) -> Tensor:
    """`mel_features` of the frames from `start` to before `stop` alone, (stop - start) x 1920. samples: mono at 16 kHz."""
    centres = (np.arange(start, stop) + 0.5) / fps * SAMPLE_RATE / HOP
    first = np.rint(centres).astype(int) - MEL_ROWS // 2  # row that a frame's window starts at
    rows = int(first[-1] - first[0]) + MEL_ROWS
    # The sample that the first row's analysis window starts at: it is centred on its hop. Negative before the sound.
    at = int(first[0]) * HOP - (MEL_WINDOW - HOP) // 2
    padded = np.zeros(rows * HOP + MEL_WINDOW, dtype=np.float32)
    kept = samples[max(at, 0) : max(at + len(padded), 0)]
    padded[max(-at, 0) : max(-at, 0) + len(kept)] = kept
    scaled = (np.log10(np.maximum(mel_spectrogram(padded), MEL_FLOOR)) + 4) / 4  # rows bands
    picked = (first - first[0])[:, None] + np.arange(MEL_ROWS)  # frames 24
    return torch.from_numpy(scaled[picked].reshape(stop - start, -1).astype(np.float32))


def mel_windows(samples: np.ndarray, config: AudioConfig, frames: int, fps: float, start: int, stop: int) -> Tensor:
    """`feature_windows` of the mel features of a clip of `frames` frames, those from `start` to before `stop` alone."""
    step, before = config.rows_per_frame, (config.window - config.rows_per_frame) // 2
    first, last = start * step - before, (stop - 1) * step - before + config.window
    rows = mel_rows(samples, max(first, 0), min(last, frames * step), fps * step)
    padded = functional.pad(rows, (0, 0, max(-first, 0), max(last - frames * step, 0)))
    return padded.unfold(0, config.window, step).transpose(1, 2)  # n window F


def feature_windows(features: Tensor, config: AudioConfig, frames: int) -> Tensor:
    """(frames * rows_per_frame) x F -> frames x window x F centred on each frame; rows outside the clip are zero."""
    step, window = config.rows_per_frame, config.window
    if len(features) != frames * step:
        raise PortraitError(
            f"{len(features)} rows of audio features for {frames} frames at {step} rows a frame, "
            f"{frames * step} are needed: extract the features for the same clip length"
        )
    before = (window - step) // 2
    padded = functional.pad(features, (0, 0, before, window - step - before))
    return padded.unfold(0, window, step).transpose(1, 2)  # frames window F


def mono_samples(audio: Audio, unchanged: tuple[float, float] = CLEAR) -> np.ndarray:
    """The voice as the networks listen to it, mono at 16 kHz, float32. unchanged: levels that stay, see `media.voice`."""
    mono = Audio(one_channel(audio.waveform)[None], audio.sample_rate)
    return levelled(to_mono(mono, SAMPLE_RATE).numpy(), unchanged)
