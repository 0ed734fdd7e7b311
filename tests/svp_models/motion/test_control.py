from __future__ import annotations

import itertools

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.blinks import find_blinks
from svp_portrait.svp_models.motion.built_in import conditions_for, generate_motion, motion_of_numbers
from svp_portrait.svp_models.motion.control import MotionControl, blink_track, given_motion
from svp_portrait.svp_models.networks.motion_generator import MotionGeneratorConfig, MotionGeneratorNetwork


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return MotionGeneratorNetwork(MotionGeneratorConfig(width=32, heads=2, joint_layers=1, audio_size=4)).eval()


def made(network, frames, control):
    given = given_motion(network, frames, control, torch.Generator().manual_seed(0))
    noise = torch.randn(1, frames, network.config.channels, generator=torch.Generator().manual_seed(1))
    return motion_of_numbers(
        generate_motion(network, conditions_for(network, None, frames), noise, given, 2)[0], network
    )


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.5, 1.5])
def test_the_asked_blink_rate_is_met_exactly(network, rate):
    motion = made(network, 1000, MotionControl(blink_rate=rate))
    assert len(find_blinks(motion)) == round(rate * 40)


def test_blinks_keep_their_distance_and_change_with_the_seed():
    first, other = (blink_track(1.9, 500, 25.0, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    closed = (first[:, 0] > 0.5).nonzero().flatten()
    starts = [int(frame) for frame in closed if first[frame - 1, 0] <= 0.5]
    assert len(starts) == 38 and min(b - a for a, b in itertools.pairwise(starts)) >= 11
    assert not torch.equal(first, other)
    assert blink_track(0.0, 100, 25.0, torch.Generator()).abs().sum() == 0


def test_groups_follow_a_motion_and_the_others_do_not(network):
    source = made(network, 60, MotionControl())
    control = MotionControl(source, ("rotation", "gaze"))
    motion = made(network, 50, control)
    torch.testing.assert_close(motion.angles, source.angles[:50], rtol=0, atol=0)
    torch.testing.assert_close(motion.gaze, source.gaze[:50])
    assert float((motion.scale - source.scale[:50]).abs().max()) > 1e-3


def test_one_frame_stands_for_all_and_limits_are_kept(network):
    still = made(network, 1, MotionControl())
    motion = made(network, 50, MotionControl(still, ("shift",), limits={"rotation": (-0.5, 0.25)}))
    assert float((motion.shift - still.shift).abs().max()) == 0
    assert -0.5 - 1e-5 <= float(motion.angles.min()) and float(motion.angles.max()) <= 0.25 + 1e-5


def test_impossible_controls_are_errors(network):
    source = made(network, 20, MotionControl())
    for control, message in (
        (MotionControl(groups=("rotation",)), "none is given"),
        (MotionControl(source, ("nose",)), "groups name 'nose'"),
        (MotionControl(source, ("rotation",)), "has 20 frames, 50 are made"),
        (MotionControl(source, ("lids",), blink_rate=0.3), "choose one"),
        (MotionControl(blink_rate=9.0), "0 to 2 blinks"),
        (MotionControl(limits={"scale": (1.1, 0.9)}), "limits of scale"),
    ):
        with pytest.raises(PortraitError, match=message):
            given_motion(network, 50, control, torch.Generator())
    assert given_motion(network, 50, MotionControl(), torch.Generator()) is None
