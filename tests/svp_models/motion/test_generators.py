from __future__ import annotations

import logging

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.generators import GenerateOptions, fade_in, generate_motion
from svp_portrait.svp_models.types import Audio, Motion


class Ramp:
    """A generator whose yaw counts its frames; it remembers what it was asked."""

    name, fps, needs_face = "ramp", 25.0, False
    networks = torch.nn.ModuleList()

    def generate(self, voice, frames, options, face=None, progress=None):
        self.asked = len(voice), frames, options, face
        count = torch.arange(frames).float()
        zeros = torch.zeros(frames)
        return Motion(
            torch.stack([count, zeros, zeros], dim=1), torch.zeros(frames, 2), zeros + 1, torch.zeros(frames, 63), 25.0,
            "liveportrait",
        )  # fmt: skip


def tone(seconds, rate=48000, channels=2):
    time = torch.arange(round(seconds * rate)) / rate
    return Audio(torch.sin(2 * torch.pi * 220 * time).expand(channels, -1) / 2, rate)


@pytest.mark.parametrize(
    ("seconds", "fps", "frames", "own"),
    [(2.0, 25.0, 50, 50), (1.02, 25.0, 26, 26), (2.0, 30.0, 60, 51), (2.0, 12.5, 25, 49), (0.01, 25.0, 1, 1),
     (1.0, 24000 / 1001, 24, 25)],
)  # fmt: skip
def test_a_motion_has_the_frames_of_its_voice(seconds, fps, frames, own):
    generator = Ramp()
    motion = generate_motion(generator, tone(seconds), fps, GenerateOptions(seed=3))
    assert len(motion) == frames and motion.fps == fps
    samples, asked, options, face = generator.asked
    assert (samples, asked, options.seed, face) == (round(seconds * 16000), own, 3, None)
    expected = (torch.arange(frames) * (25 / fps)).clamp(max=own - 1)
    torch.testing.assert_close(motion.angles[:, 0], expected, rtol=1e-5, atol=1e-5)


def test_other_rates_need_no_more_than_they_use():
    generator = Ramp()
    motion = generate_motion(generator, tone(3.0), 60.0)
    assert float(motion.angles[-1, 0]) <= generator.asked[1] - 1 < float(motion.angles[-1, 0]) + 1


def test_voices_that_cannot_be_heard(caplog):
    with pytest.raises(PortraitError, match="there are 0 samples"):
        generate_motion(Ramp(), Audio(torch.zeros(1, 0), 16000))
    with pytest.raises(PortraitError, match="fps is 0: it must be above 0"):
        generate_motion(Ramp(), tone(1), 0)
    with caplog.at_level(logging.WARNING):
        assert len(generate_motion(Ramp(), Audio(torch.zeros(1, 16000), 16000))) == 25
    assert "the voice is silent" in caplog.text


def test_fades_begin_and_end_without_a_corner():
    weights = fade_in(99).flatten().double()
    assert 0 < weights[0] < 1e-4 and 1 - 1e-4 < weights[-1] < 1 and abs(float(weights[49]) - 0.5) < 1e-6
    assert bool((weights.diff() > 0).all()) and float(weights.diff().diff().abs().max()) < 1e-3
    assert fade_in(0).shape == (0, 1)
