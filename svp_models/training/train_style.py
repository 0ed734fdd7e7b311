"""Training of the style extractor by InfoNCE (sec. 3.1, eq. 6-7), and beside it by what its codes tell of their clips."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..errors import PortraitError
from ..evaluation.metrics.series import correlation
from ..evaluation.metrics.style import clustering_strength, code_distances, probe_r2
from ..networks.style_extractor import StyleExtractor, sample_code
from .config import StylePhase
from .dataset import Clips, Expressions, Sample, SampleIndex, stack
from .losses import info_nce
from .style_statistics import StatisticsDecoder, clip_statistics, statistic_groups

INPUTS = {"both": (1, 1), "expression": (0, 1), "audio": (1, 0)}  # whether audio and expression are given
EVALUATION_BATCH = 64  # clips
PROBE_CLIPS = 1024  # training clips that a probe of the codes is fitted on, at most
SHORT = 10  # frames of a style clip that says little
NEUTRAL = "neutral"


class StyleTraining:
    """The phase of the style extractor.

    Clips with an emotion label share a class if person and emotion are the same; unlabelled clips if they are of one video. A
    class of a single clip gives several segments of it that do not overlap. With `statistics_weight` a segment's prior also has
    to tell the statistics of its whole clip.
    """

    name = "style"

    def __init__(self, extractor: StyleExtractor, expressions: Expressions, test: Expressions, config: StylePhase):
        self.clips, self.config = expressions.clips, config
        self.expressions, self.test = expressions, test
        self.statistics: np.ndarray | None = None  # clips k
        decoder = None
        if config.statistics_weight:
            self.statistics = np.stack([clip_statistics(self.clips, clip) for clip in range(len(self.clips.info))])
            decoder = StatisticsDecoder(extractor.pool.in_features, self.statistics)
        self.module = StyleModule(
            extractor, config.temperature, decoder, config.statistics_weight, config.anchor_weight
        )
        fewest = min(info.frames for info in self.clips.info)
        if config.takes > fewest:
            raise PortraitError(f"style.takes is {config.takes}: the shortest clip of the data has {fewest} frames")
        self.by_identity = style_classes(self.clips)
        emotions = np.array([info.emotion for info in self.clips.info])
        self.by_emotion = {emotion: np.flatnonzero(emotions == emotion) for emotion in set(emotions.tolist())}
        self.neutral = neutral_clips(self.clips)
        if config.neutral_face_prob and not self.neutral:
            raise PortraitError(
                f"style.neutral_face_prob is {config.neutral_face_prob:g}: no clip of the data is labelled {NEUTRAL}: set it to 0"
            )

    def sample(self, index: SampleIndex) -> Sample:
        """A segment of a clip: audio n A, expression n 64 and mask n; `label`, equal for clips of one class; `seed`; if the codes
        learn them, the `statistics` of the whole clip, NaN where another face stands in."""
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
        audio, expression = audio[segment], expression[segment]
        own_face, chance = True, rng.random()
        with_audio = chance >= config.audio_drop_prob
        upper = config.audio_drop_prob + config.expression_drop_prob
        with_expression = not config.audio_drop_prob <= chance < upper
        if config.neutral_face_prob and with_audio and with_expression and rng.random() < config.neutral_face_prob:
            expression, own_face = self._neutral_face(take.clip, expression, rng), False
        sample = padded(audio * with_audio, expression * with_expression, max_frames)
        sample |= {"label": torch.tensor(take.label), "seed": torch.tensor(int(rng.integers(2**62)))}
        if self.statistics is not None:
            statistics = torch.from_numpy(self.statistics[take.clip])
            sample["statistics"] = statistics if own_face else torch.full_like(statistics, torch.nan)
        return sample

    def _in_another_voice(self, audio: Tensor, emotion: str, rng: np.random.Generator) -> Tensor:
        """Audio features with the mean of another clip of that emotion, so that the voice does not identify the person."""
        other = self.clips.features(int(rng.choice(self.by_emotion[emotion])))
        return audio - audio.mean(0) + other.mean(0)

    def _neutral_face(self, clip: int, expression: Tensor, rng: np.random.Generator) -> Tensor:
        """Expressions n 64 of the clip's person with a neutral face, as many as `expression`; itself if there are none."""
        if not (own := self.neutral.get(self.clips.info[clip].identity)):
            return expression
        other = self.expressions(int(rng.choice(own)), rng)
        start = int(rng.integers(max(1, len(other) - len(expression) + 1)))
        return other[torch.arange(start, start + len(expression)) % len(other)]

    def validate(self) -> dict[str, float]:
        """Clustering strength (eq. 8) on test clips, for each choice of inputs; with `neutral_face_prob`, also
        `neutral_face_emotion_accuracy`; with `statistics_weight`, also `prior_figures`."""
        figures = {
            f"clustering_{name}": float(np.mean(list(strengths.values())))
            for name, strengths in clustering(self.module.extractor, self.test).items()
            if strengths
        }
        if self.config.neutral_face_prob:
            figures["emotion_acc_neutral_face"] = neutral_face_emotion_accuracy(self.module.extractor, self.test)
        if self.statistics is not None:
            figures |= prior_figures(self.module.extractor, self.expressions, self.test)
        return figures

    def write_sample(self, folder: Path, step: int) -> None:
        """Nothing: there is no video to look at."""


class StyleModule(nn.Module):
    """Batch -> InfoNCE loss of sampled style codes; with a decoder, also the loss of their clips' statistics.

    anchor_weight: of the squared distance from the means that the extractor gave at first, as a share of their variance over
    the batch. What was trained on its codes (denoiser, motion generator, emotion bank) depends on their staying.
    """

    def __init__(
        self,
        extractor: StyleExtractor,
        temperature: float,
        decoder: StatisticsDecoder | None = None,
        statistics_weight: float = 0.0,
        anchor_weight: float = 0.0,
    ):
        super().__init__()
        self.extractor, self.temperature, self.decoder = extractor, temperature, decoder
        self.statistics_weight, self.anchor_weight = statistics_weight, anchor_weight
        self.start = copy.deepcopy(extractor).eval().requires_grad_(False) if anchor_weight else None

    def train(self, mode: bool = True) -> StyleModule:
        """The extractor from the start never drops anything."""
        super().train(mode)
        if self.start is not None:
            self.start.eval()
        return self

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        mu, sigma = self.extractor(batch["audio"], batch["expression"], batch["mask"])
        codes = sample_codes(mu, sigma, seeded_generators(batch["seed"]))
        loss = info_nce(*gathered(codes, batch["label"]), self.temperature)
        # Every process has the gradient of its own codes only, and the trainer takes the mean over processes.
        loss = loss + (world_size() - 1) * (loss - loss.detach())
        values = {"sigma": sigma.mean(), "spread": mu.std(0).mean()}
        if self.decoder is not None:
            values["statistics"] = self.decoder.loss(mu, sigma, batch["statistics"])
            loss = loss + self.statistics_weight * values["statistics"]
        if self.start is not None:
            values["anchor"] = self._moved(mu, batch)
            loss = loss + self.anchor_weight * values["anchor"]
        return loss, values

    def _moved(self, mu: Tensor, batch: Sample) -> Tensor:
        """How far the means b d_s have moved: mean square over the first means' variance."""
        if self.start is None:
            return mu.new_zeros(())
        with torch.no_grad():
            first, _ = self.start(batch["audio"], batch["expression"], batch["mask"])
        return (mu - first).square().mean() / first.var(0, unbiased=False).mean().clamp(min=1e-12)


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


def neutral_clips(clips: Clips) -> dict[str, list[int]]:
    """Identity -> its clips with a neutral face."""
    found: dict[str, list[int]] = defaultdict(list)
    for number, info in enumerate(clips.info):
        if info.emotion == NEUTRAL:
            found[info.identity].append(number)
    return found


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


@dataclass(frozen=True)
class Priors:
    """Style priors of clips: mu, sigma n d_s."""

    mu: np.ndarray
    sigma: np.ndarray


@torch.no_grad()
def style_priors(
    extractor: StyleExtractor,
    expressions: Expressions,
    numbers: Sequence[int],
    inputs: str = "both",
    frames: int = 0,
    faces: Sequence[int] | None = None,
) -> Priors:
    """The priors of these clips. inputs: one of INPUTS; frames: how many of each clip are read, from its first, 0 for all that fit;
    faces: the clips whose expressions are read instead of theirs."""
    extractor.eval()
    device, rng = next(extractor.parameters()).device, np.random.default_rng(0)
    with_audio, with_expression = INPUTS[inputs]
    most = min(frames or extractor.max_frames, extractor.max_frames)
    pairs = list(zip(numbers, numbers if faces is None else faces, strict=True))
    mu, sigma = [], []
    for start in range(0, len(pairs), EVALUATION_BATCH):
        samples = []
        for number, face in pairs[start : start + EVALUATION_BATCH]:
            audio, expression = expressions.clips.features(number), expressions(face, rng)
            rows = slice(0, min(most, len(audio), len(expression)))
            samples.append(padded(audio[rows] * with_audio, expression[rows] * with_expression, extractor.max_frames))
        batch = {key: value.to(device) for key, value in stack(samples).items()}
        found = extractor(batch["audio"], batch["expression"], batch["mask"])
        mu.append(found[0].float().cpu())
        sigma.append(found[1].float().cpu())
    return Priors(torch.cat(mu).numpy(), torch.cat(sigma).numpy())


def clustering(extractor: StyleExtractor, expressions: Expressions) -> dict[str, dict[str, float]]:
    """Clustering strength (eq. 8) of labelled clips: input (both, expression, audio) -> emotion -> strength."""
    info = expressions.clips.info
    labelled = [number for number, clip in enumerate(info) if clip.emotion]
    if not labelled:
        return {name: {} for name in INPUTS}
    people, emotions = ([getattr(info[clip], name) for clip in labelled] for name in ("identity", "emotion"))
    return {
        name: clustering_strength(style_priors(extractor, expressions, labelled, name).mu, people, emotions)
        for name in INPUTS
    }


def neutral_face_emotion_accuracy(extractor: StyleExtractor, expressions: Expressions) -> float:
    """Share of the clips whose emotion is found in the code of their voice with a neutral face of the same person: the nearest of
    the emotions' mean codes of the other people. Clips with a neutral face themselves do not count; NaN if there are none."""
    info, neutral = expressions.clips.info, neutral_clips(expressions.clips)
    labelled = [number for number, clip in enumerate(info) if clip.emotion]
    codes = style_priors(extractor, expressions, labelled).mu
    people, emotions = (np.array([getattr(info[clip], name) for clip in labelled]) for name in ("identity", "emotion"))
    tested = [clip for clip in labelled if info[clip].emotion != NEUTRAL and neutral.get(info[clip].identity)]
    if not tested:
        return float("nan")
    faces = [neutral[info[clip].identity][0] for clip in tested]
    neutral_face_codes = style_priors(extractor, expressions, tested, faces=faces).mu
    found = []
    for clip, code in zip(tested, neutral_face_codes, strict=True):
        others = people != info[clip].identity
        distances = {
            emotion: float(np.linalg.norm(codes[others & (emotions == emotion)].mean(0) - code))
            for emotion in np.unique(emotions[others]).tolist()
        }
        found.append(bool(distances) and min(distances, key=distances.__getitem__) == info[clip].emotion)
    return float(np.mean(found))


def prior_figures(extractor: StyleExtractor, train: Expressions, test: Expressions) -> dict[str, float]:
    """What priors tell of test clips, and whether sigma says how much.

    GROUP_r2_INPUT: share of the variance of a statistic (see `statistic_groups`, mean over its numbers) that a linear probe of
    the means finds, fitted on training clips. distance_*: see `code_distances`. sigma, sigma_audio, sigma_short: mean
    deviation, from the voice alone and from SHORT frames. sigma_error_audio, sigma_error_short: correlation over clips of |sigma|
    with how far the mean of these is from that of all.
    """
    count = len(train.clips.info)
    learnt = np.unique(np.linspace(0, count - 1, min(count, PROBE_CLIPS)).astype(int)).tolist()
    tested = range(len(test.clips.info))
    values, test_values = (
        np.stack([clip_statistics(data.clips, clip) for clip in numbers])
        for data, numbers in ((train, learnt), (test, tested))
    )
    groups = statistic_groups(train.clips.expression(0).shape[1])
    figures: dict[str, float] = {}
    priors = {name: style_priors(extractor, test, tested, name) for name in INPUTS}
    for name in INPUTS:
        found = probe_r2(style_priors(extractor, train, learnt, name).mu, values, priors[name].mu, test_values)
        known = {group: found[columns][np.isfinite(found[columns])] for group, columns in groups.items()}
        figures |= {f"{group}_r2_{name}": float(one.mean()) for group, one in known.items() if len(one)}
    info = test.clips.info
    distances = code_distances(priors["both"].mu, [clip.identity for clip in info], [clip.emotion for clip in info])
    figures |= {f"distance_{name}": value for name, value in distances.items()}
    return figures | sigma_figures(priors["both"], priors["audio"], style_priors(extractor, test, tested, frames=SHORT))


def sigma_figures(whole: Priors, audio: Priors, short: Priors) -> dict[str, float]:
    """The figures of sigma in `prior_figures`, of the same clips with all, with the voice alone and with few frames."""
    figures = {"sigma": float(whole.sigma.mean())}
    for name, some in (("audio", audio), ("short", short)):
        moved, unsure = np.linalg.norm(some.mu - whole.mu, axis=1), np.linalg.norm(some.sigma, axis=1)
        figures |= {f"sigma_{name}": float(some.sigma.mean()), f"sigma_error_{name}": correlation(unsure, moved)}
    return figures
