"""Flow matching between noise and motions (Lipman et al. 2023; Liu et al. 2023): x_t = (1 - t) noise + t clean.

The network does not predict the velocity clean - noise itself but F = ((1 - t) clean - t noise) / s, s^2 = t^2 + (1 - t)^2: the part
of both that x_t does not tell, of variance 1 at every level (cf. Karras et al. 2022, sec. 5). At level 0 F is the clean motion.

Seen as an angle a with tan a = t / (1 - t), y = x_t / s turns from noise to clean, and F = dy / da (Salimans and Ho 2022, appendix D).
Sampling follows that: what cannot be foretold keeps its variance exactly, where Euler's steps in t would lose an eighth of it.
"""

from __future__ import annotations

import math
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


def prediction_of(noisy: Tensor, clean: Tensor, level: Tensor) -> Tensor:
    """The prediction that means this clean motion, the inverse of `clean_of`; below level 1."""
    size = _size(level)
    return (clean - level / size**2 * noisy) * size / (1 - level)


def clean_of(noisy: Tensor, prediction: Tensor, level: Tensor) -> Tensor:
    """The clean motion that a prediction means."""
    size = _size(level)
    return level / size**2 * noisy + (1 - level) / size * prediction


def _size(level: Tensor) -> Tensor:
    return (level**2 + (1 - level) ** 2).sqrt()


def logit_normal(shape: tuple[int, ...], mean: float, deviation: float, generator: torch.Generator) -> Tensor:
    """Random levels whose logit is normal (Esser et al. 2024, sec. 3.1)."""
    return (mean + deviation * torch.randn(shape, generator=generator)).sigmoid()


def angle_steps(steps: int, shift: float = 1.0) -> Tensor:
    """Angles of a sampler from 0 (noise) to pi / 2 (clean), steps + 1 of them. shift: above 1 puts more of them near the noise."""
    even = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return torch.pi / 2 * even / (even + shift * (1 - even))


def level_at(angle: float) -> float:
    """The level t of an angle."""
    return math.sin(angle) / (math.sin(angle) + math.cos(angle))


def sample_flow(
    predict: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    angles: Tensor,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """The flow dy / da = F from noise to a clean motion, by Adams and Bashforth's second order (one evaluation a step).

    predict(x, level) -> F of the shape of x; on_step(steps done, steps).
    """
    turned, before, last = noise, None, 0.0
    values = angles.tolist()
    for step, (angle, following) in enumerate(pairwise(values)):
        size = 1 / (math.sin(angle) + math.cos(angle))  # s: x = s y
        found = predict(turned * size, level_at(angle))
        width = following - angle
        slope = found if before is None else found + width / (2 * last) * (found - before)
        turned, before, last = turned + width * slope, found, width
        if on_step is not None:
            on_step(step + 1, len(values) - 1)
    return turned
