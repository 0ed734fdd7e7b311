"""Sinusoidal positions, shared by the temporal layers and the style extractor."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal_positions(length: int, channels: int, like: Tensor) -> Tensor:
    """length x channels in the dtype and on the device of `like`: sine on even channels, cosine on odd ones.

    Computed anew at every call, in float32, so that no checkpoint has to carry (and round) a table.
    """
    steps = torch.arange(length, dtype=torch.float32, device=like.device)
    rates = torch.exp(
        torch.arange(0, channels, 2, dtype=torch.float32, device=like.device) * (-math.log(1e4) / channels)
    )
    angles = torch.outer(steps, rates)  # length channels/2
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like.dtype)
