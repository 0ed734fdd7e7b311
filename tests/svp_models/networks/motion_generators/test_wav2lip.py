from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.motion_generators import load_wav2lip
from svp_portrait.svp_models.networks.motion_generators.wav2lip import (
    LIMIT,
    audio_features,
    mel_spectrogram,
    mel_windows,
)


@pytest.fixture(scope="module")
def encoder(generators_original):
    return load_wav2lip(generators_original / "wav2lip.pth")


def test_the_spectrogram_of_kdtalker(kdtalker_audio, close):
    close(mel_spectrogram(kdtalker_audio["waveform_16k"].numpy()), kdtalker_audio["mel"])
    windows = mel_windows(kdtalker_audio["mel"], 0, 25)
    assert torch.equal(windows[kdtalker_audio["mel_windows.frames"]], kdtalker_audio["mel_windows"])


@torch.no_grad()
def test_the_features_of_wav2lip(encoder, kdtalker_audio, close):
    close(encoder(kdtalker_audio["mel_windows"]), kdtalker_audio["audio_features"])
    whole = audio_features(encoder, kdtalker_audio["waveform_16k"].numpy(), 25)
    close(whole[kdtalker_audio["mel_windows.frames"]], kdtalker_audio["audio_features"])


def test_silence_is_the_least_value():
    mel = mel_spectrogram(np.zeros(3200, np.float32))
    assert mel.shape == (17, 80) and bool((mel == -LIMIT).all())


def test_a_tone_is_loud_in_its_band():
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000).astype(np.float32)
    spectrum = mel_spectrogram(tone)[40]
    assert spectrum.argmax() == 25  # 15 mel, on 82 corners from 0.8 to 44.5 mel
    assert spectrum[25] > spectrum[60] + 4


def test_windows_repeat_the_ends_of_the_spectrogram():
    mel = torch.arange(20.0)[:, None].expand(20, 80)
    windows = mel_windows(mel, 0, 6)[:, 0]
    assert windows[0].tolist() == [0] * 7 + list(range(1, 10))  # from row int(-6.4) on
    assert windows[2].tolist() == list(range(16))
    assert windows[5].tolist() == list(range(9, 20)) + [19] * 5
