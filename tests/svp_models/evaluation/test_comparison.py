"""What stands beside the model: baselines on clips with known answers, and the keys that the comparison adds."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.cli import evaluate as command
from svp_portrait.svp_models.evaluation.baselines import TrainingPeople, still_portrait, vae_alone, warped_portrait
from svp_portrait.svp_models.evaluation.comparison import (
    EXPRESSION_KEYS,
    KEYS,
    MODEL,
    MODEL_EXPRESSION,
    SAMPLED,
    STEPS,
    TRUTH,
    VARIANTS,
    WARPED,
    WARPED_EXPRESSION,
    Comparison,
    ComparisonSize,
)
from svp_portrait.svp_models.evaluation.demo_report import demo_report
from svp_portrait.svp_models.evaluation.evaluator import Evaluator
from svp_portrait.svp_models.evaluation.metrics.frames import psnr
from svp_portrait.svp_models.evaluation.protocols import AS_SHIPPED, EvaluationSize, run_evaluation
from svp_portrait.svp_models.evaluation.report import report_html, report_json
from svp_portrait.svp_models.face.detectors.built_in import FaceAnalyzer
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.synthetic.clips import make_clip, neutral_portrait
from svp_portrait.svp_models.synthetic.speakers import speaker

SIZE = ComparisonSize(transfers=4, transfer_seconds=0.08, seeds=2, step_clips=1, step_seconds=0.08, people=4)


@pytest.fixture(scope="module")
def model():
    return load_model(BUILTIN_MODEL)


@pytest.fixture(scope="module")
def clip():
    return make_clip(speaker(2, "test"), "happy", 3, 0, seconds=0.4)


def test_a_portrait_that_need_not_move_stays_as_it_is(clip):
    portrait, own = clip.images[0], clip.head_keypoints[0]
    warped = warped_portrait(portrait, own, np.stack([own, own + (6, 0)]))
    assert psnr(warped[:1], portrait[None]) > 40
    assert psnr(warped[1:, 30:90, 46:86], portrait[None, 30:90, 40:80]) > 30  # the face has moved by six pixels
    still = still_portrait(portrait, 3)
    assert still.shape == (3, 128, 128, 3) and (still == portrait).all()


def test_warping_brings_the_portrait_nearer_to_truth_than_standing_still(clip):
    warped = warped_portrait(clip.images[0], clip.head_keypoints[0], clip.head_keypoints)
    assert psnr(warped, clip.images) > psnr(still_portrait(clip.images[0], len(warped)), clip.images)


def test_a_model_of_face_crops_is_measured_on_whole_frames(model):
    """Beside a smaller model, with and without the expression track; what lies outside of the crops is the warped portrait."""
    torch.manual_seed(0)
    preset = PRESETS["demo256"]
    config = replace(
        preset,
        steps=1,
        unet=replace(preset.unet, block_out_channels=(16, 16, 16)),
        face_crop=replace(preset.face_crop, dense_width=0),
    )
    networks, vae = build_networks(config).eval(), build_vae(config.vae).eval()
    networks.style_extractor.load_state_dict(model.networks.style_extractor.state_dict())
    crops = PortraitModel(config, networks, vae, model.face_analyzer, model.style_space, model.metadata)
    size = EvaluationSize(
        rounds=1,
        seconds=0.12,
        still_seconds=0.08,
        style_seconds=0.2,
        compare=replace(SIZE, step_clips=0, transfers=1),
        shown_people=1,
        most=1,
    )
    calls: list[tuple[int, int]] = []
    evaluation = run_evaluation(crops, size, 1, lambda *done: calls.append(done), version=2, beside={"small": model})
    assert calls == [(step, len(calls)) for step in range(1, len(calls) + 1)]
    assert set(EXPRESSION_KEYS) - {name for name in EXPRESSION_KEYS if name.endswith("_corr")} <= set(
        evaluation.figures
    )
    rows = evaluation.figures["systems"]
    assert {"small", WARPED_EXPRESSION, MODEL_EXPRESSION} < set(rows)
    frames = evaluation.comparison.samples[0].frames
    assert all(images.shape == (3, 256, 256, 3) for images in frames.values())
    apart = frames[MODEL][:, :30, :30].astype(int) - frames[WARPED][:, :30, :30]
    assert (np.abs(apart) <= 1).mean() > 0.95  # an expression moves what is far from it by parts of a pixel


def test_the_vae_alone_is_a_round_trip(model, clip):
    made = vae_alone(model, clip.images)
    assert made.dtype == np.uint8 and 28 < psnr(made, clip.images) < 45
    assert (vae_alone(model, clip.images[:3]) == made[:3]).mean() > 0.999


def test_the_nearest_of_training_is_the_person_itself_where_it_was_trained_on():
    people = TrainingPeople(6, 64)
    portrait = neutral_portrait(speaker(4, "train"), 64).images[0]
    like = make_clip(speaker(0, "test"), "sad", 3, 1, seconds=0.2, size=64)
    own = make_clip(speaker(4, "train"), "sad", 3, 9, seconds=0.2, size=64)
    assert (people.nearest_clip(portrait, like, 9) == own.images).all()


def test_the_reader_scores_and_the_model_s_own_analyser_reads_styles(model, clip, monkeypatch):
    evaluator = Evaluator(model, AS_SHIPPED, lambda: None, reader=FaceAnalyzer(model.face_analyzer))
    assert evaluator.reader is not evaluator.analyzer
    prior, seen = evaluator.prior_of(clip), evaluator.read(clip.images)
    monkeypatch.setattr(evaluator, "reader", None)
    assert evaluator.prior_of(clip).mu.tolist() == prior.mu.tolist()
    assert seen.landmarks.shape == (10, 68, 2)
    with pytest.raises(AttributeError):
        evaluator.read(clip.images)


def test_keys_come_from_their_systems(model):
    comparison = Comparison(Evaluator(model, AS_SHIPPED, lambda: None), SIZE, 0)
    comparison.reconstruction = {
        name: {clip: {"psnr": value + shift, "mouth_psnr": value} for clip, shift in (("a", 0.0), ("b", 2.0))}
        for name, value in (("warped portrait", 20.0), ("VAE alone", 40.0), (MODEL, 30.0), (TRUTH, 99.0))
    }
    comparison.transfer = {
        name: {"a": {"emotion_acc": value}}
        for name, value in ((SAMPLED, 1.0), (f"{SAMPLED} 1", 0.0), ("warped portrait", 0.0))
    }
    comparison.by_steps[4] = [{"psnr": 25.0}, {"psnr": 27.0}]
    figures = comparison.figures()
    assert figures["bent_psnr"] == 21 and figures["vae_psnr"] == 41 and figures["mouth_psnr"] == 30
    assert figures["steps_psnr"] == {"4": 26.0}
    spread = figures["style_transfer"][f"standard deviation over 2 seeds of {SAMPLED}"]
    assert spread["emotion_acc"] == pytest.approx(np.std([1, 0], ddof=1))
    competes = {row.label: row.competes for row in comparison.reconstruction_rows()}
    assert competes == {"warped portrait": True, "VAE alone": False, MODEL: True, TRUTH: False}


def test_the_help_says_what_every_figure_is():
    for name in (*KEYS, *EXPRESSION_KEYS, "steps_psnr", "systems", "style_transfer", "missing"):
        assert re.search(rf"\b{name}\b", command.FIGURES), name


@pytest.mark.slow
def test_a_whole_comparison_and_its_report(model):
    size = EvaluationSize(rounds=1, seconds=0.2, still_seconds=0.08, style_seconds=0.2, compare=SIZE, shown_people=1)
    calls: list[tuple[int, int]] = []
    evaluation = run_evaluation(model, size, 1, lambda done, total: calls.append((done, total)))
    assert calls == [(step, len(calls)) for step in range(1, len(calls) + 1)]
    figures, comparison = evaluation.figures, evaluation.comparison
    assert set(KEYS) <= set(figures) and set(figures["steps_psnr"]) == {str(count) for count in STEPS}
    assert figures["vae_psnr"] > figures["psnr"] and figures["vae_psnr"] > figures["bent_psnr"]
    assert set(comparison.transfer) == {"warped portrait", *VARIANTS, f"{SAMPLED} 1"}
    titles = [sample.name.partition(": ")[2] for sample in comparison.transfers]
    assert sum("a stranger's" in title for title in titles) == 2
    same = sum(title.startswith(f"the portrait shows {sample.name.split(', ')[1].split(':')[0]}") for title, sample in zip(titles, comparison.transfers, strict=True))  # fmt: skip
    assert same == 2
    plain = run_evaluation(model, replace(size, compare=None), 1)
    assert {key: figures[key] for key in plain.figures} == plain.figures
    report = demo_report(evaluation, {"model": "demo", "seed": 1})
    text = report_html(report)
    assert text.count("<video") == 6 and text.count("<table") == 7 and text.count("<svg") == 4
    values = report_json(report)["tables"]
    assert [row["system"] for row in values["Reconstruction"]["rows"]][-2:] == [MODEL, TRUTH]
    assert len(values["Emotions by strangers' styles"]["rows"]) > 0
