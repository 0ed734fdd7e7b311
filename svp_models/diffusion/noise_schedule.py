"""The noise schedule: one set of alphas for training and sampling, and the timesteps that sampling visits.

Noisy latents are x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) n with a = `alphas_cumprod(config)`. With zero terminal SNR the
last a would be exactly 0 and its sigma infinite; like diffusers' Euler and DPM++ schedulers this module sets it to
2^-24 (sigma 4096) for every sampler and in training, so that all of them stay finite and agree to the last timestep.
`SchedulerConfig.exact_terminal` keeps the 0: V-Express has it so, and its numbers differ by 2e-4.
Zero terminal SNR is meant for v-prediction: an epsilon network learns nothing at the last timestep, though the formulas
hold.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

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


def pred_x0(prediction: Tensor, noisy: Tensor, t: Tensor, config: SchedulerConfig) -> Tensor:
    """x_0 that a prediction at x_t stands for; inverts `add_noise` exactly when the prediction is exact."""
    signal, spread = _signal_and_spread(t, noisy, config)
    if config.prediction == "sample":
        return prediction
    if config.prediction == "epsilon":
        return (noisy - spread * prediction) / signal
    return signal * noisy - spread * prediction


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


@dataclass(frozen=True)
class SamplingSchedule:
    """The noise levels of a sampling run. timesteps: n, int64, falling; alphas: n, a_t there; next_alphas: n, a of the level
    that each step leads to, 1 (no noise) at the end; leading: whether the spacing is `leading`."""

    timesteps: Tensor
    alphas: Tensor
    next_alphas: Tensor
    leading: bool = False

    def __len__(self) -> int:
        return len(self.timesteps)


def sampling_schedule(config: SchedulerConfig, steps: int) -> SamplingSchedule:
    """Every step leads to the next of the `inference_timesteps`.

    diffusers' DDIM steps to t - train_steps // steps, which is another timestep whenever steps does not divide train_steps: the
    sample would then hold more noise than the network expects.
    """
    timesteps = inference_timesteps(config, steps)
    alphas = alphas_cumprod(config)[timesteps].double()
    return SamplingSchedule(
        timesteps, alphas, torch.cat([alphas[1:], alphas.new_ones(1)]), config.timestep_spacing == "leading"
    )


def refined_schedule(config: SchedulerConfig, steps: int, substeps: int) -> SamplingSchedule:
    """The `sampling_schedule` of so many steps with `substeps` steps for every one of them, fewer where timesteps are too few."""
    coarse = inference_timesteps(config, steps)
    ends = torch.cat([coarse[1:], coarse.new_full((1,), -1)])  # behind the last timestep there is no noise
    share = torch.arange(substeps, dtype=torch.float64) / substeps
    between = coarse[:, None] + (ends - coarse)[:, None] * share
    timesteps = between.round().long().clamp(min=0).unique().flip(0)
    alphas = alphas_cumprod(config)[timesteps].double()
    return SamplingSchedule(
        timesteps, alphas, torch.cat([alphas[1:], alphas.new_ones(1)]), config.timestep_spacing == "leading"
    )


def _signal_and_spread(t: Tensor, like: Tensor, config: SchedulerConfig) -> tuple[Tensor, Tensor]:
    """sqrt(a_t) and sqrt(1 - a_t), float32, shaped to broadcast over `like`."""
    a = alphas_cumprod(config)[t.long().cpu()].to(like.device)
    if a.dim() == 1:
        a = a.reshape(-1, *[1] * (like.dim() - 1))  # b 1 ... 1
    return a.sqrt().to(like.dtype), (1 - a).sqrt().to(like.dtype)
