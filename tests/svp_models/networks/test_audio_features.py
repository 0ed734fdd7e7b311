"""Log-mel rows in closed form, windows."""

from __future__ import annotations

import math

import pytest
import torch

from svp_portrait.svp_models.config import AudioConfig
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.audio_features import feature_windows, mel_features, mel_windows, mono_samples
from svp_portrait.svp_models.values import Audio

RATE = 16000


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


@pytest.mark.parametrize("frames", [1, 2, 60])
def test_shorter_and_longer_than_the_audio(frames):
    rows = mel_features(click(0.4, 0.01), frames, 25.0)
    assert rows.shape == (frames, 1920) and bool(rows.isfinite().all())


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
