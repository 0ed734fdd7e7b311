"""`svp evaluate motion`: figures of a motion generator where truth is known."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from ..checkpoints.built_in_motion import BUILT_IN_MOTION, load_motion_model
from ..evaluation.motion import QUICK, MotionEvaluationSize, evaluate_motion
from ..evaluation.motion_cases import make_motion_cases
from ..evaluation.motion_kdtalker import kdtalker_figures
from ..model import PortraitModel

MOTION_FIGURES = """\
Motions of test people who say unseen sentences; styles are those of another clip of the person and emotion. truth_: the same
figure of the true performances; baseline_: of the copied style clip (realtime_factor: the same network frame by frame);
kdtalker_: of KDTalker's network trained on the same clips; causal_: no frame knows later ones; without_habits_: nothing but style
and voice is known.

lip_corr: correlation of the mouth's opening with truth at lag 0; lip_lag: lag in frames where it is highest (positive: late);
lip_corr_swapped: with the voice of another person. lip_expert: share of the seconds whose lips the style-aware lip expert finds
in step with the voice; swapped_lip_expert: of lips that were made for another voice. blink_rate_ratio: blinks over those that the people's rates ask for;
blink_rate_ratio_asked: over rates of 0.1 to 0.8 a second that are given. pose_spread_ratio: spread of the angles over that of
truth; pose_diversity (degrees), beat_alignment: as KDTalker reports them; seed_diversity: spread of the angles over seeds, in
shares of truth's spread in time; lip_corr_between_seeds. emotion_acc: share of the motions whose emotion is recognised;
emotion_acc_predicted, emotion_acc_audio_prior: with the style that the style predictor, the style extractor has from the
voice alone. prompt_acc: share of the prompts whose movement the detector finds, beginning at most 0.3 s away,
with the guidance by words of Generate Motion; unguided_prompt_acc: with none;
prompt_other_change: change of the expression by a prompt, over that by another seed. control_error: error of what is given, in
its spread; control_other_change: change of the rest, over that by another seed. minute10_over_minute1: of motions without
end, mean of the ratios of lips, blinks, pose spread and emotion, which follow by name. realtime_factor: seconds of motion in
a second, 10 steps.
"""


def add_motion_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--generator",
        type=Path,
        default=BUILT_IN_MOTION,
        help="motion: file of the motion generator; default is the built-in one",
    )
    parser.add_argument(
        "--kdtalker",
        type=Path,
        metavar="FILE",
        help="motion: KDTalker's network trained on the same clips (RUN/kdtalker/model.safetensors)",
    )


def motion_figures_of(
    args: argparse.Namespace, model: PortraitModel, progress: Callable[[str], None]
) -> dict[str, object]:
    """All figures of a motion generator. progress(name) is called before every part with its name."""
    size = QUICK if args.quick else MotionEvaluationSize()
    generator = load_motion_model(args.generator)
    figures = evaluate_motion(generator, model, size, args.seed, progress)
    if args.kdtalker is not None:
        progress("KDTalker")
        cases = make_motion_cases(model, size.rounds, size.seconds, args.seed)
        figures |= kdtalker_figures(args.kdtalker, cases)
    return {**figures, "generator": args.generator.name}
