"""The training of the dense motion: pairs of whole frames, what it learns, and its place among the phases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svp_portrait.svp_models.checkpoints.expression_basis import load_expression_basis
from svp_portrait.svp_models.checkpoints.model_file import PORTRAIT_MODEL, load_model
from svp_portrait.svp_models.diffusion.face_inputs import dense_warp
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.warp import window_pixels
from svp_portrait.svp_models.networks.dense_motion import DenseMotion
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.training.face_batches import FaceBatches
from svp_portrait.svp_models.training.face_config import (
    Augmentation,
    BudgetSettings,
    FaceDensePhase,
    load_face_recipe,
)
from svp_portrait.svp_models.training.face_frames import prepared_frames
from svp_portrait.svp_models.training.face_run import FaceRun
from svp_portrait.svp_models.training.train_dense_motion import FaceDenseModule, whole_figures
from svp_portrait.svp_models.training.train_face_vae import psnr

RECIPE = Path(__file__).parents[3] / "recipes" / "demo256.toml"
SMALL = (
    "data.people=2",
    "data.test_people=1",
    "data.clips=2",
    "data.seconds=0.2",
    "data.portraits=2",
    "dense_motion.settings.batch_size=2",
    "dense_motion.validation_frames=2",
)
STEADY = Augmentation(0.0, 0.0, 0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return tmp_path_factory.mktemp("people")


@pytest.fixture(scope="module")
def frames(people):
    recipe = load_face_recipe(RECIPE, SMALL)
    return prepared_frames(recipe.data, PRESETS["demo256"].face_crop, "train", people, 1, print)


def test_pairs_are_whole_frames_of_one_person(frames):
    batches = FaceBatches(frames, PRESETS["demo256"], STEADY, basis=load_expression_basis())
    batch = batches.wholes(4, torch.Generator().manual_seed(0))
    assert batch["portrait"].shape == batch["target"].shape == (4, 3, 256, 256)
    stored = (frames.portraits.flatten(0, 1).movedim(3, 1).float() / 127.5 - 1).flatten(1)
    people = frames.person.repeat_interleave(2)
    for portrait, target in zip(batch["portrait"].flatten(1), batch["target"].flatten(1), strict=True):
        found = [int((stored - image).abs().mean(1).argmin()) for image in (portrait, target)]
        assert people[found[0]] == people[found[1]]
        torch.testing.assert_close(stored[found[1]], target, atol=1e-4, rtol=0)
    apart = batch["landmarks"][:, 30] - batch["moved"][:, 30]  # the tip of the nose arrives
    assert apart.norm(dim=1).max() < 4


def test_it_learns_what_stays():
    """A picture that must not move at all, dragged by a spline: after forty steps it hardly does."""
    torch.manual_seed(0)
    network = DenseMotion(8)
    module = FaceDenseModule(network, FaceDensePhase(BudgetSettings(), correction_weight=0.0, smooth_weight=0.0))
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    errors = []
    for _ in range(40):
        images = torch.nn.functional.interpolate(torch.rand(4, 3, 5, 5), (32, 32), mode="bicubic") * 2 - 1
        places = window_pixels(images, None, None)
        plain = torch.full_like(places, 0.1)
        batch = {
            "portrait": images,
            "target": images,
            "places": places,
            "plain": plain,
            "windows": torch.tensor([[0.0, 0.0], [1.0, 1.0]]).expand(4, -1, -1),
            "pictures": torch.cat([images, images, plain.movedim(-1, 1)], 1),
        }
        loss, values = module(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(values["error"].detach()))
    assert errors[-1] < 0.3 * errors[0] and float(values["stay"].detach()) > 0.7


def test_only_this_network_learns_and_figures_name_the_spline(frames):
    recipe = load_face_recipe(RECIPE, SMALL)
    run = FaceRun(recipe, Path("unused"), Path("unused"))
    model = run.start()
    batches = FaceBatches(frames, model.config, STEADY, basis=load_expression_basis(), dense=dense_warp(model))
    phase = run.build("dense_motion", model, batches, batches)
    loss, _ = phase.module(phase.batch(torch.Generator().manual_seed(0), 0.0))
    loss.backward()
    trained = {name for name, parameter in model.networks.named_parameters() if parameter.grad is not None}
    assert trained and all(name.startswith("dense_motion.") for name in trained)
    with torch.no_grad():
        figures = phase.validate()
    assert figures["psnr"] == pytest.approx(figures["spline_psnr"], abs=0.3)
    assert {"ssim", "outside_psnr", "spline_ssim", "spline_outside_psnr"} <= figures.keys()


def test_figures_of_a_known_error():
    truth = torch.zeros(1, 3, 16, 16)
    outside = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    outside[..., :8] = True
    found = truth + torch.where(outside, 0.2, 0.0)
    figures = whole_figures(found, truth, outside)
    assert figures["psnr"] == pytest.approx(float(psnr(found, truth)))
    assert figures["outside_psnr"] == pytest.approx(20, abs=1e-3)


class Still:
    """Says that nothing moves, and remembers what it was asked."""

    def __call__(self, images, targets, found, places):
        self.images, self.places = images, places
        return torch.zeros_like(places)


def test_crops_are_warped_with_it(frames):
    """Where all stays, the warped crop is the window of the portrait at the place of the frame's crop."""
    config = replace(PRESETS["demo256"], face_crop=replace(PRESETS["demo256"].face_crop, paint_mouth=False))
    still = Still()
    batches = FaceBatches(frames, config, STEADY, basis=load_expression_basis(), dense=still)
    found = batches.clips(2, 1, torch.Generator().manual_seed(0))["warped"][:, 0]
    corner = ((still.places[:, 0, 0] + 1) * 128 - 0.5).round().long()  # left and top
    for image, crop, (left, top) in zip(still.images, found, corner.tolist(), strict=True):
        torch.testing.assert_close(crop, image[:, top : top + 120, left : left + 112], atol=1e-3, rtol=0)


def test_a_model_without_these_weights_learns_on():
    recipe = load_face_recipe(RECIPE, [f'start="{PORTRAIT_MODEL}"'])
    model, before = FaceRun(recipe, Path("unused"), Path("unused")).start(), load_model(PORTRAIT_MODEL)
    for name in ("denoiser", "face_mask", "guider"):
        own, old = (getattr(one.networks, name).state_dict() for one in (model, before))
        assert all(torch.equal(own[key], value) for key, value in old.items())
    assert model.config == recipe.model() and model.networks.dense_motion is not None


def test_phases_end_with_those_that_are_not_built_upon(tmp_path):
    run = FaceRun(load_face_recipe(RECIPE, SMALL), tmp_path, tmp_path)
    assert run.phases() == ("vae", "dense_motion", "denoiser", "mask")
    left_out = FaceRun(load_face_recipe(RECIPE, [*SMALL, "dense_motion.settings.share=0"]), tmp_path, tmp_path)
    assert left_out.phases() == ("vae", "denoiser", "mask")
    assert FaceRun(load_face_recipe(RECIPE, [*SMALL, 'preset="demo"']), tmp_path, tmp_path).phases() == (
        "vae",
        "denoiser",
        "mask",
    )
    (tmp_path / "denoiser").mkdir()
    (tmp_path / "denoiser" / "checkpoint-0000001.pt").touch()
    assert run.phases() == ("denoiser", "mask")


def test_a_model_without_the_network_says_so(frames):
    recipe = load_face_recipe(RECIPE, [*SMALL, 'preset="demo"'])
    run = FaceRun(recipe, Path("unused"), Path("unused"))
    batches = FaceBatches(frames, PRESETS["demo256"], STEADY, basis=load_expression_basis())
    with pytest.raises(PortraitError, match="has no dense motion: set face_crop.dense_width"):
        run.build("dense_motion", run.start(), batches, batches)
