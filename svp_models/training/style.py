"""Training of the style extractor by InfoNCE (sec. 3.1, eq. 6-7)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..networks.style_extractor import StyleExtractor
from ..synthetic.emotions import EMOTIONS
from .corpus import Corpus
from .loop import Schedule, run_phase, torch_generator
from .losses import info_nce

SPEAKERS, EMOTIONS_EACH, CLIPS_EACH = 8, 4, 2  # a batch: every anchor has a positive and both kinds of hard negatives
SHORTEST = 20  # frames
DROP_AUDIO, DROP_EXPRESSION = 0.2, 0.25  # never both
TEMPERATURE = 0.1


def style_batch(corpus: Corpus, rng: np.random.Generator) -> tuple[np.ndarray, Tensor]:
    """Clip numbers (two a speaker and emotion) and one label a clip, equal for the same speaker and emotion."""
    by_style: dict[tuple[int, int], list[int]] = {}
    for index, label in enumerate(corpus.labels):
        by_style.setdefault((label.speaker, label.emotion), []).append(index)
    clips, labels = [], []
    for who in rng.choice(corpus.config.speakers, min(SPEAKERS, corpus.config.speakers), replace=False):
        shown = [emotion for speaker, emotion in by_style if speaker == who]
        for emotion in rng.choice(shown, min(EMOTIONS_EACH, len(shown)), replace=False):
            choices = by_style[int(who), int(emotion)]
            clips += [int(each) for each in rng.choice(choices, CLIPS_EACH, replace=len(choices) < CLIPS_EACH)]
            labels += [int(who) * len(EMOTIONS) + int(emotion)] * CLIPS_EACH
    return np.array(clips), torch.tensor(labels)


def train_style_extractor(
    corpus: Corpus,
    expression: np.ndarray,
    extractor: StyleExtractor,
    schedule: Schedule,
    folder: Path,
    seed: int,
    report: Callable[[str], None],
) -> StyleExtractor:
    """Trains the extractor on the corpus's audio and on `expression` (clips x frames x 64, as the analyser reads it)."""

    def loss_function(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        clips, labels = style_batch(corpus, rng)
        frames = corpus.config.frames
        audio = torch.from_numpy(corpus.mel[clips]).float()  # n f 1920
        beta = torch.from_numpy(expression[clips]).float()  # n f 64
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
def corpus_priors(corpus: Corpus, expression: np.ndarray, extractor: StyleExtractor) -> tuple[Tensor, Tensor]:
    """Style priors of all clips by input: mu and sigma, each 3 x clips x d_s for both inputs, expression alone, audio alone."""
    extractor.eval()
    means, deviations = [], []
    for with_audio, with_expression in ((1, 1), (0, 1), (1, 0)):
        mean, deviation = [], []
        for start in range(0, corpus.config.clips, 64):
            audio = torch.from_numpy(corpus.mel[start : start + 64]).float() * with_audio
            beta = torch.from_numpy(expression[start : start + 64]).float() * with_expression
            mu, sigma = extractor(audio, beta, torch.ones(audio.shape[:2], dtype=torch.bool))
            mean.append(mu)
            deviation.append(sigma)
        means.append(torch.cat(mean))
        deviations.append(torch.cat(deviation))
    return torch.stack(means), torch.stack(deviations)
