"""Emotion Style: priors by name for the built-in model, and what is said of models without a bank."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.nodes.loaders import SVPLoadModel
from svp_portrait.nodes.style_emotion import SVPEmotion
from svp_portrait.svp_models.checkpoints.emotion_bank import save_emotion_bank
from svp_portrait.svp_models.checkpoints.model_file import DEMO_NAME
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.emotion_bank import EmotionBank, EmotionBankConfig


@pytest.fixture(scope="module")
def built_in():
    return SVPLoadModel.execute(DEMO_NAME).args[0]


def style(model, emotion: str = "happy", strength: float = 1.0, second: str = "neutral", share: float = 0.0):
    return SVPEmotion.execute(model, emotion, strength, second, share).args[0]


def test_the_built_in_model_has_emotions_by_name(built_in, folders):
    happy, sad = style(built_in), style(built_in, "sad")
    assert happy.style_space == built_in.portrait.style_space and happy.label == "happy at 1"
    assert happy.mu.shape == (128,) and float(happy.sigma.min()) > 0
    assert float((happy.mu - sad.mu).norm()) > 10 * float(happy.sigma.norm())
    assert torch.equal(style(built_in, "happy", 0.0).mu, style(built_in, "neutral").mu)


def test_a_mixture_lies_between_its_emotions(built_in, folders):
    happy, surprised = style(built_in), style(built_in, "surprised")
    mixed = style(built_in, "happy", 1.0, "surprised", 0.25)
    torch.testing.assert_close(mixed.mu, 0.75 * happy.mu + 0.25 * surprised.mu)
    assert torch.equal(style(built_in, "happy", 1.0, "surprised", 1.0).mu, surprised.mu)
    torch.testing.assert_close(style(built_in, "happy", 1.0, "happy", 0.4).mu, happy.mu)
    assert mixed.label == "happy 0.75, surprised 0.25 at 1"


def test_strength_leads_away_from_neutral(built_in, folders):
    for emotion in ("angry", "happy", "sad"):
        rest = style(built_in, emotion, 0.0).mu
        away = [float((style(built_in, emotion, value).mu - rest).norm()) for value in (0.25, 0.5, 0.75, 1, 1.25, 1.5)]
        assert away == sorted(away) and away[0] > 0


def test_a_bank_in_the_models_folder_is_found_by_its_style_space(folders):
    tiny = SVPLoadModel.execute("tiny.safetensors").args[0]
    with pytest.raises(PortraitError, match="model 'tiny' has no emotion bank: train one with svp train emotion-bank"):
        style(tiny)
    before = SVPEmotion.fingerprint_inputs()
    torch.manual_seed(0)
    bank = EmotionBank(EmotionBankConfig(("neutral", "happy"), 16, 4, 8))
    bank.start(torch.randn(30, 16), torch.Generator().manual_seed(0))
    path = folders / "output" / "svp_emotions" / "own.safetensors"
    path.parent.mkdir(parents=True)
    save_emotion_bank(path, bank, tiny.portrait.style_space, {})
    assert style(tiny).mu.shape == (16,) and SVPEmotion.fingerprint_inputs() > before
    with pytest.raises(PortraitError, match="has no emotion 'sad': choose one of neutral, happy"):
        style(tiny, "sad")
