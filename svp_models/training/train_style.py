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
from ..evaluation.metrics import clustering_strength
from ..networks.style_extractor import StyleExtractor, sample_code
from .config import StylePhase
from .dataset import Clips, Expressions, Sample, Spot, stack
from .losses import info_nce

INPUTS = {"both": (1, 1), "expression": (0, 1), "audio": (1, 0)}  # which of sound and expression are given
CLIPS_AT_ONCE = 64
INPUT_SHARES = (0.7, 0.2, 0.1)  # of the styles that later phases read


class StyleTraining:
    """The phase of the style extractor.

    Labelled clips (an emotion) are alike when person and emotion are; unlabelled ones when they are of one video, and where
    there is only one, two stretches of it that do not overlap are taken.
    """

    name = "style"

    def __init__(self, extractor: StyleExtractor, expressions: Expressions, test: Expressions, config: StylePhase):
        self.module, self.expressions, self.test = _Contrast(extractor, config.temperature), expressions, test
        self.clips, self.config = expressions.clips, config
        fewest = min(info.frames for info in self.clips.info)
        if config.takes > fewest:
            raise PortraitError(f"style.takes is {config.takes}: the shortest clip of the data has {fewest} frames")
        self.by_identity = style_classes(self.clips)
        shown = np.array([info.emotion for info in self.clips.info])
        self.by_emotion = {emotion: np.flatnonzero(shown == emotion) for emotion in set(shown.tolist())}

    def draw(self, spot: Spot) -> Sample:
        """Audio n x A, expression n x 64, mask n of a stretch of a clip, `label`, equal for clips that are alike, and `seed`."""
        config, rng = self.config, spot.rng()
        take = choose_takes(self.by_identity, spot.places, config.emotions, config.takes, spot.shared_rng())[spot.place]
        audio, expression = self.clips.features(take.clip), self.expressions(take.clip, rng)
        if rng.random() < config.mix_voices:
            audio = self._in_another_voice(audio, self.clips.info[take.clip].emotion, rng)
        low, high = 0, len(expression)
        if take.alone:  # its positives are stretches of the same clip
            edges = np.linspace(0, len(expression), config.takes + 1).astype(int)
            low, high = int(edges[take.turn]), int(edges[take.turn + 1])
        longest = self.module.extractor.max_frames
        length = int(rng.integers(min(config.shortest, high - low), min(high - low, longest) + 1))
        start = int(rng.integers(low, high - length + 1))
        drop = rng.random()
        heard, seen = (
            drop >= config.drop_audio,
            not config.drop_audio <= drop < config.drop_audio + config.drop_expression,
        )
        sample = padded(audio[start : start + length] * heard, expression[start : start + length] * seen, longest)
        return {**sample, "label": torch.tensor(take.label), "seed": torch.tensor(int(rng.integers(2**62)))}

    def _in_another_voice(self, audio: Tensor, emotion: str, rng: np.random.Generator) -> Tensor:
        """The sound's changes around the mean of another clip of that emotion: who speaks is left to the expressions."""
        other = self.clips.features(int(rng.choice(self.by_emotion[emotion])))
        return audio - audio.mean(0) + other.mean(0)

    def validate(self) -> dict[str, float]:
        """Clustering strength (eq. 8) on test clips by what is given."""
        return {
            f"clustering_{name}": float(np.mean(list(strengths.values())))
            for name, strengths in clustering(self.module.extractor, self.test).items()
            if strengths
        }

    def show(self, folder: Path, step: int) -> None:
        """There is nothing to look at."""


class _Contrast(nn.Module):
    def __init__(self, extractor: StyleExtractor, temperature: float):
        super().__init__()
        self.extractor, self.temperature = extractor, temperature

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        mu, sigma = self.extractor(batch["audio"], batch["expression"], batch["mask"])
        generators = [torch.Generator().manual_seed(int(seed)) for seed in batch["seed"]]
        codes = torch.stack([sample_code(*each) for each in zip(mu, sigma, generators, strict=True)])  # (4)
        labels = batch["label"]
        loss = info_nce(*shared_by_all(codes, labels), self.temperature)
        # Every process sees the gradient of its own codes only, and the engine takes the mean over processes.
        loss = loss + (world_size() - 1) * (loss - loss.detach())
        return loss, {"sigma": sigma.mean(), "spread": mu.std(0).mean()}


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def shared_by_all(codes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Codes n d and labels n of all processes, so that each sees the negatives of the others; gradients reach its own codes."""
    if world_size() == 1:
        return codes, labels
    all_codes, all_labels = ([torch.empty_like(each) for _ in range(world_size())] for each in (codes, labels))
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
    """One place of a batch. label: equal for clips that are alike; turn: which of the label's takes; alone: all are of one clip."""

    label: int
    clip: int
    turn: int
    alone: bool


def choose_takes(
    by_identity: list[list[list[int]]], places: int, emotions: int, takes: int, rng: np.random.Generator
) -> list[Take]:
    """A batch in which every anchor has positives and both kinds of hard negatives, where the data have them.

    As many identities as it needs, up to `emotions` classes of each, `takes` clips of every class.
    """
    classes: list[list[int]] = []
    wanted = max(1, places // takes)
    for who in rng.permutation(len(by_identity)):
        shown = by_identity[who]
        classes += [shown[each] for each in rng.permutation(len(shown))[: min(emotions, wanted - len(classes))]]
        if len(classes) == wanted:
            break
    batch = []
    for place in range(places):
        label, turn = divmod(place, takes)
        label %= len(classes)
        if turn == 0:
            clips = rng.permutation(classes[label])
        batch.append(Take(label, int(clips[turn % len(clips)]), turn, len(clips) < takes))
    return batch


def style_input(expressions: Expressions, clip: int, longest: int, rng: np.random.Generator) -> Sample:
    """What the extractor reads of a clip, one of the two inputs missing now and then: style_audio n A, style_expression n 64,
    style_mask n, n = longest."""
    heard, seen = list(INPUTS.values())[int(rng.choice(len(INPUTS), p=INPUT_SHARES))]
    audio, expression = expressions.clips.features(clip), expressions(clip, rng)
    start = int(rng.integers(max(1, len(audio) - longest + 1)))
    rows = slice(start, start + longest)
    return {
        f"style_{key}": value for key, value in padded(audio[rows] * heard, expression[rows] * seen, longest).items()
    }


def padded(audio: Tensor, expression: Tensor, length: int) -> Sample:
    """Rows filled up with zeros to `length`, and the mask (True = valid)."""
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
    people, moods = ([getattr(clips.info[each], name) for each in labelled] for name in ("identity", "emotion"))
    given = []
    for number in labelled:
        rows = slice(0, extractor.max_frames)
        given.append(padded(clips.features(number)[rows], expressions(number, rng)[rows], extractor.max_frames))
    result = {}
    for name, (heard, seen) in INPUTS.items():
        codes = []
        for start in range(0, len(given), CLIPS_AT_ONCE):
            batch = {key: value.to(device) for key, value in stack(given[start : start + CLIPS_AT_ONCE]).items()}
            codes.append(extractor(batch["audio"] * heard, batch["expression"] * seen, batch["mask"])[0].cpu())
        result[name] = clustering_strength(torch.cat(codes).numpy(), people, moods) if codes else {}
    return result
