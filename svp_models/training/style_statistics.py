"""What a style code has to rebuild beside its class: the statistics of its clip, and the decoder that learns it (training only)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .dataset import Clips

CLOSED = 0.5  # mean closure of both lids from which the eyes count as shut
GAIN = 10.0  # on the decoder's parameters: it starts from nothing and has to keep up with an extractor that is fine-tuned slowly
LEAST_NOISE = 0.1  # of a statistic's standard deviation over the training clips


def statistic_groups(expression_size: int) -> dict[str, slice]:
    """Name -> columns of `clip_statistics`.

    expression_mean, expression_spread (standard deviation over the frames): of each coefficient; blink_rate: blinks a second;
    closed_share: of the frames; head_mean, head_spread (degrees), head_speed (degrees a second): yaw, pitch, roll.
    """
    sizes = {
        "expression_mean": expression_size,
        "expression_spread": expression_size,
        "blink_rate": 1,
        "closed_share": 1,
        "head_mean": 3,
        "head_spread": 3,
        "head_speed": 3,
    }
    ends = np.cumsum(list(sizes.values())).tolist()
    return {name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)}


def clip_statistics(clips: Clips, clip: int) -> NDArray[np.float32]:
    """The statistics of a whole clip from its labels, k numbers as in `statistic_groups`; those of unknown labels are NaN."""
    labels, expression = clips.labels(clip), clips.expression(clip)
    pose = labels.pose.astype(np.float64)
    speed = np.abs(np.diff(pose, axis=0)).sum(0) * clips.fps / max(1, len(pose) - 1)
    lids = lid_statistics(labels.lids, clips.fps)
    parts = (expression.mean(0), expression.std(0), lids, pose.mean(0), pose.std(0), speed)
    return np.concatenate(parts).astype(np.float32)


def lid_statistics(lids: NDArray[np.floating] | None, fps: float) -> tuple[float, float]:
    """Lids n 2 (0 open .. 1 closed) -> blinks a second, share of frames with closed eyes; NaN without lids."""
    if lids is None:
        return np.nan, np.nan
    closed = lids.mean(1) > CLOSED
    starts = int(closed[0]) + int((closed[1:] & ~closed[:-1]).sum())
    return starts * fps / len(closed), float(closed.mean())


class StatisticsDecoder(nn.Module):
    """Style prior -> Gaussian over the statistics of its clip, in units of their standard deviation over the training clips.

    The map is linear, so a code s ~ N(mu, diag sigma^2) gives y_k ~ N(w_k mu + b_k, w_k^2 sigma^2 + n_k^2) in closed form: the
    likelihood of the statistics with the code integrated out, as in factor analysis. A prior that is too narrow for what its
    input tells costs as much as one that is too wide. It starts at zero and reaches the extractor as it learns.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, style_size: int, statistics: NDArray[np.floating]):
        """statistics: of the training clips, clips k, NaN where unknown; their mean and deviation standardise them."""
        super().__init__()
        known = np.ma.masked_invalid(statistics.astype(np.float64))
        scale = known.std(0).filled(1.0)
        self.register_buffer("mean", torch.from_numpy(known.mean(0).filled(0.0)).float())
        self.register_buffer("scale", torch.from_numpy(np.where(scale > 0, scale, 1.0)).float())
        self.weight = nn.Parameter(torch.zeros(statistics.shape[1], style_size))
        self.bias = nn.Parameter(torch.zeros(statistics.shape[1]))
        self.log_noise = nn.Parameter(torch.zeros(statistics.shape[1]))

    def forward(self, mu: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """mu, sigma b d_s -> mean, variance b k of the standardised statistics."""
        weight, noise = GAIN * self.weight, (2 * GAIN * self.log_noise).exp()
        return mu @ weight.T + GAIN * self.bias, sigma.square() @ weight.square().T + noise + LEAST_NOISE**2

    def loss(self, mu: Tensor, sigma: Tensor, statistics: Tensor) -> Tensor:
        """Negative log-likelihood of statistics b k (NaN: unknown, left out), a mean over them; a perfect decoder reaches 0."""
        mean, variance = self(mu, sigma)
        target = (statistics - self.mean) / self.scale
        known = target.isfinite()
        error = torch.where(known, target, mean) - mean
        costs = 0.5 * (error.square() / variance + (variance / LEAST_NOISE**2).log())
        return (costs * known).sum() / known.sum().clamp(min=1)
