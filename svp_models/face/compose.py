"""The face that a model draws in an upright crop, and the portrait around it: where the crop lies, and how both are joined.

frame = warped portrait + mask x (face put back - warped portrait). Where the mask is 0 the portrait keeps its own pixels at its
own resolution. A placement is an affine map 2 3 from pixels of the frame to pixels of the crop; (0, 0) is the top left corner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..config import FaceCropConfig
from ..errors import PortraitError
from .affine import fit_affine_camera, invert_affine
from .crop import averaged
from .head_pose import RIGID, RIGID_3D

DEPTH_RIDGE = 0.2  # keeps keypoints that lie in one plane from being taken for a wild turn
WHOLE = 1e-6  # pixels: a shift this near to a whole number is one


@dataclass(frozen=True)
class FacePlacement:
    """Where the crops of the face lie. matrices: n 2 3, float64, frame -> crop; width, height: of the crops, pixels."""

    matrices: np.ndarray
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.matrices)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points n k 2 of the frames -> of the crops, float64; one placement serves all frames."""
        return points @ self.matrices[:, :, :2].transpose(0, 2, 1) + self.matrices[:, None, :, 2]


def place_face_crops(keypoints: np.ndarray, config: FaceCropConfig) -> FacePlacement:
    """The crops of a clip. keypoints: n 8 2 head keypoints in pixels of the frames.

    A mean head is fitted to every frame. Scale and tilt are those of the whole clip, the centre goes with the head. Where scale
    and tilt can be left as they are (see FaceCropConfig), crops move in whole pixels.
    """
    keypoints = np.asarray(keypoints, np.float64)
    if not np.isfinite(keypoints).all():
        raise PortraitError("a head keypoint is no number: extract the head motion again from a clip that shows a face")
    cameras = fit_affine_camera(keypoints[:, RIGID], RIGID_3D, DEPTH_RIDGE)  # n 4 2
    sizes = np.linalg.svd(cameras[:, :3], compute_uv=False).mean(1)  # pixels that a half width of the face takes
    size = float(np.median(sizes))
    if not size > 1e-6:
        raise PortraitError("the head keypoints lie on one spot: choose another image")
    down = cameras[:, 1]  # n 2, the head's axis from brow to chin
    tilt = float(np.median(np.arctan2(-down[:, 0], down[:, 1])))
    scale = snapped_scale(config.face / size, config.snap_scale)
    tilt = 0.0 if abs(tilt) <= math.radians(config.snap_angle) else tilt
    cos, sin = scale * math.cos(tilt), scale * math.sin(tilt)
    linear = np.array([[cos, sin], [-sin, cos]])
    centres = averaged(np.array([*config.centre, 1.0]) @ cameras, config.smoothing)  # n 2
    shifts = np.array([config.width, config.height]) / 2 - centres @ linear.T
    if tilt == 0 and _is_whole(1 / scale):
        shifts = np.rint(shifts)
    matrices = np.concatenate([np.broadcast_to(linear, (len(shifts), 2, 2)), shifts[:, :, None]], axis=2)
    return FacePlacement(matrices, config.width, config.height)


def snapped_scale(scale: float, tolerance: float) -> float:
    """The scale, or the nearest 1 / (whole number) if it differs by less than `tolerance` in its logarithm."""
    whole = 1 / max(1, round(1 / scale))
    return whole if abs(math.log(scale / whole)) <= tolerance else scale


def crop_faces_upright(frames: Tensor, placement: FacePlacement) -> Tensor:
    """frames n 3 h w -> crops n 3 H W; what lies outside of a frame repeats its edge.

    One placement serves all frames, and one frame all placements. Averaged where it shrinks, bicubic in between.
    """
    count = max(len(frames), len(placement))
    shrink, matrices = _reduced(placement.matrices)
    if shrink > 1:
        frames = functional.avg_pool2d(frames, shrink, ceil_mode=True, count_include_pad=False)
    if _is_shift(matrices):
        crops = []
        for index in range(count):
            frame, matrix = frames[min(index, len(frames) - 1)], matrices[min(index, len(matrices) - 1)]
            left, top = (-round(float(shift)) for shift in matrix[:, 2])
            rows = torch.arange(top, top + placement.height).clamp(0, frame.shape[1] - 1).to(frame.device)
            columns = torch.arange(left, left + placement.width).clamp(0, frame.shape[2] - 1).to(frame.device)
            crops.append(frame[:, rows][:, :, columns])
        return torch.stack(crops)
    inverse = np.stack([invert_affine(matrix) for matrix in matrices])
    size = (placement.height, placement.width)
    return _sampled(frames, inverse, size, "border").expand(count, -1, -1, -1)


def put_back(faces: Tensor, placement: FacePlacement, width: int, height: int) -> Tensor:
    """Crops n c H W -> frames n c height width; zero outside of the crop. One placement serves all crops."""
    enlarge, matrices = _reduced(placement.matrices)
    if not _is_shift(matrices):
        return _sampled(faces, np.broadcast_to(placement.matrices, (len(faces), 2, 3)), (height, width), "zeros")
    if enlarge > 1:
        size = (enlarge * faces.shape[2], enlarge * faces.shape[3])
        faces = functional.interpolate(faces, size, mode="bicubic", align_corners=False)
    frames = faces.new_zeros(len(faces), faces.shape[1], height, width)
    for index, face in enumerate(faces):
        left, top = (
            -round(float(shift)) * enlarge for shift in matrices[min(index, len(matrices) - 1), :, 2]
        )  # of the crop in the frame
        first_row, first_column = max(top, 0), max(left, 0)
        last_row, last_column = min(top + face.shape[1], height), min(left + face.shape[2], width)
        if first_row < last_row and first_column < last_column:
            frames[index, :, first_row:last_row, first_column:last_column] = face[
                :, first_row - top : last_row - top, first_column - left : last_column - left
            ]
    return frames


def compose(warped: Tensor, faces: Tensor, masks: Tensor, placement: FacePlacement) -> tuple[Tensor, Tensor]:
    """Warped portraits n 3 h w with faces n 3 H W put over them -> frames n 3 h w and the masks in them, n 1 h w.

    masks: n (or 1) 1 H W, 0 keeps the portrait exactly, 1 takes the face exactly.
    """
    height, width = warped.shape[-2:]
    placed = put_back(faces, placement, width, height)
    weight = put_back(masks.expand(len(faces), -1, -1, -1), placement, width, height).clamp(0, 1)
    return torch.lerp(warped, placed, weight), weight


def border_mask(width: int, height: int, feather: float) -> Tensor:
    """1 inside a crop, falling to 0 at its border over `feather` of its shorter side: 1 1 height width."""
    reach = max(feather * min(width, height), 0.5)
    ramps = []
    for count in (height, width):
        line = torch.arange(count) + 0.5
        distance = torch.minimum(line, count - line)
        ramp = ((distance - 0.5) / reach).clamp(0, 1)
        ramps.append(ramp * ramp * (3 - 2 * ramp))
    return (ramps[0][:, None] * ramps[1])[None, None]


def _reduced(matrices: np.ndarray) -> tuple[int, np.ndarray]:
    """The whole number by which frames are averaged down first, and the maps of the smaller frames."""
    scale = math.sqrt(abs(float(np.linalg.det(matrices[0, :, :2]))))
    shrink = max(1, round(1 / scale))
    return shrink, matrices @ np.diag([shrink, shrink, 1.0])


def _is_shift(matrices: np.ndarray) -> bool:
    """Whether maps shift by whole pixels and do nothing else."""
    return bool((np.abs(matrices[:, :, :2] - np.eye(2)) < WHOLE).all()) and _is_whole(matrices[:, :, 2])


def _is_whole(values: np.ndarray | float) -> bool:
    return bool((np.abs(values - np.rint(values)) < WHOLE).all())


def _sampled(images: Tensor, matrices: np.ndarray, size: tuple[int, int], outside: str) -> Tensor:
    """Images n c h w sampled bicubically at the pixels of `size` (height, width) through maps n 2 3 of those onto the images."""
    height, width = size
    lines = [torch.arange(count, dtype=torch.float64) + 0.5 for count in (height, width)]
    pixels = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)  # height width 2
    maps = torch.tensor(matrices)
    sources = torch.einsum("nij,hwj->nhwi", maps[:, :, :2], pixels) + maps[:, None, None, :, 2]
    grid = (2 * sources / torch.tensor([images.shape[-1], images.shape[-2]]) - 1).to(images)
    count = max(len(images), len(grid))
    images, grid = images.expand(count, -1, -1, -1), grid.expand(count, -1, -1, -1)
    return functional.grid_sample(images, grid, mode="bicubic", padding_mode=outside, align_corners=False)
