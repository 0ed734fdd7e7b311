"""The training on upright crops from the rendered people to the model file, with seconds instead of hours."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.checkpoints.expression_basis import load_expression_basis
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model, style_space_of
from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline, SamplerOptions
from svp_portrait.svp_models.face.warp import warp_to_keypoints
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.presets import PRESETS
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.training.face_batches import FaceBatches, inner_weight, region_weight
from svp_portrait.svp_models.training.face_config import Augmentation, Regions, load_face_recipe
from svp_portrait.svp_models.training.face_frames import prepared_frames
from svp_portrait.svp_models.training.face_run import MODEL as MODEL_FILE
from svp_portrait.svp_models.training.face_run import FaceRun, clip_styles
from svp_portrait.svp_models.training.train_face import FaceDenoiserTraining
from svp_portrait.svp_models.training.train_face_vae import crop_loss, region_figures
from svp_portrait.svp_models.types import Audio, HeadMotion

RECIPE = Path(__file__).parents[3] / "recipes" / "demo256.toml"
SMALL = [
    "data.people=2",
    "data.test_people=1",
    "data.clips=2",
    "data.seconds=0.2",
    "data.portraits=2",
    "dense_motion.settings.batch_size=2",
    "dense_motion.validation_frames=2",
    "vae.settings.batch_size=2",
    "vae.settings.log_seconds=0.5",
    "vae.validation_frames=2",
    "denoiser.settings.batch_size=2",
    "denoiser.frames=2",
    "denoiser.expression_drop_prob=0.0",
    "denoiser.validation_clips=1",
    "denoiser.settings.log_seconds=0.5",
]
MODEL = PRESETS["demo256"]
STEADY = Augmentation(0.0, 0.0, 0.0, 0.0, 1.0, 1.0)


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    return tmp_path_factory.mktemp("people")


@pytest.fixture(scope="module")
def frames(people):
    return prepared_frames(load_face_recipe(RECIPE, SMALL).data, MODEL.face_crop, "train", people, 1, print)


def test_people_are_rendered_once(frames, people):
    lines = []
    again = prepared_frames(load_face_recipe(RECIPE, SMALL).data, MODEL.face_crop, "train", people, 1, lines.append)
    assert not lines and torch.equal(again.crops, frames.crops)
    assert frames.crops.shape == (4, 5, 128, 120, 3) and frames.portraits.shape == (4, 2, 256, 256, 3)
    assert frames.person.tolist() == [0, 0, 1, 1]


def test_batches_show_one_person_in_one_place(frames):
    """Target, warped portrait and keypoints agree: the keypoints that the drawing shows are those of the frame."""
    batches = FaceBatches(frames, MODEL, STEADY, torch.zeros(4, 2, 128))
    batch = batches.clips(3, 2, torch.Generator().manual_seed(0))
    assert batch["target"].shape == batch["warped"].shape == (3, 2, 3, 120, 112)
    error = (batch["target"] - batch["warped"]).abs().mean((1, 2, 3, 4))
    swapped = (batch["target"] - batch["warped"].roll(1, 0)).abs().mean((1, 2, 3, 4))
    people = (batch["portrait"] - batch["portrait"].roll(1, 0)).abs().mean((1, 2, 3)) > 0.05
    assert (error < swapped)[people].all() and (error < 0.12).all()
    for image, nose in zip(batch["kps"].flatten(0, 1), batch["landmarks"].flatten(0, 1)[:, 30].int(), strict=True):
        column, row = nose.tolist()  # the tip of the nose is a head keypoint too
        assert image[:, row, column].max() > 0.5


def test_warped_portraits_are_windows_of_whole_ones(frames):
    """Somewhere in one of the frames' warped portraits lies the batch's window."""
    batch = FaceBatches(frames, MODEL, replace(STEADY, other_clip_prob=0.0)).clips(
        1, 1, torch.Generator().manual_seed(1)
    )
    window, errors = batch["warped"][0, 0], []
    for clip in range(4):
        for number in range(2):
            whole = frames.portraits[clip, number].movedim(2, 0).float() / 127.5 - 1
            warped = warp_to_keypoints(whole, frames.portrait_keypoints[clip, number], frames.keypoints[clip])
            for image, (left, top) in zip(warped, frames.corners[clip].tolist(), strict=True):
                part = image[:, top : top + 128, left : left + 120].unfold(1, 120, 1).unfold(2, 112, 1)  # 3 9 9 120 112
                errors.append((part - window[:, None, None]).abs().mean((0, 3, 4)).min())
    assert min(errors) < 1e-4


def test_portraits_are_warped_to_an_expression_where_it_is_known(frames):
    batches = FaceBatches(frames, MODEL, STEADY, basis=load_expression_basis())
    known, unknown = (
        batches.clips(4, 2, torch.Generator().manual_seed(2), torch.full((4,), value)) for value in (True, False)
    )
    assert torch.equal(known["target"], unknown["target"]) and torch.equal(known["portrait"], unknown["portrait"])
    figures = [
        region_figures(batch["warped"].flatten(0, 1), batch["target"].flatten(0, 1), batch["landmarks"].flatten(0, 1))
        for batch in (known, unknown)
    ]
    assert figures[0]["mouth_psnr"] > figures[1]["mouth_psnr"] + 1


def test_errors_of_the_portrait_s_own_expression_move_it_only_where_an_expression_is_wanted(frames):
    wrong = replace(STEADY, expression_error=0.1)
    exact, off = (FaceBatches(frames, MODEL, config, basis=load_expression_basis()) for config in (STEADY, wrong))
    for known in (True, False):
        expression = torch.full((4,), known)
        right, moved = (batches.clips(4, 2, torch.Generator().manual_seed(2), expression) for batches in (exact, off))
        assert torch.equal(right["target"], moved["target"]) and torch.equal(right["portrait"], moved["portrait"])
        apart = (right["warped"] - moved["warped"]).abs().mean((1, 2, 3, 4))
        assert (apart > 1e-3).all() if known else (apart < 1e-6).all()


def test_mouths_that_open_are_painted_in_training_as_when_used(frames):
    """The window of a batch is that of the portrait which the pipeline warps and paints."""
    crop, basis = replace(MODEL.face_crop, paint_mouth=False), load_expression_basis()
    painted, plain = (
        FaceBatches(frames, model, STEADY, basis=basis).clips(4, 2, torch.Generator().manual_seed(2))
        for model in (MODEL, replace(MODEL, face_crop=crop))
    )
    changed = (painted["warped"] != plain["warped"]).any(2)  # b f H W
    mouths = painted["landmarks"][:, :, 48:68]
    low, high = mouths.amin(2) - 6, mouths.amax(2) + 6
    rows, columns = torch.meshgrid(torch.arange(120), torch.arange(112), indexing="ij")
    inside = (columns >= low[..., 0, None, None]) & (columns <= high[..., 0, None, None])
    inside &= (rows >= low[..., 1, None, None]) & (rows <= high[..., 1, None, None])
    assert changed.any() and not (changed & ~inside).any()


def test_decoded_errors_count_in_the_last_part_of_the_time(frames):
    recipe = load_face_recipe(RECIPE, [*SMALL, "denoiser.decoded_share=0.25"])
    torch.manual_seed(0)
    model = PortraitModel(MODEL, build_networks(MODEL), build_vae(MODEL.vae), None, "space")
    batches = FaceBatches(frames, MODEL, STEADY, torch.zeros(4, 2, 128), load_expression_basis())
    training = FaceDenoiserTraining(model, batches, batches, recipe.denoiser)
    losses = []
    for done in (0.7, 0.8):
        batch = training.batch(torch.Generator().manual_seed(0), done)
        torch.manual_seed(1)
        losses.append(float(training.module(batch)[0].detach()))
    assert losses[1] > losses[0]
    flat = training.module.encode(batch["target"]).flatten(0, 1)
    exact = training.module.decoded_error({**batch, "target": model.vae.decode(flat)[:, None]}, flat)
    assert float(exact.detach()) == pytest.approx(0, abs=1e-5)


def test_colours_change_for_portrait_and_target_alike(frames):
    steady, changed = (
        FaceBatches(frames, MODEL, config).clips(2, 1, torch.Generator().manual_seed(3))
        for config in (STEADY, replace(STEADY, color_prob=1.0, color=0.3))
    )
    ratios = [
        ((changed[key] + 1) / (steady[key] + 1).clamp(min=0.2)).flatten(-2).median(-1).values
        for key in ("target", "warped")
    ]
    torch.testing.assert_close(ratios[0], ratios[1], atol=0.05, rtol=0)
    assert (ratios[0] - 1).abs().max() > 0.05


def test_regions_weigh_more():
    landmarks = torch.full((1, 68, 2), 40.0)
    landmarks[:, 48:] = torch.tensor([[100.0, 120.0]])
    weight = region_weight(landmarks, 144, 160, 8, Regions(mouth=3.0, eyes=2.0, margin=8.0))
    assert weight.shape == (1, 1, 20, 18)
    assert weight[0, 0, 14, 12] == 4 and weight[0, 0, 4, 4] == 3 and weight[0, 0, 19, 0] == 1
    inner = inner_weight(144, 160, 8, 0.1)
    assert inner[0, 0, 0, 0] < 0.05 and inner[0, 0, 10, 9] == 1


def test_structure_counts_the_same_where_a_network_computes_in_half_precision():
    generator = torch.Generator().manual_seed(0)
    images = 0.1 * torch.randn(2, 3, 40, 40, generator=generator) + 0.8
    found = images + 0.02 * torch.randn(2, 3, 40, 40, generator=generator)
    weight = torch.ones(2, 1, 40, 40)
    full = crop_loss(found, images, weight, 0.0, 1.0)
    with torch.autocast("cpu", torch.bfloat16):
        half = crop_loss(found, images, weight, 0.0, 1.0)
    assert float(half) == pytest.approx(float(full), rel=1e-4)


def test_the_loss_and_figures_of_equal_images():
    images = torch.rand(2, 3, 160, 144) * 2 - 1
    assert float(crop_loss(images, images, torch.ones(2, 1, 160, 144), 2.0, 0.3)) == pytest.approx(0, abs=1e-6)
    landmarks = torch.rand(2, 68, 2) * 40 + 50
    figures = region_figures(images * 0.5, images, landmarks)
    assert figures["mouth_sharpness"] == pytest.approx(0.25, abs=1e-3)
    assert figures["psnr"] == pytest.approx(float(-10 * torch.log10((images / 2).square().mean() / 4)), abs=1e-3)


@pytest.mark.slow
def test_a_training_ends_with_a_model_and_goes_on(tmp_path, people):
    recipe, lines = load_face_recipe(RECIPE, SMALL), []
    run = FaceRun(recipe, tmp_path / "run", people, lines.append)
    run.train(1.0, ("vae",))
    model = load_model(run.train(1.5, ("denoiser",)))
    assert model.config == MODEL and model.face_analyzer
    assert model.networks.expression_projection.proj_out.weight.abs().max().item() > 0  # it started at zero
    before = [line for line in lines if "goes on" in line]
    run.train(0.5)
    assert not before and any("denoiser: goes on after step" in line for line in lines)
    assert not any("vae: goes on" in line for line in lines)  # the denoiser knows its latents


def test_styles_are_those_of_the_extractor(frames):
    model = FaceRun(load_face_recipe(RECIPE, SMALL), Path("unused"), Path("unused")).start()
    styles = clip_styles(model.networks.style_extractor, frames)
    mask = torch.ones(1, 5, dtype=torch.bool)
    mu, _ = model.networks.style_extractor(frames.audio[2:3].float(), frames.controls[2:3, :, :64], mask)
    torch.testing.assert_close(styles[2, 0], mu[0].detach(), atol=1e-5, rtol=1e-4)
    assert np.isfinite(styles.numpy()).all()


def test_the_mask_learns_from_predicted_faces(frames):
    recipe = load_face_recipe(RECIPE, [*SMALL, "mask.settings.batch_size=2"])
    run = FaceRun(recipe, Path("unused"), Path("unused"))
    model = run.start()
    batches = FaceBatches(frames, MODEL, STEADY, clip_styles(model.networks.style_extractor, frames))
    phase = run.build("mask", model, batches, batches)
    batch = phase.batch(torch.Generator().manual_seed(0), 0.0)
    assert batch["generated"].shape == batch["target"].shape == (2, 3, 120, 112)
    loss, values = phase.module(batch)
    loss.backward()
    trained = [name for name, parameter in model.networks.named_parameters() if parameter.requires_grad]
    assert trained and all(name.startswith("face_mask.") for name in trained)
    composed, mask = phase.module.compose(batch)
    assert torch.equal(composed[:, :, 0], batch["warped"][:, :, 0])  # at its border a crop is the portrait
    assert values["area"].item() == pytest.approx(mask.mean().item())


def test_errors_of_clean_latents_are_weighted_as_velocities(frames):
    """The loss is max_weight x error at low noise and 1 x error at pure noise."""
    recipe = load_face_recipe(RECIPE, [*SMALL, "denoiser.regions={ mouth = 0.0, eyes = 0.0 }"])
    run = FaceRun(recipe, Path("unused"), Path("unused"))
    model = run.start()
    batches = FaceBatches(frames, MODEL, STEADY, clip_styles(model.networks.style_extractor, frames))
    phase = run.build("denoiser", model, batches, batches)
    for parameter in model.networks.denoiser.conv_out.parameters():
        torch.nn.init.zeros_(parameter)  # predicts zero: the error is the clean signal
    batch = phase.batch(torch.Generator().manual_seed(0), 0.0)
    losses = [phase.module({**batch, "timestep": torch.full((1, 2), step)})[0].item() for step in (999, 0)]
    assert losses[1] == pytest.approx(5 * losses[0], rel=1e-3)


def test_an_exported_model_is_half_as_large_and_draws_the_same(tmp_path):
    """With the recipe's steps and analyser, and with what made it; not with the folders in which it was made."""
    recipe = load_face_recipe(
        RECIPE, [*SMALL, "widths=[16, 16, 16]", "steps=1", "data.version=2", 'start="/some/where/first.safetensors"']
    )
    config = recipe.model()
    torch.manual_seed(0)
    networks, vae = build_networks(config).eval(), build_vae(config.vae).eval()
    with torch.no_grad():
        for weight in networks.parameters():
            weight.add_(0.02 * torch.randn(weight.shape))
    source = load_model(BUILTIN_MODEL)
    space = style_space_of(networks.style_extractor)
    model = PortraitModel(config, networks, vae, None, space, source.metadata)
    run = FaceRun(recipe, tmp_path / "run", tmp_path / "data")
    run.folder.mkdir()
    run.save(model)
    analyzer = tmp_path / "faces.onnx"
    analyzer.write_bytes(source.face_analyzer)
    again = FaceRun(replace(recipe, face_analyzer=str(analyzer)), run.folder, run.data)
    again.export(run.folder / MODEL_FILE, tmp_path / "small.safetensors")
    exact, small = load_model(run.folder / MODEL_FILE), load_model(tmp_path / "small.safetensors")
    sizes = [path.stat().st_size for path in (run.folder / MODEL_FILE, tmp_path / "small.safetensors")]
    assert sizes[1] - len(source.face_analyzer) < 0.52 * sizes[0]
    assert small.config == replace(exact.config, steps=1) and small.face_analyzer == source.face_analyzer
    assert (small.metadata["data_version"], small.metadata["seed"], small.metadata["step"]) == ("2.2", "0", "0")
    assert json.loads(small.metadata["training"])["start"] == "first.safetensors"
    clip = make_clip(speaker(2, "test"), "happy", 3, 5, 0.08, 25.0, 256)
    points = torch.from_numpy(clip.head_keypoints)
    motion = HeadMotion(points, 256, 256, 25.0, portrait=points[0])
    image = torch.from_numpy(clip.images[0]).movedim(2, 0).float() / 127.5 - 1
    audio = Audio(torch.from_numpy(clip.audio)[None], 16000)
    frames = []
    for one in (exact, small):
        one.face_analyzer = None
        pipeline = PortraitPipeline(one)
        inputs = pipeline.prepare(image, audio, motion, None, 2, 25.0, (256, 256))
        frames.append(pipeline(inputs, 3, SamplerOptions(steps=1)))
    error = (frames[0] - frames[1]).square().mean()
    assert -10 * torch.log10(error / 4) > 45
