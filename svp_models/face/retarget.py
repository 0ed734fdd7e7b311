"""Transfer of the head motion of one face to another face and image: geometry of the keypoints alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import PortraitError
from ..io.resampling import frame_centre_positions, interpolate_rows
from ..types import HeadMotion
from .keypoints import VEXPRESS_POINTS

VEXPRESS_RETARGET_MODES = ("fix_face", "offset", "naive")
VEXPRESS_OFFSET = {"vexpress offset": True, "vexpress naive": False}  # mode -> `offset` of `vexpress_transfer`
RETARGET_MODES = ("fix", "offset", "rescale", *VEXPRESS_OFFSET)
TINY = 1e-6  # pixels


def retarget(motion: HeadMotion, portrait: HeadMotion, mode: str) -> HeadMotion:
    """The driving motion in pixels of the portrait, at the frame rate of the motion.

    portrait: the points of the portrait, one frame. mode:
    `fix`: the portrait's points in every frame: the head keeps still.
    `offset`: the portrait's points plus the driving points' movement since their first frame, scaled by the ratio of
        the face sizes in that frame. Frame 0 equals the portrait; its proportions stay.
    `rescale`: the driving points themselves, moved and scaled as one so that size and centre fit the portrait's in the
        driving frame whose pose is nearest to the portrait's. The proportions and poses of the driver stay.
    `vexpress offset`, `vexpress naive`: the two modes of V-Express, see `vexpress_transfer`: eyes and nose are those of
        V-Express, and the other five points move with them. Its third mode, fix_face, is `fix`.
    """
    if mode not in RETARGET_MODES:
        raise PortraitError(f"the retargeting mode is {mode!r}: it must be one of {', '.join(RETARGET_MODES)}")
    if len(portrait) != 1:
        raise PortraitError(f"the portrait's keypoints have {len(portrait)} frames: they must be of one image")
    if len(motion) == 0:
        raise PortraitError("the head motion has 0 frames: extract it from a clip that shows a face")
    target, driving = portrait.keypoints[0].double(), motion.keypoints.double()  # 8 2, n 8 2
    if mode == "fix":
        points = target.expand(len(motion), -1, -1)
    elif mode == "offset":
        points = target + (driving - driving[0]) * (keypoints_size(target) / keypoints_size(driving[0]))
    elif mode in VEXPRESS_OFFSET:
        points = vexpress_transfer(target, driving, VEXPRESS_OFFSET[mode])
    else:
        anchor = driving[nearest_pose(driving, target)]  # 8 2
        ratio = keypoints_size(target) / keypoints_size(anchor)
        points = keypoints_centre(target) + (driving - keypoints_centre(anchor)) * ratio
    return HeadMotion(  # n 8 2
        points.float(), portrait.width, portrait.height, motion.fps, motion.interpolated, portrait.keypoints[0]
    )


def keypoints_centre(points: Tensor) -> Tensor:
    """The mean of the points: ... 8 2 -> ... 1 2, pixels."""
    return points.mean(dim=-2, keepdim=True)


def keypoints_size(points: Tensor) -> Tensor:
    """Root mean square distance of the points from their centre: ... 8 2 -> ... 1 1, pixels."""
    size = (points - keypoints_centre(points)).square().sum(dim=-1).mean(dim=-1).sqrt()[..., None, None]
    if bool((size <= 1e-6).any()) or not bool(torch.isfinite(size).all()):
        raise PortraitError("the keypoints of a face lie on one spot or are not numbers: extract or type them again")
    return size


def nearest_pose(driving: Tensor, target: Tensor) -> int:
    """The frame of driving (n 8 2) whose shape is nearest to target (8 2) after normalising centre and size."""
    shapes = (driving - keypoints_centre(driving)) / keypoints_size(driving)
    shape = (target - keypoints_centre(target)) / keypoints_size(target)
    return int((shapes - shape).square().sum(dim=(1, 2)).argmin())


def resize_keypoints(keypoints: Tensor, frames: int) -> Tensor:
    """The motion stretched or squeezed to `frames` frames: n 3 2 -> frames 3 2, linear between the centres of frames."""
    if frames < 1 or len(keypoints) < 1:
        raise PortraitError(f"{len(keypoints)} frames of keypoints to be made {frames}: both must be at least 1")
    positions = frame_centre_positions(frames, len(keypoints) / frames, len(keypoints))
    return interpolate_rows(keypoints.float(), positions)


def retarget_vexpress(reference: Tensor, driving: Tensor, mode: str, anchor: int | None = None) -> Tensor:
    """Driving points n 3 2 transferred to the face of the reference (3 2): n 3 2 float32, pixels of the reference.

    `fix_face`: the reference's points in every frame; `offset`, `naive` and `anchor`: see `vexpress_transfer`.
    """
    if mode not in VEXPRESS_RETARGET_MODES:
        raise PortraitError(f"the retargeting mode is {mode!r}: it must be one of {', '.join(VEXPRESS_RETARGET_MODES)}")
    if reference.shape != (3, 2) or driving.shape[1:] != (3, 2) or len(driving) == 0:
        raise PortraitError(
            f"the points have the shapes {tuple(reference.shape)} and {tuple(driving.shape)}: 3 x 2 of the portrait and "
            "frames x 3 x 2 of the driving clip are needed"
        )
    if mode == "fix_face":
        return reference.float().expand(len(driving), -1, -1)
    return vexpress_transfer(reference.double(), driving.double(), mode == "offset", (0, 1, 2), anchor).float()


def vexpress_transfer(
    reference: Tensor, driving: Tensor, offset: bool, three: Sequence[int] = VEXPRESS_POINTS, anchor: int | None = None
) -> Tensor:
    """Driving points n k 2 transferred to the face of the reference (k 2) as in V-Express: n k 2, pixels of the reference.

    three: the indices of left eye, right eye and nose; they alone decide how all points are moved. The driving points
    are scaled, horizontally by the distance of the eyes and vertically by the distance of the nose from the line of the eyes,
    so that they fit the reference in frame `anchor` (None: the frame whose head turn is nearest to that of the reference,
    `nearest_head_turn`). With `offset` the result is the points of the reference, moved by half of the movement of the scaled
    nose since the first frame, in the opposite direction (sic); without, the scaled points, shifted so that the nose of the
    first frame is that of the reference.
    """
    three = list(three)
    target, points = reference[three], driving[:, three]
    anchor = nearest_head_turn(points, target) if anchor is None else anchor
    scaled = driving * (_extent(target) / _extent(points[anchor]))  # n k 2
    nose = scaled[:, three[2], None]  # n 1 2
    return reference - (nose - nose[:1]) / 2 if offset else scaled - (nose[:1] - target[2])


def head_turn(points: Tensor) -> Tensor:
    """The turn of a head: distance of the nose from the left eye over that from the right eye, ... 3 2 -> ..."""
    left, right = (points[..., eye, :] - points[..., 2, :] for eye in (0, 1))
    return left.norm(dim=-1) / (right.norm(dim=-1) + TINY)


def nearest_head_turn(driving: Tensor, reference: Tensor) -> int:
    """The frame of driving (n 3 2) whose head turn is nearest to that of reference (3 2)."""
    return int((head_turn(driving) - head_turn(reference)).abs().argmin())


def _extent(points: Tensor) -> Tensor:
    """Distance of the eyes, and of the nose from the line between them (no further than its ends): 3 2 -> 2, pixels."""
    line, nose = points[1] - points[0], points[2] - points[0]
    eyes = line.norm()
    along = ((nose @ line) / eyes.square().clamp(min=TINY)).clamp(0, 1)
    extent = torch.stack([eyes, (nose - along * line).norm()])
    if not bool((extent > TINY).all()):
        raise PortraitError(
            "the eyes and the nose of a face lie on one line or are not numbers: extract or type them again"
        )
    return extent
