from __future__ import annotations

import numpy as np
import pytest

from svp_portrait.svp_models.motion.coefficients import EXPRESSION_INDEX
from svp_portrait.svp_models.synthetic.speech import Voice, energy_envelope, synthesize
from svp_portrait.svp_models.synthetic.visemes import VISEME_NAMES, base_symbol, viseme_track, visemes_of

JAW, PRESS, ROUND, LIP_IN = (
    EXPRESSION_INDEX[name] for name in ("jaw_open", "lips_press", "lips_round", "lower_lip_in")
)
PAUSE = (0.0, "_:")


def test_symbols_are_stripped_of_their_marks():
    assert [base_symbol(each) for each in ("'eI", ",A:", "I2", "a#", "t#", "_:", "'i@3", "aI@", "3:")] == [
        "eI", "A:", "I", "a", "t", "_", "i@", "aI@", "3:",
    ]  # fmt: skip
    assert visemes_of("'aU")[0].target[JAW] == pytest.approx(1.1)


def test_silence_keeps_the_mouth_shut():
    assert np.abs(viseme_track([PAUSE], 2.0, 50, 25.0)).max() < 1e-3
    assert not viseme_track([], 2.0, 50, 25.0).any()


def test_open_vowel_opens_at_its_own_time():
    track = viseme_track([PAUSE, (0.4, "'A:"), (0.6, "_:")], 1.0, 100, 100.0)
    assert track[:, JAW].max() > 0.9
    assert abs(track[:, JAW].argmax() - 49) <= 3
    assert track[:25, JAW].max() < 0.02 and track[75:, JAW].max() < 0.02


def test_bilabials_close_between_vowels_at_25_fps_wherever_they_fall():
    for shift in np.linspace(0, 0.04, 9):
        phonemes = [PAUSE, (0.2 + shift, "'A:"), (0.4 + shift, "m"), (0.47 + shift, "'A:"), (0.67 + shift, "_:")]
        track = viseme_track(phonemes, 1.0, 25, 25.0)
        closure = track[10:13]
        assert closure[:, JAW].min() < 0.05 and closure[:, PRESS].max() > 0.7
        assert track[:, JAW].max() > 0.7


def test_lips_round_before_the_jaw_moves_for_a_rounded_vowel():
    track = viseme_track([PAUSE, (0.5, "'oU"), (0.7, "_:")], 1.0, 200, 200.0)
    rounding = np.argmax(track[:, ROUND] > 0.3 * track[:, ROUND].max())
    opening = np.argmax(track[:, JAW] > 0.3 * track[:, JAW].max())
    assert 0.005 < (opening - rounding) / 200 < 0.1


def test_labiodentals_draw_the_lower_lip_in():
    track = viseme_track([PAUSE, (0.3, "@"), (0.4, "f"), (0.5, "@"), (0.6, "_:")], 1.0, 100, 100.0)
    assert track[45, LIP_IN] > 0.6


def test_only_the_named_coefficients_move():
    speech = synthesize("Five big fish should watch my wonderful jumping thing.", Voice("en-us"))
    track = viseme_track(speech.phonemes, speech.seconds, 75, 25.0)
    moving = {index for index in range(64) if np.abs(track[:, index]).max() > 1e-6}
    named = {index for name, index in EXPRESSION_INDEX.items() if name in VISEME_NAMES}
    assert moving == named
    assert np.isfinite(track).all() and track.max() < 1.6


def test_jaw_and_loudness_go_together_without_delay():
    correlation = np.zeros(7)
    for text, variant in (("A very big fish on the beach was far too small.", "en-us+f3"),
                          ("My best friend forgot some fresh bread under the bridge.", "en+m2")):  # fmt: skip
        speech = synthesize(text, Voice(variant))
        frames = int(speech.seconds * 50)
        jaw = viseme_track(speech.phonemes, speech.seconds, frames, 50.0)[:, JAW]
        energy = energy_envelope(speech.waveform, frames, 50.0)
        for position, lag in enumerate(range(-3, 4)):
            correlation[position] += np.corrcoef(np.roll(jaw, -lag)[5:-5], energy[5:-5])[0, 1] / 2
    assert abs(correlation.argmax() - 3) <= 1  # 20 ms steps
    assert correlation[3] > 0.4
