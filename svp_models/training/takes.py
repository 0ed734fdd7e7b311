"""Further takes of every clip of a corpus: the same person, emotion and intensity say something else, without pictures.

The style extractor learns from them what clips of one style share; with a single clip each it would learn to tell clips
by their sound. Speech and movement cost a fraction of what drawing costs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from ..networks.audio_features import mel_features
from ..synthetic.clips import DATA_VERSION, act
from ..synthetic.emotions import EMOTIONS
from ..synthetic.speakers import speaker
from ..values import Audio
from .corpus import SAMPLE_RATE, CorpusConfig, clip_labels
from .store import fill_store, open_store


class Takes:
    """Open takes. expression: n clips x takes x f x 64, as performed; mel: n x takes x f x 1920."""

    def __init__(self, folder: Path, config: CorpusConfig, takes: int, mode: str = "r"):
        n, f = config.clips, config.frames
        fields = {"expression": ((n, takes, f, 64), "float32"), "mel": ((n, takes, f, 1920), "float16")}
        card = {**asdict(config), "takes": takes, "data_version": DATA_VERSION}
        arrays = open_store(folder, card, fields, mode)
        self.config, self.count, self.labels = config, takes, clip_labels(config)
        self.expression, self.mel, self.done = arrays["expression"], arrays["mel"], arrays["done"]


def _perform(folder: Path, config: CorpusConfig, count: int, indices: list[int]) -> int:
    torch.set_num_threads(1)
    takes = Takes(folder, config, count, mode="r+")
    for index in indices:
        label = takes.labels[index]
        who = speaker(label.speaker, "train")
        for take in range(count):
            seed = label.seed + 1 + take  # the clip itself has the label's own
            _, speech, states = act(who, EMOTIONS[label.emotion], label.intensity, seed, config.frames, config.fps)
            takes.expression[index, take] = states.expression
            audio = Audio(torch.from_numpy(speech.waveform)[None], SAMPLE_RATE)
            takes.mel[index, take] = mel_features(audio, config.frames, config.fps).numpy()
        takes.done[index] = True
    return len(indices)


def build_takes(folder: Path, config: CorpusConfig, count: int, workers: int, report: Callable[[str], None]) -> Takes:
    """Performs what is missing with `workers` processes and opens it; a killed build goes on where it stopped."""
    fill = partial(_perform, folder, config, count)
    fill_store(Takes(folder, config, count).done, fill, workers, "takes", report)
    return Takes(folder, config, count)


@dataclass(frozen=True)
class ReadingError:
    """How an analyser errs, by coefficient (64): standard deviations of its error's mean over a clip and around that."""

    bias: np.ndarray
    noise: np.ndarray

    @classmethod
    def between(cls, read: np.ndarray, true: np.ndarray) -> ReadingError:
        """Measured on clips: both n x f x 64."""
        error = read - true
        return cls(error.mean(1).std(0), error.std(1).mean(0))


def as_read(performed: np.ndarray, error: ReadingError, rng: np.random.Generator) -> np.ndarray:
    """Performed expressions ... f 64 as an analyser would have read them from pictures."""
    bias = rng.standard_normal((*performed.shape[:-2], 1, performed.shape[-1])) * error.bias
    return (performed + bias + rng.standard_normal(performed.shape) * error.noise).astype(np.float32)
