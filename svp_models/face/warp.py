"""A portrait warped so that its head lies at the keypoints of a frame: a thin-plate spline over the whole image."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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
    mesh = _mesh(source)
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
    near = _margins(head, (*CROWN_3D, *HAIR_3D, *FACE_3D))
    inside = ((here > near) & (here < 1 - near)).all(1)
    there = (here + head @ (wanted - own)).clamp(near, 1 - near)
    return here[inside], there[:, inside]


def _margins(like: Tensor, points: Sequence[tuple[float, float, float]]) -> Tensor:
    """How far points of the head keep from the border of the image, h 1: two rings, so that the outer one stays outside where
    both are clamped."""
    crown = set(CROWN_3D)
    return like.new_tensor([2 * BORDER_ZONE if point in crown else BORDER_ZONE for point in points])[:, None]


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


def warp_batch(
    images: Tensor, sources: Tensor, targets: Tensor, corners: Tensor | None = None, size: tuple[int, int] | None = None
) -> Tensor:
    """`warp_to_keypoints` for a batch on its own device, up to rounding: a spline for every image.

    images: n 3 h w; sources, targets: n 8 2 in their pixels. corners: n 2, left and top of the window of `size` (width, height)
    that is wanted of every warped image, in whole pixels; None: the whole image -> n 3 H W.
    """
    extent = sources.new_tensor([images.shape[-1], images.shape[-2]])
    mesh = _mesh(sources)
    coarse = _batch_displacement((sources / extent).double(), (targets / extent).double(), mesh.double()).to(sources)
    pixels = window_pixels(images, corners, size).to(sources)
    between = functional.grid_sample(coarse, pixels, mode="bicubic", padding_mode="border", align_corners=True)
    grid = (pixels + between.movedim(1, -1)).to(images)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def window_pixels(images: Tensor, corners: Tensor | None, size: tuple[int, int] | None) -> Tensor:
    """The pixels of windows of images n 3 h w, see `warp_batch`, in [-1, 1] of the images: n H W 2."""
    height, width = images.shape[-2:]
    wide, high = size or (width, height)
    lines = [torch.arange(count, device=images.device, dtype=torch.float32) + 0.5 for count in (high, wide)]
    pixels = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)  # H W 2
    pixels = pixels.expand(len(images), -1, -1, -1)
    extent = pixels.new_tensor([width, height])
    if corners is not None:
        pixels = pixels + corners[:, None, None].to(pixels)
        # Beyond the edge of the image its edge is repeated.
        pixels = torch.minimum(pixels.clamp(min=0.5), extent - 0.5)
    return 2 * pixels / extent - 1


def _mesh(like: Tensor) -> Tensor:
    """The points of the grid on which splines are evaluated: GRID_SIZE^2 2 in [-1, 1], x and y, row by row."""
    line = torch.linspace(-1, 1, GRID_SIZE)
    return torch.cartesian_prod(line, line).flip(1).to(like)


def _batch_displacement(sources: Tensor, targets: Tensor, mesh: Tensor) -> Tensor:
    """n 8 2 both, as fractions of the image; mesh: m 2 -> n 2 GRID_SIZE GRID_SIZE, where the mesh's pixels come from."""
    own, moved, inside = head_batch(sources, targets, (*CROWN_3D, *HAIR_3D, *FACE_3D))
    border = _border_points(sources).expand(len(sources), -1, -1)
    here = torch.cat([2 * torch.cat([sources[:, RIGID], own], 1) - 1, border], 1)  # n k 2
    there = torch.cat([2 * torch.cat([targets[:, RIGID], moved], 1) - 1, border], 1)
    used = torch.cat(
        [inside.new_ones(len(here), len(RIGID)), inside, inside.new_ones(len(here), border.shape[1])], 1
    )  # n k
    here, there = apart_where_unused(here, there, used)
    usable = _distinct(here) & _distinct(there) & torch.isfinite(sources + targets).all(2).all(1)
    there = torch.where(usable[:, None, None], there, apart_from_all(there))
    displaced = spline_displacement(here, there, used, mesh)
    displaced = torch.where(usable[:, None, None], displaced, torch.zeros_like(displaced))
    return displaced.transpose(1, 2).unflatten(2, (GRID_SIZE, GRID_SIZE))


def head_batch(
    sources: Tensor, targets: Tensor, points: Sequence[tuple[float, float, float]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Points of the mean head where portraits have them, and where they are moved to: head keypoints n 8 2 both, as fractions of
    the image -> n h 2, n h 2, and n h, those not too near the border of the image."""
    near = _margins(sources.new_tensor(points), points)
    head = functional.pad(sources.new_tensor(points), (0, 1), value=1.0)  # h 4
    own, wanted = (head @ camera for camera in (head_cameras(sources), head_cameras(targets)))  # n h 2
    inside = ((own > near) & (own < 1 - near)).all(2)
    return own, wanted.clamp(near, 1 - near), inside


def head_cameras(keypoints: Tensor) -> Tensor:
    """The affine cameras that show the mean head at head keypoints n 8 2: n 4 2, see `fit_affine_camera`."""
    camera = torch.from_numpy(fit_affine_camera(np.eye(len(RIGID)), RIGID_3D, DEPTH_RIDGE)).to(keypoints)  # 4 6
    return camera @ keypoints[:, RIGID]


def apart_from_all(points: Tensor) -> Tensor:
    """Places outside of every image, far apart and not on a line, one for each of n k 2 points: k 2."""
    number = torch.arange(points.shape[1]).to(points)
    return torch.stack([10 + number, number.square() / len(number)], 1)


def apart_where_unused(here: Tensor, there: Tensor, used: Tensor) -> tuple[Tensor, Tensor]:
    """Points that are not used (n k) get places of their own, so that they coincide with none."""
    apart = apart_from_all(here)
    first, second = (torch.where(used[:, :, None], points.nan_to_num(), apart) for points in (here, there))
    return first, second


def spline_displacement(
    here: Tensor, there: Tensor, used: Tensor, mesh: Tensor, smoothing: Tensor | None = None
) -> Tensor:
    """Where the points of a mesh (m 2, or n m 2) come from, less themselves, if points `there` come from `here`, n k 2: n m 2.

    smoothing: k, how far the spline may keep off a point, see `_spline_batch`.
    """
    weights, linear = _spline_batch(there, here, used, smoothing)
    mesh = mesh.expand(len(there), -1, -1)
    return _kernel(torch.cdist(mesh, there)) @ weights + functional.pad(mesh, (1, 0), value=1.0) @ linear - mesh


def _spline_batch(
    centres: Tensor, values: Tensor, used: Tensor, smoothing: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Thin-plate splines through values n k 2 at centres n k 2, of those that are used (n k) -> weights n k 2 of the kernel and
    linear parts n 3 2 of (1, x, y). smoothing: k, added to the diagonal of the kernel: 0 is exact."""
    count, both = centres.shape[1], (used[:, :, None] & used[:, None]).to(centres)
    kernel = _kernel(torch.cdist(centres, centres)) * both + torch.diag_embed((~used).to(centres))
    if smoothing is not None:
        kernel = kernel + torch.diag_embed(smoothing.to(kernel))
    plane = functional.pad(centres, (1, 0), value=1.0) * used[:, :, None].to(centres)  # n k 3
    system = torch.cat([torch.cat([kernel, plane], 2), torch.cat([plane.mT, plane.new_zeros(len(plane), 3, 3)], 2)], 1)
    wanted = functional.pad(values * used[:, :, None].to(values), (0, 0, 0, 3))
    solved = torch.linalg.solve(system, wanted)
    return solved[:, :count], solved[:, count:]


def _kernel(distance: Tensor) -> Tensor:
    """r^2 log r, 0 at 0."""
    return distance.square() * distance.clamp(min=1e-30).log()
