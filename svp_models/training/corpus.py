"""The training corpus: drawn clips of the train speakers, kept as memory-mapped arrays so that any frame is one read away."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..networks.audio_features import mel_features
from ..synthetic.clips import DATA_VERSION, make_clip
from ..synthetic.emotions import EMOTIONS, INTENSITIES
from ..synthetic.speakers import TRAIN_SPEAKERS, speaker
from ..values import Audio
from .store import fill_store, open_store

SAMPLE_RATE = 16000


@dataclass(frozen=True)
class CorpusConfig:
    """Size of the corpus. emotions: how many each speaker shows, one clip each, neutral always; frames: of a clip.

    Many people in few moods: what the networks must learn to tell apart is faces they have never seen.
    """

    speakers: int = TRAIN_SPEAKERS
    emotions: int = 4
    frames: int = 40
    fps: float = 25.0
    size: int = 128
    seed: int = 0

    @property
    def clips(self) -> int:
        return self.speakers * self.emotions


@dataclass(frozen=True)
class ClipLabel:
    """Who says what, and how, in clip `index`."""

    speaker: int
    emotion: int
    intensity: int
    seed: int


def _fields(config: CorpusConfig) -> dict[str, tuple[tuple[int, ...], str]]:
    n, f, s = config.clips, config.frames, config.size
    return {
        "images": ((n, f, s, s, 3), "uint8"),
        "landmarks": ((n, f, 68, 2), "float32"),
        "head_keypoints": ((n, f, 8, 2), "float32"),
        "expression": ((n, f, 64), "float32"),
        "pose": ((n, f, 6), "float32"),
        "mel": ((n, f, 1920), "float16"),
    }


def clip_labels(config: CorpusConfig) -> list[ClipLabel]:
    """The label of every clip, in an order shuffled by the seed so that any prefix is varied."""
    rng = np.random.default_rng(config.seed)
    labels = []
    for who in range(config.speakers):
        moods = 1 + rng.choice(len(EMOTIONS) - 1, config.emotions - 1, replace=False)
        for emotion in (0, *moods):
            # Mostly strong: weak emotions alone would leave the style space undecided.
            intensity = int(rng.choice(INTENSITIES, p=(0.15, 0.2, 0.65)))
            labels.append(ClipLabel(who, int(emotion), intensity, int(rng.integers(2**31))))
    return [labels[index] for index in rng.permutation(len(labels))]


class Corpus:
    """An open corpus: one memory-mapped array a field, clips first, and `labels`.

    Raises PortraitError when the folder holds a corpus of another size or data version.
    """

    def __init__(self, folder: Path, config: CorpusConfig, mode: str = "r"):
        self.folder, self.config, self.labels = folder, config, clip_labels(config)
        card = {**asdict(config), "data_version": DATA_VERSION}
        arrays = open_store(folder, card, _fields(config), mode)
        self.images = arrays["images"]  # n f h w 3
        self.landmarks = arrays["landmarks"]  # n f 68 2, pixels
        self.head_keypoints = arrays["head_keypoints"]  # n f 8 2, pixels
        self.expression = arrays["expression"]  # n f 64
        self.pose = arrays["pose"]  # n f 6
        self.mel = arrays["mel"]  # n f 1920
        self.done = arrays["done"]  # n

    def finished(self) -> np.ndarray:
        """Indices of the clips drawn so far."""
        return np.flatnonzero(self.done)


def _draw(folder: Path, config: CorpusConfig, indices: list[int]) -> int:
    torch.set_num_threads(1)
    corpus = Corpus(folder, config, mode="r+")
    for index in indices:
        label = corpus.labels[index]
        who = speaker(label.speaker, "train")
        seconds = config.frames / config.fps
        clip = make_clip(who, EMOTIONS[label.emotion], label.intensity, label.seed, seconds, config.fps, config.size)
        audio = Audio(torch.from_numpy(clip.audio)[None], SAMPLE_RATE)
        corpus.images[index] = clip.images
        corpus.landmarks[index] = clip.landmarks
        corpus.head_keypoints[index] = clip.head_keypoints
        corpus.expression[index] = clip.states.expression
        corpus.pose[index] = clip.states.pose
        corpus.mel[index] = mel_features(audio, config.frames, config.fps).numpy()
        corpus.done[index] = True
    return len(indices)


def build_corpus(folder: Path, config: CorpusConfig, workers: int, report: Callable[[str], None]) -> Corpus:
    """Draws what is missing of the corpus with `workers` processes and opens it; a killed build goes on where it stopped."""
    fill_store(Corpus(folder, config).done, partial(_draw, folder, config), workers, "corpus", report)
    return Corpus(folder, config)
