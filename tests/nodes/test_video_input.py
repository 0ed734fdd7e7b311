"""Load Video Frames: the part, the rate and the size that were asked for, with the sound of just that part."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from svp_portrait.nodes.host import InputImpl
from svp_portrait.nodes.style import SVPStyleExtract
from svp_portrait.nodes.video import SVPLoadVideo
from svp_portrait.svp_models.cli.core_nodes import ComponentVideo, VideoComponents, audio_to_host
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.media.audio import load_audio
from svp_portrait.svp_models.media.video import load_video
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.types import Audio

CHOICES = {
    "frame_rate": 0.0, "skip_first_frames": 0, "frame_load_cap": 0, "select_every_nth": 1, "width": 0, "height": 0,
}  # fmt: skip


@pytest.fixture
def path(folders):
    """30 frames of 64 x 48 at 10 fps, each of its own grey, with noise as sound."""
    path = folders / "input" / "film.mp4"
    noise = 0.2 * torch.randn(1, 48000, generator=torch.Generator().manual_seed(0))
    with VideoWriter(path, 64, 48, 10, Audio(noise, 16000), 4) as writer:
        for number in range(30):
            writer.write(np.full((1, 48, 64, 3), 20 + 7 * number, np.uint8))
    return path


def load(video, **changes):
    return SVPLoadVideo.execute(video, **{**CHOICES, **changes}).args


@pytest.mark.parametrize(
    "changes, frames, fps, seconds",
    [
        ({}, list(range(30)), 10.0, (0.0, 3.0)),
        ({"skip_first_frames": 5, "frame_load_cap": 10}, list(range(5, 15)), 10.0, (0.5, 1.0)),
        ({"select_every_nth": 3, "frame_load_cap": 4}, [0, 3, 6, 9], 10 / 3, (0.0, 1.2)),
        ({"frame_rate": 5.0, "skip_first_frames": 2, "frame_load_cap": 3}, [5, 7, 9], 5.0, (0.4, 0.6)),
    ],
)
@pytest.mark.parametrize("kind", ["file", "components"])
def test_frames_sound_rate_and_count(path, changes, frames, fps, seconds, kind):
    whole, sound = load_video(path), load_audio(path)
    video = InputImpl.VideoFromFile(path)
    if kind == "components":
        images = torch.from_numpy(whole.frames).float() / 255
        video = ComponentVideo(VideoComponents(images, Fraction(10), audio_to_host(whole.audio)))
    images, audio, rate, count = load(video, **changes)
    assert images.dtype == torch.float32 and torch.equal(images, torch.from_numpy(whole.frames[frames]).float() / 255)
    assert rate == pytest.approx(fps) and count == len(frames)
    first, samples = round(seconds[0] * 16000), round(seconds[1] * 16000)
    expected = whole.audio.waveform[None, :, first : first + samples]
    assert audio["sample_rate"] == 16000 == sound.sample_rate and torch.equal(audio["waveform"], expected)


def test_the_size(path):
    """One side alone keeps the proportions; the picture is all of the frame, whose grey is 20 + 7 x 5."""
    for changes, shape in (({"width": 32}, (1, 24, 32, 3)), ({"width": 30, "height": 40}, (1, 40, 30, 3))):
        images = load(InputImpl.VideoFromFile(path), skip_first_frames=5, frame_load_cap=1, **changes)[0]
        assert images.shape == shape
        torch.testing.assert_close(images, torch.full(shape, 55 / 255), rtol=0, atol=3 / 255)


def test_nothing_left_and_no_sound(path, folders):
    with pytest.raises(PortraitError, match="nothing is left after 0 s and 99 frames of 3.0 s: skip less"):
        load(InputImpl.VideoFromFile(path), skip_first_frames=99)
    silent = folders / "input" / "silent.mp4"
    with VideoWriter(silent, 64, 48, 10, None, 4) as writer:
        writer.write(np.zeros((3, 48, 64, 3), np.uint8))
    assert load(InputImpl.VideoFromFile(silent))[1] is None


def test_a_style_is_read_from_a_video_with_its_own_sound(path, loaded):
    whole = load_video(path)
    frames = torch.from_numpy(whole.frames).float() / 255
    of_video = SVPStyleExtract.execute(loaded[0], frames=InputImpl.VideoFromFile(path)).args[0]
    of_parts = SVPStyleExtract.execute(loaded[0], frames=frames, audio=audio_to_host(whole.audio), fps=10.0).args[0]
    silent = SVPStyleExtract.execute(loaded[0], frames=frames, fps=10.0).args[0]
    torch.testing.assert_close(of_video.mu, of_parts.mu, rtol=0, atol=1e-5)
    assert not torch.allclose(silent.mu, of_parts.mu, atol=1e-3)


def test_a_trimmed_video_is_read_in_its_window(path):
    class Trimmed(InputImpl.VideoFromFile):
        """As newer hosts have it."""

        def get_active_trim_window(self):
            return 0.5, 1.0

    images, audio, fps, count = load(Trimmed(path), skip_first_frames=2)
    whole = load_video(path)
    assert count == 8 and torch.equal(images, torch.from_numpy(whole.frames[7:15]).float() / 255)
    assert torch.equal(audio["waveform"][0], whole.audio.waveform[:, 11200:24000])
