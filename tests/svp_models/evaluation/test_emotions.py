"""Emotions by name and by strangers' styles, with an evaluator that shows what it is asked for."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.evaluation.emotions import NO_BANK, STRENGTHS, EmotionStudy
from svp_portrait.svp_models.networks.emotion_bank import EmotionBank, EmotionBankConfig
from svp_portrait.svp_models.synthetic.performance import EMOTIONS, emotion_amount, emotion_direction
from svp_portrait.svp_models.types import StylePrior


class Direct(EmotionBank):
    """A style is its own expression: the emotion's direction times strength."""

    def __init__(self) -> None:
        super().__init__(EmotionBankConfig(EMOTIONS, 64, 2, 2))

    def forward(self, emotion, strength):
        directions = torch.from_numpy(np.stack([emotion_direction(EMOTIONS[index]) for index in emotion.tolist()]))
        return strength[:, None] * directions.float(), torch.zeros(len(emotion), 64)


class Plain:
    """Stands for the evaluator: a clip is an emotion, frames are expressions; strangers' styles are always happy."""

    def __init__(self) -> None:
        self.model, self.generated = SimpleNamespace(style_space="space"), 0

    def make(self, who, emotion, seed, seconds, fps):
        return emotion

    def prior_of(self, clip):
        return StylePrior(torch.from_numpy(emotion_direction("happy")).float(), torch.zeros(64), "space", "")

    def generate(self, portrait, clip, audio, style, frames, seed):
        self.generated += 1
        return style.codes[0].clamp(max=1.0).expand(frames, -1).numpy()

    def expression(self, frames):
        return frames


def case(emotion: str) -> SimpleNamespace:
    clip = SimpleNamespace(emotion=emotion, fps=25.0, images=np.zeros((5, 1, 1, 3)), audio=np.zeros(100, np.float32))
    return SimpleNamespace(clip=clip, style_clip=clip, portrait=None, seed=1)


def test_names_strangers_and_strengths_are_counted():
    evaluator = Plain()
    study = EmotionStudy(evaluator, Direct(), sweeps=3, seed=0)
    for emotion in EMOTIONS:
        study.add(case(emotion), 4, 0)
    figures = study.figures()
    assert figures["label_emotion_acc"] == 1 and figures["stranger_emotion_acc"] == 1 / 8
    assert figures["emotion_confusion"]["stranger"]["sad"] == {name: float(name == "happy") for name in EMOTIONS}
    assert list(figures["strength_amounts"]) == [f"{value:g}" for value in STRENGTHS] and len(STRENGTHS) == 5
    assert figures["strength_amounts"]["0.75"] == pytest.approx(0.75, abs=0.01)
    assert evaluator.generated == study.steps(8) == 8 + 8 + 2 * 5
    titles = [table.caption for table in study.tables()]
    assert titles == ["Emotions by strangers' styles", "Emotions by their names", "Emotions by strength"]


def test_a_strength_that_changes_nothing_is_not_monotone():
    study = EmotionStudy(Plain(), None, 0, 0)
    study.amounts = [("sad", [0.0, 0.1, 0.2, 0.3, 0.4]), ("happy", [0.0, 0.3, 0.3, 0.3, 0.4])]
    figures = study.figures()
    assert figures["strength_monotone"] == 1 and figures["strength_monotone_clips"] == 0.5
    study.amounts.append(("fear", [0.9, 0.1, 0.1, 0.1, 0.1]))
    assert study.figures()["strength_monotone"] == 0


def test_without_a_bank_it_says_so():
    evaluator = Plain()
    study = EmotionStudy(evaluator, None, 8, 0)
    study.add(case("sad"), 4, 0)
    assert study.figures()["missing"] == {"label_emotion_acc": NO_BANK} and "label_emotion_acc" not in study.figures()
    assert evaluator.generated == study.steps(1) == 1


def test_the_amount_of_an_emotion_leaves_speech_out():
    half = 0.5 * emotion_direction("surprised")[None]
    assert emotion_amount(half, "surprised") == pytest.approx(0.5)
    speaking = half.copy()
    speaking[:, 0] += 0.7  # the jaw
    assert emotion_amount(speaking, "surprised") == pytest.approx(0.5)
    assert emotion_amount(half, "neutral") == 0
