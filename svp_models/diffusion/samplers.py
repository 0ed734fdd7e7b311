"""Samplers: noise -> latents, one step of the schedule after another.

A sampler is a function (pred_x0, x, schedule, callback). x: f c h w at the first noise level, x_t = sqrt(a_t) x_0 +
sqrt(1 - a_t) n, float32 on the CPU or memory-mapped; it is overwritten and returned. pred_x0(x, step) gives the x_0 that the
model sees in x, an array like x. callback(step, x) is called after every step. All of them follow the same probability-flow
ODE without adding noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from ..errors import PortraitError
from ..io.memory_map import MappedFrames, blocks
from .noise_schedule import SamplingSchedule

Frames: TypeAlias = "Tensor | MappedFrames"
PredX0: TypeAlias = Callable[[Frames, int], Frames]
StepCallback: TypeAlias = Callable[[int, Frames], None]


def ddim_step(x: Tensor, x0: Tensor, a: Tensor, next_a: Tensor) -> Tensor:
    """sqrt(a_s) x_0 + sqrt(1 - a_s) n with the n that x holds beside x_0 (Song et al. 2021, eq. 12 with sigma = 0)."""
    noise = (x - a.sqrt() * x0) / (1 - a).sqrt()
    return next_a.sqrt() * x0 + (1 - next_a).sqrt() * noise


def sample_ddim(pred_x0: PredX0, x: Frames, schedule: SamplingSchedule, callback: StepCallback | None = None) -> Frames:
    """DDIM with eta = 0."""
    for step in range(len(schedule)):
        x0 = pred_x0(x, step)
        for block in blocks(len(x)):
            x[block] = ddim_step(x[block], x0[block], schedule.alphas[step], schedule.next_alphas[step])
        if callback is not None:
            callback(step, x)
    return x


def sample_euler(
    pred_x0: PredX0, x: Frames, schedule: SamplingSchedule, callback: StepCallback | None = None
) -> Frames:
    """Euler's method on the ODE in sigma = sqrt((1 - a) / a) (Karras et al. 2022, algorithm 1 without churn).

    In terms of x_t its steps are those of DDIM. The start differs, as in diffusers: DDIM takes the noise as it is, Euler scales
    it to the sqrt(1 - a) of the first level, except with `leading` timesteps.
    """
    if not schedule.leading:
        for block in blocks(len(x)):
            x[block] = x[block] * (1 - schedule.alphas[0]).sqrt()
    return sample_ddim(pred_x0, x, schedule, callback)


def sample_dpmpp_2m(
    pred_x0: PredX0, x: Frames, schedule: SamplingSchedule, callback: StepCallback | None = None
) -> Frames:
    """DPM-Solver++(2M) (Lu et al. 2022b, algorithm 2); the first and the last step are of first order."""
    a, next_a = schedule.alphas, schedule.next_alphas
    log_snr, next_log_snr = (0.5 * (level.log() - (1 - level).log()) for level in (a, next_a))  # lambda
    h = next_log_snr - log_snr
    previous = None
    for step in range(len(schedule)):
        x0 = pred_x0(x, step)
        for block in blocks(len(x)):
            estimate = x0[block]
            if previous is not None and step < len(schedule) - 1:
                estimate = estimate + h[step] / (2 * h[step - 1]) * (estimate - previous[block])
            decay = ((1 - next_a[step]) / (1 - a[step])).sqrt()
            x[block] = decay * x[block] - next_a[step].sqrt() * torch.expm1(-h[step]) * estimate
        previous = x0
        if callback is not None:
            callback(step, x)
    return x


SAMPLERS = {"euler": sample_euler, "ddim": sample_ddim, "dpmpp_2m": sample_dpmpp_2m}


def sampler_named(name: str) -> Callable[..., Frames]:
    """`euler`, `ddim` or `dpmpp_2m`."""
    if name not in SAMPLERS:
        raise PortraitError(f"unknown scheduler {name!r}: choose one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]
