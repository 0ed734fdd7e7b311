"""Features and distances against syncnet_python and python_speech_features, and shifts that were put in on purpose."""

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation.metrics.sync import (
    lip_sync,
    mfcc,
    offset_and_confidence,
    speech_energy,
    sync_distances,
    syncnet_features,
)


def test_audio_features_are_those_of_python_speech_features(evaluation_io):
    noise = np.random.RandomState(3).randint(-8000, 8000, 8000) * np.linspace(0, 1, 8000)
    assert mfcc(noise.astype(np.int16)) == pytest.approx(evaluation_io["mfcc"], abs=1e-3)
    assert np.isfinite(mfcc(np.zeros(1000))).all()


def pair():
    random = np.random.RandomState(4)
    lips, audio = (torch.from_numpy(random.randn(40, 8)).float() for _ in range(2))
    audio[:-3] += 2 * lips[3:]
    return lips, audio


def test_distances_are_those_of_syncnet_python(evaluation_io):
    assert sync_distances(*pair()).numpy() == pytest.approx(evaluation_io["sync_distances"], rel=1e-5)


def test_offset_and_confidence_of_a_constructed_shift():
    offset, confidence = offset_and_confidence(sync_distances(*pair()))
    assert offset == 3
    assert confidence == pytest.approx(2.0811515, rel=1e-4)


@pytest.mark.parametrize("shift", [-7, 0, 12])
def test_a_shift_of_the_embeddings_is_found(shift):
    features = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
    lips, audio = features[20:40], features[20 + shift : 40 + shift]
    assert offset_and_confidence(sync_distances(lips, audio))[0] == shift


class Echo(torch.nn.Module):
    """Stands for SyncNet: lips are embedded by the brightness of their frames, sound by its loudness."""

    def embed_lips(self, windows):
        return windows.mean((1, 3, 4)) / 255  # b 5

    def embed_audio(self, windows):
        return (windows[:, 0, 0].unflatten(1, (5, 4)).mean(2) > 10).float()  # b 5


@pytest.mark.parametrize("late", [-5, 0, 5])
def test_pictures_that_come_late_have_a_positive_offset(late):
    rng = np.random.default_rng(0)
    loud = rng.integers(0, 2, 60)
    samples = np.repeat(loud, 640) * rng.normal(0, 0.2, 60 * 640)
    faces = torch.from_numpy(np.roll(loud, late).astype(np.uint8) * 255)[:, None, None, None].expand(-1, 3, 8, 8)
    offset, confidence = offset_and_confidence(sync_distances(*syncnet_features(Echo(), faces, samples)))
    assert offset == late
    assert confidence > 0.5


def test_windows_are_as_many_as_pictures_and_sound_allow():
    lips, audio = syncnet_features(Echo(), torch.zeros(30, 3, 8, 8), np.zeros(20 * 640))
    assert (
        lips.shape == audio.shape == (15, 5)
    )  # of 20 frames with sound, the published procedure leaves out the last five
    with pytest.raises(PortraitError, match="5 frames with 0.80 s of sound are too short"):
        syncnet_features(Echo(), torch.zeros(5, 3, 8, 8), np.zeros(20 * 640))


def test_energy_of_a_tone_is_that_of_its_frame():
    """A sine of amplitude 0.4 has a root mean square of 0.4 / sqrt(2)."""
    samples = np.zeros(16000)
    samples[6400:9600] = 0.4 * np.sin(2 * np.pi * 400 * np.arange(3200) / 16000)
    energy = speech_energy(samples, 25, 25.0)
    assert energy[[0, 5, 20]].tolist() == [0, 0, 0]
    assert energy[[11, 12]] == pytest.approx([0.4 / np.sqrt(2)] * 2, rel=1e-3)
    assert speech_energy(samples, 40, 25.0)[30:].tolist() == [0] * 10  # beyond the sound


@pytest.mark.parametrize("late", [-5, 0, 4])
def test_the_lag_of_a_mouth_is_found_without_weights(late):
    energy = np.convolve(np.random.default_rng(1).random(100), np.ones(3), "same")
    lag, value = lip_sync(np.roll(energy, late), energy)
    assert lag == late and value > 0.99  # at the ends what is slow is not quite the same
