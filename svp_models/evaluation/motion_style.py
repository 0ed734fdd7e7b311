"""`svp evaluate motion-style`: does a motion that is moved to a style show the style's emotion, and still say its own words?

Test people speak neutral sentences; other people show the eight emotions with other sentences. What the faces really do is
known, and what the built-in face analyser reads from the rendered frames stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from ..face.detection import given
from ..face.detectors.built_in import FaceAnalyzer
from ..motion.coefficients import EXPRESSION_INDEX
from ..motion.emotions import emotion_style
from ..motion.style import MotionStylePrior, TransferWeights, apply_style, style_of_motion
from ..synthetic.clips import act, motion_to_states, states_to_motion
from ..synthetic.geometry import FaceGeometry
from ..synthetic.identity import FaceStates, appearance
from ..synthetic.motion_style import SPEECH_COLUMNS, emotion_parts
from ..synthetic.performance import EMOTIONS, classify_emotion, speech_movement
from ..synthetic.renderer import render_clip
from ..synthetic.speakers import Speaker, speaker
from ..synthetic.speech import energy_envelope
from ..types import SVP, Motion
from .metrics.landmarks import mouth_opening
from .metrics.series import correlation

INTENSITY = 3  # of the emotions
WEIGHTS = np.linspace(0, 1, 11)
WHOLE = TransferWeights()


@dataclass(frozen=True)
class MotionStyleSize:
    """How much is compared. rounds: cases per emotion; seconds: of talking; style_seconds: of the style clips, not shorter;
    seeds: drawn means a case; size: of rendered frames, pixels; closed: a frame's lips_press from which the voice closes the
    lips."""

    rounds: int
    seconds: float = 3.0
    style_seconds: float = 4.0
    seeds: int = 4
    size: int = 128
    fps: float = 25.0
    closed: float = 0.5


QUICK = MotionStyleSize(rounds=1)
FULL = MotionStyleSize(rounds=3)


@dataclass(frozen=True)
class Case:
    """A neutral sentence of `who`, and clips of another person with an emotion.

    spoken: what `who` does; voice: n 64, what the voice alone asks of the face; style_clip, other_take: two clips of one other
    person with the emotion and other sentences; stranger: that person. felt, felt_voice: the same of `who` with the emotion,
    for comparison.
    """

    emotion: str
    who: Speaker
    stranger: Speaker
    spoken: Motion
    voice: NDArray[np.float32]
    style_clip: Motion
    other_take: Motion
    felt: Motion
    felt_voice: NDArray[np.float32]


def make_cases(size: MotionStyleSize, seed: int) -> Iterator[Case]:
    """Cases of the test split, one per emotion and round."""
    rng = np.random.default_rng(seed)
    frames, style_frames = (max(1, round(seconds * size.fps)) for seconds in (size.seconds, size.style_seconds))
    for _ in range(size.rounds):
        for emotion in EMOTIONS:
            who, stranger = (speaker(int(rng.integers(2**31)), "test") for _ in range(2))
            takes = rng.integers(2**31, size=4).tolist()
            spoken, voice = say(who, "neutral", takes[0], frames, size.fps)
            style_clip, other_take = (say(stranger, emotion, take, style_frames, size.fps)[0] for take in takes[1:3])
            felt, felt_voice = say(who, emotion, takes[3], frames, size.fps)
            yield Case(emotion, who, stranger, spoken, voice, style_clip, other_take, felt, felt_voice)


def say(who: Speaker, emotion: str, take: int, frames: int, fps: float) -> tuple[Motion, NDArray[np.float32]]:
    """A person's motion, and what the voice alone asks of the face: n 64."""
    _, speech, states = act(who, emotion, INTENSITY, take, frames, fps)
    energy = energy_envelope(speech.waveform, frames, fps)
    voice = who.habits.rest + speech_movement(speech, energy, who.habits, frames, fps)
    return states_to_motion(states, fps), voice.astype(np.float32)


def evaluate_motion_style(
    analyzer: FaceAnalyzer, size: MotionStyleSize, seed: int, progress: Callable[[int, int], None] | None = None
) -> dict[str, object]:
    """All figures of the help text as one dict; `svp evaluate motion-style --help` explains them. progress(cases done, all)."""
    rows: list[dict[str, float]] = []
    sweeps: list[list[float]] = []
    total = size.rounds * len(EMOTIONS)
    for index, case in enumerate(make_cases(size, seed)):
        rows.append(measure(case, analyzer, size))
        if case.emotion != "neutral":
            sweeps.append(weight_scores(case))
        if progress is not None:
            progress(index + 1, total)
    figures: dict[str, object] = {name: float(np.nanmean([row[name] for row in rows])) for name in rows[0]}
    scores = np.mean(sweeps, axis=0)
    figures["seed_distance"] = float(np.sqrt(np.mean([row["seed_distance"] ** 2 for row in rows])))
    figures["take_distance"] = float(np.sqrt(np.mean([row["take_distance"] ** 2 for row in rows])))
    figures["weight_scores"] = [float(score) for score in scores]
    figures["weight_rises"] = bool((np.diff(scores) >= 0).all())
    return {**figures, "clips": total, "seed": seed}


def measure(case: Case, analyzer: FaceAnalyzer, size: MotionStyleSize) -> dict[str, float]:
    """The figures of one case, by the way in which the motion was moved."""
    style = style_of_motion(case.style_clip)
    pixels = render_clip(case.stranger.identity, motion_to_states(case.style_clip), size.size).images
    seen = replace(
        case.style_clip, expression=torch.from_numpy(given(analyzer.analyze(pixels).expression, "expression"))
    )
    ways = {
        "": moved(case, style),
        "_from_pixels": moved(case, style_of_motion(seen)),
        "_named": moved(case, emotion_style(case.emotion, 1.0, SVP, emotion_parts)),
        "_drawn": moved(case, style, TransferWeights(temperature=1.0), seed=1),
        "_lips_by_spread": apply_style(case.spoken, style, ()),
        "_lips_kept": moved(case, style, TransferWeights(lips_weight=0.0)),
        "_unmoved": case.spoken,
        "_copied": first_frames(case.style_clip, len(case.spoken)),
    }
    geometry = FaceGeometry(appearance(case.who.identity).shape)
    wanted = opening(geometry, case.voice)
    row: dict[str, float] = {}
    for name, motion in ways.items():
        expression = motion.expression.numpy()
        track = analyzer.analyze(render_clip(case.who.identity, motion_to_states(motion), size.size).images)
        shown = opening(geometry, expression)
        row[f"emotion_acc{name}"] = float(classify_emotion(expression)[0] == case.emotion)
        row[f"analyser_emotion_acc{name}"] = float(
            classify_emotion(given(track.expression, "expression"))[0] == case.emotion
        )
        row[f"lip_corr{name}"] = correlation(shown, wanted)
        row[f"analyser_lip_corr{name}"] = correlation(mouth_opening(given(track.landmarks, "landmarks")), wanted)
        row[f"closed_lips{name}"] = when_closed(shown, case.voice, size.closed)
    felt = opening(geometry, case.felt.expression.numpy())
    row["closed_lips_felt"] = when_closed(felt, case.felt_voice, size.closed)
    return row | distances(case, style, size)


def moved(case: Case, style: MotionStylePrior, weights: TransferWeights = WHOLE, seed: int = 0) -> Motion:
    return apply_style(case.spoken, style, SPEECH_COLUMNS, weights, seed)


def distances(case: Case, style: MotionStylePrior, size: MotionStyleSize) -> dict[str, float]:
    """How far mean expressions without the lips lie apart: of seeds at temperature 1 from the style's own, times sqrt(2) as
    between two of them, and of two true clips."""
    others = [column for column in range(style.expression_size) if column not in SPEECH_COLUMNS]
    own = style.mean[0, others]
    drawn = [style.draw(seed, 1.0).mean[0, others] for seed in range(size.seeds)]
    between_seeds = 2 * torch.stack([(mean - own).square().sum() for mean in drawn]).mean()
    between_takes = (own - case.other_take.expression.mean(0)[others]).square().sum()
    return {"seed_distance": float(between_seeds.sqrt()), "take_distance": float(between_takes.sqrt())}


def weight_scores(case: Case) -> list[float]:
    """Score of the wanted emotion (0 to 1) at every weight."""
    style, place = style_of_motion(case.style_clip), EMOTIONS.index(case.emotion)
    motions = [moved(case, style, TransferWeights(weight=float(weight))) for weight in WEIGHTS]
    return [float(classify_emotion(motion.expression.numpy())[1][place]) for motion in motions]


def opening(geometry: FaceGeometry, expression: NDArray[np.floating]) -> NDArray[np.floating]:
    """Mouth opening of a face seen from the front, n 64 -> n, as `metrics.mouth_opening`."""
    still = np.zeros(2, np.float32)
    points = np.stack([geometry.deform(row, still, still)[0][:68, :2] for row in expression])
    return mouth_opening(points)


def when_closed(opened: NDArray[np.floating], voice: NDArray[np.floating], limit: float) -> float:
    """Mean mouth opening in the frames in which the voice closes the lips; NaN without any."""
    closed = voice[:, EXPRESSION_INDEX["lips_press"]] > limit
    return float(opened[closed].mean()) if closed.any() else float("nan")


def first_frames(motion: Motion, frames: int) -> Motion:
    """The beginning of a synthetic speaker's motion."""
    states = motion_to_states(motion)
    part = slice(0, frames)
    return states_to_motion(
        FaceStates(states.expression[part], states.pose[part], states.blink[part], states.gaze[part]), motion.fps
    )
