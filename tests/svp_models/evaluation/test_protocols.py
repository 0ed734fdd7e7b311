"""The built-in model itself: what is in the file, and what the evaluation says of it."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from svp_portrait.svp_models.checkpoints.emotion_bank import find_emotion_bank
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.cli import evaluate as command
from svp_portrait.svp_models.diffusion.pipeline import resolve_options
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.evaluation.evaluator import Evaluator
from svp_portrait.svp_models.evaluation.metrics.landmarks import keypoint_error
from svp_portrait.svp_models.evaluation.protocols import AS_SHIPPED, INPUTS, EvaluationSize, StudySize, evaluate
from svp_portrait.svp_models.face.detection import require_face
from svp_portrait.svp_models.face.detectors.built_in import FaceAnalyzer
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.synthetic.clips import DATA_VERSION, neutral_portrait
from svp_portrait.svp_models.synthetic.performance import EMOTIONS
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.training.recipe import load_recipe, run_config, same_run

RECIPE = Path(__file__).parents[3] / "recipes" / "demo.toml"
FIGURES = {
    "psnr", "ssim", "mouth_corr", "mouth_lag", "mouth_corr_swapped", "emotion_acc", "emotion_acc_no_style",
    "emotion_acc_wrong_style", "kps_error", "clips", "seed", "analyser_kps_error", "analyser_mouth_corr",
    "analyser_emotion_acc", "label_emotion_acc", "stranger_emotion_acc", "emotion_confusion", "strength_amounts",
    "strength_monotone", "strength_monotone_clips",
}  # fmt: skip
STYLE_FIGURES = {
    "stylesim", "stylesim_no_style", "clustering", "identity_leak_sampled", "identity_leak_deterministic", "interpolation",
    "interpolation_jump",
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    return load_model(BUILTIN_MODEL)


def test_the_file_is_small_and_says_how_it_was_made(model):
    assert BUILTIN_MODEL.stat().st_size <= 30e6
    assert asdict(model.config) == asdict(PRESETS["demo"])
    assert model.metadata["data_version"].split("/")[0] == DATA_VERSION
    assert same_run(model.metadata["training"], run_config(load_recipe(RECIPE), "stage3"))
    assert int(model.metadata["step"]) > 0
    assert int(model.metadata["seed"]) >= 0


def test_the_analyser_finds_the_face_of_a_stranger(model):
    portrait = neutral_portrait(speaker(12345, "test"), 256)
    track = FaceAnalyzer(model.face_analyzer).analyze(portrait.images)
    assert track.present.all()
    assert keypoint_error(track.head_keypoints, portrait.head_keypoints, 256) < 0.02


@pytest.mark.parametrize("picture", ["grey", "noise"])
def test_the_analyser_says_when_there_is_no_face(model, picture):
    noise = np.random.default_rng(0).integers(0, 256, (1, 96, 128, 3), dtype=np.uint8)
    frames = noise if picture == "noise" else np.full_like(noise, 128)
    track = FaceAnalyzer(model.face_analyzer).analyze(frames)
    with pytest.raises(PortraitError, match="no face found in the portrait"):
        require_face(track, "the portrait")


def test_a_model_without_a_face_analyser_cannot_be_measured(model):
    with pytest.raises(PortraitError, match="has no face analyser to measure with"):
        Evaluator(replace(model, face_analyzer=None), AS_SHIPPED, lambda: None)


@pytest.fixture(scope="module")
def tiny():
    """The smallest full evaluation: one case per emotion, a few frames each."""
    study = StudySize(leaks=1, blends=1, weight_seconds=0.04, people=1, takes=1)
    return EvaluationSize(rounds=1, seconds=0.2, still_seconds=0.08, style_seconds=0.2, study=study, sweeps=2)


@pytest.fixture(scope="module")
def evaluation(model, tiny):
    """Figures and the calls of `progress`."""
    calls = []
    bank = find_emotion_bank(model.style_space)
    return evaluate(model, tiny, 1, lambda done, total: calls.append((done, total)), bank), calls


@pytest.mark.slow
def test_the_full_evaluation_gives_every_figure(evaluation):
    figures, calls = evaluation
    assert set(figures) == FIGURES | STYLE_FIGURES
    assert figures["clips"] == 8
    assert figures["ssim"] > 0.7
    assert figures["kps_error"] < 0.05
    assert figures["analyser_kps_error"] < 0.02
    assert 0.5 < figures["stylesim"] <= 1
    assert abs(figures["identity_leak_sampled"]) < 0.5
    assert len(figures["interpolation"]) == 11
    assert figures["interpolation"][0] == 0 and figures["interpolation"][10] == pytest.approx(1)
    assert figures["interpolation_jump"] > 0
    assert {name: set(item) for name, item in figures["clustering"].items()} == dict.fromkeys(INPUTS, set(EMOTIONS))
    assert calls == [(text, len(calls)) for text in range(1, len(calls) + 1)]
    assert json.loads(json.dumps(figures)) == figures


@pytest.mark.slow
def test_without_the_study_the_other_figures_are_the_same(model, tiny, evaluation):
    figures = evaluate(model, replace(tiny, study=None, sweeps=0), 1)
    assert figures.pop("missing").keys() == {"label_emotion_acc"}
    assert figures.pop("emotion_confusion")["stranger"] == evaluation[0]["emotion_confusion"]["stranger"]
    assert figures == {name: evaluation[0][name] for name in FIGURES if name in figures}


def test_the_help_says_what_every_figure_is():
    told = command.FIGURES.replace("analyser_*", "analyser_kps_error analyser_mouth_corr analyser_emotion_acc")
    for name in (FIGURES | STYLE_FIGURES) - {"seed"}:
        assert re.search(rf"\b{name}\b", told), name


@pytest.mark.parametrize("name", ["portrait", "style_interpolation", "style_library"])
def test_what_is_measured_is_sampled_as_in_the_workflows(name):
    graph = json.loads((Path(__file__).parents[3] / "workflows" / "api" / f"{name}.json").read_text())
    sampler = next(node["inputs"] for node in graph.values() if node["class_type"] == "SVPSampler")
    measured = resolve_options(PRESETS["demo"], AS_SHIPPED)
    for option in ("steps", "cfg", "scheduler", "reference_weight", "audio_weight", "style_weight"):
        assert sampler[option] == getattr(measured, option), option


def test_the_built_in_model_says_how_it_is_sampled():
    config = load_model(BUILTIN_MODEL).config
    assert (config.steps, config.cfg) == (PRESETS["demo"].steps, PRESETS["demo"].cfg) == (1, 1.0)
