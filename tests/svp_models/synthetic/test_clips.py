from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.synthetic.clips import (
    act,
    make_clip,
    motion_to_states,
    neutral_portrait,
    states_to_motion,
)
from svp_portrait.svp_models.synthetic.performance import EMOTIONS
from svp_portrait.svp_models.synthetic.speakers import speaker, split_of


def test_a_clip_holds_pictures_sound_and_truth_of_equal_length():
    clip = make_clip(speaker(2, "test"), "surprised", 2, seed=4, seconds=0.5, size=64)
    assert clip.images.shape == (13, 64, 64, 3) and clip.images.dtype == np.uint8  # 12.5 frames round up
    assert clip.landmarks.shape == (13, 68, 2) and clip.head_keypoints.shape == (13, 8, 2)
    assert clip.masks.shape == (13, 64, 64) and len(clip.states) == 13
    assert clip.audio.shape == (round(13 / 25 * 16000),) and clip.audio.dtype == np.float32
    assert (clip.speaker, clip.split, clip.emotion, clip.intensity, clip.fps) == (2, "test", "surprised", 2, 25.0)


def test_a_clip_is_given_by_its_arguments():
    first = make_clip(speaker(1, "train"), "angry", 3, seed=9, seconds=0.2, size=64)
    again = make_clip(speaker(1, "train"), "angry", 3, seed=9, seconds=0.2, size=64)
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.audio, again.audio)
    assert first.text == again.text
    other = make_clip(speaker(1, "train"), "angry", 3, seed=10, seconds=0.2, size=64)
    assert other.text != first.text and np.abs(other.states.pose - first.states.pose).max() > 0.01


def test_long_clips_speak_to_their_end():
    text, speech, states = act(speaker(0, "test"), "neutral", 1, 0, frames=250, fps=25.0)
    assert len(states) == 250 and len(speech.waveform) == 160000
    assert np.abs(speech.waveform[-8000:]).max() > 0.01
    assert all(split_of(each.strip() + ".") == "test" for each in text.split(".") if each.strip())


def test_voices_carry_the_emotion():
    loudness = {}
    for emotion in EMOTIONS:
        _, speech, _ = act(speaker(5, "train"), emotion, 3, 1, frames=75, fps=25.0)
        loudness[emotion] = float(np.std(speech.waveform))
    assert loudness["angry"] > 1.2 * loudness["neutral"] > 1.2 * loudness["sad"]


def test_neutral_portrait_is_one_calm_frame():
    drawn = neutral_portrait(speaker(0, "test"), 64)
    assert drawn.images.shape == (1, 64, 64, 3)
    upper, lower = drawn.landmarks[0, 62], drawn.landmarks[0, 66]
    assert abs(upper[1] - lower[1]) < 0.03 * 64  # lips meet
    left, right = drawn.head_keypoints[0, 4], drawn.head_keypoints[0, 5]
    assert abs(left[1] - right[1]) < 0.03 * 64  # upright


def test_states_become_a_motion_and_states_again_to_the_bit():
    _, _, states = act(speaker(3, "train"), "happy", 2, 7, frames=40, fps=25.0)
    motion = states_to_motion(states, 25.0)
    assert (motion.space, motion.fps, len(motion)) == ("svp", 25.0, 40)
    assert torch.equal(motion.angles[:, 0], torch.from_numpy(states.pose[:, 0]))  # yaw
    assert torch.equal(motion.scale, torch.from_numpy(states.pose[:, 5]))
    again = motion_to_states(motion)
    for name in ("expression", "pose", "blink", "gaze"):
        np.testing.assert_array_equal(getattr(again, name), getattr(states, name))
    motion.angles[0, 0] += 1  # a copy: the states stay as they were
    assert states.pose[0, 0] != motion.angles[0, 0]


def test_a_motion_of_another_space_is_no_performance():
    motion = states_to_motion(act(speaker(3, "train"), "happy", 2, 7, frames=2, fps=25.0)[2], 25.0)
    with pytest.raises(PortraitError, match="63 numbers in the space liveportrait"):
        motion_to_states(replace(motion, space="liveportrait", expression=torch.zeros(2, 63)))
