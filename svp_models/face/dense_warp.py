"""A learnt correction of the spline that warps portraits: background and body stay, though the spline drags them along.

The network sees an upright window around the head. Where a pixel comes from is its own place + (1 - share that stays) x
(displacement of the spline + correction). Everything is a fraction of this window: results do not depend on the resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..config import FaceCropConfig
from ..networks.dense_motion import DenseMotion
from .expression_warp import Displacements
from .warp import head_cameras

LARGEST = 8 / 256  # of the window, correction along an axis
SHOWN = 10.0  # the network sees displacements as fractions of the window, times this
CENTRE = (0.0, 0.1, 0.0)  # of the window, a point of the mean head
FADE = 0.08  # of the window, at its border: corrections go down to 0


class DenseWarp:
    """A `Correct`. device: on which the network computes, None for that of its weights."""

    def __init__(self, network: DenseMotion, config: FaceCropConfig, device: torch.device | None = None) -> None:
        self.network, self.size, self.window = network, config.dense_size, config.dense_window
        self.device = device

    def __call__(self, images: Tensor, targets: Tensor, found: Displacements, places: Tensor) -> Tensor:
        windows = self.windows(images, targets)
        weight = self.network.conv_in.weight
        maps = self.network(self.pictures(images, windows, found).to(self.device or weight.device, weight.dtype))
        return corrected(maps.to(places), windows, found.at(places), places)

    def windows(self, images: Tensor, targets: Tensor) -> Tensor:
        """Windows around heads with keypoints n 8 2 in pixels of images n 3 h w: n 2 2, centre and half the side along x and y, in
        [-1, 1] of the image. The whole image where a keypoint is no number."""
        extent = targets.new_tensor([images.shape[-1], images.shape[-2]])
        cameras = head_cameras(targets.double())  # n 4 2
        size = (cameras[:, :3].square().sum((1, 2)) / 2).sqrt()[:, None]  # n 1, pixels of a half width of the face
        centre = torch.einsum("k,nkd->nd", cameras.new_tensor([*CENTRE, 1.0]), cameras)
        found = torch.stack([2 * centre / extent - 1, self.window * size / extent], 1).to(targets)
        usable = (torch.isfinite(found).all(2) & (found[:, 1:] > 1e-3).all(2)).all(1)[:, None, None]
        return torch.where(usable, found, found.new_tensor([[0.0, 0.0], [1.0, 1.0]]))

    def pictures(self, images: Tensor, windows: Tensor, found: Displacements) -> Tensor:
        """What the network sees: portraits, warped portraits and displacements in windows n 2 2, n 8 S S."""
        line = (2 * torch.arange(self.size, device=images.device, dtype=torch.float32) + 1) / self.size - 1
        inside = torch.stack(torch.meshgrid(line, line, indexing="ij")[::-1], dim=-1)  # S S 2
        places = windows[:, 0, None, None] + inside * windows[:, 1, None, None]  # n S S 2
        moved = found.at(places)
        small = _reduced(images, windows, self.size)
        shown = [
            functional.grid_sample(small, grid.to(small), mode="bilinear", padding_mode="border", align_corners=False)
            for grid in (places, places + moved)
        ]
        shares = SHOWN * moved / (2 * windows[:, 1, None, None])  # of the window's side
        return torch.cat([*shown, shares.movedim(-1, 1).to(small)], 1)


def corrected(maps: Tensor, windows: Tensor, plain: Tensor, places: Tensor) -> Tensor:
    """Displacements n H W 2 of the pixels at `places`, in [-1, 1] of the image. maps: n 3 S S, what the network says of windows
    n 2 2; plain: those of the spline. Outside of the window the share that stays is that of its nearest pixel."""
    local = (places - windows[:, 0, None, None]) / windows[:, 1, None, None]  # n H W 2, [-1, 1] inside
    read = functional.grid_sample(maps, local.to(maps), mode="bilinear", padding_mode="border", align_corners=False)
    fade = ((1 - local.abs().amax(-1)) / (2 * FADE)).clamp(0, 1)  # n H W
    change = 2 * LARGEST * read[:, :2].movedim(1, -1) * fade[..., None] * windows[:, 1, None, None]
    usable = torch.isfinite(plain) & torch.isfinite(change)
    return torch.where(usable, (1 - read[:, 2, ..., None]) * (plain + change), plain)


def _reduced(images: Tensor, windows: Tensor, size: int) -> Tensor:
    """Images averaged down by a whole number, so that a pixel of the windows is about one of theirs."""
    count = len(images)
    extent = windows.new_tensor([images.shape[-1], images.shape[-2]])
    shrink = int((windows[:, 1] * extent).amin().div(size).round().clamp(1, min(images.shape[-2:])))
    if shrink == 1:
        return images
    own = images[:1] if images.stride(0) == 0 else images  # one portrait for all frames
    height, width = (max(1, round(side / shrink)) for side in images.shape[-2:])
    return functional.adaptive_avg_pool2d(own, (height, width)).expand(count, -1, -1, -1)
