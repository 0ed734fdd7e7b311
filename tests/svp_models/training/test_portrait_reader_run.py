"""The training of the portrait reader: squares, targets, errors in pixels, and a file that reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.portrait_reader import load_portrait_reader
from svp_portrait.svp_models.face.portrait_reader import cut_squares, face_squares
from svp_portrait.svp_models.training.analyzer_faces import prepared_faces
from svp_portrait.svp_models.training.analyzer_run import AnalyzerChanges
from svp_portrait.svp_models.training.portrait_reader_run import (
    ReadingRun,
    changed_squares,
    in_squares,
    load_reading_recipe,
    reader_errors,
    sampled_squares,
)

RECIPE = Path(__file__).parents[3] / "recipes" / "portrait_reader.toml"
SMALL = ("faces.people=4", "faces.test_people=2", "faces.frames=2", "settings.batch_size=4", "settings.log_seconds=0.5")
STEADY = AnalyzerChanges(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 25, 0.0, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("faces")


@pytest.fixture(scope="module")
def faces(folder):
    return prepared_faces(load_reading_recipe(RECIPE, SMALL).faces, folder, 1, print)[0]


def marked(faces, point):
    """The same pictures, black but for a white spot on a landmark."""
    images = torch.zeros_like(faces.images)
    for row, (x, y) in enumerate(faces.landmarks[:, point].round().int().tolist()):
        images[row, y - 2 : y + 2, x - 2 : x + 2] = 255
    return replace(faces, images=images)


@pytest.mark.parametrize("point", [30, 48])
def test_points_stay_on_what_they_mark(faces, point):
    changes = replace(STEADY, zoom=0.15, shift=0.05, roll=15.0)
    batch = changed_squares(marked(faces, point), changes, torch.Generator().manual_seed(0))
    centres = (torch.arange(128) + 0.5) / 128
    bright = (batch["images"][:, 0] - 0.1).clamp(min=0)
    weight = bright / bright.sum((1, 2), keepdim=True)
    found = torch.stack([(weight.sum(1) * centres).sum(1), (weight.sum(2) * centres).sum(1)], 1)
    expected = batch["landmarks"].view(-1, 68, 2)[:, point] + 0.5
    assert (128 * (found - expected)).abs().max() < 1
    still = in_squares(faces.landmarks, face_squares(faces.landmarks).float())[:, point]
    assert (128 * (expected - still)).norm(dim=1).max() > 3


def test_lids_and_gaze_are_stored_with_the_pictures(faces):
    assert faces.eyes.shape == (8, 4) and faces.eyes[:, :2].min() >= 0 and faces.eyes[:, :2].max() <= 1
    assert faces.eyes[:, 2:].std() > 0.01


def test_errors_are_in_pixels_of_256(faces):
    matrices = face_squares(faces.landmarks).float()
    exact = {
        "landmarks": in_squares(faces.landmarks, matrices),
        "head_keypoints": in_squares(faces.head_keypoints, matrices),
        "expression": faces.expression,
        "eyes": faces.eyes,
    }
    assert max(reader_errors(exact, faces, matrices).values()) < 1e-3
    shifted = in_squares(faces.landmarks + torch.tensor([3.0, 4.0]), matrices)
    off = exact | {"landmarks": shifted, "eyes": faces.eyes + torch.tensor([0.1, 0.1, 0.2, 0.2])}
    errors = reader_errors(off, faces, matrices)
    assert errors["mouth"] == pytest.approx(5, rel=1e-3) and errors["keypoints"] < 1e-3
    assert errors["lids"] == pytest.approx(0.1, rel=1e-3) and errors["gaze"] == pytest.approx(0.2, rel=1e-3)


def test_a_training_writes_a_reader_and_goes_on(folder, faces, tmp_path):
    lines: list[str] = []
    run = ReadingRun(load_reading_recipe(RECIPE, SMALL), tmp_path / "run", folder, lines.append)
    path = run.train(2.0, tmp_path / "reader.safetensors")
    reading = load_portrait_reader(path).look(faces.images.numpy(), faces.landmarks.numpy())
    assert reading.landmarks.shape == (8, 68, 2) and reading.track().shape == (8, 68)
    assert np.isfinite(reading.expression).all() and any("v2_lids" in line for line in lines)
    run.train(1.0, path)
    assert any("goes on after step" in line for line in lines)


def test_squares_of_training_are_those_that_are_looked_at(faces):
    matrices = face_squares(faces.landmarks)
    learnt = sampled_squares(faces.images, matrices.float())
    looked = torch.from_numpy(cut_squares(faces.images.numpy(), matrices.numpy())).movedim(3, 1) / 255
    assert (learnt - looked).abs().mean() < 0.01
    shifted = sampled_squares(faces.images, (matrices + torch.tensor([[0, 0, 1 / 128]]).double()).float())
    assert (learnt - looked).abs().mean() < 0.7 * (shifted - looked).abs().mean()
