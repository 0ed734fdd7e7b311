"""Flow matching between noise and motions (Lipman et al. 2023; Liu et al. 2023): x_t = (1 - t) noise + t clean.

The network does not predict the velocity clean - noise itself but F = ((1 - t) clean - t noise) / s, s^2 = t^2 + (1 - t)^2: the part
of both that x_t does not tell, of variance 1 at every level (cf. Karras et al. 2022, sec. 5). At level 0 F is the clean motion.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor


def noisy_at(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """x_t; level is broadcast, 0 (noise) to 1 (clean)."""
    return (1 - level) * noise + level * clean


def target_at(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """What the network has to predict at x_t."""
    return ((1 - level) * clean - level * noise) / _size(level)


def velocity_of(noisy: Tensor, prediction: Tensor, level: Tensor) -> Tensor:
    """The velocity clean - noise that a prediction means."""
    size = _size(level)
    return (2 * level - 1) / size**2 * noisy + prediction / size


def clean_of(noisy: Tensor, prediction: Tensor, level: Tensor) -> Tensor:
    """The clean motion that a prediction means."""
    size = _size(level)
    return level / size**2 * noisy + (1 - level) / size * prediction


def _size(level: Tensor) -> Tensor:
    return (level**2 + (1 - level) ** 2).sqrt()


def logit_normal(shape: tuple[int, ...], mean: float, deviation: float, generator: torch.Generator) -> Tensor:
    """Random levels whose logit is normal (Esser et al. 2024, sec. 3.1)."""
    return (mean + deviation * torch.randn(shape, generator=generator)).sigmoid()


def level_steps(steps: int, shift: float = 1.0) -> Tensor:
    """Levels from 0 to 1 of a sampler, steps + 1 of them. shift: above 1 puts more of them near the noise (ib., eq. 23)."""
    even = torch.linspace(0, 1, steps + 1)
    return even / (even + shift * (1 - even))


def sample_flow(
    velocity: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    levels: Tensor,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Euler's method along the flow. velocity(x, level) -> of the shape of x; on_step(steps done, steps)."""
    x = noise
    values = levels.tolist()
    for step, (level, following) in enumerate(pairwise(values)):
        x = x + (following - level) * velocity(x, level)
        if on_step is not None:
            on_step(step + 1, len(values) - 1)
    return x
