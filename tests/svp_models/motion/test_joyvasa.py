from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.generators import GenerateOptions
from svp_portrait.svp_models.motion.joyvasa import (
    JoyVASA,
    generate_joyvasa,
    joyvasa_motion,
    sample_joyvasa,
    smooth_pose,
)
from svp_portrait.svp_models.motion.keypoints import KeypointMotion
from svp_portrait.svp_models.networks.motion_generators.motion_scale import JOYVASA_ORDER, KDTALKER_ORDER, MotionScale


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def scale() -> MotionScale:
    sizes = KDTALKER_ORDER | {"kp": 63}
    offset = {name: torch.arange(size) / 10 for name, size in sizes.items()}
    return MotionScale(offset, {name: torch.full((size,), 0.5) for name, size in sizes.items()})


def test_the_loop_of_joyvasa(joyvasa, joyvasa_io, close):
    previous = None
    for window in ("window0", "window1"):
        noise, audio = joyvasa_io[f"{window}.step_noise"], joyvasa_io[f"{window}.audio_features"]
        start = joyvasa_io[f"{window}.start_noise"]
        motion = sample_joyvasa(joyvasa, audio, start, lambda n, noise=noise: noise[n][None], 2.0, previous)
        close(motion, joyvasa_io[f"{window}.motion"])
        previous = motion[:, -3:], audio[:, -3:]


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


def test_joyvasa_has_its_own_order(scale):
    numbers = torch.arange(140.0).view(2, 70)
    motion = joyvasa_motion(numbers, scale)
    assert sum(JOYVASA_ORDER.values()) == 70
    torch.testing.assert_close(motion.exp[0, 0], torch.tensor([0.0, 0.6, 1.2]))
    assert motion.scale.tolist() == [31.5, 66.5]
    torch.testing.assert_close(motion.t[0], torch.tensor([32.0, 32.6, 33.2]))
    assert (motion.pitch[0], motion.yaw[0], motion.roll[0]) == (33.5, 34.0, 34.5)


def roughness_at_joins(motion: torch.Tensor, stride: int) -> float:
    """Mean second difference at the joins over that elsewhere."""
    second = (motion[2:] - 2 * motion[1:-1] + motion[:-2]).abs().mean(dim=1)  # of frame index + 1
    at_join = torch.tensor([(index + 1) % stride in (0, stride - 1) for index in range(len(second))])
    return float(second[at_join].mean() / second[~at_join].mean())


def test_windows_join_as_smoothly_as_they_run(joyvasa):
    voice = torch.randn(640 * 300, generator=seeded()) / 20
    motion = generate_joyvasa(joyvasa, voice, 300, seeded(1))
    assert roughness_at_joins(motion, joyvasa.config.n_motions) < 1.3


def test_overlapping_windows_see_the_frames_before_them(joyvasa):
    voice = torch.randn(640 * 60, generator=seeded()) / 20
    published = generate_joyvasa(joyvasa, voice, 40, seeded(), steps=2)
    shared = generate_joyvasa(joyvasa, voice, 40, seeded(), steps=2, overlap=4)
    assert shared.shape == published.shape == (40, 70)
    assert torch.equal(shared[:8], published[:8])
    assert not torch.allclose(shared[8:12], published[8:12])
    assert torch.equal(shared, generate_joyvasa(joyvasa, voice, 40, seeded(), steps=2, overlap=4))
    with pytest.raises(PortraitError, match="overlap is 10 frames: choose 0 to 9 for JoyVASA's windows of 12"):
        generate_joyvasa(joyvasa, voice, 40, seeded(), steps=2, overlap=10)


def test_a_motion_of_a_voice_alone(joyvasa, scale):
    generator, voice = JoyVASA(joyvasa, scale), torch.randn(16000, generator=seeded()) / 10
    motion = generator.generate(voice, 25, GenerateOptions(seed=2, steps=2))
    assert (len(motion), motion.fps, motion.space, motion.face) == (25, 25, "liveportrait", None)
    weak = generator.generate(voice, 25, GenerateOptions(seed=2, steps=2, guidance=0.5))
    assert not torch.allclose(weak.expression, motion.expression)
    own = generator.generate(voice, 25, GenerateOptions(seed=2, steps=2, guidance=2.0))
    assert torch.equal(own.expression, motion.expression)
    rough = generator.generate(voice, 25, GenerateOptions(seed=2, steps=2, smoothing=False))
    assert torch.equal(rough.expression, motion.expression) and not torch.equal(rough.angles, motion.angles)


def test_the_pose_is_averaged_over_all_frames_so_far():
    ones = torch.tensor([0.0, 100.0, 100.0])
    motion = KeypointMotion(ones, ones, ones, ones[:, None].expand(-1, 3), ones + 1, torch.ones(3, 21, 3))
    smooth = smooth_pose(motion)
    torch.testing.assert_close(smooth.yaw, torch.tensor([0.0, 1.0, 1.99]))
    torch.testing.assert_close(smooth.scale, torch.tensor([1.0, 2.0, 2.99]))
    assert torch.equal(smooth.exp, motion.exp) and smooth.t.shape == (3, 3)
