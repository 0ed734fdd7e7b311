"""The expression of a voice for models that read one: voice, style, weights, styles that change, and styles of other spaces."""

from __future__ import annotations

import logging

import pytest
import torch

from svp_portrait.svp_models.checkpoints.built_in_motion import BUILT_IN_MOTION
from svp_portrait.svp_models.checkpoints.model_file import PORTRAIT_MODEL, load_model
from svp_portrait.svp_models.diffusion.style import extract_style, sample_style
from svp_portrait.svp_models.motion.built_in import STYLE_GUIDANCE
from svp_portrait.svp_models.motion.built_in_generator import open_built_in
from svp_portrait.svp_models.motion.spoken_expression import spoken_expression
from svp_portrait.svp_models.synthetic.clips import act
from svp_portrait.svp_models.synthetic.performance import EMOTIONS, emotion_amount
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import Audio, Style

FRAMES, FPS = 50, 25.0


@pytest.fixture(scope="module")
def generator():
    return open_built_in(BUILT_IN_MOTION)


@pytest.fixture(scope="module")
def audio():
    _, speech, _ = act(speaker(3, "test"), "happy", 2, 8, FRAMES, FPS)
    return Audio(torch.from_numpy(speech.waveform)[None], 16000)


def style_of(generator, seed):
    code = torch.randn(1, 128, generator=torch.Generator().manual_seed(seed))
    return Style(code, generator.model.style_space)


def test_the_seed_decides_and_the_voice_counts(generator, audio):
    track = spoken_expression(generator, audio, None, FRAMES, FPS, seed=1)
    assert track.shape == (FRAMES, 68) and torch.isfinite(track).all()
    assert torch.equal(track, spoken_expression(generator, audio, None, FRAMES, FPS, seed=1))
    assert not torch.equal(track, spoken_expression(generator, audio, None, FRAMES, FPS, seed=2))
    deaf, mute = (
        spoken_expression(generator, given, None, FRAMES, FPS, seed=1, voice_weight=0.0)
        for given in (audio, Audio(audio.waveform.flip(-1), 16000))
    )
    torch.testing.assert_close(deaf, mute, atol=1e-4, rtol=0)
    assert float((deaf - track).abs().max()) > 0.05


def test_a_style_may_change_within_the_clip(generator, audio):
    first, second = style_of(generator, 1), style_of(generator, 2)
    changing = Style(torch.cat([first.codes, first.codes, second.codes, second.codes]), first.style_space)
    tracks = [spoken_expression(generator, audio, style, FRAMES, FPS) for style in (first, second, changing)]
    near = [
        [float((tracks[2] - other)[part].abs().mean()) for other in tracks[:2]] for part in (slice(8), slice(-8, None))
    ]
    assert near[0][0] < 0.7 * near[0][1] and near[1][1] < 0.7 * near[1][0]


def test_a_style_weight_of_nothing_leaves_the_style_out(generator, audio):
    style = style_of(generator, 1)
    without = spoken_expression(generator, audio, None, FRAMES, FPS)
    torch.testing.assert_close(
        spoken_expression(generator, audio, style, FRAMES, FPS, style_weight=0.0), without, atol=1e-4, rtol=0
    )


def test_an_emotion_is_as_strong_as_in_the_style_clip(generator):
    """Not weaker, as it is with a plain guidance of 1; styles of expressions without an error, of people and emotions in turn."""
    model, shown = load_model(PORTRAIT_MODEL), {"clip": [], "made": [], "weak": []}
    for number, emotion in enumerate(EMOTIONS[1:]):
        _, _, states = act(speaker(number, "test"), emotion, 3, 1, FRAMES, FPS)
        prior = extract_style(model, torch.from_numpy(states.expression).float(), None, FPS)
        audio = Audio(
            torch.from_numpy(act(speaker(number, "test"), emotion, 3, 2, FRAMES, FPS)[1].waveform)[None], 16000
        )
        shown["clip"].append(emotion_amount(states.expression, emotion))
        for name, weight in (("made", 1.0), ("weak", 1 / STYLE_GUIDANCE)):
            track = spoken_expression(
                generator, audio, sample_style(prior, 0), FRAMES, FPS, number, style_weight=weight
            )
            shown[name].append(emotion_amount(track[:, :64].numpy(), emotion))
    clip, made, weak = (sum(values) for values in shown.values())
    assert weak < 0.9 * clip < made < 1.2 * clip


def test_a_style_of_another_space_is_left_out_with_a_warning(generator, audio, caplog):
    with caplog.at_level(logging.WARNING):
        track = spoken_expression(generator, audio, Style(torch.ones(1, 128), "another"), FRAMES, FPS)
    assert "another style space" in caplog.text
    assert torch.equal(track, spoken_expression(generator, audio, None, FRAMES, FPS))
