from __future__ import annotations

import itertools

import numpy as np
import pytest

from svp_portrait.svp_models.synthetic.clips import act
from svp_portrait.svp_models.synthetic.movements import (
    AMPLITUDES,
    CLASSES,
    KINDS,
    PITCH,
    SIDES,
    VOCABULARY,
    YAW,
    Movement,
    caption,
    class_of,
    envelope,
    sample_movement,
    sample_movements,
)
from svp_portrait.svp_models.synthetic.speakers import speaker

PERSON = speaker(3, "test")


def states_with(*movements, frames=125):
    return act(PERSON, "fear", 2, 5, frames, 25.0, movements)[2]


def test_performances_without_movements_are_those_of_before():
    text, _, states = act(PERSON, "fear", 2, 5, 50, 25.0)
    assert text == "During the holidays, my best friend threw away the missing key."
    expected = [0.2566670775413513, -0.8394887447357178, 1.2315129041671753, -0.004869378, 0.0161637012, 0.99282289]
    np.testing.assert_allclose(states.pose[25], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(states.gaze[49], [0.5157431960105896, 0.04692764952778816], rtol=1e-4)
    np.testing.assert_allclose(np.abs(states.expression).sum(), 412.4825744628906, rtol=1e-4)
    np.testing.assert_allclose(states.blink.sum(), 10.518036842346191, rtol=1e-4)


def test_a_movement_changes_pose_and_gaze_alone_and_only_at_its_time():
    plain, moved = states_with(), states_with(Movement("nod", 2.0, 1.5))
    np.testing.assert_array_equal(plain.expression, moved.expression)
    np.testing.assert_array_equal(plain.blink, moved.blink)
    changed = np.flatnonzero(np.abs(plain.pose - moved.pose).max(axis=1) > 1e-6)
    times = (changed + 0.5) / 25
    assert times.min() > 2.0 and times.max() < 3.5 and len(changed) > 30


def test_a_nod_has_its_frequency_and_a_look_its_side():
    difference = states_with(Movement("nod", 1.0, 3.0, tempo="normal")).pose - states_with().pose
    spectrum = np.abs(np.fft.rfft(difference[25:100, PITCH] - difference[25:100, PITCH].mean()))
    assert np.fft.rfftfreq(75, 1 / 25)[np.argmax(spectrum)] == pytest.approx(1.5, abs=0.35)
    left, right = (states_with(Movement("look", 1.0, 3.0, side)) for side in ("left", "right"))
    assert left.pose[60, YAW] < -6 < 6 < right.pose[60, YAW]
    assert left.gaze[60, 0] < right.gaze[60, 0]


def test_still_freezes_and_lively_does_not():
    still, lively = (states_with(Movement(kind, 1.0, 3.0)).pose[35:90, :3].std(axis=0) for kind in ("still", "lively"))
    plain = states_with().pose[35:90, :3].std(axis=0)
    assert (still < 0.1 * plain).all() and (lively > 0.6 * np.array([4.0, 3.0, 2.5]) * 0.7).all()


def test_poses_stay_within_the_limits_of_faces():
    for kind in KINDS:
        for side in SIDES.get(kind, ("",)):
            pose = states_with(Movement(kind, 0.5, 4.0, side, "quick", "large")).pose
            assert (np.abs(pose[:, :5]) <= (14, 8, 7, 0.04, 0.04)).all() and np.abs(pose[:, 5] - 1).max() <= 0.05


def test_an_envelope_is_whole_in_the_middle_and_nothing_outside():
    height = envelope(Movement("tilt", 1.0, 2.0, "left"), np.array([0.9, 1.0, 1.15, 2.0, 3.0, 3.2]))
    np.testing.assert_allclose(height, [0, 0, 0.5, 1, 0, 0], atol=1e-9)


def test_captions_name_their_movement_in_known_words():
    rng = np.random.default_rng(0)
    for _ in range(400):
        movement = sample_movement(rng, KINDS[rng.integers(len(KINDS))], 0.0)
        text = caption(movement, rng)
        assert CLASSES[class_of(text)] == (movement.kind, movement.side), text
        assert set(text.split()) <= set(VOCABULARY)
    assert class_of("hello") == 0 and class_of("nods shakes") == 0


def test_movements_of_a_clip_do_not_overlap():
    rng = np.random.default_rng(1)
    for _ in range(50):
        found = sample_movements(rng, 8.0)
        assert all(one.end < other.start for one, other in itertools.pairwise(found))
        assert all(movement.end <= 8.0 for movement in found)


def test_unknown_movements_are_errors():
    for wrong in ({"kind": "jump"}, {"kind": "look"}, {"kind": "nod", "side": "left"}, {"kind": "nod", "tempo": "odd"}):
        with pytest.raises(ValueError):
            Movement(**{"start": 0.0, "seconds": 1.0, **wrong})
    assert set(AMPLITUDES) == set(KINDS) - {"still"}
