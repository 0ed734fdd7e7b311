from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.motion.blinks import smoothstep
from svp_portrait.svp_models.motion.coefficients import EXPRESSION_INDEX
from svp_portrait.svp_models.synthetic.performance import (
    EMOTIONS,
    INTENSITIES,
    blinks,
    classify_emotion,
    perform,
    smooth,
    waves,
)
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.synthetic.speech import energy_envelope, fit_speech, synthesize

TEXT = "A very big fish on the beach was far too small, so my brother bought five warm waffles."


def states_of(person, emotion, intensity, seed=0, frames=75):
    speech = fit_speech(synthesize(TEXT, person.voice), frames / 25)
    return perform(person, emotion, intensity, speech, frames, 25.0, np.random.default_rng(seed)), speech


def test_shapes_types_and_ranges():
    states, _ = states_of(speaker(0, "train"), "happy", 3)
    assert states.expression.shape == (75, 64) and states.pose.shape == (75, 6)
    assert states.blink.shape == (75, 2) and states.gaze.shape == (75, 2)
    for each in (states.expression, states.pose, states.blink, states.gaze):
        assert each.dtype == np.float32 and np.isfinite(each).all()
    assert states.blink.min() >= 0 and states.blink.max() <= 1 and np.abs(states.gaze).max() <= 1
    assert (np.abs(states.pose[:, :5]) <= (14, 8, 7, 0.04, 0.04)).all() and np.abs(states.pose[:, 5] - 1).max() <= 0.05
    assert (states.expression.std(axis=0) > 0).all()


def test_same_generator_same_performance():
    person = speaker(3, "test")
    first, _ = states_of(person, "fear", 2, seed=5)
    again, _ = states_of(person, "fear", 2, seed=5)
    other, _ = states_of(person, "fear", 2, seed=6)
    np.testing.assert_array_equal(first.expression, again.expression)
    np.testing.assert_array_equal(first.pose, again.pose)
    assert np.abs(first.pose - other.pose).max() > 0.1


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_short_clips_work(frames):
    states, _ = states_of(speaker(0, "train"), "sad", 1, frames=frames)
    assert len(states) == frames and np.isfinite(states.expression).all()


def test_emotions_are_recognised_from_true_coefficients():
    right = total = 0
    for index in range(3):
        person = speaker(index, "test")
        for emotion in EMOTIONS:
            for intensity in INTENSITIES:
                states, _ = states_of(person, emotion, intensity, seed=index)
                right += classify_emotion(states.expression)[0] == emotion
                total += 1
    assert right / total > 0.97


def test_mouth_follows_the_voice_without_delay():
    correlation = np.zeros(5)
    for index in range(4):
        states, speech = states_of(speaker(index, "train"), "neutral", 1, seed=index)
        jaw = states.expression[:, EXPRESSION_INDEX["jaw_open"]]
        energy = energy_envelope(speech.waveform, 75, 25.0)
        for position, lag in enumerate(range(-2, 3)):
            correlation[position] += np.corrcoef(np.roll(jaw, -lag)[3:-3], energy[3:-3])[0, 1] / 4
        assert jaw.max() > 0.5 and jaw.min() < 0.05
    assert correlation.argmax() == 2 and correlation[2] > 0.6


def test_blinks_come_at_their_rate_and_close_fully():
    times = (np.arange(25 * 300) + 0.5) / 25
    closed = blinks(0.4, times, np.random.default_rng(0))
    begins = np.flatnonzero((closed[1:, 0] > 0.5) & (closed[:-1, 0] <= 0.5))
    assert 0.25 < len(begins) / 300 < 0.5
    assert closed.max() > 0.9 and (closed[:, 0] > 0.1).mean() < 0.12


def test_small_functions():
    assert list(smoothstep(np.array([-1.0, 0.0, 0.5, 1.0, 2.0]))) == [0, 0, 0.5, 1, 1]
    assert smooth(np.ones(6), 2) == pytest.approx(np.ones(6))
    noise = waves(np.random.default_rng(0), np.arange(0, 2000, 0.1), 0.1, 0.5)
    assert np.mean(noise**2) == pytest.approx(1, abs=0.1)
