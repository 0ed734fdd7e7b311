from __future__ import annotations

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.coefficients import EXPRESSION_INDEX
from svp_portrait.svp_models.motion.edit import (
    HEAD_CHANNELS,
    ChannelEdit,
    ExpressionEdit,
    apply_keyframes,
    edit_expression,
    edit_head,
    head_channels,
)
from svp_portrait.svp_models.motion.sliders import FACE_CHANNELS, slider_direction

from .motions import differing, random_motion, still_motion

SPACES = pytest.mark.parametrize("space", ["svp", "liveportrait"])
NOTHING = ExpressionEdit(dict.fromkeys(FACE_CHANNELS, 0.0))


@SPACES
def test_defaults_change_nothing_to_the_bit(space):
    motion = random_motion(20, space)
    assert differing(motion, edit_head(motion, dict.fromkeys(HEAD_CHANNELS, ChannelEdit()))) == set()
    assert differing(motion, edit_expression(motion, NOTHING)) == set()
    table = "\n".join(f"0 {channel} 0" for channel in (*HEAD_CHANNELS, *FACE_CHANNELS)) + "\n0 expression 1"
    assert differing(motion, apply_keyframes(motion, table)) == set()
    assert differing(motion, apply_keyframes(motion, "")) == set()


@pytest.mark.parametrize("channel", HEAD_CHANNELS)
@pytest.mark.parametrize("edit", [ChannelEdit(offset=0.25), ChannelEdit(amplitude=0.5), ChannelEdit(smoothing=0.1)])
def test_a_channel_is_edited_alone(channel, edit):
    motion = random_motion(30)
    before, after = head_channels(motion), head_channels(edit_head(motion, {channel: edit}))
    assert [name for name in HEAD_CHANNELS if not torch.equal(before[name], after[name])] == [channel]
    values = before[channel]
    if edit.offset:
        wanted = values * 1.25 if channel == "scale" else values + 0.25
        torch.testing.assert_close(after[channel], wanted)
    elif edit.amplitude != 1:
        torch.testing.assert_close(after[channel].mean(), values.mean())
        torch.testing.assert_close(after[channel].std(), values.std() / 2)
    else:
        assert float(after[channel].diff().std()) < 0.5 * float(values.diff().std())


def test_smoothing_weakens_a_sine_by_the_gaussians_response():
    """A Gaussian of s seconds multiplies a frequency f by exp(-2 (pi f s)^2); the middle of a long clip, away from its ends."""
    motion, fps, frequency, seconds = still_motion(1000, fps=50.0), 50.0, 1.5, 0.1
    motion.angles[:, 1] = torch.sin(2 * torch.pi * frequency * torch.arange(1000) / fps)
    smooth = edit_head(motion, {"pitch": ChannelEdit(smoothing=seconds)}).angles[200:800, 1]
    wanted = float(np.exp(-2 * (np.pi * frequency * seconds) ** 2)) * motion.angles[200:800, 1]
    torch.testing.assert_close(smooth, wanted, rtol=0, atol=1e-3)


def test_a_head_of_no_size_is_refused():
    motion = random_motion(30)
    with pytest.raises(PortraitError, match="the scale falls to -.* in frame .*: it must stay above 0"):
        edit_head(motion, {"scale": ChannelEdit(offset=-1.5)})


@SPACES
def test_amplitude_is_about_the_clips_mean(space):
    motion = random_motion(40, space)
    moved = edit_expression(motion, ExpressionEdit({}, amplitude=0.25))
    assert differing(motion, moved) == {"expression"}
    torch.testing.assert_close(moved.expression.mean(dim=0), motion.expression.mean(dim=0), rtol=0, atol=1e-5)
    torch.testing.assert_close(moved.expression.std(dim=0), motion.expression.std(dim=0) / 4, rtol=1e-4, atol=1e-5)
    one = random_motion(1, space)
    torch.testing.assert_close(edit_expression(one, ExpressionEdit({}, 3.0)).expression, one.expression)


def test_expression_blinks_and_sliders_go_together():
    motion = still_motion(400)
    moved = edit_expression(motion, ExpressionEdit({"smile": 0.5}, blink_rate=0.5, blink_depth=0.8), seed=4)
    assert moved.expression[:, EXPRESSION_INDEX["corner_up_r"]].tolist() == [0.5] * 400
    assert float(moved.lids.max()) == pytest.approx(0.8, abs=0.02)
    assert differing(motion, moved) == {"expression", "lids"}


def test_keyframes_reach_head_face_and_amplitude():
    motion = random_motion(51, "liveportrait", fps=25.0)
    moved = apply_keyframes(
        motion, "0 yaw 0\n2 yaw 20\n0 scale 0\n2 scale 0.5\n1 smile 1\n0 expression 1\n2 expression 0", "linear"
    )
    ramp = torch.linspace(0, 1, 51)
    torch.testing.assert_close(moved.angles[:, 0], motion.angles[:, 0] + 20 * ramp, rtol=0, atol=1e-4)
    assert torch.equal(moved.angles[:, 1:], motion.angles[:, 1:]) and torch.equal(moved.shift, motion.shift)
    torch.testing.assert_close(moved.scale, motion.scale * (1 + 0.5 * ramp))
    mean = motion.expression.mean(dim=0)
    wanted = mean + (1 - ramp[:, None]) * (motion.expression - mean) + slider_direction("liveportrait", "smile")
    torch.testing.assert_close(moved.expression, wanted, rtol=0, atol=1e-5)


def test_keyframes_make_a_clip_of_a_still_face():
    """As long as the table, 2 s at 25 frames a second; without a table one frame stays one."""
    still = still_motion(1, "liveportrait")
    moved = apply_keyframes(still, "0 yaw 0\n2 yaw 20", "linear")
    torch.testing.assert_close(moved.angles[:, 0], torch.linspace(0, 20, 51))
    assert torch.equal(moved.expression, still.expression.expand(51, -1)) and moved.fps == still.fps
    assert len(apply_keyframes(still, "")) == 1


def test_keyframes_name_coefficients_in_the_drawn_world_alone():
    moved = apply_keyframes(still_motion(3), "0 tongue_up 0.4\n0 blink 1")
    assert moved.expression[:, EXPRESSION_INDEX["tongue_up"]].tolist() == pytest.approx([0.4] * 3)
    assert moved.lids.tolist() == [[1, 1]] * 3
    with pytest.raises(PortraitError, match="line 1: there is no channel 'tongue_up'"):
        apply_keyframes(still_motion(3, "liveportrait"), "0 tongue_up 0.4")


def test_relative_driving_shows_what_the_whole_motion_gets():
    """Offsets and sliders are the same in all frames: compared with the first one of the result they would be gone."""
    motion = random_motion(6, "liveportrait")
    smiling = edit_expression(motion, ExpressionEdit({"smile": 1.0}))
    turned = edit_head(motion, {"yaw": ChannelEdit(offset=10.0, amplitude=0.5)})
    typed = apply_keyframes(motion, "0 yaw 10")
    smile = slider_direction("liveportrait", "smile")
    assert torch.allclose(smiling.expression[0] - smiling.compared.expression[0], smile, atol=1e-6)
    for moved in (turned, typed):
        assert (moved.angles[0] - moved.compared.angles[0])[0].item() == pytest.approx(10, abs=1e-4)
    calm = edit_head(motion, {"yaw": ChannelEdit(amplitude=0.5)})
    assert calm.reference is None
