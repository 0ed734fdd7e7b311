"""Distillation: what the student is to predict, whom it learns from, and what its model file says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.checkpoints.model_file import load_model, save_model
from svp_portrait.svp_models.config import FaceCropConfig, SchedulerConfig
from svp_portrait.svp_models.diffusion.noise_schedule import refined_schedule, sampling_schedule
from svp_portrait.svp_models.diffusion.pipeline import SamplerOptions, resolve_options
from svp_portrait.svp_models.diffusion.samplers import ddim_step
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.model import parameter_group
from svp_portrait.svp_models.training.config import DistillPhase, TrainSettings
from svp_portrait.svp_models.training.dataset import SampleIndex, stack
from svp_portrait.svp_models.training.recipe import recipe_from_dict
from svp_portrait.svp_models.training.run import Run
from svp_portrait.svp_models.training.train_distill import GROUPS, DistillModule, DistillTraining, distilled_x0
from svp_portrait.svp_models.training.trainer import train

SETTINGS = TrainSettings(steps=2, batch_size=2, learning_rate=3e-3, warmup_steps=2, ema_decay=0.0, weight_decay=0.0)
PHASE = DistillPhase(
    SETTINGS, GROUPS, frames=2, audio=True, style=True, reference_margin=0, student_steps=2, substeps=3, cfg=2.0,
    validation_batches=1,
)  # fmt: skip


@pytest.fixture
def awake(model):
    """The tiny model without a weight at zero, so that its conditions and its guidance show."""
    torch.manual_seed(1)
    for parameter in model.networks.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def training(model, clips, test, config: DistillPhase = PHASE) -> DistillTraining:
    return DistillTraining("distill", model, clips, test, config, 0, lambda folder, step: None)


def batch_of(phase: DistillTraining):
    return stack([phase.sample(SampleIndex(0, "distill", 0, position, 2)) for position in range(2)])


@pytest.mark.parametrize("exact_terminal", [False, True])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
def test_every_level_of_the_student_is_one_of_the_teacher(spacing, exact_terminal):
    config = SchedulerConfig(timestep_spacing=spacing, exact_terminal=exact_terminal)
    coarse, fine = sampling_schedule(config, 4), refined_schedule(config, 4, 6)
    last = {"trailing": 6, "leading": 2, "linspace": 1}[spacing]  # so few timesteps are below the last one
    assert len(fine) == 18 + last and torch.equal(fine.timesteps[:24:6], coarse.timesteps)
    assert (fine.timesteps.diff() < 0).all() and fine.next_alphas[-1] == 1
    assert torch.equal(fine.next_alphas[:-1], fine.alphas[1:]) and torch.equal(fine.alphas[:24:6], coarse.alphas)
    same = refined_schedule(config, 4, 1)
    assert torch.equal(same.timesteps, coarse.timesteps) and torch.equal(same.next_alphas, coarse.next_alphas)


@pytest.mark.parametrize("exact_terminal", [False, True])
def test_one_step_with_the_distilled_x0_ends_where_the_teacher_ended(exact_terminal):
    schedule = sampling_schedule(SchedulerConfig(exact_terminal=exact_terminal), 4)
    x, reached = torch.randn(2, 50, generator=torch.Generator().manual_seed(0)).double().unbind()
    for step in range(4):
        x0 = distilled_x0(x, reached, schedule, step)
        landed = ddim_step(x, x0, schedule.alphas[step], schedule.next_alphas[step])
        torch.testing.assert_close(landed, reached, rtol=1e-9, atol=1e-9)


def test_a_student_of_the_same_steps_and_guidance_has_nothing_to_learn(awake, train_clips, test_clips):
    for changed, nothing in (({}, True), ({"cfg": 2.0}, False), ({"substeps": 3}, False)):
        config = replace(PHASE, **({"cfg": 1.0, "substeps": 1} | changed))
        phase = training(awake, train_clips, test_clips, config)
        phase.module.eval()
        with torch.no_grad():
            loss, values = phase.module(batch_of(phase))
        assert (float(loss) < 1e-8) == nothing and (float(values["end_error"]) < 1e-4) == nothing, changed


def test_the_teacher_walks_the_path_of_the_guided_sampler(awake, train_clips, test_clips):
    phase = training(awake, train_clips, test_clips)
    module = phase.module.eval()
    batch = {key: value.flatten(0, 1) for key, value in batch_of(phase).items()}
    with torch.no_grad():
        conditions, noise = module._inputs(batch)
        path = module._teacher_path(noise, conditions)
        fine = refined_schedule(awake.config.scheduler, 2, 3)
        x = noise
        for step in range(6):
            t = fine.timesteps[step].expand(2)
            given, nothing = (awake.networks.denoiser(x, t, kind) for kind in (conditions, conditions.unconditional()))
            x = ddim_step(x, nothing + 2 * (given - nothing), fine.alphas[step], fine.next_alphas[step]).float()
    assert len(path) == 3 and torch.equal(path[0], noise)
    torch.testing.assert_close(path[-1], x, rtol=1e-4, atol=1e-4)


def test_the_student_comes_nearer(awake, train_clips, test_clips):
    phase = training(awake, train_clips, test_clips)
    module, batch = phase.module, batch_of(phase)
    optimizer = torch.optim.Adam([weight for weight in module.parameters() if weight.requires_grad], 3e-3)

    def end_error() -> float:
        module.eval()
        with torch.no_grad():
            return float(module(batch)[1]["end_error"])

    first = end_error()
    module.train()
    for _ in range(30):
        optimizer.zero_grad()
        module(batch)[0].backward()
        optimizer.step()
    assert end_error() < 0.7 * first


def test_a_pool_of_samples_comes_again_and_its_paths_are_walked_once(awake, train_clips, test_clips, monkeypatch):
    walked = []
    walk = DistillModule._teacher_path
    monkeypatch.setattr(DistillModule, "_teacher_path", lambda *given: walked.append(0) or walk(*given))
    phase = training(awake, train_clips, test_clips, replace(PHASE, pool=2, turns=3))
    seeds, losses = [], []
    for step in range(8):
        batch = stack([phase.sample(SampleIndex(0, "distill", step, position, 2)) for position in range(2)])
        seeds.append(batch["seed"].flatten().tolist())
        losses.append(float(phase.module(batch)[0]))
    assert seeds[0] != seeds[1] and seeds[:2] * 3 == seeds[:6] and seeds[6] not in seeds[:6]
    assert losses[:2] * 2 == pytest.approx(losses[2:6], rel=1e-5) and len(walked) == 4


def test_nothing_moves_but_the_student(awake, train_clips, test_clips, tmp_path):
    phase = training(awake, train_clips, test_clips)
    before = {name: value.clone() for name, value in awake.networks.state_dict().items()}
    teacher = {name: value.clone() for name, value in phase.module.teacher.state_dict().items()}
    train(phase, SETTINGS, tmp_path, 0, "{}", lambda line: None)
    after = awake.networks.state_dict()
    moved = {parameter_group(name) for name, value in after.items() if not torch.equal(value, before[name])}
    assert moved == set(GROUPS)
    assert all(torch.equal(value, teacher[name]) for name, value in phase.module.teacher.state_dict().items())


def test_the_file_samples_in_few_steps_by_itself(awake, dataset, tmp_path):
    start = tmp_path / "start.safetensors"
    save_model(start, replace(awake, config=replace(awake.config, steps=25, cfg=3.5)), {"step": "3"}, torch.float32)
    settings = {"steps": 2, "batch_size": 2, "warmup_steps": 1, "validate_steps": 2}
    phase = {"trainable": list(GROUPS), "frames": 2, "audio": True, "reference_margin": 0, "settings": settings}
    values = {
        "name": "few",
        "model": {"file": str(start)},
        "data": {"folder": str(dataset)},
        "distill": {**phase, "student_steps": 3, "substeps": 2, "validation_batches": 1},
    }
    lines: list[str] = []
    run = Run(recipe_from_dict(values), tmp_path / "run", lines.append)
    described = "\n".join(run.describe("distill"))
    assert "frozen   teacher" in described and "trained  spatial" in described
    model = load_model(run.phase("distill"))
    options = resolve_options(model.config, SamplerOptions())
    assert (options.steps, options.cfg) == (3, 1.0) and model.metadata["step"] == "5"
    assert any("end_error" in line for line in lines)
    assert load_model(start).config.steps == 25


def test_what_cannot_be_distilled_is_refused(model, train_clips, test_clips):
    with pytest.raises(PortraitError, match="distill.trainable has guider, which the teacher reads too"):
        training(model, train_clips, test_clips, replace(PHASE, trainable=("spatial", "guider")))
    model.config = replace(model.config, face_crop=FaceCropConfig(64, 64))
    with pytest.raises(PortraitError, match="distill trains on whole frames, and 'demo' draws crops of 64 x 64 pixels"):
        training(model, train_clips, test_clips)
