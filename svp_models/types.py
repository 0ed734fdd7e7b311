"""The values that travel between nodes: plain dataclasses of tensors on the CPU, independent of any host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .io.resampling import interpolate_rows


@dataclass(frozen=True)
class Audio:
    """Audio. waveform: channels x samples, float32, nominally in [-1, 1]; sample_rate in Hz."""

    waveform: Tensor
    sample_rate: int

    @property
    def seconds(self) -> float:
        return self.waveform.shape[-1] / self.sample_rate


@dataclass(frozen=True)
class StylePrior:
    """A Gaussian over styles (eq. 2-3). mu, sigma: d_s, float32; style_space names its style extractor."""

    mu: Tensor
    sigma: Tensor
    style_space: str
    label: str = ""


@dataclass(frozen=True)
class Style:
    """Style codes over a clip. codes: k x d_s, float32, evenly spaced from the first frame to the last; k = 1 is constant."""

    codes: Tensor
    style_space: str
    label: str = ""

    def at(self, frames: int) -> Tensor:
        """The code of every frame: frames x d_s, linear between the stored codes."""
        return interpolate_rows(self.codes, torch.linspace(0, len(self.codes) - 1, frames))


@dataclass(frozen=True)
class HeadMotion:
    """Head-Kps of a clip.

    keypoints: n x 8 x 2, float32, x right and y down in pixels of an image of `width` x `height`; order: left edge
    upper, left edge lower, right edge upper, right edge lower, left pupil, right pupil, bridge top, bridge bottom, where
    left is the left of the image. fps: frames per second. interpolated: frames whose points were filled in between neighbours.
    portrait: 8 x 2, the points of the portrait that the motion was fitted to; None where they are not known.
    """

    keypoints: Tensor
    width: int
    height: int
    fps: float
    interpolated: tuple[int, ...] = ()
    portrait: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keypoints)
