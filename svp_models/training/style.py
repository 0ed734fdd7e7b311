"""Training of the style extractor by InfoNCE (sec. 3.1, eq. 6-7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..networks.style_extractor import StyleExtractor
from .corpus import Corpus
from .loop import Schedule, run_phase, torch_generator
from .losses import info_nce
from .takes import ReadingError, Takes, as_read

SPEAKERS, EMOTIONS_EACH, TAKES_EACH = 8, 4, 2  # a batch: every anchor has a positive and both kinds of hard negatives
SHORTEST = 20  # frames
DROP_AUDIO, DROP_EXPRESSION = 0.3, 0.2  # never both
TEMPERATURE = 0.1
INPUTS = ((1, 1), (0, 1), (1, 0))  # sound and expression, expression alone, sound alone
CLIPS_AT_ONCE = 64


@dataclass(frozen=True)
class StyleData:
    """What the extractor learns from: clips drawn once and performed a few times more, see Takes.

    corpus: the drawn clips; expression: n x f x 64, theirs as the analyser reads it; takes: the further ones.
    """

    corpus: Corpus
    expression: np.ndarray
    takes: Takes

    @cached_property
    def error(self) -> ReadingError:
        return ReadingError.between(self.expression, np.array(self.corpus.expression))

    def take(self, clip: int, number: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Take `number` of a clip, 0 the drawn one: mel f x 1920 and expression f x 64 as an analyser reads it."""
        if number == 0:
            return self.corpus.mel[clip], self.expression[clip]
        return self.takes.mel[clip, number - 1], as_read(self.takes.expression[clip, number - 1], self.error, rng)


def style_batch(corpus: Corpus, takes: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Tensor]:
    """Clip numbers, take numbers (two different ones a clip) and labels, equal for the same speaker and emotion."""
    by_speaker: dict[int, list[int]] = {}
    for index, label in enumerate(corpus.labels):
        by_speaker.setdefault(label.speaker, []).append(index)
    clips, numbers, labels = [], [], []
    for who in rng.choice(list(by_speaker), min(SPEAKERS, len(by_speaker)), replace=False):
        shown = by_speaker[int(who)]
        for clip in rng.choice(shown, min(EMOTIONS_EACH, len(shown)), replace=False):
            clips += [int(clip)] * TAKES_EACH
            numbers += list(rng.choice(takes + 1, TAKES_EACH, replace=False))
            labels += [int(clip)] * TAKES_EACH
    return np.array(clips), np.array(numbers), torch.tensor(labels)


def train_style_extractor(
    data: StyleData,
    extractor: StyleExtractor,
    schedule: Schedule,
    folder: Path,
    seed: int,
    report: Callable[[str], None],
) -> StyleExtractor:
    """Trains the extractor on sound and expressions; see run_phase for files and resuming."""

    def loss_function(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        clips, numbers, labels = style_batch(data.corpus, data.takes.count, rng)
        frames = data.corpus.config.frames
        pairs = [data.take(int(clip), int(number), rng) for clip, number in zip(clips, numbers, strict=True)]
        audio = torch.from_numpy(np.stack([mel for mel, _ in pairs])).float()  # n f 1920
        beta = torch.from_numpy(np.stack([expression for _, expression in pairs])).float()  # n f 64
        length = torch.from_numpy(rng.integers(SHORTEST, frames + 1, len(clips)))
        start = (torch.from_numpy(rng.random(len(clips))) * (frames - length + 1)).long()
        position = torch.arange(frames)[None]
        mask = (position >= start[:, None]) & (position < (start + length)[:, None])  # n f
        drop = torch.from_numpy(rng.random(len(clips)))[:, None, None]
        audio = audio * (drop >= DROP_AUDIO)
        beta = beta * ((drop < DROP_AUDIO) | (drop >= DROP_AUDIO + DROP_EXPRESSION))
        mu, sigma = extractor(audio, beta, mask)
        codes = mu + sigma * torch.randn(mu.shape, generator=torch_generator(rng))  # eq. 4
        loss = info_nce(codes, labels, TEMPERATURE)
        return loss, {"sigma": sigma.mean().item(), "spread": mu.std(0).mean().item()}

    return run_phase(
        "style_extractor", extractor, extractor.parameters(), loss_function, schedule, folder, seed, report
    )


@torch.no_grad()
def corpus_priors(data: StyleData, extractor: StyleExtractor, seed: int) -> tuple[Tensor, Tensor]:
    """Style priors of every take of every clip by input: mu and sigma, each 3 x takes + 1 x clips x d_s.

    First for both inputs, then for expression alone and audio alone; take 0 is the drawn clip.
    """
    extractor.eval()
    rng = np.random.default_rng(seed)
    count, clips = data.takes.count + 1, data.corpus.config.clips
    mu = torch.empty(3, count, clips, extractor.pool.in_features)
    sigma = torch.empty_like(mu)
    for start in range(0, clips, CLIPS_AT_ONCE):
        rows = range(start, min(start + CLIPS_AT_ONCE, clips))
        for number in range(count):
            pairs = [data.take(clip, number, rng) for clip in rows]
            audio = torch.from_numpy(np.stack([mel for mel, _ in pairs])).float()  # n f 1920
            beta = torch.from_numpy(np.stack([expression for _, expression in pairs])).float()  # n f 64
            whole = torch.ones(audio.shape[:2], dtype=torch.bool)
            for kind, (heard, seen) in enumerate(INPUTS):
                place = (kind, number, slice(rows.start, rows.stop))
                mu[place], sigma[place] = extractor(audio * heard, beta * seen, whole)
    return mu, sigma
