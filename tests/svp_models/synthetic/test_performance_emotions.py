from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.synthetic.performance import (
    EMOTIONS,
    INTENSITIES,
    INTENSITY_SCALE,
    MOTION_STYLES,
    TONES,
    classify_emotion,
    emotion_direction,
)


def test_the_eight_emotions_of_mead_have_direction_manner_and_tone():
    assert EMOTIONS == ("neutral", "angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised")
    assert set(MOTION_STYLES) == set(TONES) == set(EMOTIONS) and set(INTENSITY_SCALE) == set(INTENSITIES)
    assert not emotion_direction("neutral").any()
    with pytest.raises(KeyError):
        emotion_direction("bored")


def test_directions_are_well_apart():
    directions = np.stack([emotion_direction(emotion) for emotion in EMOTIONS[1:]])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    assert (directions @ directions.T - np.eye(7)).max() <= 0.5


@pytest.mark.parametrize("emotion", EMOTIONS)
@pytest.mark.parametrize("intensity", INTENSITIES)
def test_a_pure_direction_is_recognised(emotion, intensity):
    found, scores = classify_emotion(INTENSITY_SCALE[intensity] * emotion_direction(emotion)[None])
    assert found == emotion
    assert scores.shape == (8,) and scores.sum() == pytest.approx(1) and EMOTIONS[scores.argmax()] == emotion


def test_speech_does_not_disturb_recognition():
    rng = np.random.default_rng(0)
    expression = np.tile(0.5 * emotion_direction("sad"), (50, 1)) + rng.normal(0, 0.15, (50, 64))
    expression[:, 0] += rng.uniform(0, 1, 50)  # jaw_open
    assert classify_emotion(expression)[0] == "sad"
