from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.generators import (
    generate_joyvasa,
    generate_kdtalker,
    joyvasa_motion,
    kdtalker_inputs,
    kdtalker_motion,
    sample_joyvasa,
    sample_kdtalker,
    smooth_kalman,
    smooth_motion,
)
from svp_portrait.svp_models.motion.keypoints import KeypointMotion
from svp_portrait.svp_models.networks.motion_generators.motion_scale import (
    JOYVASA_ORDER,
    KDTALKER_ORDER,
    MotionScale,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def scale() -> MotionScale:
    sizes = KDTALKER_ORDER | {"kp": 63}
    offset = {name: torch.arange(size) / 10 for name, size in sizes.items()}
    return MotionScale(offset, {name: torch.full((size,), 0.5) for name, size in sizes.items()})


@pytest.fixture
def kdtalker_conditions(kdtalker_io):
    return [kdtalker_io[name] for name in ("kd.audio", "kd.canonical", "kd.reference")]


def test_the_loop_of_kdtalker(kdtalker, kdtalker_io, kdtalker_conditions, close):
    ours = sample_kdtalker(kdtalker, *kdtalker_conditions, kdtalker_io["kd.noise"], steps=8)
    close(ours, kdtalker_io["kd.sample"])


def test_the_loop_of_joyvasa(joyvasa, joyvasa_io, close):
    previous = None
    for window in ("window0", "window1"):
        noise, audio = joyvasa_io[f"{window}.step_noise"], joyvasa_io[f"{window}.audio_features"]
        start = joyvasa_io[f"{window}.start_noise"]
        motion = sample_joyvasa(joyvasa, audio, start, lambda n, noise=noise: noise[n][None], 2.0, previous)
        close(motion, joyvasa_io[f"{window}.motion"])
        previous = motion[:, -3:], audio[:, -3:]


def test_windows_of_kdtalker_go_on_from_each_other(kdtalker, kdtalker_conditions):
    audio, canonical, reference = kdtalker_conditions
    long = torch.cat([audio[0], audio[0].flip(0)])[:17]
    done = []
    motion = generate_kdtalker(
        kdtalker, long, canonical, reference, seeded(), steps=2, window=8, progress=lambda *at: done.append(at)
    )
    assert motion.shape == (17, 70) and done == [(1, 3), (2, 3), (3, 3)]
    noises = seeded()
    first = sample_kdtalker(kdtalker, long[None, :8], canonical, reference, torch.randn(1, 8, 70, generator=noises), 2)
    torch.testing.assert_close(motion[:8], first[0])
    noise = torch.randn(1, 8, 70, generator=noises)
    second = sample_kdtalker(kdtalker, long[None, 8:16], canonical, first[:, -1], noise, 2)
    torch.testing.assert_close(motion[8:16], second[0])
    again = generate_kdtalker(kdtalker, long, canonical, reference, seeded(), steps=2, window=8)
    other = generate_kdtalker(kdtalker, long, canonical, reference, seeded(1), steps=2, window=8)
    assert torch.equal(again, motion) and not torch.allclose(other, motion)


def test_motions_of_joyvasa_have_every_frame(joyvasa, joyvasa_io):
    voice = joyvasa_io["waveform_16k"]
    motion = generate_joyvasa(joyvasa, voice, 24, seeded(), steps=2)
    assert torch.equal(generate_joyvasa(joyvasa, voice, 24, seeded(), steps=2), motion)
    shorter = generate_joyvasa(joyvasa, voice, 14, seeded(), steps=2)
    assert shorter.shape == (14, 70) and torch.equal(shorter, motion[:14])
    longer = generate_joyvasa(joyvasa, voice, 40, seeded(), steps=2)  # silence after the voice
    assert longer.shape == (40, 70) and bool(longer.isfinite().all())


def test_without_guidance_the_audio_counts_for_nothing(joyvasa, joyvasa_io):
    noise, zero = joyvasa_io["window0.start_noise"], lambda n: torch.zeros(1, 12, 70)
    motions = [
        sample_joyvasa(joyvasa, joyvasa_io[f"window{window}.audio_features"], noise, zero, guidance)
        for window, guidance in ((0, 0.0), (1, 0.0), (1, 1.0))
    ]
    torch.testing.assert_close(motions[0], motions[1])
    assert not torch.allclose(motions[1], motions[2])


def test_fewer_steps_visit_fewer_levels(joyvasa, joyvasa_io):
    noise, audio = joyvasa_io["window0.start_noise"], joyvasa_io["window0.audio_features"]
    asked = []

    def silent(step):
        asked.append(step)
        return torch.zeros_like(noise)

    one = sample_joyvasa(joyvasa, audio, noise, silent, 1.0, steps=1)
    with torch.no_grad():  # one step from pure noise ends at what the network sees in it
        start = joyvasa.start_motion_feat, joyvasa.start_audio_feat
        prediction = joyvasa.denoising_net(noise, audio, *start, torch.tensor([6]))[:, 3:]
    torch.testing.assert_close(one, prediction, rtol=1e-4, atol=1e-4)
    assert asked == []
    sample_joyvasa(joyvasa, audio, noise, silent, 1.0, steps=3)
    assert asked == [0, 1]
    with pytest.raises(PortraitError, match="steps is 7: choose 1 to 6"):
        sample_joyvasa(joyvasa, audio, noise, silent, steps=7)


def test_kdtalker_sees_the_portrait_on_its_own_scale(scale):
    face = KeypointMotion(
        *(torch.tensor([angle]) for angle in (1.0, 2.0, 3.0)), t=torch.zeros(1, 3), scale=torch.tensor([1.5]),
        exp=torch.ones(1, 21, 3), kp=torch.full((1, 21, 3), 2.0),
    )  # fmt: skip
    canonical, reference = kdtalker_inputs(face, scale)
    assert canonical.shape == reference.shape == (1, 70)
    assert canonical[0, :8].tolist() == [0] * 7 + [4.0]
    assert reference[0, :4].tolist() == [3.0, 4.0, 2.0, 6.0]  # scale, yaw, pitch, roll
    back = kdtalker_motion(reference, scale)
    for name in ("pitch", "yaw", "roll", "scale", "t", "exp"):
        torch.testing.assert_close(getattr(back, name), getattr(face, name))
    assert back.kp is None
    with pytest.raises(PortraitError, match="the portrait has 1 frames"):
        kdtalker_inputs(back, scale)


def test_joyvasa_has_its_own_order(scale):
    numbers = torch.arange(140.0).view(2, 70)
    motion = joyvasa_motion(numbers, scale)
    assert sum(JOYVASA_ORDER.values()) == 70
    torch.testing.assert_close(motion.exp[0, 0], torch.tensor([0.0, 0.6, 1.2]))
    assert motion.scale.tolist() == [31.5, 66.5]
    torch.testing.assert_close(motion.t[0], torch.tensor([32.0, 32.6, 33.2]))
    assert (motion.pitch[0], motion.yaw[0], motion.roll[0]) == (33.5, 34.0, 34.5)


def test_smoothing_is_a_kalman_filter_forward_and_back():
    values = torch.randn(6, 2, generator=seeded()).double()
    means, variances, predicted = [], [], []
    mean, variance = values[0], 1.0
    for value in values:
        predicted.append((mean, variance))
        gain = variance / (variance + 0.001)
        means.append(mean + gain * (value - mean))
        variances.append((1 - gain) * variance)
        mean, variance = means[-1], variances[-1] + 0.05
    for index in range(4, -1, -1):
        gain = variances[index] / predicted[index + 1][1]
        means[index] = means[index] + gain * (means[index + 1] - predicted[index + 1][0])
    torch.testing.assert_close(smooth_kalman(values), torch.stack(means))


def test_smoothing_leaves_still_faces_and_the_scale_alone():
    motion = KeypointMotion(
        *torch.full((3, 5), 7.0), t=torch.ones(5, 3), scale=torch.randn(5, generator=seeded()), exp=torch.ones(5, 21, 3)
    )
    smooth = smooth_motion(motion)
    for name in ("pitch", "yaw", "roll", "t", "exp"):
        torch.testing.assert_close(getattr(smooth, name), getattr(motion, name))
    assert torch.equal(smooth.scale, motion.scale)
    torch.testing.assert_close(smooth_kalman(torch.tensor([3.0])), torch.tensor([3.0]))
