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
from svp_portrait.svp_models.evaluation.motion_cases import batch_conditions

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
