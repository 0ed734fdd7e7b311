"""Nodes for the style of motions."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.nodes.motion_style import (
    SVPMotionEmotion,
    SVPMotionStyle,
    SVPMotionStyleLoad,
    SVPMotionStyleMix,
    SVPMotionStyleSave,
)
from svp_portrait.nodes.saved_files import FROM_INPUT
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.keypoints import LIPS
from svp_portrait.svp_models.motion.style import LIVEPORTRAIT_LIDS
from svp_portrait.svp_models.synthetic.clips import act, states_to_motion
from svp_portrait.svp_models.synthetic.performance import EMOTIONS, classify_emotion
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import LIVEPORTRAIT, Motion

WEIGHTS = {"weight": 1.0, "lips_weight": 1.0, "pose_weight": 1.0, "temperature": 0.0, "keep_blinks": True, "seed": 0}


def first(output):
    return output.result[0]


def performed(emotion: str, number: int, frames: int = 60) -> Motion:
    return states_to_motion(act(speaker(number, "test"), emotion, 3, number, frames, 25.0)[2], 25.0)


def photograph(frames: int, seed: int) -> Motion:
    random = torch.Generator().manual_seed(seed)
    parts = [torch.randn(frames, count, generator=random) for count in (3, 2, 63)]
    return Motion(parts[0], parts[1] / 50, torch.ones(frames), parts[2] / 50, 25.0, LIVEPORTRAIT)


def styled(motion, style, **weights) -> Motion:
    return first(SVPMotionStyle.execute(motion, style, **{**WEIGHTS, **weights}))


@pytest.mark.parametrize("emotion", EMOTIONS)
def test_a_clip_and_a_name_give_their_emotion(emotion):
    spoken = performed("neutral", 1)
    by_name = first(SVPMotionEmotion.execute(emotion, 1.0, "svp"))
    for style in (performed(emotion, 2), by_name):
        assert classify_emotion(styled(spoken, style).expression.numpy())[0] == emotion


def test_weights_say_what_moves():
    spoken, clip = photograph(50, 1), photograph(70, 2)
    same = styled(spoken, clip, weight=0.0, temperature=3.0)
    assert torch.equal(same.expression, spoken.expression) and torch.equal(same.angles, spoken.angles)
    moved = styled(spoken, clip, lips_weight=0.0, pose_weight=0.0)
    rows, own = (item.expression.unflatten(1, (21, 3)) for item in (moved, spoken))
    assert torch.equal(rows[:, LIPS], own[:, LIPS]) and torch.equal(moved.angles, spoken.angles)
    assert not torch.equal(rows[:, 1], own[:, 1])


def test_blinks_are_kept_unless_the_style_shall_change_them():
    spoken, clip = photograph(50, 1), photograph(70, 2)
    for keep in (True, False):
        lids = styled(spoken, clip, keep_blinks=keep).expression[:, LIVEPORTRAIT_LIDS].std(0)
        assert torch.allclose(lids, spoken.expression[:, LIVEPORTRAIT_LIDS].std(0)) is keep


def test_seeds_draw_with_temperature():
    spoken, clip = photograph(50, 1), photograph(100, 2)
    a, b, again = (styled(spoken, clip, temperature=1.0, seed=seed).expression for seed in (1, 2, 1))
    assert torch.equal(a, again) and not torch.equal(a, b)


def test_one_style_turns_into_another():
    sad, happy = (first(SVPMotionEmotion.execute(name, 1.0, "svp")) for name in ("sad", "happy"))
    spoken = performed("neutral", 1, 90)
    moved = styled(spoken, first(SVPMotionStyleMix.execute(sad, happy, 0.0, 1.0, "linear"))).expression.numpy()
    assert classify_emotion(moved[:15])[0] == "sad" and classify_emotion(moved[-15:])[0] == "happy"


def test_styles_are_kept_in_files(folders):
    spoken, clip = photograph(50, 1), photograph(70, 2)
    saved = first(SVPMotionStyleSave.execute(clip, "svp_motion_styles/calm"))
    assert (folders / "output" / saved).is_file()
    assert "calm_00001_.safetensors" in SVPMotionStyleLoad.define_schema().inputs[0].options
    for chosen in ({"style": FROM_INPUT, "file": saved}, {"style": "calm_00001_.safetensors"}):
        loaded = first(SVPMotionStyleLoad.execute(**chosen))
        assert torch.equal(styled(spoken, loaded).expression, styled(spoken, clip).expression)
        assert isinstance(SVPMotionStyleLoad.fingerprint_inputs(**chosen), float)
    with pytest.raises(PortraitError, match="no style is chosen"):
        SVPMotionStyleLoad.execute(FROM_INPUT)


def test_motions_of_other_spaces_and_sizes_say_so():
    with pytest.raises(PortraitError, match="make both in the same space"):
        styled(photograph(20, 1), performed("happy", 2))
    few = Motion(torch.zeros(5, 3), torch.zeros(5, 2), torch.ones(5), torch.zeros(5, 30), 25.0, LIVEPORTRAIT)
    with pytest.raises(PortraitError, match="the motion has 30 numbers and the lips and lids are in columns up to 62"):
        styled(few, few)
