from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.built_in_motion import BUILT_IN_MOTION, MotionModel, load_motion_model
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.data.motion_clips import motion_numbers
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation.metrics.landmarks import mouth_opening
from svp_portrait.svp_models.evaluation.motion import (
    MotionEvaluationSize,
    between_seeds,
    distance,
    evaluate_motion,
    lip_figures,
    lips_in_step,
    motion_figures,
)
from svp_portrait.svp_models.evaluation.motion_cases import (
    blinks_in,
    make_motion_cases,
    make_prompts,
    opening_of,
    prompt_met,
)
from svp_portrait.svp_models.evaluation.motion_endless import EndlessSize
from svp_portrait.svp_models.motion.control import blink_track
from svp_portrait.svp_models.motion.words import TimedPhrase
from svp_portrait.svp_models.networks.motion_experts import LipExpert, LipExpertConfig, MovementDetector
from svp_portrait.svp_models.networks.motion_generator import MotionGeneratorConfig, MotionGeneratorNetwork
from svp_portrait.svp_models.networks.style_predictor import StylePredictor, StylePredictorConfig
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.movements import CLASSES, VOCABULARY, class_of
from svp_portrait.svp_models.synthetic.speakers import speaker

KEYS = (
    "lip_corr", "lip_lag", "lip_corr_swapped", "lip_expert", "blink_rate_ratio", "pose_spread_ratio", "seed_diversity", "emotion_acc",
    "emotion_acc_predicted", "emotion_acc_audio_prior", "prompt_acc", "control_error", "minute10_over_minute1",
    "realtime_factor",
)  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return load_model(BUILTIN_MODEL)


@pytest.fixture(scope="module")
def cases(model):
    return make_motion_cases(model, 1, 4.0, 0)


class Told(torch.nn.Module):
    """A detector that finds what it is told, in some frames."""

    def __init__(self, number, first, last):
        super().__init__()
        self.number, self.first, self.last = number, first, last

    def forward(self, pose):
        scores = torch.zeros(1, pose.shape[1], len(CLASSES))
        scores[..., 0] = 1
        scores[0, self.first : self.last, self.number] = 2
        return scores


def test_openings_are_those_of_rendered_landmarks():
    clip = make_clip(speaker(1, "test"), "neutral", 3, 4, seconds=0.4)
    numbers = torch.from_numpy(motion_numbers(clip.states))
    numbers[:, 68:73], numbers[:, 73] = 0, 1
    frontal = opening_of(speaker(1, "test"), numbers)
    assert np.corrcoef(frontal, mouth_opening(clip.landmarks))[0, 1] > 0.98


def test_truth_is_perfect_and_a_late_mouth_is_late(cases):
    truth = [case.numbers for case in cases]
    figures = motion_figures(cases, truth)
    assert figures["lip_corr"] == pytest.approx(1) and figures["lip_lag"] == 0
    assert figures["pose_spread_ratio"] == pytest.approx(1) and figures["emotion_acc"] == 1
    late = [torch.cat([numbers[:2], numbers[:-2]]) for numbers in truth]
    assert lip_figures(cases, late)["lip_lag"] == 2
    assert lip_figures(cases, [*truth[1:], truth[0]])["lip_corr"] < 0.4


def test_the_built_in_lip_expert_knows_lips_of_another_voice(cases):
    expert, truth = load_motion_model(BUILT_IN_MOTION).lip_expert, [case.numbers for case in cases]
    assert lips_in_step(expert, cases, truth) > 0.9
    assert lips_in_step(expert, cases, [*truth[1:], truth[0]]) < 0.3


def test_blinks_are_counted_and_seeds_compared():
    numbers = torch.zeros(500, 74)
    numbers[:, 64:66] = blink_track(0.35, 500, 25.0, torch.Generator().manual_seed(0))
    assert blinks_in(numbers) == 7
    one, other = torch.zeros(10, 74), torch.full((10, 74), 2.0)
    assert between_seeds([[one], [other]], slice(68, 71)) == pytest.approx(2**0.5)
    assert distance([one], [other], slice(0, 64)) == 2


def test_a_prompt_is_met_by_its_movement_at_its_time_alone():
    phrase, pose = TimedPhrase("nods slowly", 2.0, 4.0), torch.zeros(200, 6)
    nod, shake = class_of("nod"), class_of("shake")
    assert prompt_met(Told(nod, 50, 100), pose, phrase)
    assert prompt_met(Told(nod, 56, 100), pose, phrase)  # 0.24 s late
    assert not prompt_met(Told(nod, 60, 100), pose, phrase)  # 0.4 s late
    assert not prompt_met(Told(shake, 50, 100), pose, phrase)
    assert not prompt_met(Told(nod, 130, 180), pose, phrase)


def test_prompts_name_all_movements_within_the_clip(cases):
    prompts = make_prompts(cases, 64, 3)
    assert len({(prompt.movement.kind, prompt.case.emotion) for prompt in prompts}) == 64
    for prompt in prompts:
        assert CLASSES[class_of(prompt.phrase.text)] == (prompt.movement.kind, prompt.movement.side)
        assert 0 < prompt.phrase.start < prompt.phrase.end <= 4.0


def test_all_figures_are_there_beside_truth_and_baseline(model):
    torch.manual_seed(0)
    network = MotionGeneratorNetwork(
        MotionGeneratorConfig(width=16, heads=2, joint_layers=1, vocabulary=VOCABULARY)
    ).eval()
    motion = MotionModel(
        model.style_space,
        network,
        StylePredictor(StylePredictorConfig(inner=16)).eval(),
        LipExpert(LipExpertConfig(lips=(0, 1), width=8, layers=1)).eval(),
        movement_detector=MovementDetector(len(CLASSES)).eval(),
    )
    size = MotionEvaluationSize(rounds=1, seconds=4.0, prompts=8, endless=EndlessSize(people=1, minutes=1))
    figures = evaluate_motion(motion, model, size, 0)
    missing = [
        f"{prefix}{key}" for key in KEYS for prefix in ("", "truth_", "baseline_") if f"{prefix}{key}" not in figures
    ]
    assert missing == []
    assert figures["truth_lip_corr"] == pytest.approx(1) and figures["control_error"] == 0
    assert figures["truth_emotion_acc"] == 1 and figures["baseline_seed_diversity"] == 0
    assert figures["blink_rate_ratio_asked"] == 1 and abs(figures["lip_corr"]) < 0.5
    with pytest.raises(PortraitError, match="was trained with styles of other"):
        evaluate_motion(replace(motion, style_space="other"), model, size, 0)
