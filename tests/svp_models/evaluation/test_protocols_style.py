import numpy as np
import pytest

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from svp_portrait.svp_models.evaluation.evaluator import Evaluator, PredictionError
from svp_portrait.svp_models.evaluation.protocols import (
    AS_SHIPPED,
    INPUTS,
    WEIGHTS,
    StudySize,
    StyleStudy,
    positions_between,
    style_codes,
)
from svp_portrait.svp_models.synthetic.performance import EMOTIONS


@pytest.fixture
def evaluator():
    steps = []
    made = Evaluator(load_model(BUILTIN_MODEL), AS_SHIPPED, lambda: steps.append(1))
    made.steps = steps
    return made


def test_positions_of_a_straight_walk_are_its_weights():
    rng = np.random.default_rng(0)
    first, last = rng.normal(size=(2, 3, 1, 64))
    straight = first + WEIGHTS[:, None] * (last - first)  # 3 11 64
    assert positions_between(straight) == pytest.approx(list(WEIGHTS))


def test_positions_show_a_step_and_a_way_back():
    line = np.zeros((1, 4, 64))
    line[0, :, 7] = (2.0, 2.0, 8.0, 6.0)
    line[0, 1, 8] = 5.0  # across the line counts for nothing
    assert positions_between(line) == pytest.approx([0, 0, 1.5, 1])


def test_positions_of_long_lines_count_more():
    lines = np.zeros((2, 3, 64))
    lines[0, :, 0], lines[1, :, 0] = (0, 0, 1), (0, 3, 3)
    assert positions_between(lines)[1] == pytest.approx(0.9)  # (0 x 1 + 3 x 3) / (1 x 1 + 3 x 3)


def test_clustering_falls_with_the_error_of_the_readings(evaluator):
    def strengths(error: float) -> dict[str, dict[str, float]]:
        return style_codes(evaluator, PredictionError(*np.full((2, 64), error)), people=1, takes=1, seed=0).strength()

    sharp, blurred = strengths(0.0), strengths(0.6)
    assert len(evaluator.steps) == 2
    for found in (sharp, blurred):
        assert tuple(found) == INPUTS
        assert {name: set(measure) for name, measure in found.items()} == dict.fromkeys(INPUTS, set(EMOTIONS))
    mean = {name: [np.mean(list(found[name].values())) for found in (sharp, blurred)] for name in INPUTS}
    assert mean["audio"][0] == mean["audio"][1]  # the same people, sentences and sounds
    assert mean["expression"][0] > 2 * mean["expression"][1]
    assert mean["expression"][0] > mean["audio"][0]


def test_figures_of_cases_that_are_known(evaluator):
    study = StyleStudy(evaluator, StudySize(leaks=2, blends=2, weight_seconds=0.1, people=1, takes=1), seed=0)
    rng = np.random.default_rng(1)
    study.alike = {"stylesim": [0.9, 0.8], "stylesim_no_style": [0.7, 0.5]}
    study.same, study.ways = list(rng.random((2, 2, 47))), list(rng.random((2, 47)))
    study.moved = {"sampled": [np.zeros(47)] * 2, "deterministic": [0.3 * way for way in study.ways]}
    study.at_weights = [np.outer(WEIGHTS, rng.random(64)) for _ in range(2)]
    study.changes = [(0.3, 0.4), (0.5, 1.0), (0.0, 0.0)]
    figures = study.figures(PredictionError(*np.zeros((2, 64))))
    assert figures["stylesim"] == pytest.approx(0.85)
    assert figures["stylesim_no_style"] == pytest.approx(0.6)
    assert figures["identity_leak_sampled"] == 0
    assert figures["identity_leak_deterministic"] == pytest.approx(0.3)
    assert figures["interpolation"] == pytest.approx(list(WEIGHTS))
    assert figures["interpolation_jump"] == pytest.approx(0.75)


def test_the_steps_of_a_study_do_not_exceed_its_cases():
    size = StudySize(leaks=16, blends=8, weight_seconds=0.48, people=10, takes=3)
    assert size.steps(24) == 16 * 3 + 8 * 12 + 10
    assert size.steps(5) == 5 * 3 + 5 * 12 + 10
