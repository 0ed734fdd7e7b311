"""Motions without end: the last minute against the first, and how fast motions are made."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..data.motion_clips import FPS, blink_rate, motion_numbers
from ..diffusion.style import extract_style
from ..model import PortraitModel
from ..motion.built_in import StreamOptions, conditions_for, generate_motion, smooth_pose_numbers, stream_motion
from ..networks.audio_encoder import SAMPLE_RATE, mel_rows
from ..networks.motion_generator import MotionConditions, MotionGeneratorNetwork
from ..synthetic.clips import act
from ..synthetic.performance import EMOTIONS, classify_emotion
from ..synthetic.speakers import Speaker, speaker
from ..types import Audio
from .metrics.features import FeatureStatistics, frechet_distance
from .metrics.series import correlation, pose_diversity
from .motion_cases import EXPRESSION, INTENSITY, POSE, blinks_in, opening_of

PART_SECONDS = 20.0  # of the performances that a long one is made of
MINUTE = round(60 * FPS)
TIMED_SECONDS, TIMED_CHUNKS = 60.0, 4
HISTORY = 64


@dataclass(frozen=True)
class EndlessSize:
    """people: who talk without end; minutes: how long."""

    people: int = 6
    minutes: int = 10


@dataclass(frozen=True)
class LongCase:
    """A long performance. numbers: n c, true; features: n A."""

    who: Speaker
    emotion: str
    numbers: Tensor
    features: Tensor
    style: Tensor
    portrait: Tensor
    habits: Tensor


def make_long_case(model: PortraitModel, emotion: str, minutes: int, rng: np.random.Generator) -> LongCase:
    """A test person who talks for minutes, in performances that follow one another; the first one is the style clip."""
    who, frames = speaker(int(rng.integers(2**31)), "test"), round(PART_SECONDS * FPS)
    numbers, features, first = [], [], None
    for _ in range(-(-minutes * MINUTE // frames)):
        _, speech, states = act(who, emotion, INTENSITY, int(rng.integers(2**31)), frames, FPS)
        numbers.append(torch.from_numpy(motion_numbers(states)))
        features.append(mel_rows(speech.waveform, 0, frames, FPS).half())
        first = first or (speech, states)
    assert first is not None
    audio = Audio(torch.from_numpy(first[0].waveform)[None], SAMPLE_RATE)
    spread = first[1].pose[:, :3].std(axis=0).tolist()
    return LongCase(
        who,
        emotion,
        torch.cat(numbers)[: minutes * MINUTE],
        torch.cat(features)[: minutes * MINUTE],
        extract_style(model, torch.from_numpy(first[1].expression), audio, FPS).mu,
        torch.from_numpy(who.habits.rest.astype(np.float32)),
        torch.tensor([blink_rate(who, emotion, INTENSITY), *spread]),
    )


def endless_figures(
    network: MotionGeneratorNetwork, model: PortraitModel, size: EndlessSize, seed: int
) -> dict[str, float]:
    """Figures of the first and the last minute of causal runs, and of truth; ratios of the last to the first."""
    rng = np.random.default_rng((seed, 17))
    rows_of: dict[str, list[list[dict[str, float]]]] = {"": [], "truth_": [], "baseline_": []}
    slower: list[float] = []
    for number in range(size.people):
        case = make_long_case(model, EMOTIONS[number % len(EMOTIONS)], size.minutes, rng)

        def conditions(first: int, count: int, case: LongCase = case) -> MotionConditions:
            features = case.features[first : first + count].float()
            return conditions_for(network, features, count, case.style, case.portrait, case.habits)

        chunks, seconds = [], []
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        for chunk in stream_motion(network, conditions, len(case.numbers), generator):
            chunks.append(chunk[0])
            seconds.append(time.perf_counter() - began)
            began = time.perf_counter()
        made, tenth = smooth_pose_numbers(torch.cat(chunks)[None], network)[0], max(1, len(seconds) // 10)
        slower.append(float(np.median(seconds[-tenth:]) / np.median(seconds[1 : 1 + tenth])))
        length = round(PART_SECONDS * FPS)
        looped = case.numbers[:length].repeat(-(-len(made) // length), 1)[: len(made)]
        for prefix, numbers in (("", made), ("truth_", case.numbers), ("baseline_", looped)):
            rows_of[prefix].append([minute_figures(case, numbers, minute) for minute in (0, size.minutes - 1)])
    result: dict[str, float] = {}
    for prefix, rows in rows_of.items():
        names = rows[0][0]
        first, last = ({name: float(np.mean([row[end][name] for row in rows])) for name in names} for end in (0, 1))
        ratios = {name: last[name] / first[name] if first[name] else 1.0 for name in names}
        result[f"{prefix}minute10_over_minute1"] = float(np.mean([ratios[name] for name in RATIOS]))
        result |= {f"{prefix}minute10_over_minute1_{name}": value for name, value in ratios.items()}
        result |= {f"{prefix}minute1_{name}": value for name, value in first.items()}
        result |= {f"{prefix}minute10_{name}": value for name, value in last.items()}
    return {
        **result,
        "endless_minutes": float(size.minutes),
        "endless_last_chunk_time_over_first": float(np.mean(slower)),
    }


RATIOS = ("lip_corr", "blinks", "pose_spread", "emotion_acc")


def minute_figures(case: LongCase, numbers: Tensor, minute: int) -> dict[str, float]:
    """Figures of one minute of a motion; frechet: distance of its frames' numbers to those of truth as a whole, in units of the
    truth's spread; pose_drift: distance of the mean pose to that of truth, degrees."""
    rows = slice(minute * MINUTE, (minute + 1) * MINUTE)
    part, true = numbers[rows], case.numbers[rows]
    spread = case.numbers.std(dim=0).clamp(min=1e-3)
    distance = frechet_distance(
        FeatureStatistics.of((part / spread).numpy()), FeatureStatistics.of((case.numbers / spread).numpy())
    )
    return {
        "lip_corr": correlation(opening_of(case.who, part), opening_of(case.who, true)),
        "blinks": float(blinks_in(part)),
        "pose_spread": pose_diversity(part[:, POSE][:, :3].numpy()),
        "emotion_acc": float(classify_emotion(part[:, EXPRESSION].numpy())[0] == case.emotion),
        "frechet": distance / numbers.shape[1],
        "pose_drift": float((part[:, POSE][:, :3].mean(dim=0) - case.numbers[:, POSE][:, :3].mean(dim=0)).norm()),
    }


def realtime_factors(network: MotionGeneratorNetwork, seconds: float = TIMED_SECONDS) -> dict[str, float]:
    """Seconds of motion made in one second, 10 steps: a whole clip, causal chunks of a second, and frame by frame (the baseline:
    the same network, autoregressive). truth: how fast the synthetic people perform."""
    config, frames = network.config, round(seconds * network.config.fps)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(frames, config.audio_size, generator=generator)

    def conditions(first: int, count: int) -> MotionConditions:
        rows = features[max(0, first) : first + count]
        return conditions_for(network, rows, count, torch.zeros(config.style_size))

    noise = torch.randn(1, frames, config.channels, generator=generator)
    generate_motion(network, conditions(0, frames), noise, steps=1)  # allocates memory
    factors = {"realtime_factor": seconds / _seconds(lambda: generate_motion(network, conditions(0, frames), noise))}
    before = torch.zeros(1, HISTORY, config.channels)

    def shifted(first: int, count: int) -> MotionConditions:
        return conditions(first + HISTORY, count)

    for name, chunk in (("streamed_realtime_factor", 25), ("baseline_realtime_factor", 1)):
        count = chunk * TIMED_CHUNKS
        options = StreamOptions(chunk=chunk, history=HISTORY)
        taken = _seconds(lambda: list(stream_motion(network, shifted, count, generator, options, before=before)))  # noqa: B023
        factors[name] = count / config.fps / taken
    who = speaker(0, "test")
    factors["truth_realtime_factor"] = 8.0 / _seconds(lambda: act(who, "happy", INTENSITY, 0, round(8 * FPS), FPS))
    return factors


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
