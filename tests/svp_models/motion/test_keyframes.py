from __future__ import annotations

import re

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.keyframes import keyframe_curves, parse_keyframes

CHANNELS = ("yaw", "smile", "gaze_x")


def test_a_table_is_read_in_any_order_with_any_separator_and_comments():
    text = """time, channel, value
    # the head
    2    yaw   10
    0.5  yaw  -5   # left
    1;smile;0.5

    0,\tGAZE_X,\t1e-1
    """
    found = parse_keyframes(text, CHANNELS)
    assert found == {"yaw": [(0.5, -5.0), (2.0, 10.0)], "smile": [(1.0, 0.5)], "gaze_x": [(0.0, 0.1)]}
    assert parse_keyframes("", CHANNELS) == parse_keyframes("# nothing\n\n", CHANNELS) == {}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 yaw", "line 3: '1 yaw' has 2 entries: write time, channel and value, like 1.5 yaw 20"),
        ("1 yaw 2 3", "line 3: '1 yaw 2 3' has 4 entries"),
        ("one yaw 2", "line 3: 'one' is no number"),
        ("1 yaw nan", "line 3: 'nan' is no number"),
        ("-1 yaw 2", "line 3: the time is -1 seconds: it must be 0 or more"),
        ("1 yaws 2", "line 3: there is no channel 'yaws': did you mean 'yaw'?"),
        ("1 ears 2", "line 3: there is no channel 'ears': choose one of yaw, smile, gaze_x"),
        ("0 yaw 2", "line 3: yaw has a second value at 0 seconds"),
    ],
)
def test_a_wrong_line_is_named_by_its_number(line, message):
    with pytest.raises(PortraitError, match=re.escape(f"keyframes, {message}")):
        parse_keyframes(f"# title\n0 yaw 1\n{line}\n", CHANNELS)


def test_linear_curves_have_closed_form_values_and_hold_at_both_ends():
    curve = keyframe_curves("0.2 yaw 10\n0.6 yaw 30", CHANNELS, 10, 10.0, "linear")["yaw"]
    torch.testing.assert_close(curve, torch.tensor([10.0, 10, 10, 15, 20, 25, 30, 30, 30, 30]))


def test_smooth_curves_pass_through_the_keyframes_and_never_overshoot():
    curve = keyframe_curves("0 yaw 0\n1 yaw 20\n2 yaw 20\n3 yaw -10", CHANNELS, 91, 30.0)["yaw"]
    torch.testing.assert_close(curve[[0, 30, 60, 90]], torch.tensor([0.0, 20, 20, -10]))
    assert float(curve.max()) <= 20 and float(curve.min()) >= -10
    assert torch.equal(curve[30:61], torch.full((31,), 20.0))
    assert bool((curve[:30].diff() >= 0).all()) and bool((curve[60:].diff() <= 0).all())


def test_one_keyframe_holds_for_the_whole_clip():
    assert torch.equal(keyframe_curves("7 smile 0.5", CHANNELS, 4, 25.0)["smile"], torch.full((4,), 0.5))
    with pytest.raises(PortraitError, match="unknown interpolation 'cubic': choose one of smooth, linear"):
        keyframe_curves("7 smile 0.5", CHANNELS, 4, 25.0, "cubic")
