"""Long films: read, moved and pasted back a few frames at a time, so that memory does not grow with them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detection import FaceDetection
from svp_portrait.svp_models.face.tracking import FaceTracker
from svp_portrait.svp_models.media import images as media_images
from svp_portrait.svp_models.media.frame_stream import FrameStream, image_stream
from svp_portrait.svp_models.motion.animation import Framing, animate_portrait
from svp_portrait.svp_models.motion.extract import extract_liveportrait_motion
from svp_portrait.svp_models.motion.liveportrait import AnimateOptions
from svp_portrait.svp_models.types import Motion

STATUS = Path("/proc/self/statm")
SIDE, WIDTH, HEIGHT = 32, 160, 120
FRAMES, WARM = 500, 100
MOST_GROWTH = 13 * 2**20  # bytes; the frames that come out take 115 MB


class Still:
    """A backend that finds the same face in every frame."""

    name = "still"

    def detect(self, frames) -> Iterator[list[FaceDetection]]:
        points = np.array([[60, 50], [90, 50], [90, 80], [60, 80]] * 17, np.float32)
        for _ in frames:
            yield [FaceDetection(np.array([60, 50, 90, 80], np.float32), points[:8], points[:5], points)]


def film(count: int) -> FrameStream:
    """Noise, made while it is read."""

    def read() -> Iterator[np.ndarray]:
        random = np.random.default_rng(0)
        return (random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(count))

    return FrameStream(read, WIDTH, HEIGHT, count, 25.0)


def resident() -> int:
    """Bytes of memory of this process that no file backs."""
    pages = [int(number) for number in STATUS.read_text().split()]
    return (pages[1] - pages[2]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """The memory after the first frames and the most of it behind them; called as progress."""

    def __init__(self, start: float) -> None:
        self._start, self.first, self.most = start, 0, 0

    def __call__(self, done: int, total: int) -> None:
        if done / total < self._start:
            return
        now = resident()
        self.first = self.first or now
        self.most = max(self.most, now)


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.is_file(), reason="this system does not say how much memory a process has")
def test_memory_does_not_grow_with_the_film(liveportrait_networks, monkeypatch, tmp_path):
    monkeypatch.setattr(media_images, "MAX_IN_MEMORY", 2**20)  # the frames go into a file, as those of ten minutes do
    reading, moving = Peak(WARM / FRAMES), Peak(WARM / FRAMES)
    clip, tracker = film(FRAMES), FaceTracker(Still())
    motion = extract_liveportrait_motion(liveportrait_networks, clip, 25.0, tracker, progress=reading, side=SIDE)
    assert len(motion) == FRAMES and reading.most - reading.first < MOST_GROWTH
    images, mask, fps = animate_portrait(
        liveportrait_networks, clip, motion, AnimateOptions("lips", relative=False), Framing(analyzer=tracker, side=SIDE),
        str(tmp_path), moving,
    )  # fmt: skip
    assert (images.shape, mask.shape, fps) == ((FRAMES, HEIGHT, WIDTH, 3), (FRAMES, HEIGHT, WIDTH), 25.0)
    assert moving.most - moving.first < MOST_GROWTH


def test_cancelled_between_frames_and_shown_as_they_come(liveportrait_networks):
    motion = Motion(torch.zeros(9, 3), torch.zeros(9, 2), torch.ones(9), torch.zeros(9, 63), 25.0, "liveportrait")
    shown, framing = [], Framing("face", analyzer=FaceTracker(Still()), side=SIDE)
    picture = image_stream(torch.rand(1, HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(0)))

    def stop(done: int, total: int) -> None:
        if len(shown) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        animate_portrait(liveportrait_networks, picture, motion, framing=framing, progress=stop, show=shown.append)
    assert [tuple(frame.shape) for frame in shown] == [(2 * SIDE, 2 * SIDE, 3)] * 2
    with pytest.raises(PortraitError, match="the framing is 'half': choose one of paste back, face, whole image"):
        animate_portrait(liveportrait_networks, picture, motion, framing=Framing("half"))
