from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.motion.coefficients import EXPRESSION_NAMES
from svp_portrait.svp_models.motion.emotions import EMOTION_NAMES, emotion_style
from svp_portrait.svp_models.motion.style import TransferWeights, apply_style
from svp_portrait.svp_models.synthetic.clips import act, states_to_motion
from svp_portrait.svp_models.synthetic.motion_style import SPEECH_COLUMNS, emotion_parts
from svp_portrait.svp_models.synthetic.performance import EMOTIONS, classify_emotion, emotion_direction
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import SVP


def test_the_names_are_those_of_the_speakers():
    assert EMOTION_NAMES == EMOTIONS
    assert {EXPRESSION_NAMES[column] for column in SPEECH_COLUMNS} >= {"jaw_open", "lips_press", "tongue_up"}


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_parts_add_up_to_the_direction(emotion):
    assert np.allclose(emotion_parts(emotion).parts.sum(0), emotion_direction(emotion))


def test_named_emotions_are_recognised_and_strength_is_how_strong():
    spoken = states_to_motion(act(speaker(3, "test"), "neutral", 3, 1, 50, 25.0)[2], 25.0)

    def moved(text: str, strength: float = 1.0, weight: float = 1.0):
        style = emotion_style(text, strength, SVP, emotion_parts)
        return apply_style(spoken, style, SPEECH_COLUMNS, TransferWeights(weight=weight)).expression

    for emotion in EMOTIONS:
        assert classify_emotion(moved(emotion).numpy())[0] == emotion
    assert torch.allclose(moved("sad", 0.5), (moved("sad") + spoken.expression) / 2, atol=1e-6)
    assert torch.allclose(moved("sad", 0.5), moved("sad", weight=0.5), atol=1e-6)
    mixed = moved("happy 0.7, surprised 0.3").mean(0) - spoken.expression.mean(0)
    wanted = 0.7 * emotion_direction("happy") + 0.3 * emotion_direction("surprised")
    assert np.allclose(mixed, wanted, atol=1e-5)
