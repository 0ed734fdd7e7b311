from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.built_in import (
    GivenMotion,
    MotionGuidance,
    StreamOptions,
    conditions_for,
    generate_motion,
    motion_of_numbers,
    numbers_of_motion,
    smooth_pose_numbers,
    stream_motion,
)
from svp_portrait.svp_models.motion.words import TimedPhrase
from svp_portrait.svp_models.networks.motion_generator import MotionGeneratorConfig, MotionGeneratorNetwork

TINY = MotionGeneratorConfig(
    audio_size=6, style_size=4, width=16, heads=2, condition_width=8, reach=4, words_width=4, vocabulary=("nods", "left"),
    expression_size=5, portrait_size=5, voice_layers=1, joint_layers=2,
)  # fmt: skip
C, G = TINY.channels, len(TINY.groups)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = MotionGeneratorNetwork(TINY).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.2)
        network.mean.normal_()
        network.spread.uniform_(0.5, 2)
    return network


def noise(frames, seed=0):
    return torch.randn(1, frames, C, generator=torch.Generator().manual_seed(seed))


def given_conditions(network, frames, first=0):
    voice = torch.randn(200, 6, generator=torch.Generator().manual_seed(5))
    rows = torch.cat([torch.zeros(max(0, -first), 6), voice[max(0, first) : max(0, first + frames)]])
    return conditions_for(network, rows, frames, torch.ones(4), phrases=[TimedPhrase("nods", 0.2, 1.0)], first=first)


def test_what_is_given_comes_out_exactly_and_the_rest_is_made(network):
    numbers, known = torch.randn(1, 30, C), torch.zeros(1, 30, G)
    known[:, :10] = 1  # go on from ten frames
    known[:, 20:] = 1  # and fill the gap until frame 20
    names = list(TINY.groups)
    known[:, :, names.index("rotation")] = 1
    made = generate_motion(network, given_conditions(network, 30), noise(30), GivenMotion(numbers, known))
    torch.testing.assert_close(made[:, :10], numbers[:, :10], rtol=0, atol=0)
    torch.testing.assert_close(made[:, 20:], numbers[:, 20:], rtol=0, atol=0)
    rotation = TINY.groups["rotation"]
    torch.testing.assert_close(made[..., rotation], numbers[..., rotation], rtol=0, atol=0)
    free = generate_motion(network, given_conditions(network, 30), noise(30))
    assert float((made - free)[:, 10:20].abs().max()) > 1e-3


def test_bounds_are_kept(network):
    low, high = torch.full((C,), -torch.inf), torch.full((C,), torch.inf)
    low[-1], high[-1] = network.mean[-1] - 0.1, network.mean[-1] + 0.1
    nothing = GivenMotion(torch.zeros(1, 30, C), torch.zeros(1, 30, G), low, high)
    conditions = given_conditions(network, 30)
    free, made = (generate_motion(network, conditions, noise(30), given) for given in (None, nothing))
    assert float((free[..., -1] - network.mean[-1]).abs().max()) > 0.1
    assert float((made[..., -1] - network.mean[-1]).abs().max()) <= 0.1 + 1e-5


def test_guidance_of_one_is_none_and_a_condition_without_guidance_is_left_out(network):
    conditions = given_conditions(network, 20)
    plain = generate_motion(network, conditions, noise(20))
    torch.testing.assert_close(generate_motion(network, conditions, noise(20), guidance=MotionGuidance()), plain)
    blind = generate_motion(network, conditions, noise(20), steps=1, guidance=MotionGuidance(style=0.0))
    without = generate_motion(network, conditions.without("style"), noise(20), steps=1)
    torch.testing.assert_close(blind, without, rtol=1e-4, atol=1e-4)


def test_words_with_layers_of_their_own_are_drawn_more_narrowly_by_guidance():
    torch.manual_seed(0)
    network = MotionGeneratorNetwork(replace(TINY, pose_layers=1, pose_width=16)).eval()
    given, pose = given_conditions(network, 30), TINY.pose
    said = given.phrase[0] > 0
    clear, plain = (
        torch.cat([generate_motion(network, given, noise(30, seed), guidance=MotionGuidance(words=words)) for seed in range(20)])
        for words in (4.0, 1.0)
    )  # fmt: skip
    torch.testing.assert_close(clear[:, said, pose], plain[:, said, pose] / 2)  # an untrained network keeps the noise
    torch.testing.assert_close(clear[:, ~said], plain[:, ~said])
    torch.testing.assert_close(clear[..., : pose.start], plain[..., : pose.start])


def test_a_stream_goes_on_without_end_and_its_seed_decides(network):
    def made(seed, options, frames):
        generator = torch.Generator().manual_seed(seed)
        chunks = stream_motion(
            network, lambda first, n: given_conditions(network, n, first), frames, generator, options
        )
        return torch.cat(list(chunks), dim=1)

    options = StreamOptions(chunk=7, history=12, steps=2)
    first, again, other = made(0, options, 40), made(0, options, 40), made(1, options, 40)
    assert first.shape == (1, 40, C)
    torch.testing.assert_close(first, again)
    assert float((first - other).abs().max()) > 1e-3
    torch.testing.assert_close(made(0, options, 21), first[:, :21])  # what comes later changes nothing
    endless = stream_motion(
        network, lambda first, n: given_conditions(network, n, first), None, torch.Generator().manual_seed(0), options
    )
    torch.testing.assert_close(torch.cat([next(endless) for _ in range(3)], dim=1), first[:, :21])


def test_a_stream_asks_for_bounded_windows_and_goes_on_from_frames_before(network):
    asked = []

    def conditions(first, count):
        asked.append((first, count))
        return given_conditions(network, count, first)

    before = torch.randn(1, 9, C)
    options = StreamOptions(chunk=5, history=6, steps=1)
    list(stream_motion(network, conditions, 15, torch.Generator().manual_seed(0), options, before=before))
    assert asked == [(-6, 11), (-1, 11), (4, 11)]


def test_numbers_and_motions_are_two_ways_to_say_the_same(network):
    numbers = torch.rand(12, C)
    motion = motion_of_numbers(numbers, network)
    assert motion.space == "svp" and motion.fps == 25 and len(motion) == 12
    torch.testing.assert_close(numbers_of_motion(motion, network), numbers)
    other = MotionGeneratorNetwork(MotionGeneratorConfig())
    with pytest.raises(PortraitError, match="5 numbers of 'svp' expression, the generator makes 64"):
        numbers_of_motion(motion, other)


def test_smoothing_takes_jitter_out_of_the_pose_alone(network):
    numbers = torch.zeros(1, 40, C)
    numbers[:, ::2] = 1.0
    smooth = smooth_pose_numbers(numbers, network)
    rotation, expression = TINY.groups["rotation"], TINY.groups["expression"]
    torch.testing.assert_close(smooth[..., expression], numbers[..., expression])
    assert float(smooth[:, 5:-5, rotation].std()) < 0.1 * float(numbers[..., rotation].std())
    still = torch.full((1, 40, C), 3.0)
    torch.testing.assert_close(smooth_pose_numbers(still, network), still)
    known = torch.zeros(1, 40, G)
    known[..., list(TINY.groups).index("rotation")] = 1
    torch.testing.assert_close(smooth_pose_numbers(numbers, network, known)[..., rotation], numbers[..., rotation])
