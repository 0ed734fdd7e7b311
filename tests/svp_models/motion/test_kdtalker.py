from __future__ import annotations

import math

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.generators import GenerateOptions
from svp_portrait.svp_models.motion.kdtalker import (
    OVERLAP,
    SCHEDULE,
    KDTalker,
    generate_kdtalker,
    kdtalker_inputs,
    kdtalker_motion,
    sample_kdtalker,
    smooth_kalman,
    smooth_motion,
)
from svp_portrait.svp_models.motion.keypoints import KeypointMotion
from svp_portrait.svp_models.networks.motion_generators.motion_scale import KDTALKER_ORDER, MotionScale


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


@pytest.fixture
def face() -> KeypointMotion:
    generator = seeded(3)
    return KeypointMotion(
        *torch.tensor([[2.0], [-4.0], [1.0]]), t=torch.zeros(1, 3), scale=torch.tensor([1.4]),
        exp=torch.randn(1, 21, 3, generator=generator) / 50, kp=torch.randn(1, 21, 3, generator=generator) / 3,
    )  # fmt: skip


class SmoothPrior(torch.nn.Module):
    """The exact denoiser of motions whose numbers are smooth Gaussian processes of unit variance, given the frame before.

    Its answer is what a perfectly trained KDTalker would predict of such motions: posterior means under the process' covariance.
    """

    def __init__(self, window: int, length: float) -> None:
        super().__init__()
        self.levels = torch.nn.Parameter(torch.zeros(0))
        time = torch.arange(-1, window, dtype=torch.float64)
        kernel = torch.exp(-((time[:, None] - time) ** 2) / (2 * length**2)) + 1e-6 * torch.eye(window + 1)
        self.gain = (kernel[1:, :1] / kernel[0, 0]).float()
        self.covariance = kernel[1:, 1:] - kernel[1:, :1] @ kernel[:1, 1:] / kernel[0, 0]
        betas = torch.linspace(SCHEDULE.beta_start, SCHEDULE.beta_end, 1000, dtype=torch.float64)
        self.alpha_bars = (1 - betas).cumprod(0)

    def forward(self, noisy, timesteps, audio, canonical, reference):
        a = float(self.alpha_bars[int(timesteps[0])])
        frames = noisy.shape[1]
        mean = (self.gain[:frames] @ reference[:, None])[0]
        kernel = self.covariance[:frames, :frames]
        rest = (noisy[0] - math.sqrt(a) * mean).double()
        x0 = mean.double() + math.sqrt(a) * kernel @ torch.linalg.solve(a * kernel + (1 - a) * torch.eye(frames), rest)
        return ((noisy[0] - math.sqrt(a) * x0.float()) / math.sqrt(1 - a))[None]


def roughness_at_joins(motion: torch.Tensor, stride: int, overlap: int) -> float:
    """Largest second difference from just before a join to the end of the fade, over the largest in as many frames elsewhere."""
    second = (motion[2:] - 2 * motion[1:-1] + motion[:-2]).abs().mean(dim=1)  # of frame index + 1
    reach = overlap + 3
    at_joins = [
        float(second[start - 2 : start - 2 + reach].max()) for start in range(stride, len(motion) - reach, stride)
    ]
    elsewhere = [float(second[start : start + reach].max()) for start in range(overlap + 4, len(second) - reach)
                 if start % stride > overlap + 2 and start % stride + reach < stride - 2]  # fmt: skip
    return sum(at_joins) / len(at_joins) / (sum(elsewhere) / len(elsewhere))


def test_overlapping_windows_join_without_a_seam():
    network, window = SmoothPrior(64, 6.0), 64
    audio, canonical, reference = torch.zeros(1000, 1), torch.zeros(1, 70), torch.zeros(1, 70)
    rough = {
        overlap: roughness_at_joins(
            generate_kdtalker(network, audio, canonical, reference, seeded(), 50, window, overlap),
            window - overlap,
            overlap,
        )
        for overlap in (0, OVERLAP)
    }
    assert rough[0] > 4  # as published: a window knows where the head was, not where it was going
    assert rough[OVERLAP] < 1.25


def test_windows_as_published_share_nothing(kdtalker, kdtalker_conditions):
    audio, canonical, reference = kdtalker_conditions
    audio = torch.cat([audio[0], audio[0].flip(0), audio[0]])[:30]
    published = generate_kdtalker(kdtalker, audio, canonical, reference, seeded(), 2, 10)
    shared = generate_kdtalker(kdtalker, audio, canonical, reference, seeded(), 2, 10, overlap=4)
    assert published.shape == shared.shape == (30, 70)
    torch.testing.assert_close(published[:6], shared[:6])  # up to where the second window fades in
    assert not torch.allclose(published[6:10], shared[6:10])
    with pytest.raises(PortraitError, match="overlap is 10 frames: choose 0 to 9"):
        generate_kdtalker(kdtalker, audio, canonical, reference, seeded(), 2, 10, overlap=10)


@pytest.fixture
def kdtalker_generator(kdtalker, kdtalker_encoder, scale) -> KDTalker:
    return KDTalker(kdtalker, kdtalker_encoder, scale)


def test_a_motion_of_the_portrait(kdtalker_generator, face):
    voice = torch.randn(20000, generator=seeded()) / 10
    options = GenerateOptions(seed=5, steps=2)
    motion = kdtalker_generator.generate(voice, 31, options, face)
    again = kdtalker_generator.generate(voice, 31, options, face)
    assert len(motion) == 31 and (motion.fps, motion.space) == (25, "liveportrait")
    assert torch.equal(motion.expression, again.expression) and torch.equal(motion.angles, again.angles)
    assert torch.equal(motion.face, face.kp[0])
    rough = kdtalker_generator.generate(voice, 31, GenerateOptions(seed=5, steps=2, smoothing=False), face)
    assert torch.equal(rough.scale, motion.scale) and not torch.equal(rough.expression, motion.expression)
    guided = kdtalker_generator.generate(voice, 31, GenerateOptions(seed=5, steps=2, guidance=3.0), face)
    assert torch.equal(guided.expression, motion.expression)  # it has no guidance
    other = kdtalker_generator.generate(voice, 31, GenerateOptions(seed=6, steps=2), face)
    assert not torch.allclose(other.expression, motion.expression)
    with pytest.raises(
        PortraitError, match="KDTalker moves the face of one portrait: connect liveportrait and portrait"
    ):
        kdtalker_generator.generate(voice, 31, options)


def test_a_face_of_other_points_is_refused(scale, face):
    few = KeypointMotion(face.pitch, face.yaw, face.roll, face.t, face.scale, face.exp[:, :15], face.kp[:, :15])
    with pytest.raises(PortraitError, match="the portrait's face has 45 numbers, KDTalker's scale 63"):
        kdtalker_inputs(few, scale)
