"""Training of the motion generator by flow matching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.motion_clips import MotionClips
from ..errors import PortraitError
from ..evaluation.metrics.series import correlation
from ..motion.blinks import find_blinks
from ..motion.built_in import columns_of, generate_motion, motion_of_numbers
from ..motion.coefficients import EXPRESSION_INDEX, EXPRESSION_NAMES
from ..motion.flow_matching import clean_of, logit_normal, noisy_at, target_at
from ..motion.words import MOST_WORDS, TimedPhrase, word_tensors
from ..networks.motion_experts import LipExpert
from ..networks.motion_generator import HABITS, MotionConditions, MotionGeneratorConfig, MotionGeneratorNetwork
from ..synthetic.performance import classify_emotion
from ..synthetic.visemes import VISEME_NAMES
from .dataset import Sample, SampleIndex, stack, torch_generator
from .motion_recipe import GeneratorPhase

LEVEL_MODES = ("one", "own", "history", "gap")
MOST_PHRASES = 4  # of a clip
LEAST_SPREAD = 1e-3
CONDITION_KEYS = tuple(item.name for item in fields(MotionConditions) if item.name != "frames")


class GeneratorTraining:
    """The phase of the motion generator."""

    name = "generator"

    def __init__(
        self,
        network: MotionGeneratorNetwork,
        clips: MotionClips,
        test: MotionClips,
        config: GeneratorPhase,
        lip_expert: LipExpert | None = None,
    ):
        self.clips, self.test, self.config = clips, test, config
        self.module = self._module(network, lip_expert)

    def _module(self, network: MotionGeneratorNetwork, lip_expert: LipExpert | None) -> GeneratorModule | WordsModule:
        if not self.config.start:
            set_scale(network, self.clips)
        return GeneratorModule(network, self.config, lip_expert)

    def sample(self, index: SampleIndex) -> Sample:
        """Frames of a clip with their conditions, what is given of them, noise and levels; see GeneratorModule."""
        rng = index.rng()
        clip, first, length = self._segment(rng)
        causal = index.shared_rng().random() < self.config.causal_prob
        sample = conditions_of(self.clips, clip, first, length, rng, self.config)
        level, known, made = self._given(length, rng)
        motion = self.module.network.standardize(self.clips.motion(clip, slice(first, first + length)))
        white = torch.randn(1, *motion.shape, generator=torch_generator(rng))
        noise = self.module.network.noise_of(white, sample["phrase"][None])[0]
        flow = {"motion": motion, "noise": noise, "level": level, "known": known, "made": made}
        return {**sample, **flow, "causal": torch.tensor(causal)}

    def _segment(self, rng: np.random.Generator) -> tuple[int, int, int]:
        """(clip, first frame, frames) of a random sample, by `phrase_prob` one that a moment of a random phrase is in the middle of
        as far as the clip goes."""
        spoken = self.config.phrase_prob > 0 and rng.random() < self.config.phrase_prob
        candidates = [clip for clip, info in enumerate(self.clips.info) if info.phrases] if spoken else []
        clip = int(candidates[rng.integers(len(candidates))] if candidates else rng.integers(len(self.clips.info)))
        info = self.clips.info[clip]
        length = min(self.config.frames, info.frames)
        last = info.frames - length
        if not candidates:
            return clip, int(rng.integers(last + 1)), length
        phrase = info.phrases[rng.integers(len(info.phrases))]
        middle = round(rng.uniform(phrase.start, phrase.end) * self.clips.fps)
        return clip, min(max(middle - length // 2, 0), last), length

    def _given(self, frames: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Noise levels n of the frames, flags n g of the groups that are given clean, and n of the frames to make."""
        config, groups = self.config, self.module.network.config.groups
        generator = torch_generator(rng)
        mode = LEVEL_MODES[rng.choice(len(LEVEL_MODES), p=config.level_probs)]
        shape = (frames,) if mode == "own" else (1,)
        level = logit_normal(shape, config.level_mean, config.level_deviation, generator).expand(frames).clone()
        known, made = torch.zeros(frames, len(groups)), torch.ones(frames)
        if mode == "history":
            past = int(rng.integers(1, frames))
            level[:past] = 1 - config.history_noise * float(rng.random()) * (rng.random() < 0.5)
            known[:past], made[:past] = float(level[0] == 1), 0
        if mode == "gap":
            first, last = sorted(rng.integers(0, frames + 1, 2))
            inside = torch.zeros(frames, dtype=torch.bool)
            inside[first : max(last, first + 1)] = True
            level[~inside], known[~inside], made[~inside] = 1.0, 1.0, 0
        if rng.random() < config.known_prob:
            chosen = rng.random(len(groups)) < rng.uniform(0.1, 0.7)
            known[:, torch.from_numpy(chosen)] = 1.0
        return level, known, made

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Figures of motions made for test clips: correlation of mouth opening, emotions, spread of the pose, blinks."""
        network = self.module.network
        if network.config.space != "svp":
            return {"loss": self._test_loss()}
        device = next(network.parameters()).device
        clips, count = self.test, min(self.config.validation_clips, len(self.test.info))
        chosen = np.linspace(0, len(clips.info) - 1, count).astype(int).tolist()
        samples, truth = [], []
        for clip in chosen:
            rng = np.random.default_rng(clip)
            samples.append(conditions_of(clips, clip, 0, clips.info[clip].frames, rng, None))
            truth.append(clips.motion(clip, slice(None)))
        batch = {key: value.to(device) for key, value in stack(samples).items()}
        conditions = as_conditions(batch)
        noise = torch.randn(torch.stack(truth).shape, generator=torch.Generator().manual_seed(0)).to(device)
        made = generate_motion(network, conditions, noise).cpu()
        jaw, groups = EXPRESSION_INDEX["jaw_open"], network.config.groups
        pairs = list(zip(made.numpy(), torch.stack(truth).numpy(), strict=True))
        lips = [correlation(one[:, jaw], other[:, jaw]) for one, other in pairs]
        moods = [
            classify_emotion(one[:, groups["expression"]])[0] == clips.info[clip].emotion
            for (one, _), clip in zip(pairs, chosen, strict=True)
        ]
        spread = [np.array([part[:, groups["rotation"]].std(axis=0) for part in pair]) for pair in pairs]
        blinked = np.array(
            [[len(find_blinks(motion_of_numbers(torch.from_numpy(part), network))) for part in pair] for pair in pairs]
        ).sum(axis=0)
        ratio = np.mean([values[0] for values in spread], axis=0) / np.mean([values[1] for values in spread], axis=0)
        return {
            "loss": self._test_loss(),
            "lip_corr": float(np.mean(lips)),
            "emotion_acc": float(np.mean(moods)),
            "blink_ratio": float(blinked[0] / max(1, blinked[1])),
            **{f"{name}_ratio": float(value) for name, value in zip(("yaw", "pitch", "roll"), ratio, strict=True)},
        }

    def _test_loss(self) -> float:
        """The loss on fixed samples of test clips."""
        live = self.clips
        self.clips = self.test
        try:
            indices = [SampleIndex(0, "test", 0, position, 32) for position in range(32)]
            batch = stack([self.sample(index) for index in indices])
        finally:
            self.clips = live
        device = next(self.module.parameters()).device
        loss, _ = self.module({key: value.to(device) for key, value in batch.items()})
        return float(loss)

    def write_sample(self, folder: Path, step: int) -> None:
        """Nothing: figures are enough."""


class GeneratorModule(nn.Module):
    """Batch -> weighted squared error of the prediction, where nothing was given."""

    def __init__(self, network: MotionGeneratorNetwork, config: GeneratorPhase, lip_expert: LipExpert | None = None):
        super().__init__()
        self.network, self.config = network, config
        self.lip_expert = None if lip_expert is None else lip_expert.requires_grad_(False).eval()
        self.register_buffer("weight", number_weights(network.config, config), persistent=False)

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        clean, noise, level = batch["motion"], batch["noise"], batch["level"][..., None]
        fixed = columns_of(batch["known"], self.network)
        noisy = torch.where(fixed.bool(), clean, noisy_at(clean, noise, level))
        causal = bool(batch["causal"][0])
        encoded = self.network.encode(as_conditions(batch), causal)
        prediction = self.network(noisy, batch["level"], encoded, batch["known"], causal)
        free = (1 - fixed) * batch["made"][..., None]
        weight = free * self.get_buffer("weight")
        error = (prediction - target_at(clean, noise, level)).square()
        loss = (weight * error).sum() / weight.sum().clamp(min=1)
        found = clean_of(noisy, prediction, level)
        jaw = (free[..., 0] * (found - clean)[..., 0].square()).sum() / free[..., 0].sum().clamp(min=1)
        values = {"jaw": jaw.detach()}
        if self.lip_expert is not None:
            expression = self.network.restore(found)[..., self.network.config.groups["expression"]]
            in_step = self.lip_expert(expression, batch["voice"], batch["style"])
            heard = batch["voice_given"][:, None] * batch["made"]
            lips = (functional.softplus(-in_step) * heard).sum() / heard.sum().clamp(min=1)
            loss, values["lips"] = loss + self.config.lip_expert_weight * lips, lips.detach()
        return loss, values


class WordsTraining(GeneratorTraining):
    """The phase of what words do to the head: the pose of frames with words, of a finished generator that stays as it is."""

    name = "words"

    def _module(self, network: MotionGeneratorNetwork, lip_expert: LipExpert | None) -> GeneratorModule | WordsModule:
        if network.phrase_pose is None:
            raise PortraitError("words: the recipe's network has no layers for them: set network.pose_layers above 0")
        network.requires_grad_(False)
        network.phrase_pose.requires_grad_(True)
        return WordsModule(network)


class WordsModule(nn.Module):
    """Batch -> squared error of the predicted pose where words speak of it and nothing was given; needs no other part."""

    def __init__(self, network: MotionGeneratorNetwork):
        super().__init__()
        self.network = network

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        clean, noise, level = batch["motion"], batch["noise"], batch["level"][..., None]
        fixed, pose = columns_of(batch["known"], self.network), self.network.config.pose
        noisy = torch.where(fixed.bool(), clean, noisy_at(clean, noise, level))
        encoded, network = self.network.encode_words(as_conditions(batch)), self.network.phrase_pose
        assert network is not None and encoded is not None
        prediction = network(noisy, batch["level"], encoded, batch["known"], bool(batch["causal"][0]))
        error = (prediction - target_at(clean, noise, level)[..., pose]).square()
        free = (1 - fixed[..., pose]) * batch["made"][..., None] * encoded.said.sum(dim=-1, keepdim=True)
        loss = (free * error).sum() / free.sum().clamp(min=1)
        return loss, {"pose": loss.detach()}


def number_weights(network: MotionGeneratorConfig, config: GeneratorPhase) -> Tensor:
    """Weights of a frame's numbers in the loss: c."""
    weight = torch.ones(network.channels)
    if network.space == "svp":
        mouth = [index for index, name in enumerate(EXPRESSION_NAMES) if name in VISEME_NAMES]
        weight[torch.tensor(mouth)] = config.mouth_weight
    for name in ("rotation", "shift", "scale"):
        weight[network.groups[name]] = config.pose_weight
    if network.eyes:
        weight[network.groups["lids"]] = config.lids_weight
    return weight


def set_scale(network: MotionGeneratorNetwork, clips: MotionClips) -> None:
    """Gives a fresh network the mean and spread of the clips' numbers."""
    numbers = np.asarray(clips.arrays["motion"], np.float32).reshape(-1, network.config.channels)
    with torch.no_grad():
        network.mean.copy_(torch.from_numpy(numbers.mean(axis=0, dtype=np.float64)))
        network.spread.copy_(torch.from_numpy(numbers.std(axis=0, dtype=np.float64)).clamp(min=LEAST_SPREAD))


def conditions_of(
    clips: MotionClips, clip: int, first: int, frames: int, rng: np.random.Generator, config: GeneratorPhase | None
) -> Sample:
    """The conditions of frames of a clip, with the losses and errors of training where there is a config.

    The style is that of another clip of its group.
    """
    info = clips.info[clip]
    others = [other for other in clips.groups[info.group] if other != clip] or [clip]
    mu, sigma = clips.row("style", int(rng.choice(others)))
    portrait, habits = clips.row("portrait", clip), clips.row("habits", clip)
    phrases: Sequence[TimedPhrase] = info.phrases
    given = {"voice": True, "style": True, "portrait": True}
    if config is not None:
        generator = torch_generator(rng)
        mu = mu + config.style_noise * float(rng.random()) * sigma * torch.randn(mu.shape, generator=generator)
        portrait = portrait + config.portrait_noise * torch.randn(portrait.shape, generator=generator)
        drops = {
            "voice": config.voice_drop_prob,
            "style": config.style_drop_prob,
            "portrait": config.portrait_drop_prob,
        }
        given = {name: bool(rng.random() >= prob) for name, prob in drops.items()}
        habits[torch.from_numpy(rng.random(len(HABITS)) < config.habits_drop_prob)] = torch.nan
        if rng.random() < config.habits_drop_prob:
            habits[:] = torch.nan
        if rng.random() < config.words_drop_prob:
            phrases = ()
    words, phrase, times = word_tensors(phrases, clips.vocabulary, first, frames, clips.fps)
    padded = torch.zeros(MOST_PHRASES, MOST_WORDS, dtype=torch.long)
    padded[: len(words)] = words[:MOST_PHRASES]
    return {
        "voice": clips.voice(clip, first, frames),
        "style": mu,
        "portrait": portrait,
        "habits": habits,
        "words": padded,
        "phrase": phrase,
        "phrase_times": times,
        **{f"{name}_given": torch.tensor(value) for name, value in given.items()},
    }


def as_conditions(batch: Sample) -> MotionConditions:
    """A batch of `conditions_of` as the network takes it."""
    return MotionConditions(frames=batch["voice"].shape[1], **{key: batch[key] for key in CONDITION_KEYS})
