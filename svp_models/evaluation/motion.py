"""Figures of a motion generator on test people and unseen sentences of the synthetic world, beside truth and trivial baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.built_in_motion import MotionModel
from ..data.motion_clips import FPS
from ..errors import PortraitError
from ..media.prosody import prosody
from ..model import PortraitModel
from ..motion.built_in import (
    WORDS_GUIDANCE,
    GivenMotion,
    MotionGuidance,
    generate_motion,
    predict_style,
    smooth_pose_numbers,
)
from ..motion.control import blink_track
from ..networks.motion_experts import LipExpert, MovementDetector
from ..networks.motion_generator import MotionConditions
from ..synthetic.performance import classify_emotion
from ..synthetic.speech import energy_envelope
from .metrics.series import beat_alignment, correlation, lagged_correlation, motion_beats, onsets, pose_diversity
from .motion_cases import (
    EXPRESSION,
    POSE,
    MotionCase,
    PromptCase,
    batch_conditions,
    blinks_in,
    make_motion_cases,
    make_prompts,
    opening_of,
    prompt_met,
)
from .motion_endless import EndlessSize, endless_figures, realtime_factors

LAG_REACH = 5  # frames
BATCH = 16  # cases at once
SEEDS = 4  # heads that one voice gets, for their diversity
JUDGED = 25  # frames that the lip expert gives one opinion on, as in training
Figures = dict[str, float]


@dataclass(frozen=True)
class MotionEvaluationSize:
    """How much is generated. rounds: cases per emotion; seconds: of a case; prompts: movements asked for; endless: see there."""

    rounds: int = 5
    seconds: float = 8.0
    prompts: int = 160
    endless: EndlessSize = EndlessSize()


QUICK = MotionEvaluationSize(rounds=2, prompts=48, endless=EndlessSize(people=2, minutes=2))


class MotionEvaluator:
    """A motion generator with test cases. model: the portrait model that styles come from."""

    def __init__(self, motion: MotionModel, model: PortraitModel, size: MotionEvaluationSize, seed: int):
        if motion.network.config.space != "svp":
            raise PortraitError(
                f"the generator makes motions of {motion.network.config.space!r}: truth is known in the space 'svp' alone"
            )
        if motion.style_space and motion.style_space != model.style_space:
            raise PortraitError(
                f"the generator was trained with styles of {motion.style_space}, the model makes {model.style_space}: evaluate it "
                "with the model it was trained with"
            )
        self.motion, self.network, self.size, self.seed = motion, motion.network, size, seed
        self.model = model
        self.cases = make_motion_cases(model, size.rounds, size.seconds, seed)

    def noise(self, cases: Sequence[MotionCase], offset: int = 0) -> Tensor:
        """b n c, by the cases' seeds."""
        channels = self.network.config.channels
        rows = [
            torch.randn(len(case.numbers), channels, generator=torch.Generator().manual_seed(case.seed + offset))
            for case in cases
        ]
        return torch.stack(rows)

    def make(
        self,
        conditions: Callable[[Sequence[MotionCase], slice], MotionConditions],
        offset: int = 0,
        given: Callable[[slice], GivenMotion] | None = None,
        cases: Sequence[MotionCase] | None = None,
        causal: bool = False,
        guidance: MotionGuidance | None = None,
    ) -> list[Tensor]:
        """Numbers n c of every case."""
        cases, found = self.cases if cases is None else cases, []
        for start in range(0, len(cases), BATCH):
            rows = slice(start, start + BATCH)
            part = cases[rows]
            fixed = None if given is None else given(rows)
            given_part = self.network, conditions(part, rows), self.noise(part, offset), fixed
            made = generate_motion(*given_part, guidance=guidance, causal=causal)
            found += list(smooth_pose_numbers(made, self.network, None if fixed is None else fixed.known))
        return found

    def free(self, offset: int = 0, habits: bool = True, causal: bool = False) -> list[Tensor]:
        """Motions of the cases' own voices and styles."""
        return self.make(
            lambda part, rows: batch_conditions(self.network, part, habits=habits), offset=offset, causal=causal
        )

    def with_styles(self, styles: Sequence[Tensor]) -> list[Tensor]:
        """Motions of the cases' own voices with other styles."""
        return self.make(lambda part, rows: batch_conditions(self.network, part, styles=styles[rows]))

    def with_given(self, cases: Sequence[MotionCase], given: GivenMotion | None, offset: int = 0) -> list[Tensor]:
        """Motions of cases that follow what is given of them."""

        def part_of(rows: slice) -> GivenMotion:
            assert given is not None
            return GivenMotion(given.numbers[rows], given.known[rows])

        fixed = None if given is None else part_of
        return self.make(lambda part, rows: batch_conditions(self.network, part), offset, fixed, cases)


def mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def lip_figures(cases: Sequence[MotionCase], made: Sequence[Tensor]) -> Figures:
    """lip_corr at lag 0, and the lag at which the mean correlation is highest."""
    curves = [
        lagged_correlation(opening_of(case.who, one), case.opening, LAG_REACH)
        for case, one in zip(cases, made, strict=True)
    ]
    curve = np.mean(curves, axis=0)
    return {"lip_corr": float(curve[LAG_REACH]), "lip_lag": int(np.argmax(curve)) - LAG_REACH}


@torch.no_grad()
def lips_in_step(expert: LipExpert, cases: Sequence[MotionCase], made: Sequence[Tensor]) -> float:
    """Share of the seconds whose lips a lip expert finds in step with the case's voice, for its speaking style."""
    opinions = [
        expert(one[None, :, EXPRESSION], case.features[None], case.style[None])[0].split(JUDGED)
        for case, one in zip(cases, made, strict=True)
    ]
    return mean([float(part.mean() > 0) for parts in opinions for part in parts if len(part) == JUDGED])


def spread_of(made: Sequence[Tensor]) -> float:
    """Standard deviation of yaw, pitch and roll within clips, mean over clips and the three, degrees (KDTalker's diversity)."""
    return mean([pose_diversity(one[:, POSE][:, :3].numpy()) for one in made])


def motion_figures(cases: Sequence[MotionCase], made: Sequence[Tensor]) -> Figures:
    """Lips, blinks, pose, emotion and beats of motions, one for each case."""
    seconds = len(cases[0].numbers) / FPS
    asked = sum(float(case.habits[0]) for case in cases) * seconds
    beats = [
        beat_alignment(motion_beats(one[:, POSE][:, :3].numpy()), onsets(energy_envelope(case.waveform, len(one), FPS)))
        for case, one in zip(cases, made, strict=True)
    ]
    return {
        **lip_figures(cases, made),
        "blink_rate_ratio": sum(blinks_in(one) for one in made) / asked,
        "pose_spread_ratio": spread_of(made) / spread_of([case.numbers for case in cases]),
        "pose_diversity": spread_of(made),
        "beat_alignment": mean(beats),
        "emotion_acc": emotion_accuracy(cases, made),
    }


def emotion_accuracy(cases: Sequence[MotionCase], made: Sequence[Tensor]) -> float:
    """Share of the motions whose expression shows the case's emotion."""
    return mean(
        [
            float(classify_emotion(one[:, EXPRESSION].numpy())[0] == case.emotion)
            for case, one in zip(cases, made, strict=True)
        ]
    )


def between_seeds(runs: Sequence[Sequence[Tensor]], columns: slice) -> float:
    """Standard deviation over runs with other seeds, mean over frames, numbers of `columns` and cases."""
    return mean([float(torch.stack(same)[..., columns].std(dim=0).mean()) for same in zip(*runs, strict=True)])


def prefixed(prefix: str, figures: Figures) -> Figures:
    return {f"{prefix}{name}": value for name, value in figures.items()}


def evaluate_motion(
    motion: MotionModel,
    model: PortraitModel,
    size: MotionEvaluationSize,
    seed: int,
    progress: Callable[[str], None] | None = None,
) -> dict[str, object]:
    """All figures of `svp evaluate motion --help` as one dict. progress(name) is called before every part with its name."""

    def say(text: str) -> None:
        if progress is not None:
            progress(text)

    say("test performances")
    evaluator = MotionEvaluator(motion, model, size, seed)
    result: dict[str, object] = {}
    for name, part in PARTS.items():
        say(name)
        result |= part(evaluator)
    return {**result, "clips": len(evaluator.cases), "seed": seed, "steps": motion.metadata.get("step", "")}


def free_part(evaluator: MotionEvaluator) -> Figures:
    """Motions of whole clips, copied style clips as a baseline, and other voices."""
    cases, made = evaluator.cases, evaluator.free()
    truth, copied = [case.numbers for case in cases], [case.copied for case in cases]
    result = motion_figures(cases, made)
    result |= prefixed("truth_", motion_figures(cases, truth)) | prefixed("baseline_", motion_figures(cases, copied))
    swapped = evaluator.make(
        lambda part, rows: batch_conditions(evaluator.network, part, [case.other_features for case in part])
    )
    result["lip_corr_swapped"] = lip_figures(cases, swapped)["lip_corr"]
    turned = [*truth[1:], truth[0]]
    result["truth_lip_corr_swapped"] = lip_figures(cases, turned)["lip_corr"]
    result["baseline_lip_corr_swapped"] = lip_figures(cases, [*copied[1:], copied[0]])["lip_corr"]
    expert = evaluator.motion.lip_expert
    if expert is not None:
        judged = {"": made, "truth_": truth, "baseline_": copied, "swapped_": swapped}
        result |= {f"{prefix}lip_expert": lips_in_step(expert, cases, found) for prefix, found in judged.items()}
    result |= prefixed("causal_", motion_figures(cases, evaluator.free(causal=True)))
    result |= prefixed("without_habits_", motion_figures(cases, evaluator.free(habits=False)))
    return result


def seeds_part(evaluator: MotionEvaluator) -> Figures:
    """How much heads and lips of one voice differ from seed to seed, in shares of how much truth moves within a clip."""
    runs = [evaluator.free(offset) for offset in range(SEEDS)]
    angles = slice(POSE.start, POSE.start + 3)
    within = spread_of([case.numbers for case in evaluator.cases])
    lips = [
        correlation(opening_of(case.who, one), opening_of(case.who, other))
        for case, one, other in zip(evaluator.cases, runs[0], runs[1], strict=True)
    ]
    return {
        "seed_diversity": between_seeds(runs, angles) / within,
        "truth_seed_diversity": between_seeds(
            [[c.numbers for c in evaluator.cases], [c.copied for c in evaluator.cases]], angles
        )
        / within,
        "baseline_seed_diversity": 0.0,
        "lip_corr_between_seeds": mean(lips),
    }


def predicted_part(evaluator: MotionEvaluator) -> Figures:
    """Emotions with styles that are read from the voice alone, by the style predictor and by the style extractor."""
    cases, predictor = evaluator.cases, evaluator.motion.style_predictor
    styles = {"audio_prior": [case.audio_style for case in cases]}
    if predictor is not None:
        styles["predicted"] = [
            predict_style(
                predictor,
                torch.from_numpy(prosody(case.waveform))[None],
                case.portrait[None],
                torch.Generator().manual_seed(case.seed),
            )[0]
            for case in cases
        ]
    result: Figures = {}
    for name, codes in styles.items():
        made = evaluator.with_styles(codes)
        result[f"emotion_acc_{name}"] = emotion_accuracy(cases, made)
        result[f"truth_emotion_acc_{name}"] = emotion_accuracy(cases, [case.numbers for case in cases])
        result[f"baseline_emotion_acc_{name}"] = emotion_accuracy(
            cases, [cases[i - 3].copied for i in range(len(cases))]
        )
    return result


def prompts_part(evaluator: MotionEvaluator) -> Figures:
    """Prompts of single movements: whether the detector finds them, in truth and in what is made, and what else they change."""
    detector = evaluator.motion.movement_detector
    if detector is None:
        return {}
    prompts = make_prompts(evaluator.cases, evaluator.size.prompts, evaluator.seed)
    cases = [prompt.case for prompt in prompts]
    phrases = [[prompt.phrase] for prompt in prompts]

    def conditions(part: Sequence[MotionCase], rows: slice) -> MotionConditions:
        return batch_conditions(evaluator.network, part, phrases=phrases[rows])

    made = evaluator.make(conditions, cases=cases, guidance=MotionGuidance(words=WORDS_GUIDANCE))
    unguided = evaluator.make(conditions, cases=cases)
    plain = evaluator.make(lambda part, rows: batch_conditions(evaluator.network, part), cases=cases)
    truth = [torch.from_numpy(prompt.states.pose) for prompt in prompts]
    sources = {"": made, "unguided_": unguided, "baseline_": plain}
    poses = {"truth_": truth, **{prefix: [one[:, POSE] for one in found] for prefix, found in sources.items()}}
    result = {
        f"{prefix}prompt_acc": mean(
            [float(prompt_met(detector, pose, prompt.phrase)) for pose, prompt in zip(found, prompts, strict=True)]
        )
        for prefix, found in poses.items()
    }
    result |= {f"prompt_acc_{kind}": value for kind, value in by_kind(detector, poses[""], prompts).items()}
    other = evaluator.make(lambda part, rows: batch_conditions(evaluator.network, part), 1, cases=cases)
    result["prompt_lip_corr"] = lip_figures(cases, made)["lip_corr"]
    result["prompt_other_change"] = distance(made, plain, EXPRESSION) / distance(other, plain, EXPRESSION)
    return result


def by_kind(detector: MovementDetector, poses: Sequence[Tensor], prompts: Sequence[PromptCase]) -> Figures:
    """Shares of the prompts that are met, by the kind of movement."""
    met: dict[str, list[float]] = {}
    for pose, prompt in zip(poses, prompts, strict=True):
        met.setdefault(prompt.movement.kind, []).append(float(prompt_met(detector, pose, prompt.phrase)))
    return {kind: mean(values) for kind, values in sorted(met.items())}


def distance(first: Sequence[Tensor], second: Sequence[Tensor], columns: slice) -> float:
    """Root mean square of the difference of motions in some columns."""
    return mean(
        [float((one - other)[:, columns].square().mean().sqrt()) for one, other in zip(first, second, strict=True)]
    )


def control_part(evaluator: MotionEvaluator) -> Figures:
    """Each group given from the true performance: how exactly it is met, and how far the others move from the free motion,
    in shares of the distance between two seeds. Blink rates of 0.1 to 0.8 a second are asked for too."""
    network, cases = evaluator.network, evaluator.cases[:BATCH]
    groups = network.config.groups
    free, other = (evaluator.with_given(cases, None, offset) for offset in (0, 1))
    truth = torch.stack([case.numbers for case in cases])
    errors, baseline, moved = [], [], []
    for index, (name, columns) in enumerate(groups.items()):
        known = torch.zeros(*truth.shape[:2], len(groups))
        known[..., index] = 1
        made = evaluator.with_given(cases, GivenMotion(truth, known))
        span = float(truth[..., columns].std())
        errors.append(distance(made, [case.numbers for case in cases], columns) / span)
        baseline.append(distance([case.copied for case in cases], [case.numbers for case in cases], columns) / span)
        rest = [part for other_name, part in groups.items() if other_name != name]
        moved.append(mean([distance(made, free, part) / max(distance(other, free, part), 1e-9) for part in rest]))
    rates = np.linspace(0.1, 0.8, len(cases))
    frames = len(cases[0].numbers)
    counted = [
        blinks_in(
            torch.cat(
                [
                    torch.zeros(frames, 64),
                    blink_track(rate, frames, FPS, torch.Generator().manual_seed(i)),
                    torch.zeros(frames, 8),
                ],
                dim=1,
            )
        )
        for i, rate in enumerate(rates)
    ]
    asked = [round(rate * frames / FPS) for rate in rates]
    return {
        "control_error": max(errors),
        "truth_control_error": 0.0,
        "baseline_control_error": max(baseline),
        "control_other_change": mean(moved),
        "blink_rate_ratio_asked": sum(counted) / sum(asked),
    }


def endless_part(evaluator: MotionEvaluator) -> Figures:
    return endless_figures(evaluator.network, evaluator.model, evaluator.size.endless, evaluator.seed)


def speed_part(evaluator: MotionEvaluator) -> Figures:
    return realtime_factors(evaluator.network)


PARTS: dict[str, Callable[[MotionEvaluator], Figures]] = {
    "whole clips": free_part,
    "seeds": seeds_part,
    "styles from voices": predicted_part,
    "prompts": prompts_part,
    "control": control_part,
    "without end": endless_part,
    "speed": speed_part,
}
