from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.synthetic.speakers import DEEP_VARIANTS, HIGH_VARIANTS, TRAIN_SPEAKERS, speaker
from svp_portrait.svp_models.synthetic.speech import synthesize


def test_a_speaker_is_always_the_same():
    first, again = speaker(7, "train"), speaker(7, "train")
    np.testing.assert_array_equal(first.identity, again.identity)
    np.testing.assert_array_equal(first.habits.rest, again.habits.rest)
    assert first.voice == again.voice and first.habits.viseme_strength == again.habits.viseme_strength


def test_speakers_differ_within_and_between_splits():
    people = [speaker(index, split) for split in ("train", "test") for index in range(24)]
    identities = np.stack([each.identity for each in people])
    assert identities.shape == (48, 80) and identities.dtype == np.float32
    distance = np.linalg.norm(identities[:, None] - identities[None], axis=-1)
    assert distance[~np.eye(48, dtype=bool)].min() > 1
    assert len({each.voice for each in people}) == 48
    assert TRAIN_SPEAKERS >= 24


def test_splits_share_no_voice_variant():
    for variants in (DEEP_VARIANTS, HIGH_VARIANTS):
        assert not set(variants["train"]) & set(variants["test"])


def test_every_variant_speaks():
    plain = speaker(0, "train").voice
    for variants in (DEEP_VARIANTS, HIGH_VARIANTS):
        for variant in variants["train"] + variants["test"]:
            said = synthesize("My boat.", type(plain)(variant=f"en-us+{variant}"))
            assert 0.3 < said.seconds < 2 and 0.02 < np.std(said.waveform) < 0.3


def test_habits_stay_in_range_and_keep_the_resting_mouth_shut():
    for index in range(30):
        habits = speaker(index, "test").habits
        assert 0.7 <= habits.viseme_strength <= 1.2 and abs(habits.asymmetry) <= 0.22
        assert habits.rest.shape == habits.emotion_gain.shape == (64,)
        assert habits.rest[0] == 0 and np.abs(habits.rest).max() <= 0.35
        assert habits.emotion_gain.min() >= 0.7 and habits.emotion_gain.max() <= 1.3


def test_unknown_split_is_an_error():
    with pytest.raises(ValueError, match="'valid'"):
        speaker(0, "valid")
