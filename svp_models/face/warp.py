"""A portrait warped so that its head lies at the keypoints of a frame: a thin-plate spline over the whole image."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..optional_deps import interpolate
from .affine import fit_affine_camera
from .head_pose import CROWN_3D, FACE_3D, HAIR_3D, RIGID, RIGID_3D

GRID_SIZE = 33  # points per side at which the spline is evaluated; between them it is smooth enough to interpolate
ANCHORS = 7  # fixed points per side of the image border: the surroundings of the head stay
MIN_DISTANCE = 1e-3  # of half a side: points nearer than this coincide
BORDER_ZONE = 0.03  # of the image: points of the head nearer to the border than this are left to the anchors there
DEPTH_RIDGE = 0.2  # keeps keypoints that lie in one plane from being taken for a wild turn


def warp_to_keypoints(image: Tensor, source: Tensor, targets: Tensor) -> Tensor:
    """image: 3 H W; source: 8 x 2, its head keypoints; targets: n x 8 x 2, all in pixels -> n x 3 x H x W.

    The head turns as a whole: the movement of the keypoints determines that of hair and chin too. Exact at the keypoints but
    for the pupils, which may also have glanced aside; the border stays. A frame whose keypoints coincide or are no numbers
    is the unchanged image.
    """
    size = source.new_tensor([image.shape[-1], image.shape[-2]])
    source, targets = source / size, targets / size
    head, moved_head = _head_points(source, targets)  # h 2, n h 2
    border = _border_points(source).expand(len(targets), -1, -1)
    known = torch.cat([source[list(RIGID)], head])
    here = torch.cat([(2 * known - 1).expand(len(targets), -1, -1), border], dim=1)  # n k 2 in [-1, 1]
    there = torch.cat([2 * torch.cat([targets[:, RIGID], moved_head], dim=1) - 1, border], dim=1)
    usable = _distinct(here) & _distinct(there)
    result = image.expand(len(targets), -1, -1, -1).clone()
    if not bool(usable.any()):
        return result
    line = torch.linspace(-1, 1, GRID_SIZE)
    mesh = torch.cartesian_prod(line, line).flip(1).to(source)  # GRID_SIZE^2 2, x and y, row by row
    grid = torch.stack(
        [_thin_plate_spline(*pair, mesh) for pair in zip(there[usable], here[usable], strict=True)]
    )  # m GRID_SIZE^2 2
    coarse = (grid - mesh).transpose(1, 2).unflatten(2, (GRID_SIZE, GRID_SIZE))  # m 2 GRID_SIZE GRID_SIZE, displacement
    fine = _sampling_grid(coarse, image.shape[-2], image.shape[-1])  # m H W 2
    result[usable] = functional.grid_sample(
        result[usable], fine.to(image), mode="bilinear", padding_mode="border", align_corners=False
    )
    return result


def _thin_plate_spline(centres: Tensor, values: Tensor, points: Tensor) -> Tensor:
    """The smoothest map that has these values at the centres, k 2 both, evaluated at points m 2 -> m 2."""
    spline = interpolate.RBFInterpolator(centres.cpu().numpy(), values.cpu().numpy(), kernel="thin_plate_spline")
    return torch.from_numpy(spline(points.cpu().numpy())).to(points)


def _head_points(source: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Points of the head between and around the keypoints, and their targets: 8 2 and n 8 2 as fractions of the image ->
    h 2 and n h 2. Those too near the border of the image are left out, and none is moved there."""
    head = source.new_tensor([*CROWN_3D, *HAIR_3D, *FACE_3D])
    cameras = fit_affine_camera(torch.cat([source[None], targets])[:, RIGID].cpu().numpy(), RIGID_3D, DEPTH_RIDGE)
    own, wanted = torch.from_numpy(cameras).to(source).split([1, len(targets)])  # 1 4 2, n 4 2
    head = functional.pad(head, (0, 1), value=1.0)
    here = (head @ own)[0]
    # Two rings, so that the outer one stays outside where both are clamped.
    near = head.new_tensor([2 * BORDER_ZONE] * len(CROWN_3D) + [BORDER_ZONE] * (len(head) - len(CROWN_3D)))[:, None]
    inside = ((here > near) & (here < 1 - near)).all(1)
    there = (here + head @ (wanted - own)).clamp(near, 1 - near)
    return here[inside], there[:, inside]


def _border_points(like: Tensor) -> Tensor:
    """Anchors along the border of [-1, 1] x [-1, 1]: k x 2."""
    line = torch.linspace(-1, 1, ANCHORS).to(like)
    square = torch.cartesian_prod(line, line)
    return square[square.abs().amax(1) == 1]


def _distinct(points: Tensor) -> Tensor:
    """Whether no two points coincide: n k 2 -> n bool."""
    distance = torch.cdist(points.nan_to_num(), points.nan_to_num()) + 2 * torch.eye(points.shape[1]).to(points)
    return (distance.amin((1, 2)) > MIN_DISTANCE) & torch.isfinite(points).all(2).all(1)


def _sampling_grid(displacement: Tensor, height: int, width: int) -> Tensor:
    """Displacements on a grid that spans the image from edge to edge -> the source of each pixel: n H W 2."""
    centres = [(2 * torch.arange(count) + 1) / count - 1 for count in (height, width)]
    pixels = torch.stack(torch.meshgrid(*centres, indexing="ij")[::-1], dim=-1).to(displacement)  # H W 2
    pixels = pixels.expand(len(displacement), -1, -1, -1)
    between = functional.grid_sample(displacement, pixels, mode="bicubic", padding_mode="border", align_corners=True)
    return pixels + between.movedim(1, -1)
