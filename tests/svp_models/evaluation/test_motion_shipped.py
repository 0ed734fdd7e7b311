"""The built-in motion generator: its file, and that it does what its users rely on."""

from __future__ import annotations

import pytest

from svp_portrait.svp_models.checkpoints.built_in_motion import BUILT_IN_MOTION, load_motion_model
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.evaluation.motion import (
    MotionEvaluationSize,
    MotionEvaluator,
    lip_figures,
    motion_figures,
)
from svp_portrait.svp_models.evaluation.motion_cases import (
    EXPRESSION,
    LIDS,
    POSE,
    batch_conditions,
    make_prompts,
    prompt_met,
)
from svp_portrait.svp_models.synthetic.movements import KINDS

LARGEST_FILE = 8e6  # bytes


@pytest.fixture(scope="module")
def motion():
    return load_motion_model(BUILT_IN_MOTION)


@pytest.fixture(scope="module")
def evaluator(motion):
    return MotionEvaluator(motion, load_model(BUILTIN_MODEL), MotionEvaluationSize(rounds=1, seconds=6.0), seed=5)


def test_the_file_is_small_and_says_where_it_comes_from(motion):
    assert BUILT_IN_MOTION.stat().st_size <= LARGEST_FILE
    assert motion.network.config.space == "svp" and motion.network.config.fps == 25
    assert motion.style_predictor is not None and motion.movement_detector is not None
    assert {"step", "seed", "data_version", "recipe", "training"} <= set(motion.metadata)
    assert {"words_step", "words_seed", "words_training"} <= set(motion.metadata)
    assert motion.style_space == load_model(BUILTIN_MODEL).style_space


def test_lips_follow_the_voice_that_is_heard_and_no_other(evaluator):
    cases = evaluator.cases
    figures = motion_figures(cases, evaluator.free())
    assert figures["lip_corr"] > 0.85 and figures["lip_lag"] == 0
    assert figures["emotion_acc"] >= 7 / 8
    assert 0.75 < figures["blink_rate_ratio"] < 1.3  # few blinks in 48 s
    assert 0.75 < figures["pose_spread_ratio"] < 1.3
    others = [case.other_features for case in cases]
    swapped = evaluator.make(lambda part, rows: batch_conditions(evaluator.network, part, others[rows]))
    assert lip_figures(cases, swapped)["lip_corr"] < 0.25


def test_heads_do_what_words_ask_for_and_lips_and_lids_do_not_care(evaluator, motion):
    prompts = make_prompts(evaluator.cases, 3 * len(KINDS), seed=5)
    cases, phrases = [prompt.case for prompt in prompts], [[prompt.phrase] for prompt in prompts]
    made = evaluator.make(
        lambda part, rows: batch_conditions(evaluator.network, part, phrases=phrases[rows]), cases=cases
    )
    met = [
        prompt_met(motion.movement_detector, one[:, POSE], prompt.phrase)
        for one, prompt in zip(made, prompts, strict=True)
    ]
    assert sum(met) / len(met) >= 0.75
    plain = evaluator.make(lambda part, rows: batch_conditions(evaluator.network, part), cases=cases)
    other = evaluator.make(lambda part, rows: batch_conditions(evaluator.network, part), 1, cases=cases)
    for columns in (EXPRESSION, LIDS):
        moved, by_seed = (
            sum(float((one - free)[:, columns].square().mean()) for one, free in zip(run, plain, strict=True))
            for run in (made, other)
        )
        assert moved < 0.1 * by_seed
