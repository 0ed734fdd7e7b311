"""A portrait bent so that its head lies where a frame's keypoints want it: a thin-plate spline over the whole picture."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..optional_deps import interpolate
from .head_pose import CROWN, FACE, HAIR, KEYPOINTS, RIGID

GRID = 33  # points a side at which the spline itself is evaluated; between them it is smooth enough to interpolate
ANCHORS = 7  # fixed points a side of the picture's border: what surrounds the head stays
APART = 1e-3  # of half a side: points nearer than this cannot be told apart
NEAR = 0.03  # of the picture: points of the head nearer to the border than this are left to the anchors there
STEADY = 0.2  # keeps keypoints that lie in one plane from being taken for a wild turn


def warp_to_keypoints(image: Tensor, source: Tensor, targets: Tensor) -> Tensor:
    """image: 3 H W; source: 8 x 2, its head keypoints; targets: n x 8 x 2, all in pixels -> n x 3 x H x W.

    The head turns as a whole: how the keypoints moved says how all of it did, hair and chin too. Exact at the keypoints but
    for the pupils, which may also have glanced aside; still at the border. A frame whose keypoints coincide or are no numbers
    is the image as it is.
    """
    size = source.new_tensor([image.shape[-1], image.shape[-2]])
    source, targets = source / size, targets / size
    outline, moved = _outline(source, targets)  # h 2, n h 2
    border = _border(source)
    fixed = border.expand(len(targets), -1, -1)
    known = torch.cat([source[list(RIGID)], outline])
    here = torch.cat([(2 * known - 1).expand(len(targets), -1, -1), fixed], dim=1)  # n k 2 in [-1, 1]
    there = torch.cat([2 * torch.cat([targets[:, RIGID], moved], dim=1) - 1, fixed], dim=1)
    usable = _apart(here) & _apart(there)
    result = image.expand(len(targets), -1, -1, -1).clone()
    if not bool(usable.any()):
        return result
    line = torch.linspace(-1, 1, GRID)
    mesh = torch.cartesian_prod(line, line).flip(1).to(source)  # GRID^2 2, x and y, row by row
    grid = torch.stack([_spline(*each, mesh) for each in zip(there[usable], here[usable], strict=True)])  # m GRID^2 2
    coarse = (grid - mesh).transpose(1, 2).unflatten(2, (GRID, GRID))  # m 2 GRID GRID, displacement
    fine = _at_pixels(coarse, image.shape[-2], image.shape[-1])  # m H W 2
    result[usable] = functional.grid_sample(
        result[usable], fine.to(image), mode="bilinear", padding_mode="border", align_corners=False
    )
    return result


def _spline(centres: Tensor, values: Tensor, places: Tensor) -> Tensor:
    """The smoothest map that has these values at the centres, k 2 both, at the places: m 2 -> m 2."""
    spline = interpolate.RBFInterpolator(centres.cpu().numpy(), values.cpu().numpy(), kernel="thin_plate_spline")
    return torch.from_numpy(spline(places.cpu().numpy())).to(places)


def _outline(source: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Points of the head between and around the keypoints, and where they move to: 8 2 and n 8 2 as shares of the picture ->
    h 2 and n h 2. Those too near the border of the picture are left out, and none is moved there."""
    head = source.new_tensor([*CROWN, *HAIR, *FACE])
    own, wanted = _camera(source[None]), _camera(targets)
    head = functional.pad(head, (0, 1), value=1.0)
    here = (head @ own)[0]
    # Two rings, so that the outer one stays outside where both are held back.
    near = head.new_tensor([2 * NEAR] * len(CROWN) + [NEAR] * (len(head) - len(CROWN)))[:, None]
    kept = ((here > near) & (here < 1 - near)).all(1)
    there = (here + head @ (wanted - own)).clamp(near, 1 - near)
    return here[kept], there[:, kept]


def _camera(points: Tensor) -> Tensor:
    """The affine camera that shows the average head's keypoints where these are: n 8 2 -> n 4 2, to be multiplied by x y z 1."""
    head = functional.pad(points.new_tensor(KEYPOINTS), (0, 1), value=1.0)  # 6 4
    steady = torch.diag(head.new_tensor([0, 0, STEADY, 0]))
    return torch.linalg.solve(head.T @ head + steady, head.T @ points[:, RIGID])


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
