"""Distillation: the guided sampler of many steps becomes a denoiser that samples in few steps without guidance.

The teacher is a frozen copy of the denoiser. From noise it follows its own guided probability-flow ODE by DDIM through all steps,
under the conditions of a sample; no frame of the data is imitated. At every step of its schedule the student learns the x_0 with
which one DDIM step without guidance goes where the teacher's `substeps` guided ones have gone. This is progressive distillation
(Salimans & Ho 2022, appendix G, with more than two steps in one) of a guided model (Meng et al. 2023), on the teacher's own
trajectories (Luhman & Luhman 2021): the same noise leads to the same clip.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from ..diffusion.guidance import guided_prediction
from ..diffusion.noise_schedule import SamplingSchedule, pred_x0, refined_schedule, sampling_schedule
from ..diffusion.pipeline import SamplerOptions, clip_noise, condition_weights
from ..diffusion.samplers import ddim_step
from ..errors import PortraitError
from ..io.memory_map import as_tensor
from ..model import PortraitModel
from ..networks.conditions import Conditions
from .config import DistillPhase
from .dataset import Expressions, Sample, SampleIndex
from .train_diffusion import StageModule, StageTraining, WriteSample
from .train_style import seeded_generators

GROUPS = ("spatial", "temporal", "audio", "style")  # of the denoiser; teacher and student share everything else


class DistillTraining(StageTraining):
    """The phase: its samples are those of a stage."""

    def __init__(
        self,
        name: str,
        model: PortraitModel,
        expressions: Expressions,
        test: Expressions,
        config: DistillPhase,
        seed: int,
        write_sample: WriteSample,
    ):
        crop = model.config.face_crop
        if crop.width:
            raise PortraitError(
                f"{name} trains on whole frames, and {model.config.name!r} draws crops of {crop.width} x {crop.height} pixels: "
                "distil a model without face_crop"
            )
        if shared := set(config.trainable) - set(GROUPS):
            raise PortraitError(
                f"{name}.trainable has {', '.join(sorted(shared))}, which the teacher reads too: choose of {', '.join(GROUPS)}"
            )
        super().__init__(name, model, expressions, test, config, seed, write_sample)
        self.module: DistillModule = DistillModule(model, config)
        self.distill = config

    def sample(self, index: SampleIndex) -> Sample:
        """As of a stage; those of `pool` steps come `turns` times."""
        turn, place = divmod(index.step, self.distill.pool)
        return super().sample(replace(index, step=turn // self.distill.turns * self.distill.pool + place))

    def finish(self) -> None:
        """Where nobody asks for other ones, the model samples with the student's steps and without guidance from now on."""
        self.model.config = replace(self.model.config, steps=self.distill.student_steps, cfg=1.0)


class DistillModule(StageModule):
    """Batch -> loss of the student. `error_n`: of its n-th step, as a share of what it is to predict. Outside of training it also
    samples, and `end_error` is how far its latents end from the teacher's, as a share of these."""

    def __init__(self, model: PortraitModel, config: DistillPhase):
        super().__init__(model, config)
        self.teacher = copy.deepcopy(model.networks.denoiser).eval().requires_grad_(False)
        scheduler = model.config.scheduler
        self.cfg, self.most_paths = config.cfg, config.pool if config.turns > 1 else 0
        self.paths: dict[tuple[int, ...], list[Tensor]] = {}  # of the last batches, by the seeds of their samples
        self.schedule = sampling_schedule(scheduler, config.student_steps)
        self.teacher_schedule = refined_schedule(scheduler, config.student_steps, config.substeps)
        self.weights = condition_weights(SamplerOptions(), model.config)

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        batch = {key: value.flatten(0, 1) for key, value in batch.items()}  # clips of all positions
        with torch.no_grad():
            conditions, noise = self._inputs(batch)
            path = self._path(tuple(batch["seed"].tolist()), noise, conditions)
        losses, values = [], {}
        for step, (x, reached) in enumerate(pairwise(path)):
            wanted = distilled_x0(x, reached, self.schedule, step)
            error = (self._student_x0(x, step, conditions) - wanted).square()
            losses.append((batch["weight"] * error).mean())
            values[f"error_{step + 1}"] = (error.detach().mean() / wanted.square().mean().clamp(min=1e-12)).sqrt()
        if not self.training:
            x = path[0]
            for step in range(len(self.schedule)):
                x = self._step(x, self._student_x0(x, step, conditions), self.schedule, step)
            values["end_error"] = (x - path[-1]).norm() / path[-1].norm().clamp(min=1e-12)
        return torch.stack(losses).mean(), values

    def _inputs(self, batch: Sample) -> tuple[Conditions, Tensor]:
        """The conditions, and the noise that a sampler would start from: b f c h w."""
        portrait = self._encode(batch["portrait"][:, None])[:, 0]  # b c h w
        warped = self._encode(batch["warped"]) if self.warped else None
        frames = batch["target"].shape[1]
        conditions = self._conditions(batch, portrait, warped, seeded_generators(batch["seed"]), frames)
        shape, common = tuple(portrait.shape[1:]), self.model.config.shared_noise
        noise = [as_tensor(clip_noise(frames, shape, int(seed), common=common)) for seed in batch["seed"]]
        return conditions, torch.stack(noise).to(portrait)

    def _path(self, seeds: tuple[int, ...], noise: Tensor, conditions: Conditions) -> list[Tensor]:
        """The teacher's path, from memory where this batch has been seen."""
        if seeds in self.paths:
            return [x.to(noise) for x in self.paths[seeds]]
        path = self._teacher_path(noise, conditions)
        if self.training and self.most_paths:
            while len(self.paths) >= self.most_paths:
                self.paths.pop(next(iter(self.paths)))
            self.paths[seeds] = [x.cpu() for x in path]
        return path

    def _teacher_path(self, x: Tensor, conditions: Conditions) -> list[Tensor]:
        """x where the student's steps begin, and at the end: student_steps + 1 tensors b f c h w."""
        path, schedule, ends = [x], self.teacher_schedule, set(self.schedule.timesteps.tolist())
        predict = partial(self.teacher, temporal=self._temporal(x))
        keep = not self.model.config.guide_portrait
        for step in range(len(schedule)):
            timestep = self._timestep(x, schedule, step)
            given = (x, timestep, conditions, self.weights, self.cfg)
            prediction = guided_prediction(predict, *given, keep_portrait=keep).float()
            x = self._step(x, pred_x0(prediction, x, timestep, self.model.config.scheduler), schedule, step)
            if step + 1 == len(schedule) or int(schedule.timesteps[step + 1]) in ends:
                path.append(x)
        return path

    def _student_x0(self, x: Tensor, step: int, conditions: Conditions) -> Tensor:
        timestep = self._timestep(x, self.schedule, step)
        denoiser = self.networks.denoiser
        prediction = denoiser(x, timestep, conditions, self.weights, temporal=self._temporal(x)).float()
        return pred_x0(prediction, x, timestep, self.model.config.scheduler)

    def _temporal(self, x: Tensor) -> bool:
        return self.stage.temporal and x.shape[1] > 1

    @staticmethod
    def _timestep(x: Tensor, schedule: SamplingSchedule, step: int) -> Tensor:
        return schedule.timesteps[step].expand(len(x)).to(x.device)

    @staticmethod
    def _step(x: Tensor, x0: Tensor, schedule: SamplingSchedule, step: int) -> Tensor:
        return ddim_step(x, x0, schedule.alphas[step].to(x.device), schedule.next_alphas[step].to(x.device)).to(x)


def distilled_x0(x: Tensor, reached: Tensor, schedule: SamplingSchedule, step: int) -> Tensor:
    """The x_0 with which one DDIM step of the schedule leads from x to `reached` (Salimans & Ho 2022, appendix G):
    (z_s - r z_t) / (sqrt(a_s) - r sqrt(a_t)) with r = sqrt((1 - a_s) / (1 - a_t))."""
    a, next_a = (float(levels[step]) for levels in (schedule.alphas, schedule.next_alphas))
    ratio = ((1 - next_a) / (1 - a)) ** 0.5
    return (reached - ratio * x) / (next_a**0.5 - ratio * a**0.5)
