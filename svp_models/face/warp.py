"""A portrait bent so that its head keypoints lie where a frame wants them: a thin-plate spline over the whole picture."""

from __future__ import annotations

import torch
from kornia.geometry.transform import get_tps_transform, warp_points_tps
from torch import Tensor
from torch.nn import functional

GRID = 33  # points a side at which the spline itself is evaluated; between them it is smooth enough to interpolate
ANCHORS = 5  # fixed points a side of the picture's border: what surrounds the head stays
APART = 1e-3  # of half a side: points nearer than this cannot be told apart


def warp_to_keypoints(image: Tensor, source: Tensor, targets: Tensor) -> Tensor:
    """image: 3 H W; source: 8 x 2, its head keypoints; targets: n x 8 x 2, all in pixels -> n x 3 x H x W.

    Exact at the keypoints, still at the border. A frame whose keypoints coincide or are no numbers is the image as it is.
    """
    size = source.new_tensor([image.shape[-1], image.shape[-2]])
    border = _border(source)
    fixed = border.expand(len(targets), -1, -1)
    here = torch.cat([(2 * source / size - 1).expand(len(targets), -1, -1), fixed], dim=1)  # n k 2 in [-1, 1]
    there = torch.cat([2 * targets / size - 1, fixed], dim=1)
    usable = _apart(here) & _apart(there)
    line = torch.linspace(-1, 1, GRID)
    mesh = torch.cartesian_prod(line, line).flip(1)[None].to(source)  # 1 GRID^2 2, x and y, row by row
    result = image.expand(len(targets), -1, -1, -1).clone()
    if not bool(usable.any()):
        return result
    bent = there[usable]
    centres = here[usable]
    kernel, affine = get_tps_transform(bent, centres)
    grid = warp_points_tps(mesh.expand(len(bent), -1, -1), centres, kernel, affine)  # m GRID^2 2
    coarse = (grid - mesh).transpose(1, 2).unflatten(2, (GRID, GRID))  # m 2 GRID GRID, displacement
    fine = _at_pixels(coarse, image.shape[-2], image.shape[-1])  # m H W 2
    result[usable] = functional.grid_sample(
        result[usable], fine.to(image), mode="bilinear", padding_mode="border", align_corners=False
    )
    return result


def _border(like: Tensor) -> Tensor:
    """Anchors along the border of [-1, 1] x [-1, 1]: k x 2."""
    line = torch.linspace(-1, 1, ANCHORS).to(like)
    square = torch.cartesian_prod(line, line)
    return square[square.abs().amax(1) == 1]


def _apart(points: Tensor) -> Tensor:
    """Whether no two points coincide: n k 2 -> n bool."""
    distance = torch.cdist(points.nan_to_num(), points.nan_to_num()) + 2 * torch.eye(points.shape[1]).to(points)
    return (distance.amin((1, 2)) > APART) & torch.isfinite(points).all(2).all(1)


def _at_pixels(displacement: Tensor, height: int, width: int) -> Tensor:
    """Displacements on a grid that spans the picture from edge to edge -> where each pixel comes from: n H W 2."""
    centres = [(2 * torch.arange(count) + 1) / count - 1 for count in (height, width)]
    place = torch.stack(torch.meshgrid(*centres, indexing="ij")[::-1], dim=-1).to(displacement)  # H W 2
    place = place.expand(len(displacement), -1, -1, -1)
    between = functional.grid_sample(displacement, place, mode="bicubic", padding_mode="border", align_corners=True)
    return place + between.movedim(1, -1)
