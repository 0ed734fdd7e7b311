"""Generated faces joined with the portrait at its own resolution: frame = warped portrait + mask x (face - warped portrait)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..errors import PortraitError
from ..face.affine import fit_affine_camera
from ..face.compose import DEPTH_RIDGE, FacePlacement, border_mask, compose, crop_faces_upright
from ..face.head_pose import RIGID, RIGID_3D
from ..face.portrait_face import PortraitFace
from ..io.memory_map import blocks
from ..io.progress import Progress
from ..media.images import ImageBuffer
from ..model import PortraitModel
from ..types import HeadMotion
from .face_inputs import HeadPoints, head_points
from .inputs import centre_crop, fit_motion, fit_portrait

CHUNK = 8  # frames at a time
MOST_PIXELS = 2**22  # of such a chunk
MOST_SIDE = 1024  # pixels of composed frames whose size nobody has chosen
FEATHER = 0.06  # of the shorter side of the faces, over which they blend into the portrait at their border
FACE_CENTRE = (0.0, 0.3, 0.3)  # of the mean head, in the middle of the mask without a network
FACE_RADII = (0.92, 1.25)  # of that mask, in half widths of the face


@dataclass(frozen=True)
class Composition:
    """What the frames are made of. portrait: 3 h w in [-1, 1], as it is; points: of portrait and frames in its pixels; placement:
    of the generated faces in it; crops: whether the faces are upright crops and not whole frames."""

    portrait: Tensor
    points: HeadPoints
    placement: FacePlacement
    crops: bool

    def frames(self, index: list[int]) -> tuple[Tensor, FacePlacement, Tensor]:
        """Warped portraits n 3 h w of some frames, their placement and keypoints n 8 2; a single one stands for all."""
        targets = self.points.frames[[0] * len(index) if len(self.points.frames) == 1 else index]
        where = [0] * len(index) if len(self.placement) == 1 else index
        placement = replace(self.placement, matrices=self.placement.matrices[where])
        return self.points.warp(self.portrait, index), placement, targets


def plan_composition(
    model: PortraitModel,
    portrait: Tensor,
    motion: HeadMotion | Tensor,
    frames: int,
    fps: float,
    face_size: tuple[int, int],
    frame_size: tuple[int, int],
    progress: Progress | None = None,
    expression: Tensor | None = None,
    face: PortraitFace | None = None,
) -> Composition:
    """Where generated faces lie in the portrait. portrait: 3 h w in [-1, 1] of any size, cut to the aspect of the frames.

    motion, fps and frame_size (width, height): those that the faces were sampled with; face_size: width, height of the faces;
    expression, face: as they were sampled with, in pixels of the frames.
    """
    crop, (width, height) = model.config.face_crop, frame_size
    left, top, wide, high = centre_crop(portrait.shape[-1], portrait.shape[-2], width, height)
    portrait = portrait[:, top : top + high, left : left + wide].float()
    fitted = fit_motion(motion, frames, fps, width, height)
    shown = torch.nn.functional.interpolate(portrait[None], (height, width), mode="bilinear", antialias=True)[0]
    points = head_points(model, shown, fitted, progress, expression, face)
    factor = np.diag([width / wide, height / high, 1.0])
    if crop.width and face_size == (crop.width, crop.height):
        placement = points.placement(crop)
        whole = FacePlacement(placement.matrices @ factor, *face_size)
        return Composition(portrait, points.scaled(wide, high), whole, True)
    if abs(face_size[0] / face_size[1] - width / height) > 0.02 * width / height:
        expected = f"{width} x {height} in their aspect" + (
            f", or crops of {crop.width} x {crop.height}" if crop.width else ""
        )
        raise PortraitError(
            f"the faces have {face_size[0]} x {face_size[1]} pixels, {expected} are needed: connect the frames of the sampler"
        )
    scale = np.array([[face_size[0] / wide, 0, 0], [0, face_size[1] / high, 0]])
    return Composition(portrait, points.scaled(wide, high), FacePlacement(scale[None], *face_size), False)


@torch.no_grad()
def compose_clip(
    model: PortraitModel,
    plan: Composition,
    faces: Tensor,
    masks: Tensor | None,
    feather: float,
    progress: Progress | None = None,
    folder: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Faces n H W 3 in [0, 1] -> frames n h w 3 in [0, 1] at the portrait's size and the masks in them, n h w.

    masks: n (or 1) H W in [0, 1], which replace the model's own; feather: share of the shorter side of the faces over which the
    mask falls to 0 at their border. progress(frames done, frames in all) may raise to stop; folder: for clips that are too
    large for the memory.
    """
    height, width = plan.portrait.shape[-2:]
    if masks is not None and (masks.shape[1:] != faces.shape[1:3] or len(masks) not in (1, len(faces))):
        have = " x ".join(map(str, reversed(masks.shape[1:])))
        raise PortraitError(
            f"there are {len(masks)} masks of {have} pixels and {len(faces)} faces of {faces.shape[2]} x {faces.shape[1]}: give one "
            "mask for all or one for each, of the size of the faces"
        )
    frames, weights = (ImageBuffer(len(faces), shape, folder) for shape in ((height, width, 3), (height, width)))
    for block in blocks(len(faces), chunk_of(width, height)):
        found = 2 * rearrange(faces[block].float().cpu(), "n h w c -> n c h w") - 1
        given = masks if masks is None or len(masks) == 1 else masks[block]
        joined, weight = compose_frames(model, plan, found, block.start, given, feather)
        for image, mask in zip((joined + 1) / 2, weight[:, 0], strict=True):
            frames.add(rearrange(image, "c h w -> h w c").clamp(0, 1))
            weights.add(mask)
        if progress is not None:
            progress(block.stop, len(faces))
    return frames.tensor(), weights.tensor()


def chunk_of(width: int, height: int) -> int:
    """How many frames of a size are composed at a time."""
    return max(1, min(CHUNK, MOST_PIXELS // (width * height)))


@torch.no_grad()
def compose_frames(
    model: PortraitModel,
    plan: Composition,
    faces: Tensor,
    first: int,
    masks: Tensor | None = None,
    feather: float = FEATHER,
) -> tuple[Tensor, Tensor]:
    """Some faces of a clip, n 3 H W in [-1, 1] from its frame `first` on -> frames n 3 h w in [-1, 1] at the portrait's size and the
    masks in them, n 1 h w. masks: n (or 1) H W, see `compose_clip`."""
    warped, placement, points = plan.frames(list(range(first, first + len(faces))))
    if masks is None:
        weight = _mask(model, plan, warped, placement, faces, points)
    else:
        weight = masks[:, None].float().cpu()
    border = border_mask(faces.shape[3], faces.shape[2], feather)
    return compose(warped, faces, weight.expand(len(faces), -1, -1, -1) * border, placement)


def portrait_of_size(portrait: Tensor, aspect: tuple[int, int], width: int, height: int) -> Tensor:
    """A portrait 3 h w in [-1, 1] as large as composed frames shall be: cut to the aspect (width, height), then resized to width x
    height; 0 x 0: at its own resolution, no larger than MOST_SIDE and with even sides."""
    _, _, wide, high = centre_crop(portrait.shape[-1], portrait.shape[-2], *aspect)
    if not width and not height:
        shrink = min(1.0, MOST_SIDE / max(wide, high))
        width, height = (max(2, 2 * round(shrink * side / 2)) for side in (wide, high))
    return fit_portrait(portrait, width or aspect[0], height or aspect[1])


def _mask(
    model: PortraitModel, plan: Composition, warped: Tensor, placement: FacePlacement, faces: Tensor, points: Tensor
) -> Tensor:
    """n 1 H W: of the model's own network for its own crops, else an ellipse around the face."""
    network = model.networks.face_mask
    if network is not None and plan.crops:
        like = model.like(network)
        return network(crop_faces_upright(warped, placement).to(like), faces.to(like)).float().cpu()
    return face_ellipse(placement.points(points.double().numpy()), placement.width, placement.height)


def face_ellipse(points: np.ndarray, width: int, height: int) -> Tensor:
    """1 in the middle of the face, falling to 0 outside of it: head keypoints n 8 2 in pixels -> n 1 height width."""
    cameras = fit_affine_camera(points[:, RIGID], RIGID_3D, DEPTH_RIDGE)  # n 4 2
    sizes = np.linalg.svd(cameras[:, :3], compute_uv=False).mean(1)
    centres = torch.from_numpy(np.array([*FACE_CENTRE, 1.0]) @ cameras)  # n 2
    down = cameras[:, 1] / np.linalg.norm(cameras[:, 1], axis=1, keepdims=True)
    axes = torch.from_numpy(np.stack([np.stack([down[:, 1], -down[:, 0]], 1), down], 1))  # n 2 2, right and down
    lines = [torch.arange(count, dtype=torch.float64) + 0.5 for count in (height, width)]
    pixels = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)  # H W 2
    local = torch.einsum("nhwc,nac->nhwa", pixels - centres[:, None, None], axes)
    radius = (local / (torch.from_numpy(sizes)[:, None, None, None] * torch.tensor(FACE_RADII))).norm(dim=-1)
    inside = ((1 - radius) / 0.25).clamp(0, 1)
    return (inside * inside * (3 - 2 * inside)).float()[:, None]
