"""Log-mel rows in closed form, windows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.config import AudioConfig
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.media.audio import KNOWN_LEVELS, speech_level
from svp_portrait.svp_models.networks.audio_encoder import (
    feature_windows,
    mel_features,
    mel_rows,
    mel_spectrogram,
    mel_windows,
    mono_samples,
)
from svp_portrait.svp_models.types import Audio

RATE = 16000
LIBROSA = [
    (0, 3, 7.583217),
    (0, 4, 14.02721),
    (0, 5, 9.660213),
    (20, 38, 2.696118),
    (20, 39, 11.11427),
    (20, 40, 6.856493),
    (48, 59, 0.2049494),
    (48, 60, 6.916487),
    (48, 61, 2.264498),
    (97, 77, 0.7119073),
    (97, 78, 4.021516),
    (97, 79, 0.03571163),
]


def click(seconds: float, at: float, rate: int = RATE) -> Audio:
    wave = torch.zeros(1, round(seconds * rate))
    wave[0, round(at * rate)] = 1.0
    return Audio(wave, rate)


def test_silence_is_the_floor_everywhere():
    rows = mel_features(Audio(torch.zeros(2, RATE), RATE), 25, 25.0)
    assert rows.shape == (25, 1920) and rows.dtype == torch.float32
    torch.testing.assert_close(rows, torch.full((25, 1920), (math.log10(1e-5) + 4) / 4))


@pytest.mark.parametrize("fps", [25.0, 30.0, 12.5])
def test_a_click_lands_in_the_rows_around_its_time(fps):
    at, frames = 0.5025, round(fps)
    rows = mel_features(click(1.0, at), frames, fps).view(frames, 24, 80).mean(-1)  # frames 24
    for frame in range(frames):
        centre = (frame + 0.5) / fps
        offset = (at - centre) / 0.01 + 11.5  # place of the click among the 24 rows
        loudest = int(rows[frame].argmax())
        if 1 < offset < 22:
            assert abs(loudest - offset) <= 1.6
        elif not -1.5 < offset < 24.5:
            assert float(rows[frame].max()) == float(rows[frame].min())  # the floor: the click is out of sight


def test_the_window_is_centred_at_25_fps():
    # The click at a frame's centre lies between rows 11 and 12.
    rows = mel_features(click(1.0, 10.5 / 25), 25, 25.0)[10].view(24, 80).mean(-1)
    torch.testing.assert_close(rows, rows.flip(0), atol=1e-2, rtol=0)


def test_rows_do_not_depend_on_the_rest_of_the_clip():
    torch.manual_seed(0)
    wave = torch.randn(1, 2 * RATE) * 0.1
    louder = torch.cat([wave, torch.randn(1, RATE) * 0.15], dim=1)  # both of a level that stays
    alone, longer = mel_features(Audio(wave, RATE), 40, 25.0), mel_features(Audio(louder, RATE), 75, 25.0)
    torch.testing.assert_close(alone, longer[:40])
    shifted = mel_features(Audio(wave[:, 10 * 640 :], RATE), 40, 25.0)
    torch.testing.assert_close(shifted[5:30], alone[15:40])


def test_a_tone_lights_its_band_at_any_sample_rate():
    for rate in (16000, 44100, 22050):
        time = torch.arange(rate) / rate
        rows = mel_features(Audio(torch.sin(2 * math.pi * 1000 * time)[None] * 0.5, rate), 25, 25.0).view(25, 24, 80)
        assert set(rows[8:17].mean(1).argmax(-1).tolist()) <= {25, 26, 27}  # 1 kHz = mel 15 of 45.2, 80 bands


def chirp() -> np.ndarray:
    """1 s that rises from 100 Hz to 7.5 kHz."""
    time = np.arange(RATE) / RATE
    return (0.3 * np.sin(2 * np.pi * (100 * time + 3700 * time**2))).astype(np.float32)


def test_the_spectrogram_is_librosas():
    """LIBROSA: some of its numbers for this sound, as librosa 0.11 gives them (row, band, power)."""
    found = mel_spectrogram(chirp())
    assert found.shape == (98, 80) and found.dtype == np.float32
    for row, band, power in LIBROSA:
        assert found[row, band] == pytest.approx(power, rel=2e-5), (row, band)


def test_the_spectrogram_is_librosas_everywhere():
    librosa = pytest.importorskip("librosa")
    options = {"sr": RATE, "n_fft": 400, "hop_length": 160, "n_mels": 80, "fmax": RATE / 2, "center": False}
    noise = np.random.default_rng(0).normal(size=RATE).astype(np.float32) * 0.1
    for sound in (chirp(), noise):
        theirs = librosa.feature.melspectrogram(y=sound, **options).T
        difference = np.log10(np.maximum(mel_spectrogram(sound), 1e-5)) - np.log10(np.maximum(theirs, 1e-5))
        assert np.abs(difference / 4).max() < 1e-6, "on the scale of the features"


def voice() -> torch.Tensor:
    """2 s of syllables with pauses, 1 x samples, at the level of the speech that the networks know."""
    time = torch.arange(2 * RATE) / RATE
    buzz = sum((2 * math.pi * 120 * k * time).sin() / k for k in range(1, 30))
    beat = (2 * math.pi * 2 * time).sin().clamp(min=0)
    wave = (buzz * beat)[None]
    return wave * (0.09 / speech_level(wave[0].numpy()))


@pytest.mark.parametrize("change", [
    lambda wave: wave * 0.089,  # peak 21 dB lower
    lambda wave: wave * 0.025,
    lambda wave: wave * 3,
    lambda wave: torch.cat([wave, -wave]),
    lambda wave: torch.cat([wave, torch.zeros_like(wave)]),
    lambda wave: torch.cat([torch.zeros_like(wave), 0.1 * wave]),
    lambda wave: torch.cat([wave, wave]) * 0.05,
], ids=["quiet", "very quiet", "loud", "cancelling", "left only", "right only, quiet", "stereo, quiet"])  # fmt: skip
def test_a_voice_of_any_level_and_channels_is_heard_alike(change):
    as_it_is = mel_rows(voice()[0].numpy(), 0, 50, 25.0)
    changed = mel_rows(mono_samples(Audio(change(voice()), RATE)), 0, 50, 25.0)
    assert (changed - as_it_is).abs().max() < 0.012, "a factor of 0.0875 / 0.09 is 0.006 of the scale"


def test_a_voice_at_the_level_of_the_training_stays():
    for waveform in (voice(), torch.cat([voice(), voice()])):
        assert np.array_equal(mono_samples(Audio(waveform, RATE)), voice()[0].numpy())
    soft = voice() * 0.55  # a sad one: soft where styles are read, clear where lips are moved
    assert np.array_equal(mono_samples(Audio(soft, RATE), KNOWN_LEVELS), soft[0].numpy())
    assert speech_level(mono_samples(Audio(soft, RATE))) == pytest.approx(0.0875, rel=1e-3)


@pytest.mark.parametrize("frames", [1, 2, 60])
def test_shorter_and_longer_than_the_audio(frames):
    """The rows of a frame do not depend on the number of frames, and after the audio there is silence."""
    rows, ten = mel_features(click(0.4, 0.01), frames, 25.0), mel_features(click(0.4, 0.01), 10, 25.0)
    torch.testing.assert_close(rows[:10], ten[:frames], rtol=0, atol=0)
    assert float(rows[0].max()) > 0 and rows[10:].unique().tolist() in ([], [rows.min().item()])


@pytest.mark.parametrize(("fps", "step", "window"), [(25.0, 1, 3), (29.97, 1, 5), (30.0, 2, 10)])
def test_a_piece_of_the_windows_is_that_of_all(fps, step, window):
    audio = Audio(torch.randn(2, 3 * 22050, generator=torch.Generator().manual_seed(0)) * 0.1, 22050)
    config, frames = AudioConfig(rows_per_frame=step, window=window), round(2.5 * fps)
    whole = feature_windows(mel_features(audio, frames * step, fps * step), config, frames)
    samples = mono_samples(audio)
    for start, stop in ((0, 1), (0, 32), (7, 9), (frames - 1, frames), (0, frames)):
        piece = mel_windows(samples, config, frames, fps, start, stop)
        torch.testing.assert_close(piece, whole[start:stop], rtol=0, atol=1e-5)


def test_windows_are_centred_and_zero_outside():
    features = torch.arange(1.0, 5.0)[:, None]  # 4 rows
    windows = feature_windows(features, AudioConfig(window=3), 4)[..., 0]
    assert windows.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0]]
    features = torch.arange(1.0, 7.0)[:, None]  # V-Express: two rows a frame, window 10 from 2i - 4 on
    windows = feature_windows(features, AudioConfig(window=10, rows_per_frame=2), 3)[..., 0]
    assert windows[0].tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6] and windows[2].tolist() == [
        1,
        2,
        3,
        4,
        5,
        6,
        0,
        0,
        0,
        0,
    ]
    with pytest.raises(PortraitError, match="6 rows of audio features for 4 frames"):
        feature_windows(features, AudioConfig(window=3), 4)
