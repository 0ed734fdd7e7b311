from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.coefficients import EXPRESSION_INDEX, EXPRESSION_NAMES
from svp_portrait.svp_models.motion.keypoints import EYES, LIPS
from svp_portrait.svp_models.motion.sliders import (
    FACE_CHANNELS,
    LID_TRAVEL,
    LID_UNITS,
    NAMED_SLIDERS,
    SIGNED,
    close_lids,
    gaze_direction,
    lid_closure,
    mouth_opening,
    move_face,
    slider_direction,
)
from svp_portrait.svp_models.synthetic.geometry import FaceGeometry
from svp_portrait.svp_models.synthetic.identity import IDENTITY_NAMES
from svp_portrait.svp_models.synthetic.performance import SIGNED as SIGNED_BY_SPEAKERS

from .motions import differing, random_motion, still_motion


def moved_rows(channel: str, sign: int = 1) -> dict[tuple[int, str], float]:
    rows = slider_direction("liveportrait", channel, sign).view(21, 3)
    return {(int(row), "xyz"[axis]): float(rows[row, axis]) for row, axis in rows.nonzero().tolist()}


def test_the_smile_is_the_published_one():
    wanted = {
        (20, "y"): -0.01, (14, "y"): -0.02, (17, "y"): 0.0065, (17, "z"): 0.003, (13, "y"): -0.00275,
        (16, "y"): -0.00275, (3, "y"): -0.0035, (7, "y"): -0.0035,
    }  # fmt: skip
    assert moved_rows("smile") == pytest.approx(wanted)
    assert moved_rows("smile", -1) == pytest.approx({place: -amount for place, amount in wanted.items()})


def test_gaze_and_brows_are_the_published_ones_on_both_sides():
    """15 units; to one side an eye's inner way is shorter than the other's outer one."""
    assert moved_rows("gaze_x") == pytest.approx({(11, "x"): 0.0105, (15, "x"): 0.015})
    assert moved_rows("gaze_x", -1) == pytest.approx({(11, "x"): -0.015, (15, "x"): -0.0105})
    assert moved_rows("brows") == pytest.approx({(1, "y"): 0.015, (2, "y"): -0.015})
    together = {(1, "x"): 0.015, (2, "x"): -0.015, (1, "y"): -0.0045, (2, "y"): 0.0045}
    assert moved_rows("brows", -1) == pytest.approx(together)
    assert moved_rows("wink_left") == pytest.approx(
        {(11, "y"): 0.025, (13, "y"): -0.0075, (17, "x"): 0.0075, (17, "y"): 0.0075, (3, "y"): -0.0075}
    )


def test_lids_and_gaze_are_among_the_rows_of_the_eyes_and_the_mouth_among_the_lips():
    for channel in ("blink", "gaze_x", "gaze_y"):
        assert {row for row, _ in moved_rows(channel)} <= set(EYES)
    assert {row for row, _ in moved_rows("mouth_open")} <= set(LIPS)


@pytest.mark.parametrize("space", ["svp", "liveportrait"])
def test_sliders_at_zero_change_nothing_to_the_bit(space):
    motion = random_motion(8, space)
    assert differing(motion, move_face(motion, dict.fromkeys(FACE_CHANNELS, 0.0))) == set()
    assert differing(motion, close_lids(motion, torch.zeros(8))) == set()


@pytest.mark.parametrize("channel", FACE_CHANNELS)
def test_a_slider_moves_its_rows_alone_and_in_proportion(channel):
    motion = random_motion(8, "liveportrait")
    for position in (0.5, -2.0):
        moved = move_face(motion, {channel: position})
        assert differing(motion, moved) == {"expression"}
        direction = slider_direction("liveportrait", channel, 1 if position > 0 else -1)
        wanted = motion.expression + abs(position) * direction
        torch.testing.assert_close(moved.expression, wanted, rtol=0, atol=1e-6)
        still = direction == 0
        assert torch.equal(moved.expression[:, still], motion.expression[:, still])


def test_positions_may_change_over_time():
    motion = still_motion(3)
    moved = move_face(motion, {"smile": torch.tensor([0.0, 1.0, -1.0])}).expression
    up, down = EXPRESSION_INDEX["corner_up_l"], EXPRESSION_INDEX["corner_down_l"]
    assert moved[:, up].tolist() == [0, 1, 0] and moved[:, down].tolist() == [0, 0, 1]


@pytest.mark.parametrize("channel", NAMED_SLIDERS)
def test_the_drawn_face_moves_where_the_slider_says(channel):
    """With the geometry of the synthetic faces: landmarks 48-67 mouth, 17-26 brows, 36-47 eyes."""
    geometry = FaceGeometry(dict.fromkeys(IDENTITY_NAMES, 0.0))

    def points(motion):
        return geometry.deform(motion.expression[0].numpy(), motion.lids[0].numpy(), motion.gaze[0].numpy())

    rest, rest_pupils = points(still_motion(1))
    moved, pupils = points(move_face(still_motion(1), {channel: 1.0}))
    step = moved - rest
    if channel == "smile":
        assert step[48, 1] < -0.1 and step[54, 1] < -0.1 and step[48, 0] < 0 < step[54, 0]
    elif channel == "brows":
        assert (step[17:27, 1] < -0.05).all()
    elif channel == "mouth_open":
        assert step[66, 1] - step[62, 1] > 0.2
    elif channel in ("mouth_width", "pout"):
        wider = step[54, 0] - step[48, 0]
        assert wider > 0.1 if channel == "mouth_width" else wider < -0.1
    elif channel in ("gaze_x", "gaze_y"):
        assert (pupils - rest_pupils)[:, 0 if channel == "gaze_x" else 1].min() > 0.05
    else:
        left, right = (moved[low, 1] - moved[high, 1] for high, low in ((37, 41), (43, 47)))
        closed = {"wink_left": (True, False), "wink_right": (False, True), "blink": (True, True)}[channel]
        assert (left < 0.03, right < 0.03) == closed


def test_coefficients_without_a_sign_stay_above_zero_and_gaze_and_lids_in_their_range():
    motion = replace(still_motion(2), expression=torch.full((2, 64), 0.2))
    moved = move_face(motion, {"mouth_open": -1.0, "gaze_x": 1.0, "gaze_y": -3.0, "wink_left": 2.0})
    assert moved.expression[:, EXPRESSION_INDEX["jaw_open"]].tolist() == [0, 0]
    assert moved.gaze.tolist() == [[1, -1]] * 2 and moved.lids.tolist() == [[1, 0]] * 2
    below = replace(motion, expression=torch.full((2, 64), -0.3))  # what was below before is left there
    assert torch.equal(move_face(below, {"brows": 0.1}).expression[:, 0], below.expression[:, 0])
    assert [EXPRESSION_NAMES.index(name) for name in SIGNED] == list(SIGNED_BY_SPEAKERS)


def test_any_coefficient_of_drawn_faces_is_a_slider():
    moved = move_face(still_motion(1), {"nostril_flare": 0.7, "jaw_side": -0.4}).expression[0]
    assert moved[EXPRESSION_INDEX["nostril_flare"]] == pytest.approx(0.7)
    assert moved[EXPRESSION_INDEX["jaw_side"]] == pytest.approx(-0.4) and int((moved != 0).sum()) == 2


def test_closing_lids_shuts_them_however_far_they_are_closed():
    motion = replace(still_motion(3), lids=torch.tensor([[0.0, 0.4], [0.4, 0.9], [1.0, 1.0]]))
    assert close_lids(motion, torch.ones(3)).lids.tolist() == [[1, 1]] * 3
    torch.testing.assert_close(close_lids(motion, torch.full((3,), 0.5)).lids[0], torch.tensor([0.5, 0.7]))
    torch.testing.assert_close(close_lids(motion, torch.full((3,), -0.5)).lids[1], torch.tensor([0.2, 0.45]))
    assert torch.equal(close_lids(motion, torch.ones(3), (1,)).lids[:, 0], motion.lids[:, 0])


def test_what_sliders_do_is_read_again():
    motion = still_motion(9, "liveportrait")
    position = torch.zeros(9)
    position[4] = 0.8
    closed = lid_closure(move_face(motion, {"blink": position}))
    torch.testing.assert_close(closed[:, 0], position, rtol=0, atol=1e-5)
    torch.testing.assert_close(closed[:, 1], position, rtol=0, atol=1e-5)
    assert LID_TRAVEL == pytest.approx(LID_UNITS * 0.0013)
    torch.testing.assert_close(mouth_opening(move_face(motion, {"mouth_open": position})), position, rtol=0, atol=1e-5)
    for sign in (1, -1):
        turned = gaze_direction(move_face(motion, {"gaze_x": sign * position}))
        torch.testing.assert_close(turned[:, 0], sign * position, rtol=0, atol=1e-5)
    drawn = move_face(still_motion(9), {"mouth_open": position, "gaze_y": position, "wink_right": position})
    assert torch.equal(mouth_opening(drawn), position) and torch.equal(gaze_direction(drawn)[:, 1], position)
    np.testing.assert_allclose(lid_closure(drawn)[:, 1], position)


def test_what_a_motion_does_not_have_is_named():
    photograph = replace(still_motion(2), lids=None, gaze=None)
    for channel, what in (("blink", "lids"), ("gaze_x", "gaze")):
        with pytest.raises(PortraitError, match=f"the motion has no {what}, so they cannot be changed"):
            move_face(photograph, {channel: 0.5})
    other = replace(still_motion(2, "liveportrait"), expression=torch.zeros(2, 30))
    assert lid_closure(other) is None and mouth_opening(other) is None and gaze_direction(other) is None
    with pytest.raises(PortraitError, match=re.escape("has 30 numbers, smile moves 63 in the space liveportrait")):
        move_face(other, {"smile": 0.5})
