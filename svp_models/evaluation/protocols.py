"""`svp evaluate demo`: a model on synthetic people and sentences that training never saw, and what its styles are worth.

Everything generated is measured on pixels by the face analyser, whose own error on true frames stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice, product

import numpy as np
import torch

from ..diffusion.pipeline import SamplerOptions
from ..diffusion.style import extract_style, interpolate_styles, sample_style
from ..face.detection import FaceTrack, given
from ..face.portrait_reader import Analyzer
from ..model import PortraitModel
from ..networks.emotion_bank import EmotionBank
from ..synthetic.clips import act
from ..synthetic.performance import EMOTIONS, INTENSITIES, classify_emotion
from ..synthetic.speakers import speaker
from ..types import Style, StylePrior
from .comparison import Comparison, ComparisonSize
from .emotions import EmotionStudy
from .evaluator import Case, Evaluator, PredictionError, audio_from_samples, audio_of, make_cases
from .metrics.frames import mean_ssim, psnr
from .metrics.identity import COLOURS, PROPORTIONS, identity_descriptor
from .metrics.landmarks import keypoint_error, mouth_opening
from .metrics.series import lagged_correlation, largest_change
from .metrics.style import clustering_strength, cosine, share_of_way

INPUTS = ("audio", "expression", "both")
WEIGHTS = np.linspace(0, 1, 11)
SMALLEST_SPREAD = 1e-3  # of a descriptor's number between two clips of one person
CLIPS_OF_A_LEAK, CLIPS_OF_A_BLEND = 3, len(WEIGHTS) + 1  # that are generated


@dataclass(frozen=True)
class StudySize:
    """How much is generated for the figures about style; all are at least 1.

    leaks, blends: how many of the cases, from the first, are used for identity leak and interpolation; weight_seconds: of
    talking at each interpolation weight; people, takes: clustering reads `takes` clips of each emotion at each intensity of
    that many people.
    """

    leaks: int
    blends: int
    weight_seconds: float
    people: int
    takes: int

    def steps(self, cases: int) -> int:
        """How often the evaluator's on_step is called for that many cases."""
        leaks, blends = (min(count, cases) for count in (self.leaks, self.blends))
        return leaks * CLIPS_OF_A_LEAK + blends * CLIPS_OF_A_BLEND + self.people


@dataclass(frozen=True)
class StyleCodes:
    """Mean styles of clips: input of the extractor -> n x d_s; identities, emotions and intensities, one a clip."""

    codes: dict[str, np.ndarray]
    identities: list[str]
    emotions: list[str]
    intensities: list[int]

    def strength(self) -> dict[str, dict[str, float]]:
        """Clustering strength (8): input -> emotion -> strength."""
        return {name: clustering_strength(codes, self.identities, self.emotions) for name, codes in self.codes.items()}


@dataclass
class StyleStudy:
    """Collects case after case; `figures` sums up.

    alike: cosines with the true style, by whether a style was given; count: of cases; same: descriptors of two clips of the
    portrait's person; ways: from that person's descriptor to the one of the style clip's;
    moved: what that style changed, sampled and deterministic; at_weights: mean expressions 11 x 64; changes: the largest of
    neighbouring frames, while a style turns into another and in the true clip.
    """

    evaluator: Evaluator
    size: StudySize
    seed: int
    alike: dict[str, list[float]] = field(default_factory=lambda: {"stylesim": [], "stylesim_no_style": []})
    count: int = 0
    same: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    ways: list[np.ndarray] = field(default_factory=list)
    moved: dict[str, list[np.ndarray]] = field(default_factory=lambda: {"sampled": [], "deterministic": []})
    at_weights: list[np.ndarray] = field(default_factory=list)
    changes: list[tuple[float, float]] = field(default_factory=list)
    codes: StyleCodes | None = None

    def add(self, case: Case, true: FaceTrack, styled: np.ndarray, plain: FaceTrack, seed: int) -> None:
        """true: the case's clip as the analyser reads it; styled, plain: the relaxed portrait generated with its style
        (frames n h w 3) and without (as read); seed: of the noise behind them."""
        frames, number = len(styled), self.count
        self.count += 1
        expression = given(true.expression, "expression")
        wanted = style_code(self.evaluator, expression[:frames])
        for name, track in zip(self.alike, (self.evaluator.read(styled), plain), strict=True):
            self.alike[name].append(cosine(style_code(self.evaluator, given(track.expression, "expression")), wanted))
        if number < self.size.leaks:
            self._add_leak(case, styled, seed, np.random.default_rng((self.seed, number)))
        if number < self.size.blends:
            self._add_blend(case, true, frames, seed)

    def _add_leak(self, case: Case, styled: np.ndarray, seed: int, rng: np.random.Generator) -> None:
        """The portrait with the style of another person who shows the same emotion, against its own person's style."""
        evaluator, frames = self.evaluator, len(styled)
        who, turn = rng.integers(2**31, size=2).tolist()
        seconds = len(case.style_clip.images) / case.clip.fps
        other = evaluator.make(speaker(who, "test"), case.clip.emotion, turn, seconds, case.clip.fps)
        prior = evaluator.prior_of(other)

        def described(images: np.ndarray) -> np.ndarray:
            return identity_descriptor(images, given(evaluator.read(images).landmarks, "landmarks"))

        def shown(prior: StylePrior, temperature: float) -> np.ndarray:
            return described(self._moving(case, sample_style(prior, case.seed, temperature), frames, seed))

        self.moved["sampled"].append(shown(prior, 1) - described(styled))
        self.moved["deterministic"].append(shown(prior, 0) - shown(case.prior, 0))
        first, second, stranger = (described(clip.images) for clip in (case.style_clip, case.wrong_clip, other))
        self.same.append((first, second))
        self.ways.append(stranger - first)

    def _add_blend(self, case: Case, true: FaceTrack, frames: int, seed: int) -> None:
        """The portrait between two styles of its person: at every weight, and turning from one to the other."""

        def expression(start: float, end: float, frames: int) -> np.ndarray:
            style = interpolate_styles(case.style, case.wrong_style, start, end)
            return self.evaluator.expression(self._moving(case, style, frames, seed))

        count = max(1, round(self.size.weight_seconds * case.clip.fps))
        self.at_weights.append(np.stack([expression(weight, weight, count).mean(0) for weight in WEIGHTS]))
        self.changes.append(
            (largest_change(expression(0, 1, frames)), largest_change(given(true.expression, "expression")[:frames]))
        )

    def _moving(self, case: Case, style: Style, frames: int, seed: int) -> np.ndarray:
        return self.evaluator.generate(case.portrait, case.clip, audio_of(case.clip), style, frames, seed)

    def figures(self, error: PredictionError) -> dict[str, object]:
        """The keys of the full evaluation that are about style; `svp evaluate demo --help` explains them. error: the analyser's."""
        leaks = {
            f"identity_leak_{name}": identity_leak(moved, self.ways, self.same) for name, moved in self.moved.items()
        }
        self.codes = style_codes(self.evaluator, error, self.size.people, self.size.takes, self.seed)
        return {
            **{name: float(np.mean(cosines)) for name, cosines in self.alike.items()},
            "clustering": self.codes.strength(),
            **leaks,
            "interpolation": positions_between(np.stack(self.at_weights)),
            "interpolation_jump": max(blended / true if true else 0.0 for blended, true in self.changes),
        }


def style_code(evaluator: Evaluator, expression: np.ndarray) -> np.ndarray:
    """The mean style of expressions n x 64 alone."""
    return extract_style(evaluator.model, torch.from_numpy(expression), None, evaluator.fps).mu.numpy()


def identity_leak(moved: list[np.ndarray], ways: list[np.ndarray], same: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """How far faces have moved towards other people: 0 not at all, 1 they have become them.

    moved: what changed in the descriptors of faces; ways: from the face's person to the other one; same: descriptors of two
    clips of one person, whose spread is the unit of every number of a descriptor. Colours and proportions have equal weight.
    """
    spread = np.sqrt(np.mean([np.square(first - second) for first, second in same], axis=0) / 2)
    unit = np.maximum(spread, SMALLEST_SPREAD)
    gone, whole = np.stack(moved) / unit, np.stack(ways) / unit
    return float(np.mean([share_of_way(gone[:, part], whole[:, part]) for part in (COLOURS, PROPORTIONS)]))


def positions_between(expressions: np.ndarray) -> list[float]:
    """Where mean expressions k w 64 of k series lie on the lines from each series' first to its last: w positions, 0 .. 1 if
    nothing overshoots; series whose ends differ more count more."""
    moved = expressions - expressions[:, :1]
    return [share_of_way(moved[:, index], moved[:, -1]) for index in range(expressions.shape[1])]


def style_codes(evaluator: Evaluator, error: PredictionError, people: int, takes: int, seed: int) -> StyleCodes:
    """Mean styles of test people in all emotions and intensities, by what the extractor is given.

    The clips are as long as the extractor reads at once. Their expressions are not rendered: they get the error that the
    analyser has on rendered ones.
    """
    rng = np.random.default_rng((seed, people, takes))
    model, fps, frames = evaluator.model, evaluator.fps, evaluator.model.config.style.max_frames
    codes: dict[str, list[np.ndarray]] = {name: [] for name in INPUTS}
    names, moods, intensities = [], [], []
    for _ in range(people):
        who = speaker(int(rng.integers(2**31)), "test")
        for emotion, intensity in product(EMOTIONS, INTENSITIES * takes):
            _, speech, states = act(who, emotion, intensity, int(rng.integers(2**31)), frames, fps)
            voice = audio_from_samples(speech.waveform)
            predicted = torch.from_numpy(error.add_to(states.expression, rng))
            for name in INPUTS:
                expression, audio = None if name == "audio" else predicted, None if name == "expression" else voice
                codes[name].append(extract_style(model, expression, audio, fps).mu.numpy())
            names.append(str(who.index))
            moods.append(emotion)
            intensities.append(intensity)
        evaluator.on_step()
    return StyleCodes({name: np.stack(found) for name, found in codes.items()}, names, moods, intensities)


LAG_REACH = 5  # frames
AS_SHIPPED = SamplerOptions()  # the model's own steps and guidance
CLIPS_OF_A_CASE = 5  # that are generated


@dataclass(frozen=True)
class EvaluationSize:
    """How much is generated. rounds: cases per emotion; seconds: of talking; still_seconds: of the emotion comparisons;
    style_seconds: of the clips that styles are read from; study: of the figures about style; compare: of the comparison with
    baselines; None leaves them out. shown_people: at least 1, whose styles the
    report shows where there is no study of them. most: cases, 0: all. sweeps: cases whose emotion is generated at several
    strengths."""

    rounds: int
    seconds: float
    still_seconds: float
    style_seconds: float = 2.0
    study: StudySize | None = None
    compare: ComparisonSize | None = None
    shown_people: int = 4
    most: int = 0
    sweeps: int = len(EMOTIONS)

    def cases(self, emotions: int) -> int:
        """How many cases are looked at."""
        return min(self.most or self.rounds * emotions, self.rounds * emotions)


QUICK = EvaluationSize(
    rounds=2,
    seconds=1.6,
    still_seconds=0.64,
    compare=ComparisonSize(transfers=4, transfer_seconds=0.64, seeds=1, step_clips=1, step_seconds=0.4, people=16),
)
FULL = EvaluationSize(
    rounds=3,
    seconds=3.0,
    still_seconds=2.0,
    compare=ComparisonSize(transfers=8, transfer_seconds=1.0, seeds=3, step_clips=2, step_seconds=0.64, people=64),
    study=StudySize(leaks=8, blends=8, weight_seconds=0.48, people=10, takes=3),
)


@dataclass(frozen=True)
class Evaluation:
    """figures: as `svp evaluate demo --help` explains them; lags: correlation of mouth openings at -5 .. 5 frames, by speech;
    codes: of the styles of test people in all emotions and intensities; comparison: None where it was left out; emotions: by name
    and by strangers' styles."""

    figures: dict[str, object]
    lags: dict[str, np.ndarray]
    comparison: Comparison | None
    codes: StyleCodes
    emotions: EmotionStudy


def evaluate(
    model: PortraitModel,
    size: EvaluationSize,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    bank: EmotionBank | None = None,
) -> dict[str, object]:
    """The figures of `run_evaluation` alone."""
    return run_evaluation(model, size, seed, progress, bank=bank).figures


def run_evaluation(
    model: PortraitModel,
    size: EvaluationSize,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    reader: Analyzer | None = None,
    version: int = 1,
    beside: Mapping[str, PortraitModel] | None = None,
    bank: EmotionBank | None = None,
) -> Evaluation:
    """All figures of the help text; `svp evaluate demo --help` explains them.

    progress(done, total) is called for every clip that is generated and every person whose styles are compared. reader, version: see
    Evaluator. beside: other models by their names in the tables, on the same clips. bank: the model's emotion bank.
    """
    count = size.cases(len(EMOTIONS))
    beside, expressive = dict(beside or {}), bool(model.config.unet.expression_size)
    parts = [] if size.study is None else [size.study.steps(count)]
    if size.compare is not None:
        parts.append(size.compare.steps(count, len(beside), expressive))
    shown_people = size.shown_people if size.study is None else 0
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    evaluator = Evaluator(model, AS_SHIPPED, step, reader, version)
    emotions = EmotionStudy(evaluator, bank, size.sweeps, seed)
    total = count * CLIPS_OF_A_CASE + sum(parts) + shown_people + emotions.steps(count)
    study = None if size.study is None else StyleStudy(evaluator, size.study, seed)
    comparison = None if size.compare is None else Comparison(evaluator, size.compare, seed, beside)
    rows: list[dict[str, float]] = []
    lags: dict[str, list[np.ndarray]] = {"generated": [], "swapped": [], "analyser": []}
    read: list[np.ndarray] = []
    performed: list[np.ndarray] = []
    cases = islice(make_cases(evaluator, size.rounds, size.seconds, size.style_seconds, seed), count)
    for index, case in enumerate(cases):
        clip, voice = case.clip, audio_of(case.clip)
        frames = len(clip.images)
        still = max(1, round(size.still_seconds * clip.fps))
        made = evaluator.generate(clip, clip, voice, case.style, frames, seed + index)
        swapped = evaluator.generate(clip, clip, case.other_audio, case.style, frames, seed + index)
        opening = mouth_opening(clip.landmarks)
        tracks = {name: evaluator.read(images) for name, images in zip(lags, (made, swapped, clip.images), strict=True)}
        for name, track in tracks.items():
            lags[name].append(
                lagged_correlation(mouth_opening(given(track.landmarks, "landmarks")), opening, LAG_REACH)
            )

        def moving(style: Style | None, case: Case = case, seed: int = seed + index, still: int = still) -> np.ndarray:
            return evaluator.generate(case.portrait, case.clip, audio_of(case.clip), style, still, seed)

        def shows(expression: np.ndarray, emotion: str = clip.emotion) -> float:
            return float(classify_emotion(expression)[0] == emotion)

        styled = moving(case.style)
        plain, wrong = (evaluator.read(moving(style)) for style in (None, case.wrong_style))
        rows.append(
            {
                "psnr": psnr(made, clip.images),
                "ssim": mean_ssim(made, clip.images),
                "emotion_acc": shows(evaluator.expression(styled)),
                "emotion_acc_no_style": shows(given(plain.expression, "expression")),
                "emotion_acc_wrong_style": shows(given(wrong.expression, "expression")),
                "kps_error": keypoint_error(tracks["generated"].head_keypoints, clip.head_keypoints, evaluator.size),
                "analyser_kps_error": keypoint_error(
                    tracks["analyser"].head_keypoints, clip.head_keypoints, evaluator.size
                ),
                "analyser_emotion_acc": shows(given(tracks["analyser"].expression, "expression")),
            }
        )
        emotions.add(case, still, seed + index)
        read.append(given(tracks["analyser"].expression, "expression"))
        performed.append(clip.states.expression)
        if study is not None:
            study.add(case, tracks["analyser"], styled, plain, seed + index)
        if comparison is not None:
            comparison.add(case, made, tracks["generated"], tracks["analyser"], seed + index)
    result: dict[str, object] = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
    curves = {name: np.mean(found, axis=0) for name, found in lags.items()}
    result["mouth_corr"] = float(curves["generated"][LAG_REACH])
    result["mouth_lag"] = int(np.argmax(curves["generated"])) - LAG_REACH
    result["mouth_corr_swapped"] = float(curves["swapped"][LAG_REACH])
    result["analyser_mouth_corr"] = float(curves["analyser"][LAG_REACH])
    error = PredictionError.between(read, performed)
    if study is not None:
        result |= study.figures(error)
    codes = None if study is None else study.codes
    if codes is None:
        codes = style_codes(evaluator, error, shown_people, 1, seed)
    if comparison is not None:
        result = {**comparison.figures(), **result}
    result = {**result, **emotions.figures(), "clips": len(rows), "seed": seed}
    return Evaluation(result, curves, comparison, codes, emotions)
