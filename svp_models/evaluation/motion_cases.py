"""Test performances for motion generators, and what is measured on motions: drawn from a seed, people and sentences of the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.motion_clips import FPS, blink_rate, motion_numbers
from ..diffusion.style import extract_style
from ..model import PortraitModel
from ..motion.blinks import find_blinks
from ..motion.built_in import conditions_for
from ..motion.words import TimedPhrase
from ..networks.audio_encoder import SAMPLE_RATE, mel_rows
from ..networks.motion_experts import MovementDetector
from ..networks.motion_generator import MotionConditions, MotionGeneratorNetwork
from ..synthetic.clips import act
from ..synthetic.geometry import FaceGeometry
from ..synthetic.identity import FaceStates, appearance
from ..synthetic.movements import KINDS, Movement, caption, class_of, sample_movement
from ..synthetic.performance import EMOTIONS
from ..synthetic.speakers import Speaker, speaker
from ..types import SVP, Audio, Motion
from .metrics.landmarks import mouth_opening

INTENSITY = 3
EXPRESSION, LIDS, POSE = slice(0, 64), slice(64, 66), slice(68, 74)
PROMPT_MARGIN = 0.3  # s by which a movement may begin early or late
LOOK_AROUND = 0.6  # s before and after a prompt in which its movement is looked for
STILL = np.zeros(2, np.float32)


@dataclass(frozen=True)
class MotionCase:
    """One test performance with everything a generator may be given.

    numbers: n c, the truth; features: n A, its voice; style, audio_style: d_s, of another clip of this person and emotion, from
    expression and voice, and of the voice alone; habits: 4, of that clip, with the person's blink rate; copied: n c, that clip
    itself; other_features: of another person's voice.
    """

    who: Speaker
    emotion: str
    seed: int
    numbers: Tensor
    features: Tensor
    style: Tensor
    audio_style: Tensor
    portrait: Tensor
    habits: Tensor
    copied: Tensor
    other_features: Tensor
    waveform: np.ndarray
    opening: np.ndarray


def make_motion_cases(model: PortraitModel, rounds: int, seconds: float, seed: int) -> list[MotionCase]:
    """One case per emotion and round. model: whose style extractor reads the styles."""
    rng = np.random.default_rng((seed, 11))
    return [make_case(model, emotion, seconds, rng) for _ in range(rounds) for emotion in EMOTIONS]


def make_case(model: PortraitModel, emotion: str, seconds: float, rng: np.random.Generator) -> MotionCase:
    """A case of a random test person."""
    frames = round(seconds * FPS)
    who, other = (speaker(int(rng.integers(2**31)), "test") for _ in range(2))
    seeds = rng.integers(2**31, size=4).tolist()
    _, speech, states = act(who, emotion, INTENSITY, seeds[0], frames, FPS)
    _, style_speech, style_states = act(who, emotion, INTENSITY, seeds[1], frames, FPS)
    _, other_speech, _ = act(other, EMOTIONS[int(rng.integers(len(EMOTIONS)))], INTENSITY, seeds[2], frames, FPS)
    audio = Audio(torch.from_numpy(style_speech.waveform)[None], SAMPLE_RATE)
    spread = style_states.pose[:, :3].std(axis=0)
    numbers = torch.from_numpy(motion_numbers(states))
    return MotionCase(
        who=who,
        emotion=emotion,
        seed=seeds[3],
        numbers=numbers,
        features=mel_rows(speech.waveform, 0, frames, FPS),
        style=extract_style(model, torch.from_numpy(style_states.expression), audio, FPS).mu,
        audio_style=extract_style(model, None, Audio(torch.from_numpy(speech.waveform)[None], SAMPLE_RATE), FPS).mu,
        portrait=torch.from_numpy(who.habits.rest.astype(np.float32)),
        habits=torch.tensor([blink_rate(who, emotion, INTENSITY), *spread.tolist()], dtype=torch.float32),
        copied=torch.from_numpy(motion_numbers(style_states)),
        other_features=mel_rows(other_speech.waveform, 0, frames, FPS),
        waveform=speech.waveform,
        opening=opening_of(who, numbers),
    )


def batch_conditions(
    network: MotionGeneratorNetwork,
    cases: Sequence[MotionCase],
    features: Sequence[Tensor] | None = None,
    styles: Sequence[Tensor] | None = None,
    phrases: Sequence[Sequence[TimedPhrase]] | None = None,
    habits: bool = True,
) -> MotionConditions:
    """The conditions of several cases of equal length; other voices, styles and prompts where they are given."""
    rows = []
    for index, case in enumerate(cases):
        rows.append(
            conditions_for(
                network,
                case.features if features is None else features[index],
                len(case.numbers),
                case.style if styles is None else styles[index],
                case.portrait,
                case.habits if habits else None,
                () if phrases is None else phrases[index],
            )
        )
    return stacked(rows)


def stacked(rows: Sequence[MotionConditions]) -> MotionConditions:
    """Conditions of single clips of equal length as one batch; all have the same ones."""
    names = [name for name, value in vars(rows[0]).items() if isinstance(value, Tensor)]
    values: dict[str, Any] = {name: torch.cat([getattr(row, name) for row in rows]) for name in names}
    return replace(rows[0], **values)


def opening_of(who: Speaker, numbers: Tensor) -> np.ndarray:
    """How far a person's mouth opens, from the landmarks of the frontal face: n, in distances of the eyes."""
    geometry = FaceGeometry(appearance(who.identity).shape)
    points = [geometry.deform(row, STILL, STILL)[0][:68, :2] for row in numbers[:, EXPRESSION].numpy()]
    return mouth_opening(np.stack(points))


def svp_motion(numbers: Tensor) -> Motion:
    """Numbers of the 'svp' space n 74 as a motion."""
    pose = numbers[:, POSE].float()
    return Motion(
        angles=pose[:, :3],
        shift=pose[:, 3:5],
        scale=pose[:, 5],
        expression=numbers[:, EXPRESSION].float(),
        fps=FPS,
        space=SVP,
        lids=numbers[:, LIDS].float().clamp(0, 1),
        gaze=numbers[:, 66:68].float().clamp(-1, 1),
    )


def blinks_in(numbers: Tensor) -> int:
    """How often the eyes blink."""
    return len(find_blinks(svp_motion(numbers)))


@dataclass(frozen=True)
class PromptCase:
    """A prompt of one movement for a case, and the truth that makes it."""

    case: MotionCase
    movement: Movement
    phrase: TimedPhrase
    states: FaceStates


def make_prompts(cases: Sequence[MotionCase], count: int, seed: int) -> list[PromptCase]:
    """Prompts of all kinds of movements in turn, at random times; every round over the kinds meets the cases in another order,
    so that no kind belongs to one emotion."""
    rng, found = np.random.default_rng((seed, 13)), []
    for number in range(count):
        case = cases[(number + number // len(KINDS)) % len(cases)]
        seconds = len(case.numbers) / FPS
        movement = sample_movement(rng, KINDS[number % len(KINDS)], 0.0)
        length = min(movement.seconds, seconds - 2 * LOOK_AROUND - 0.1)
        start = float(rng.uniform(LOOK_AROUND, seconds - length - LOOK_AROUND))
        movement = replace(movement, start=start, seconds=length)
        phrase = TimedPhrase(caption(movement, rng), movement.start, movement.end)
        seed_of_truth = int(rng.integers(2**31))
        _, _, states = act(case.who, case.emotion, INTENSITY, seed_of_truth, len(case.numbers), FPS, (movement,))
        found.append(PromptCase(case, movement, phrase, states))
    return found


@torch.no_grad()
def prompt_met(detector: MovementDetector, pose: Tensor, phrase: TimedPhrase) -> bool:
    """Whether a pose n 6 shows the movement of a phrase: most frames with a movement around its time are of its class, and the
    first of them is at most PROMPT_MARGIN away from the phrase's beginning."""
    classes = detector(pose[None].float())[0].argmax(dim=-1)
    first = max(0, round((phrase.start - LOOK_AROUND) * FPS))
    part = classes[first : round((phrase.end + LOOK_AROUND) * FPS)]
    wanted, moving = class_of(phrase.text), part[part > 0]
    if not len(moving) or int(moving.mode().values) != wanted:
        return False
    start = (first + int((part == wanted).nonzero()[0])) / FPS
    return abs(start - phrase.start) <= PROMPT_MARGIN
