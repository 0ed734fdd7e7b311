from __future__ import annotations

import logging

import pytest
import torch

from svp_portrait.svp_models.checkpoints.built_in_motion import MotionModel
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.blinks import find_blinks
from svp_portrait.svp_models.motion.built_in_generator import (
    BuiltInConditions,
    BuiltInGenerator,
    predict_style_prior,
)
from svp_portrait.svp_models.motion.control import MotionControl
from svp_portrait.svp_models.motion.generators import GenerateOptions, generate_motion
from svp_portrait.svp_models.networks.motion_generator import MotionGeneratorConfig, MotionGeneratorNetwork
from svp_portrait.svp_models.networks.style_predictor import StylePredictor, StylePredictorConfig
from svp_portrait.svp_models.types import Audio, Style

OPTIONS = GenerateOptions(seed=1, steps=2)


@pytest.fixture(scope="module")
def generator():
    torch.manual_seed(0)
    config = MotionGeneratorConfig(
        width=16, heads=2, joint_layers=1, condition_width=8, vocabulary=("left", "looks", "nods")
    )
    network = MotionGeneratorNetwork(config).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.1)
    return BuiltInGenerator(MotionModel("space", network))


def voice(seconds=2.0, seed=0):
    samples = 0.1 * torch.randn(1, round(seconds * 16000), generator=torch.Generator().manual_seed(seed))
    return Audio(samples, 16000)


def test_a_voice_becomes_a_motion_of_its_length_and_the_seed_decides(generator):
    motion = generate_motion(generator, voice(), options=OPTIONS)
    assert len(motion) == 50 and motion.space == "svp" and motion.fps == 25
    torch.testing.assert_close(
        generate_motion(generator, voice(), options=OPTIONS).angles, motion.angles, rtol=0, atol=0
    )
    other = generate_motion(generator, voice(), options=GenerateOptions(seed=2, steps=2))
    assert float((other.angles - motion.angles).abs().max()) > 1e-3
    assert len(generate_motion(generator, voice(), 30.0, OPTIONS)) == 60


def test_voice_style_and_words_count(generator):
    plain = generate_motion(generator, voice(), options=OPTIONS).expression
    style = BuiltInConditions(style=Style(torch.ones(1, 128), "space"))
    words = BuiltInConditions(prompt="nods at 0.5 s")
    for motion in (
        generate_motion(generator, voice(seed=3), options=OPTIONS),
        generate_motion(generator.given(style), voice(), options=OPTIONS),
        generate_motion(generator.given(words), voice(), options=OPTIONS),
    ):
        assert float((motion.expression - plain).abs().max()) > 1e-3


def test_a_blink_rate_is_met(generator):
    asked = BuiltInConditions(control=MotionControl(blink_rate=0.5))
    assert len(find_blinks(generate_motion(generator.given(asked), voice(12.0), options=OPTIONS))) == 6


def test_unknown_words_are_warned_of_and_foreign_styles_refused(generator, caplog):
    with caplog.at_level(logging.WARNING):
        generate_motion(generator.given(BuiltInConditions(prompt="dances")), voice(), options=OPTIONS)
    assert "'dances'" in caplog.text
    foreign = BuiltInConditions(style=Style(torch.ones(1, 128), "another"))
    with pytest.raises(PortraitError, match="style space another"):
        generate_motion(generator.given(foreign), voice(), options=OPTIONS)


def test_a_style_is_predicted_from_a_voice_and_the_seed_chooses(generator):
    torch.manual_seed(0)
    predictor = StylePredictor(StylePredictorConfig(inner=16)).eval()
    model = MotionModel("space", generator.model.network, predictor)
    first, again, other = (predict_style_prior(model, voice(), seed) for seed in (0, 0, 1))
    assert first.style_space == "space" and first.mu.shape == (128,) and float(first.sigma.abs().max()) == 0
    torch.testing.assert_close(first.mu, again.mu, rtol=0, atol=0)
    assert float((first.mu - other.mu).abs().max()) > 1e-3
    assert float((predict_style_prior(model, voice(seed=4), 0).mu - first.mu).abs().max()) > 1e-4
    with pytest.raises(PortraitError, match="no style predictor"):
        predict_style_prior(generator.model, voice(), 0)
