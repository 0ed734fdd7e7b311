"""A portrait warped to the head keypoints and the expression of every frame: lips, lids, brows, pupils and jaw move too.

The expression is an expression track: 64 coefficients of the synthetic speakers, both lids, gaze right and down. How the
landmarks move with its numbers is a linear basis, fitted to synthetic speakers (`synthetic.expression_basis`), but for the
lids, which close as far as the portrait's are open. What a mouth shows inside when it opens, no warp can know: its seam is
stretched.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from .head_pose import CROWN_3D, HAIR_3D
from .warp import (
    ANCHORS,
    BORDER_ZONE,
    apart_from_all,
    apart_where_unused,
    head_batch,
    head_cameras,
    spline_displacement,
    window_pixels,
)

POINTS = 70  # 68 landmarks and both pupils
PUPILS = (4, 5)  # of the 8 head keypoints
SKULL_3D = (
    *CROWN_3D,
    *HAIR_3D,
    (0.0, -0.65, 0.39),
)  # points of the head that no expression moves, and no landmark stands for
MESH_STEP = 1 / 72  # of the image, distance of the points at which the spline is evaluated
LIDS = slice(64, 66)  # of an expression track
LID_PAIRS = (((37, 41), (38, 40)), ((43, 47), (44, 46)))  # upper and lower points of both eyes
UPPER_SHARE = 0.82  # of an eye's opening that its upper lid closes
SLIT = 0.12  # of an open eye that stays open
WIDEST = 1.5  # times as open as in the portrait: no warp opens an eye that is shut
# Points between upper lids and brows, in shares of the way: a lid that shuts stretches the skin above it evenly.
LID_TO_BROW = ((36, 17), (37, 18), (38, 20), (39, 21), (42, 22), (43, 23), (44, 25), (45, 26))
ON_THE_WAY = (0.3, 0.65)
# By how much the spline may keep off a landmark. Brows pass under hair and glasses, which stay; lips and lids are fine.
SMOOTHING = {range(36): 0.01, range(36, 48): 1e-3, range(48, 68): 3e-4, range(68, POINTS): 1e-3}
RIDGE = 0.003  # of `fit_expression`
ABOVE_LIDS = 1e-3  # the same of the points above the lids


@dataclass(frozen=True)
class Displacements:
    """Where the pixels of warped portraits come from, less themselves, in [-1, 1] of the image, on a lattice.

    values: n 2 tall wide, x and y; first: n 2, the lattice's first point in steps of `step` from the middle of the image.
    """

    values: Tensor
    first: Tensor
    step: float = 2 * MESH_STEP

    def at(self, places: Tensor) -> Tensor:
        """n H W 2 in [-1, 1] of the image -> n H W 2; beyond the lattice that of its edge."""
        tall, wide = self.values.shape[2:]
        local = 2 * (places / self.step - self.first[:, None, None]) / places.new_tensor([wide - 1, tall - 1]) - 1
        between = functional.grid_sample(
            self.values, local.to(self.values), mode="bicubic", padding_mode="border", align_corners=True
        )
        return between.movedim(1, -1)


class Correct(Protocol):
    """Something that knows better than the spline where pixels come from."""

    def __call__(self, images: Tensor, targets: Tensor, found: Displacements, places: Tensor) -> Tensor:
        """Portraits n 3 h w, head keypoints of the frames n 8 2 (pixels) and the spline of the whole image -> displacements of the
        pixels at `places`, n H W 2, both in [-1, 1] of the image."""
        ...


@dataclass(frozen=True)
class ExpressionBasis:
    """movement: e 70 3, how far the points (68 landmarks, left and right pupil) go for 1 of every number of an expression track;
    depth: 70, of these points of the mean face at rest. In half widths of the face: x right, y down, z to the viewer."""

    movement: Tensor
    depth: Tensor


def face_points(landmarks: Tensor, keypoints: Tensor) -> Tensor:
    """68 landmarks n 68 2 and head keypoints n 8 2 -> the points of an ExpressionBasis, n 70 2."""
    return torch.cat([landmarks, keypoints[:, PUPILS].to(landmarks)], dim=1)


def moved_points(
    basis: ExpressionBasis, points: Tensor, sources: Tensor, targets: Tensor, own_track: Tensor, track: Tensor
) -> Tensor:
    """Where the points of portraits (n 70 2) are in their frames: n 70 2.

    sources, targets: n 8 2, head keypoints of portraits and frames; all in pixels. own_track, track: n e, the expressions of the
    portraits and of the frames.
    """
    own, wanted = (head_cameras(keypoints.double()) for keypoints in (sources, targets))  # n 4 2
    movement, depth = basis.movement.to(own), basis.depth.to(own)
    flat = points.double() - depth[:, None] * own[:, None, 2] - own[:, None, 3]
    across = flat @ torch.linalg.pinv(own[:, :2])  # n 70 2, x and y in half widths
    solid = torch.cat([across, depth.expand(len(points), -1)[..., None], torch.ones_like(across[..., :1])], dim=2)
    moved = torch.einsum("ne,ekd->nkd", (track - own_track).to(own), movement) @ wanted[:, :3]
    placed = points.double() + solid @ (wanted - own) + moved
    return _with_lids(placed, own_track[:, LIDS].to(own), track[:, LIDS].to(own)).to(points)


def fit_expression(
    basis: ExpressionBasis,
    points: Tensor,
    seen: Tensor,
    sources: Tensor,
    targets: Tensor,
    ridge: float = RIDGE,
) -> Tensor:
    """Expression tracks n 68 that bring the points of a relaxed portrait (n 70 2) to where they are seen in frames (n 70 2), as near as
    the basis can; sources, targets: see `moved_points`.

    Least squares with `ridge` times the squares of the numbers, distances in half widths of the face. Lids close as far as the
    eyes' openings say.
    """
    still = points.new_zeros(len(points), len(basis.movement))
    rigid = moved_points(basis, points, sources, targets, still, still).double()
    camera = head_cameras(targets.double())  # n 4 2
    size = torch.linalg.svdvals(camera[:, :3]).mean(1)[:, None, None]
    moving = torch.einsum("ekd,ndx->nkxe", basis.movement.to(camera), camera[:, :3] / size)
    moving[..., LIDS] = 0
    design = moving.flatten(1, 2)  # n 140 e
    apart = ((seen.double() - rigid) / size).flatten(1)[..., None]
    normal = design.mT @ design + ridge * torch.eye(design.shape[2]).to(design)
    track = torch.linalg.solve(normal, design.mT @ apart)[..., 0]
    track[:, LIDS] = (1 - _openings(seen.double()) / _openings(rigid).clamp(min=1e-9)).clamp(0, 1)
    return track.to(points)


def _openings(points: Tensor) -> Tensor:
    """How far the lids of both eyes are apart, pixels: n 70 2 -> n 2."""
    pairs = [[(points[:, upper] - points[:, lower]).norm(dim=1) for upper, lower in side] for side in LID_PAIRS]
    return torch.stack([(first + second) / 2 for first, second in pairs], 1)


def _with_lids(points: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Points n 70 2 with the eyes opened or closed: lids n 2 of the portraits and of the frames, 0 open to 1 closed.

    Pupils go with the lids, and a closed eye keeps a slit: a spline could not tell the order of points that coincide.
    """
    shares = [(1 - lids.clamp(0, 1)).clamp(min=SLIT) for lids in (before, after)]
    opening = (shares[1] / shares[0]).clamp(max=WIDEST)[..., None]  # n 2 1, of that of the portrait
    result = points.clone()
    for side, pairs in enumerate(LID_PAIRS):
        meetings = []
        for upper, lower in pairs:
            top, bottom = points[:, upper], points[:, lower]
            meetings.append(torch.lerp(top, bottom, UPPER_SHARE))
            result[:, upper] = torch.lerp(meetings[-1], top, opening[:, side])
            result[:, lower] = torch.lerp(meetings[-1], bottom, opening[:, side])
        pupil, middle = points[:, 68 + side], (meetings[0] + meetings[1]) / 2
        down = points[:, pairs[0][1]] - points[:, pairs[0][0]] + points[:, pairs[1][1]] - points[:, pairs[1][0]]
        down = down / down.norm(dim=1, keepdim=True).clamp(min=1e-9)
        height = ((pupil - middle) * down).sum(1, keepdim=True)
        result[:, 68 + side] = pupil + down * height * (opening[:, side].clamp(max=1) - 1)
    return result


def warp_expression(
    images: Tensor,
    sources: Tensor,
    targets: Tensor,
    points: Tensor,
    moved: Tensor,
    corners: Tensor | None = None,
    size: tuple[int, int] | None = None,
    correct: Correct | None = None,
) -> Tensor:
    """Portraits whose points (n 70 2) come to lie at `moved` and whose heads at `targets`; see `warp_batch` for all else.

    correct: changes what the spline says. An image with a coordinate that is no number is returned unchanged.
    """
    pixels = window_pixels(images, corners, size)  # n H W 2
    reach = pixels if correct is None else window_pixels(images, None, None)
    found = spline_displacements(images, sources, targets, points, moved, reach)
    change = found.at(pixels)
    if correct is not None:
        known = torch.isfinite(torch.cat([sources, targets, points, moved], 1)).all(2).all(1)
        change = torch.where(known[:, None, None, None], correct(images, targets, found, pixels), change)
    grid = pixels.to(images) + change
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def spline_displacements(
    images: Tensor, sources: Tensor, targets: Tensor, points: Tensor, moved: Tensor, places: Tensor
) -> Displacements:
    """The spline of `warp_expression`, where it is needed for places n H W 2 in [-1, 1] of the images."""
    extent = sources.new_tensor([images.shape[-1], images.shape[-2]])
    # The spline is evaluated on a lattice of the whole image, of which a window needs a part.
    step = 2 * MESH_STEP
    first = (places.amin((1, 2)) / step).floor() - 1  # n 2
    wide, tall = ((places.amax((1, 2)) / step).ceil() + 2 - first).amax(0).int().tolist()
    lines = [torch.arange(count, device=images.device, dtype=places.dtype) for count in (tall, wide)]
    lattice = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1).flatten(0, 1)  # (tall wide) 2
    mesh = (step * (first[:, None] + lattice)).double()
    own, wanted, here, there = ((value / extent).double() for value in (sources, targets, points, moved))
    coarse = _displacement(own, wanted, here, there, mesh).to(images)
    return Displacements(coarse.transpose(1, 2).unflatten(2, (tall, wide)), first)


def _above_lids(points: Tensor) -> Tensor:
    """n 70 2 -> n k 2"""
    lids, brows = (points[:, [pair[end] for pair in LID_TO_BROW]] for end in (0, 1))
    return torch.cat([torch.lerp(lids, brows, share) for share in ON_THE_WAY], 1)


def _displacement(sources: Tensor, targets: Tensor, points: Tensor, moved: Tensor, mesh: Tensor) -> Tensor:
    """All as fractions of the image, the mesh n m 2 in [-1, 1] -> where its points come from, less themselves, n m 2."""
    count = len(sources)
    points, moved = (torch.cat([value, _above_lids(value)], 1) for value in (points, moved))
    own, skull, inside = head_batch(sources, targets, SKULL_3D)
    line = torch.linspace(0, 1, ANCHORS).to(own)
    square = torch.cartesian_prod(line, line)
    border = square[(square - 0.5).abs().amax(1) == 0.5].expand(count, -1, -1)
    here, there = torch.cat([points, own, border], 1), torch.cat([moved, skull, border], 1)
    within = [((value > BORDER_ZONE) & (value < 1 - BORDER_ZONE)).all(2) for value in (points, moved)]
    used = torch.cat([within[0] & within[1], inside, inside.new_ones(count, border.shape[1])], 1)
    here, there = apart_where_unused(2 * here - 1, 2 * there - 1, used)
    finite = torch.isfinite(torch.cat([sources, targets, points, moved], 1)).all(2).all(1)[:, None, None]
    there = torch.where(finite, there, apart_from_all(there))
    smoothing = here.new_zeros(here.shape[1])
    smoothing[POINTS : points.shape[1]] = ABOVE_LIDS
    for rows, value in SMOOTHING.items():
        smoothing[list(rows)] = value
    found = spline_displacement(here, there, used, mesh, smoothing)
    return torch.where(finite, found, torch.zeros_like(found))
