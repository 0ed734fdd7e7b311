"""Audio -> one row of 1920 log-mel features per video frame, and the windows of rows around the frames."""

from __future__ import annotations

import librosa
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..config import AudioConfig
from ..errors import PortraitError
from ..values import Audio

SAMPLE_RATE = 16000
HOP = 160  # 10 ms
MEL_WINDOW = 400  # 25 ms
MEL_BANDS = 80
MEL_ROWS = 24  # 240 ms around a frame
MEL_FLOOR = 1e-5


def mel_features(audio: Audio, frames: int, fps: float) -> Tensor:
    """frames x 1920 float32: 24 log-mel rows x 80 bands, 10 ms apart, around each frame's centre (i + 0.5) / fps.

    The scale is fixed, about [-0.25, 1.4], so that a clip's rows do not depend on what else the clip holds. Row j of the
    spectrogram is centred on (j + 0.5) x 10 ms; before and after the audio there is silence.
    """
    samples = _samples(audio)
    first = (
        np.rint((np.arange(frames) + 0.5) / fps * SAMPLE_RATE / HOP).astype(int) - MEL_ROWS // 2
    )  # row its window starts at
    before = MEL_ROWS // 2  # rows of silence in front: the first window starts at most half its length early
    rows = int(first[-1]) + MEL_ROWS + before
    lead = before * HOP + (MEL_WINDOW - HOP) // 2  # centres an analysis window on its hop
    padded = np.zeros(rows * HOP + MEL_WINDOW, dtype=np.float32)
    kept = samples[: len(padded) - lead]
    padded[lead : lead + len(kept)] = kept
    mel = librosa.feature.melspectrogram(
        y=padded, sr=SAMPLE_RATE, n_fft=MEL_WINDOW, hop_length=HOP, n_mels=MEL_BANDS, fmax=SAMPLE_RATE / 2, center=False
    )  # bands rows
    scaled = (np.log10(np.maximum(mel.T, MEL_FLOOR)) + 4) / 4  # rows bands
    picked = (first + before)[:, None] + np.arange(MEL_ROWS)  # frames 24
    return torch.from_numpy(scaled[picked].reshape(frames, -1).astype(np.float32))


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


def _samples(audio: Audio) -> np.ndarray:
    """Mono at 16 kHz, float32."""
    mono = audio.waveform.float().mean(dim=0).numpy()
    if audio.sample_rate == SAMPLE_RATE:
        return mono
    return librosa.resample(mono, orig_sr=audio.sample_rate, target_sr=SAMPLE_RATE, res_type="soxr_hq")
