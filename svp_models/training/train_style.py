"""Training of the style extractor by InfoNCE (sec. 3.1, eq. 6-7)."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import PortraitError
from ..evaluation.metrics.style import clustering_strength
from ..networks.style_extractor import StyleExtractor, sample_code
from .config import StylePhase
from .dataset import Clips, Expressions, Sample, SampleIndex, stack
from .losses import info_nce

INPUTS = {"both": (1, 1), "expression": (0, 1), "audio": (1, 0)}  # whether audio and expression are given
EVALUATION_BATCH = 64  # clips


class StyleTraining:
    """The phase of the style extractor.

    Clips with an emotion label share a class if person and emotion are the same; unlabelled clips if they are of one video. A
    class of a single clip gives several segments of it that do not overlap.
    """

    name = "style"

    def __init__(self, extractor: StyleExtractor, expressions: Expressions, test: Expressions, config: StylePhase):
        self.module, self.expressions, self.test = StyleModule(extractor, config.temperature), expressions, test
        self.clips, self.config = expressions.clips, config
        fewest = min(info.frames for info in self.clips.info)
        if config.takes > fewest:
            raise PortraitError(f"style.takes is {config.takes}: the shortest clip of the data has {fewest} frames")
        self.by_identity = style_classes(self.clips)
        emotions = np.array([info.emotion for info in self.clips.info])
        self.by_emotion = {emotion: np.flatnonzero(emotions == emotion) for emotion in set(emotions.tolist())}

    def sample(self, index: SampleIndex) -> Sample:
        """A segment of a clip: audio n A, expression n 64 and mask n; `label`, equal for clips of one class; `seed`."""
        config, rng = self.config, index.rng()
        batch = choose_takes(self.by_identity, index.batch_size, config.emotions, config.takes, index.shared_rng())
        take = batch[index.position]
        audio, expression = self.clips.features(take.clip), self.expressions(take.clip, rng)
        if rng.random() < config.voice_mix_prob:
            audio = self._in_another_voice(audio, self.clips.info[take.clip].emotion, rng)
        low, high = 0, len(expression)
        if take.alone:  # its positives are other segments of the same clip
            edges = np.linspace(0, len(expression), config.takes + 1).astype(int)
            low, high = int(edges[take.turn]), int(edges[take.turn + 1])
        max_frames = self.module.extractor.max_frames
        length = int(rng.integers(min(config.min_frames, high - low), min(high - low, max_frames) + 1))
        start = int(rng.integers(low, high - length + 1))
        segment = slice(start, start + length)
        chance = rng.random()
        with_audio = chance >= config.audio_drop_prob
        upper = config.audio_drop_prob + config.expression_drop_prob
        with_expression = not config.audio_drop_prob <= chance < upper
        sample = padded(audio[segment] * with_audio, expression[segment] * with_expression, max_frames)
        return {**sample, "label": torch.tensor(take.label), "seed": torch.tensor(int(rng.integers(2**62)))}

    def _in_another_voice(self, audio: Tensor, emotion: str, rng: np.random.Generator) -> Tensor:
        """Audio features with the mean of another clip of that emotion, so that the voice does not identify the person."""
        other = self.clips.features(int(rng.choice(self.by_emotion[emotion])))
        return audio - audio.mean(0) + other.mean(0)

    def validate(self) -> dict[str, float]:
        """Clustering strength (eq. 8) on test clips, for each choice of inputs."""
        return {
            f"clustering_{name}": float(np.mean(list(strengths.values())))
            for name, strengths in clustering(self.module.extractor, self.test).items()
            if strengths
        }

    def write_sample(self, folder: Path, step: int) -> None:
        """Nothing: there is no video to look at."""


class StyleModule(nn.Module):
    """Batch -> InfoNCE loss of sampled style codes."""

    def __init__(self, extractor: StyleExtractor, temperature: float):
        super().__init__()
        self.extractor, self.temperature = extractor, temperature

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        mu, sigma = self.extractor(batch["audio"], batch["expression"], batch["mask"])
        codes = sample_codes(mu, sigma, seeded_generators(batch["seed"]))
        loss = info_nce(*gathered(codes, batch["label"]), self.temperature)
        # Every process has the gradient of its own codes only, and the trainer takes the mean over processes.
        loss = loss + (world_size() - 1) * (loss - loss.detach())
        return loss, {"sigma": sigma.mean(), "spread": mu.std(0).mean()}


def seeded_generators(seeds: Tensor) -> list[torch.Generator]:
    """One CPU generator for each seed."""
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def sample_codes(mu: Tensor, sigma: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Style codes s = mu + sigma x noise (4), one generator for each: n d_s."""
    return torch.stack([sample_code(*item) for item in zip(mu, sigma, generators, strict=True)])


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def gathered(codes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Codes n d and labels n of all processes, so that each sees the negatives of the others; gradients reach its own codes."""
    if world_size() == 1:
        return codes, labels
    all_codes, all_labels = ([torch.empty_like(own) for _ in range(world_size())] for own in (codes, labels))
    dist.all_gather(all_codes, codes.detach().contiguous())
    dist.all_gather(all_labels, labels.contiguous())
    all_codes[dist.get_rank()] = codes
    return torch.cat(all_codes), torch.cat(all_labels)


def style_classes(clips: Clips) -> list[list[list[int]]]:
    """Identity -> class -> its clips, see StyleTraining."""
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for number, info in enumerate(clips.info):
        found[info.identity][info.emotion or f"video {info.group}"].append(number)
    return [list(classes.values()) for classes in found.values()]


@dataclass(frozen=True)
class Take:
    """One position of a batch. label: of the clip's class; turn: which of the class's takes; alone: all takes are of one clip."""

    label: int
    clip: int
    turn: int
    alone: bool


def choose_takes(
    by_identity: list[list[list[int]]], batch_size: int, emotions: int, takes: int, rng: np.random.Generator
) -> list[Take]:
    """A batch in which every anchor has positives and both kinds of hard negatives, where the data set has them.

    It takes as many identities as the batch needs, up to `emotions` classes of each, and `takes` clips of every class.
    """
    classes: list[list[int]] = []
    needed = max(1, batch_size // takes)
    for identity in rng.permutation(len(by_identity)):
        own = by_identity[identity]
        classes += [own[index] for index in rng.permutation(len(own))[: min(emotions, needed - len(classes))]]
        if len(classes) == needed:
            break
    batch = []
    for position in range(batch_size):
        label, turn = divmod(position, takes)
        label %= len(classes)
        if turn == 0:
            clips = rng.permutation(classes[label])
        batch.append(Take(label, int(clips[turn % len(clips)]), turn, len(clips) < takes))
    return batch


def style_input(
    expressions: Expressions, clip: int, length: int, probs: tuple[float, ...], rng: np.random.Generator
) -> Sample:
    """What the extractor reads of a clip: style_audio n A, style_expression n 64, style_mask n, n = length. probs: chances of
    both inputs, expression alone, audio alone."""
    with_audio, with_expression = list(INPUTS.values())[int(rng.choice(len(INPUTS), p=probs))]
    audio, expression = expressions.clips.features(clip), expressions(clip, rng)
    start = int(rng.integers(max(1, len(audio) - length + 1)))
    rows = slice(start, start + length)
    inputs = padded(audio[rows] * with_audio, expression[rows] * with_expression, length)
    return {f"style_{key}": value for key, value in inputs.items()}


def padded(audio: Tensor, expression: Tensor, length: int) -> Sample:
    """Rows padded with zeros to `length`, and the mask (True = valid)."""
    missing = length - len(audio)
    return {
        "audio": nn.functional.pad(audio, (0, 0, 0, missing)),
        "expression": nn.functional.pad(expression, (0, 0, 0, missing)),
        "mask": torch.arange(length) < len(audio),
    }


@torch.no_grad()
def clustering(extractor: StyleExtractor, expressions: Expressions) -> dict[str, dict[str, float]]:
    """Clustering strength (eq. 8) of labelled clips: input (both, expression, audio) -> emotion -> strength."""
    extractor.eval()
    clips = expressions.clips
    device, rng = next(extractor.parameters()).device, np.random.default_rng(0)
    labelled = [number for number, info in enumerate(clips.info) if info.emotion]
    people, emotions = ([getattr(clips.info[clip], name) for clip in labelled] for name in ("identity", "emotion"))
    inputs = []
    for number in labelled:
        rows = slice(0, extractor.max_frames)
        inputs.append(padded(clips.features(number)[rows], expressions(number, rng)[rows], extractor.max_frames))
    result = {}
    for name, (with_audio, with_expression) in INPUTS.items():
        codes = []
        for start in range(0, len(inputs), EVALUATION_BATCH):
            batch = {key: value.to(device) for key, value in stack(inputs[start : start + EVALUATION_BATCH]).items()}
            mu, _ = extractor(batch["audio"] * with_audio, batch["expression"] * with_expression, batch["mask"])
            codes.append(mu.cpu())
        result[name] = clustering_strength(torch.cat(codes).numpy(), people, emotions) if codes else {}
    return result
