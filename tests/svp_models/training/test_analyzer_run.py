"""The face analyser learns on from its exported file, on pictures of both versions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, FACE_ANALYZER, FACE_READER, load_model
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.detectors.built_in import FaceAnalyzer
from svp_portrait.svp_models.networks.face_landmarks import FaceAnalyzerNetwork
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.training.analyzer_faces import AnalyzerFaces, AnalyzerFacesConfig, prepared_faces
from svp_portrait.svp_models.training.analyzer_run import (
    AnalyzerChanges,
    ReadingRun,
    analyzer_errors,
    analyzer_images,
    changed_faces,
    load_reading_recipe,
)
from svp_portrait.svp_models.training.train_landmarks import load_onnx_weights

RECIPE = Path(__file__).parents[3] / "recipes" / "face_analyzer.toml"
SMALL = ("faces.people=4", "faces.test_people=2", "faces.frames=2", "settings.batch_size=4", "settings.log_seconds=0.5")
STEADY = AnalyzerChanges(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 25, 0.0, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faces")


@pytest.fixture(scope="module")
def faces(folder):
    return prepared_faces(load_reading_recipe(RECIPE, SMALL).faces, folder, 1, print)


@pytest.fixture(scope="module")
def network():
    return load_built_in(FaceAnalyzerNetwork())


def load_built_in(network):
    load_onnx_weights(network, load_model(BUILTIN_MODEL).face_analyzer)
    return network.eval()


def test_people_are_rendered_once_in_both_versions(faces, folder):
    lines: list[str] = []
    again = prepared_faces(AnalyzerFacesConfig(people=4, test_people=2, frames=2), folder, 1, lines.append)
    assert not lines and torch.equal(again[0].images, faces[0].images)
    assert len(faces[0]) == 8 and faces[0].version.tolist() == [1, 1, 2, 2, 1, 1, 2, 2]
    assert sorted(faces[1].version.tolist()) == [1, 1, 1, 1, 2, 2, 2, 2]
    assert faces[0].images.shape == (8, 144, 144, 3) and faces[0].expression.shape == (8, 64)


@torch.no_grad()
def test_weights_come_back_from_the_exported_file(network, faces):
    onnx, images = load_model(BUILTIN_MODEL).face_analyzer, faces[1].images[:4]
    track = FaceAnalyzer(onnx).analyze(images.numpy())
    landmarks, keypoints, expression, *_ = network(analyzer_images(images))
    assert np.abs(track.landmarks - 144 * landmarks.numpy()).max() < 3  # it is shrunk in another way there
    assert np.abs(track.expression - expression.numpy()).max() < 0.1
    with pytest.raises(PortraitError, match="set widths and hidden"):
        load_onnx_weights(FaceAnalyzerNetwork(widths=(48, 80, 96)), onnx)


@torch.no_grad()
def test_the_built_in_analyser_errs_little_on_drawings(network, faces):
    drawn = faces[1].rows((faces[1].version == 1).nonzero()[:, 0])
    found = network(analyzer_images(drawn.images))
    errors = analyzer_errors(*found[:4], drawn)
    assert errors["points"] < 4 and errors["keypoints"] < 4 and errors["pose"] < 4
    exact = analyzer_errors(drawn.landmarks / 144, drawn.head_keypoints / 144, drawn.expression, drawn.pose, drawn)
    assert exact == dict.fromkeys(exact, 0.0)
    moved = analyzer_errors(
        drawn.landmarks / 144 + torch.tensor([3.0, 4.0]) / 256,
        drawn.head_keypoints / 144,
        drawn.expression,
        drawn.pose,
        drawn,
    )
    assert moved["points"] == pytest.approx(5, abs=1e-3) and moved["keypoints"] == 0


def spot(x: float, y: float, count: int) -> AnalyzerFaces:
    """Black pictures with a white spot, at which all points lie."""
    images = torch.zeros(count, 144, 144, 3, dtype=torch.uint8)
    images[:, round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3] = 255
    points = torch.tensor([x + 0.5, y + 0.5])
    return AnalyzerFaces(
        images, points.expand(count, 68, 2), points.expand(count, 8, 2), torch.zeros(count, 64), torch.zeros(count, 3),
        torch.zeros(count, 4), torch.ones(count),
    )  # fmt: skip


def test_points_stay_on_what_they_mark_when_pictures_are_zoomed_shifted_and_rolled():
    faces = spot(90, 60, 40)
    batch = changed_faces(faces, replace(STEADY, zoom=0.3, shift=0.1, roll=30.0), torch.Generator().manual_seed(0))
    assert batch["images"].shape == (40, 3, 128, 128)
    centres = torch.arange(128) + 0.5
    bright = (batch["images"][:, 0] - 0.1).clamp(min=0)
    weight = bright / bright.sum((1, 2), keepdim=True)
    found = torch.stack([(weight.sum(1) * centres).sum(1), (weight.sum(2) * centres).sum(1)], 1)
    expected = 128 * (batch["landmarks"].view(-1, 68, 2)[:, 0] + 0.5)
    assert (found - expected).abs().max() < 0.5 and (expected - expected.mean(0)).abs().max() > 10
    assert batch["pose"][:, 2].abs().max() > 1.5  # of 10 degrees


def test_steady_pictures_are_only_shrunk_and_empty_ones_show_no_face(faces):
    generator = torch.Generator().manual_seed(1)
    batch = changed_faces(faces[0], STEADY, generator)
    assert batch["present"].min() == 1
    assert (batch["images"] - analyzer_images(faces[0].images)).abs().mean() < 0.02
    empty = changed_faces(faces[0], replace(STEADY, no_face=1.0), generator)
    assert empty["present"].max() == 0


def test_a_training_writes_an_analyser_and_goes_on(folder, tmp_path):
    recipe = load_reading_recipe(RECIPE, SMALL)
    lines: list[str] = []
    run = ReadingRun(recipe, tmp_path / "run", folder, lines.append)
    path = run.train(2.0, tmp_path / "faces.onnx")
    assert FaceAnalyzer(path.read_bytes()).analyze(np.zeros((1, 144, 144, 3), np.uint8)).landmarks.shape == (1, 68, 2)
    assert any(line.startswith("before: v1_points") for line in lines)
    run.train(1.0, path)
    assert any("goes on after step" in line for line in lines)


@pytest.mark.parametrize("path", [FACE_ANALYZER, FACE_READER], ids=["analyser", "reader"])
def test_analysers_of_the_pack_know_both_versions_and_drawings_hardly_worse(path):
    """People that no training saw, beside the built-in model's own analyser, which knows drawings alone."""
    before, after = FaceAnalyzer(load_model(BUILTIN_MODEL).face_analyzer), FaceAnalyzer(path.read_bytes())
    errors: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for version, found in errors.items():
        for number in range(8):
            clip = make_clip(speaker(900 + number, "test"), "happy", 2, 1, 0.08, 25.0, 256, version)
            found.append(
                tuple(
                    float(np.linalg.norm(one.analyze(clip.images).landmarks - clip.landmarks, axis=-1).mean())
                    for one in (before, after)
                )
            )
    drawn, natural = (np.mean(errors[version], axis=0) for version in (1, 2))
    assert natural[1] < 3 and natural[1] < natural[0] / 2
    assert drawn[1] < drawn[0] + 0.6
