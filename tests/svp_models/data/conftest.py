"""Small films with known content: drawn people who speak, and a marker that a backend of the tests takes for a face."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.data.extract import Preprocessors
from svp_portrait.svp_models.data.schema import OutputOptions, PrepareConfig, VideoOptions
from svp_portrait.svp_models.face.detection import FaceDetection
from svp_portrait.svp_models.media.writer import VideoWriter
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import Audio

SIZE = 128
FRAMES = 56  # of a drawn film
MARKER = (250, 30, 230)  # colour of a marker's middle
UNIT = np.stack(np.meshgrid(np.linspace(-1, 1, 8), np.linspace(-1, 1, 9)), axis=-1).reshape(-1, 2)  # 72 2


@pytest.fixture(scope="session")
def people():
    """Two drawn clips of 56 frames, 128 pixels, 25 fps."""
    return [make_clip(speaker(index, "train"), "happy", 3, 5, FRAMES / 25, 25.0, SIZE) for index in (3, 7)]


def write_video(path: Path, frames: np.ndarray, fps: float = 25, sound: np.ndarray | None = None, crf: int = 4) -> Path:
    """frames n h w 3; sound: mono at 16 kHz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = None if sound is None else Audio(torch.from_numpy(np.float32(sound))[None], 16000)
    with VideoWriter(path, frames.shape[2], frames.shape[1], fps, audio, crf) as writer:
        writer.write(frames)
    return path


def noise(frames: int, seed: int = 0) -> np.ndarray:
    """Sound for so many frames at 25 fps."""
    return np.random.default_rng(seed).normal(0, 0.1, frames * 640).astype(np.float32)


def marked(places: np.ndarray, width: int = 320, height: int = 240, radius: float = 40, seed: int = 0) -> np.ndarray:
    """A film (n h w 3) of a steady noisy ground with a disc at each of the places (n 2, pixels, continuous)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 140, (height // 20, width // 20, 3), dtype=np.uint8)
    ground = coarse.repeat(20, axis=0).repeat(20, axis=1)
    y, x = np.mgrid[:height, :width] + 0.5
    frames = np.repeat(ground[None], len(places), axis=0)
    for frame, (across, down) in zip(frames, places, strict=True):
        frame[np.hypot(x - across, y - down) < radius] = MARKER
    return frames


def marker_of(frame: np.ndarray) -> tuple[float, float, float] | None:
    """(x, y, radius) of the marker in a picture, pixels; None without one."""
    inside = (np.abs(frame.astype(int) - MARKER) < 40).all(axis=-1)
    if inside.sum() < 20:
        return None
    rows, columns = np.nonzero(inside)
    return columns.mean() + 0.5, rows.mean() + 0.5, float(np.sqrt(inside.sum() / np.pi))


class MarkerBackend:
    """Takes the marker for a face whose points lie on a grid within it; remembers how many frames it was given at once."""

    name = "marker"

    def __init__(self) -> None:
        self.batches: list[int] = []

    def detect(self, frames: np.ndarray) -> Iterator[list[FaceDetection]]:
        self.batches.append(len(frames))
        for frame in frames:
            found = marker_of(frame)
            yield [] if found is None else [face_at(*found)]


def face_at(x: float, y: float, radius: float) -> FaceDetection:
    points = (np.array([x, y]) + radius * UNIT).astype(np.float32)
    return FaceDetection(
        box=np.array([x - radius, y - radius, x + radius, y + radius], np.float32),
        head_keypoints=points[:8],
        five_points=points[[10, 13, 36, 58, 61]],
        landmarks=points[:68],
        pose=np.array([x, y, radius], np.float32),
        expression=np.full(64, x, np.float32),
    )


@pytest.fixture
def preprocessors() -> Preprocessors:
    return Preprocessors(MarkerBackend())


def recipe_for(size: int = 64, seconds: float = 10.0, **films) -> PrepareConfig:
    return PrepareConfig(OutputOptions(size=size, seconds=seconds, crf=4), VideoOptions(**films))
