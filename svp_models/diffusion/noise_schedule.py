"""The noise schedule: one set of alphas for training and sampling, and the three schedulers built on it.

Noisy latents are x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n with a = `alphas_cumprod(config)`. With zero terminal SNR the
last a would be exactly 0 and its sigma infinite; like diffusers' Euler and DPM++ schedulers this module holds it at
2^-24 (sigma 4096) in every scheduler and in training, so that all of them stay finite and agree to the last timestep.
`SchedulerConfig.exact_terminal` takes the 0 for DDIM and training: V-Express has it so, and its numbers differ by 2e-4.
Zero terminal SNR is meant for v-prediction: an epsilon network learns nothing at the last timestep, though the formulas
hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from ..config import SchedulerConfig
from ..errors import PortraitError

ALMOST_ZERO = 2**-24  # the last a with zero terminal SNR, see above
MOST_BETA = 0.999  # of squaredcos_cap_v2


@lru_cache(maxsize=8)
def alphas_cumprod(config: SchedulerConfig) -> Tensor:
    """a_t of every training timestep: train_steps, float32, falling from almost 1 to almost 0. Not to be written to."""
    a = torch.cumprod(1 - _betas(config), dim=0)
    if config.zero_terminal_snr:
        root = a.sqrt()  # Lin et al. 2024, algorithm 1: the roots are shifted and stretched so that the last one is 0
        first, last = root[0].clone(), root[-1].clone()
        shifted = ((root - last) * (first / (first - last))) ** 2
        steps = torch.cat([shifted[:1], shifted[1:] / shifted[:-1]])
        a = torch.cumprod(1 - (1 - steps), dim=0)  # by way of the betas, whose rounding trained models know
        a[-1] = 0 if config.exact_terminal else ALMOST_ZERO
    return a


def _betas(config: SchedulerConfig) -> Tensor:
    """train_steps, float32."""
    start, end, count = config.beta_start, config.beta_end, config.train_steps
    if config.beta_schedule == "linear":
        return torch.linspace(start, end, count)
    if config.beta_schedule == "scaled_linear":
        return torch.linspace(start**0.5, end**0.5, count) ** 2
    bar = [
        math.cos((step / count + 0.008) / 1.008 * math.pi / 2) ** 2 for step in range(count + 1)
    ]  # Nichol 2021, (17)
    return torch.tensor([min(1 - after / before, MOST_BETA) for before, after in pairwise(bar)])


def add_noise(clean: Tensor, noise: Tensor, t: Tensor, config: SchedulerConfig) -> Tensor:
    """x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n. clean, noise: b ...; t: () or (b,), timesteps in 0 .. train_steps - 1."""
    signal, spread = _signal_and_spread(t, clean, config)
    return signal * clean + spread * noise


def velocity_target(clean: Tensor, noise: Tensor, t: Tensor, config: SchedulerConfig) -> Tensor:
    """v = sqrt(a_t) n - sqrt(1 - a_t) x_0. Shapes as in `add_noise`."""
    signal, spread = _signal_and_spread(t, clean, config)
    return signal * noise - spread * clean


def prediction_target(clean: Tensor, noise: Tensor, t: Tensor, config: SchedulerConfig) -> Tensor:
    """What the network is to predict (eq. 1): the noise, the velocity or the clean sample, as the config says."""
    if config.prediction == "sample":
        return clean
    return noise if config.prediction == "epsilon" else velocity_target(clean, noise, t, config)


def predicted_clean(prediction: Tensor, noisy: Tensor, t: Tensor, config: SchedulerConfig) -> Tensor:
    """x_0 that a prediction at x_t stands for; inverts `add_noise` exactly when the prediction is exact."""
    signal, spread = _signal_and_spread(t, noisy, config)
    if config.prediction == "sample":
        return prediction
    if config.prediction == "epsilon":
        return (noisy - spread * prediction) / signal
    return signal * noisy - spread * prediction


def velocity_of_clean(clean: Tensor, noisy: Tensor, t: Tensor, config: SchedulerConfig) -> Tensor:
    """The velocity that leads from x_t to x_0: v = (sqrt(a_t) x_t - x_0) / sqrt(1 - a_t)."""
    signal, spread = _signal_and_spread(t, noisy, config)
    return (signal * noisy - clean) / spread


def predicted_noise(prediction: Tensor, noisy: Tensor, t: Tensor, config: SchedulerConfig) -> Tensor:
    """n that a prediction at x_t stands for."""
    signal, spread = _signal_and_spread(t, noisy, config)
    if config.prediction == "sample":
        return (noisy - signal * prediction) / spread
    return prediction if config.prediction == "epsilon" else signal * prediction + spread * noisy


def inference_timesteps(config: SchedulerConfig, steps: int) -> Tensor:
    """The timesteps that sampling visits: steps, int64, falling; the same for every scheduler.

    `trailing` starts at the last timestep (what zero terminal SNR needs), `leading` ends at `steps_offset`, `linspace`
    has both ends.
    """
    total = config.train_steps
    if not 1 <= steps <= total:
        raise PortraitError(f"steps is {steps}: choose 1 to {total}, the timesteps this model was trained with")
    index = torch.arange(steps, dtype=torch.float64)
    if config.timestep_spacing == "trailing":
        stride = total - (total - total / steps)  # rounded as diffusers rounds it: ties fall on the same timestep
        return (total - index * stride).round().long() - 1
    if config.timestep_spacing == "leading":
        stride = total // steps
        offset = min(config.steps_offset, total - 1 - (steps - 1) * stride)
        return (steps - 1 - index.long()) * stride + offset
    return torch.linspace(total - 1, 0, steps, dtype=torch.float64).round().long()


class DeterministicDdim:
    """DDIM (eta = 0) whose step leads to the next timestep of the schedule; used as diffusers' schedulers are.

    diffusers' own step leads to t - train_steps // steps, which is another timestep whenever steps does not divide
    train_steps: the sample would then hold more noise than the network is told.
    """

    init_noise_sigma = 1.0

    def __init__(self, schedule: SchedulerConfig, timesteps: Tensor) -> None:
        """timesteps: falling."""
        self.schedule, self.timesteps = schedule, timesteps

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample  # of unit variance as it is

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> SimpleNamespace:
        """x_t -> x_s, s the timestep after t: sqrt(a_s) x_0 + sqrt(1 - a_s) n (DDIM, eq. 12 with sigma = 0)."""
        clean = predicted_clean(model_output, sample, timestep, self.schedule)
        following = self.timesteps[self.timesteps < timestep]
        if len(following) == 0:
            return SimpleNamespace(prev_sample=clean)
        noise = predicted_noise(model_output, sample, timestep, self.schedule)
        return SimpleNamespace(prev_sample=add_noise(clean, noise, following[0], self.schedule))


class Euler:
    """Euler's method on noise that grows with sigma = sqrt((1 - a) / a) (Karras et al. 2022, algorithm 1 without churn);
    used as diffusers' schedulers are, with the numbers of its EulerDiscreteScheduler."""

    def __init__(self, schedule: SchedulerConfig, timesteps: Tensor) -> None:
        """timesteps: falling."""
        a = alphas_cumprod(schedule)[timesteps]
        self.velocity = schedule.prediction == "v_prediction"
        self.timesteps = timesteps.float()
        self.sigmas = torch.cat([((1 - a) / a) ** 0.5, torch.zeros(1)])
        largest = self.sigmas[0]
        self.init_noise_sigma = (largest**2 + 1) ** 0.5 if schedule.timestep_spacing == "leading" else largest

    def scale_model_input(self, sample: Tensor, timestep: Tensor) -> Tensor:
        return sample / (self.sigmas[self._index(timestep)] ** 2 + 1) ** 0.5

    def step(self, model_output: Tensor, timestep: Tensor, sample: Tensor) -> SimpleNamespace:
        """x at one sigma -> x at the next: x + (x - x_0) / sigma (next sigma - sigma)."""
        index = self._index(timestep)
        sigma, following = self.sigmas[index], self.sigmas[index + 1]
        sample = sample.float()
        if self.velocity:
            clean = model_output * (-sigma / (sigma**2 + 1) ** 0.5) + sample / (sigma**2 + 1)
        else:
            clean = sample - sigma * model_output
        moved = sample + (sample - clean) / sigma * (following - sigma)
        return SimpleNamespace(prev_sample=moved.to(model_output.dtype))

    def _index(self, timestep: Tensor) -> int:
        return int((self.timesteps == timestep.cpu()).nonzero()[0])


def _dpmpp_2m(config: SchedulerConfig, timesteps: Tensor) -> Any:
    from diffusers import (
        DPMSolverMultistepScheduler,  # here, because its import takes seconds, which others need not pay
    )

    # The last step goes to sigma 0, where the second-order formula is undefined: diffusers takes it at first order. At
    # zero terminal SNR diffusers holds the first sigma at 4096, so that log-SNR stays finite there.
    scheduler = DPMSolverMultistepScheduler(
        algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero", **_common(config)
    )
    scheduler.set_timesteps(timesteps=timesteps.tolist())
    return scheduler


SCHEDULERS: dict[str, Callable[[SchedulerConfig, Tensor], Any]] = {
    "euler": Euler,
    "ddim": DeterministicDdim,
    "dpmpp_2m": _dpmpp_2m,
}


def make_scheduler(name: str, config: SchedulerConfig, steps: int) -> Any:
    """A fresh scheduler, used as diffusers' are, with its timesteps set. name: `euler`, `ddim` or `dpmpp_2m`.

    A model that predicts the clean sample gets a scheduler for velocities (see `velocity_of_clean`): diffusers' Euler
    scheduler knows no other way that stays exact at zero terminal SNR.
    """
    if name not in SCHEDULERS:
        raise PortraitError(f"unknown scheduler {name!r}: choose one of {', '.join(SCHEDULERS)}")
    if config.prediction == "sample":
        config = replace(config, prediction="v_prediction")
    return SCHEDULERS[name](config, inference_timesteps(config, steps))


def _signal_and_spread(t: Tensor, like: Tensor, config: SchedulerConfig) -> tuple[Tensor, Tensor]:
    """sqrt(a_t) and sqrt(1 - a_t), float32, shaped to broadcast over `like`."""
    a = alphas_cumprod(config)[t.long().cpu()].to(like.device)
    if a.dim() == 1:
        a = a.reshape(-1, *[1] * (like.dim() - 1))  # b 1 ... 1
    return a.sqrt().to(like.dtype), (1 - a).sqrt().to(like.dtype)


def _common(config: SchedulerConfig) -> dict[str, Any]:
    """The schedule as diffusers' schedulers take it."""
    return {
        "num_train_timesteps": config.train_steps,
        "beta_start": config.beta_start,
        "beta_end": config.beta_end,
        "beta_schedule": config.beta_schedule,
        "prediction_type": config.prediction,
        "timestep_spacing": config.timestep_spacing,
        "steps_offset": config.steps_offset,
        "rescale_betas_zero_snr": config.zero_terminal_snr,
    }
