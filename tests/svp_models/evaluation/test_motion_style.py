from __future__ import annotations

import json
from itertools import islice

import numpy as np
import pytest

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.cli.main import main
from svp_portrait.svp_models.evaluation import motion_style
from svp_portrait.svp_models.evaluation.evaluator import analyzer_of
from svp_portrait.svp_models.evaluation.motion_style import (
    MotionStyleSize,
    first_frames,
    make_cases,
    measure,
    weight_scores,
    when_closed,
)

SIZE = MotionStyleSize(rounds=1, seconds=1.2, style_seconds=2.0, seeds=3)


@pytest.fixture(scope="module")
def cases():
    return list(make_cases(SIZE, 3))


@pytest.fixture(scope="module")
def figures(cases):
    analyzer = analyzer_of(load_model(BUILTIN_MODEL))
    rows = [measure(case, analyzer, SIZE) for case in cases if case.emotion in ("angry", "happy", "sad")]
    return {name: np.nanmean([row[name] for row in rows]) for name in rows[0]}


def test_cases_are_the_same_for_a_seed_and_of_different_people(cases):
    again, other = next(make_cases(SIZE, 3)), next(make_cases(SIZE, 4))
    assert again.who.index == cases[0].who.index != other.who.index
    assert np.array_equal(again.spoken.expression, cases[0].spoken.expression)
    assert all(case.who.index != case.stranger.index for case in cases)
    assert [len(case.spoken) for case in cases] == [30] * 8 and [len(case.style_clip) for case in cases] == [50] * 8


def test_moved_motions_show_the_emotion_and_keep_the_lips(figures):
    for way in ("", "_from_pixels", "_named", "_drawn"):
        assert figures[f"emotion_acc{way}"] == figures[f"analyser_emotion_acc{way}"] == 1, way
        assert figures[f"lip_corr{way}"] > 0.95 and figures[f"analyser_lip_corr{way}"] > 0.9, way


def test_the_baselines_fail_at_one_of_the_two(figures):
    assert figures["emotion_acc_unmoved"] == 0 and figures["lip_corr_unmoved"] > 0.95
    assert figures["emotion_acc_copied"] == 1 and figures["lip_corr_copied"] < 0.6
    assert figures["lip_corr_lips_by_spread"] < figures["lip_corr"] <= figures["lip_corr_lips_kept"] + 1e-3


def test_more_weight_shows_more_of_the_emotion(cases):
    for case in islice(cases, 1, 4):
        scores = np.array(weight_scores(case))
        assert (np.diff(scores) > -1e-6).all() and scores[0] < 0.3 and scores[-1] > 0.9, case.emotion


def test_seeds_vary_about_as_true_clips_do(figures):
    assert 0.3 < figures["seed_distance"] / figures["take_distance"] < 3


def test_openings_of_closed_lips(cases):
    voice = np.zeros((3, 64), np.float32)
    assert np.isnan(when_closed(np.ones(3), voice, 0.5))
    voice[1, 5] = 0.8  # lips_press
    assert when_closed(np.array([1.0, 0.25, 3.0]), voice, 0.5) == 0.25
    part = first_frames(cases[0].style_clip, 7)
    assert len(part) == 7 and np.array_equal(part.expression, cases[0].style_clip.expression[:7])


def test_the_command_writes_the_figures(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(motion_style, "EMOTIONS", ("neutral", "happy"))
    monkeypatch.setattr(motion_style, "QUICK", MotionStyleSize(rounds=1, seconds=0.4, style_seconds=0.8, seeds=2))
    path = tmp_path / "figures.json"
    assert not main(
        lambda folders, progress: [], ["evaluate", "motion-style", "--quick", "--json", str(path), "--seed", "5"]
    )
    figures = json.loads(path.read_text())
    assert figures["clips"] == 2 and figures["seed"] == 5 and len(figures["weight_scores"]) == 11
    assert json.loads(capsys.readouterr().out) == figures
