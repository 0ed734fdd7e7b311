"""What travels between nodes: plain dataclasses of tensors on the CPU, independent of any host."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Audio:
    """Sound. waveform: channels x samples, float32, nominally in [-1, 1]; sample_rate in Hz."""

    waveform: Tensor
    sample_rate: int

    @property
    def seconds(self) -> float:
        return self.waveform.shape[-1] / self.sample_rate


@dataclass(frozen=True)
class StylePrior:
    """A Gaussian over styles (eq. 2-3). mu, sigma: d_s, float32; style_space names the extractor that made it."""

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
        if len(self.codes) == 1:
            return self.codes.expand(frames, -1)
        position = torch.linspace(0, len(self.codes) - 1, frames) if frames > 1 else torch.zeros(1)
        low = position.floor().long().clamp(max=len(self.codes) - 2)
        return torch.lerp(self.codes[low], self.codes[low + 1], (position - low)[:, None])


@dataclass(frozen=True)
class HeadMotion:
    """Head-Kps of a clip.

    keypoints: n x 8 x 2, float32, x right and y down in pixels of a picture of `width` x `height`; order: left edge
    upper, left edge lower, right edge upper, right edge lower, left pupil, right pupil, bridge top, bridge bottom, where
    left is the image's left. fps: frames per second. interpolated: frames whose points were filled in between neighbours.
    portrait: 8 x 2, the points of the still picture that the motion was fitted to; None where nobody has looked.
    """

    keypoints: Tensor
    width: int
    height: int
    fps: float
    interpolated: tuple[int, ...] = ()
    portrait: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keypoints)
