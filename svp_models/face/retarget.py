"""Carrying the head motion of one face over to another face and picture: geometry of the 8 points alone."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import PortraitError
from ..values import HeadMotion
from .vexpress_keypoints import carry_over

OF_VEXPRESS = {"vexpress offset": True, "vexpress naive": False}  # mode -> `offset` of carry_over
RETARGET_MODES = ("fix", "offset", "rescale", *OF_VEXPRESS)


def retarget(motion: HeadMotion, portrait: HeadMotion, mode: str) -> HeadMotion:
    """The driving motion in the portrait's pixel frame, at the motion's frame rate.

    portrait: the portrait's own points, one frame. mode:
    `fix`: the portrait's points in every frame: the head keeps still.
    `offset`: the portrait's points plus the driving points' movement since their first frame, scaled by the ratio of
        the face sizes in that frame. Frame 0 equals the portrait; its proportions are kept.
    `rescale`: the driving points themselves, moved and scaled as one so that size and centre fit the portrait's in the
        driving frame whose pose is nearest to the portrait's. The driving proportions and poses are kept.
    `vexpress offset`, `vexpress naive`: V-Express' two ways, see `carry_over`: eyes and nose come out as V-Express has
        them, and the other five points move with them. Its third, fix_face, is `fix`.
    """
    if mode not in RETARGET_MODES:
        raise PortraitError(f"the retargeting mode is {mode!r}: it must be one of {', '.join(RETARGET_MODES)}")
    if len(portrait) != 1:
        raise PortraitError(f"the portrait's keypoints have {len(portrait)} frames: they must be of one picture")
    if len(motion) == 0:
        raise PortraitError("the head motion has 0 frames: extract it from a clip that shows a face")
    target, driving = portrait.keypoints[0].double(), motion.keypoints.double()  # 8 2, n 8 2
    if mode == "fix":
        points = target.expand(len(motion), -1, -1)
    elif mode == "offset":
        points = target + (driving - driving[0]) * (face_size(target) / face_size(driving[0]))
    elif mode in OF_VEXPRESS:
        points = carry_over(target, driving, OF_VEXPRESS[mode])
    else:
        anchor = driving[nearest_pose(driving, target)]  # 8 2
        ratio = face_size(target) / face_size(anchor)
        points = face_centre(target) + (driving - face_centre(anchor)) * ratio
    own = portrait.keypoints[0]
    return HeadMotion(points.float(), portrait.width, portrait.height, motion.fps, motion.interpolated, own)  # n 8 2


def face_centre(points: Tensor) -> Tensor:
    """The mean of the points: ... 8 2 -> ... 1 2, pixels."""
    return points.mean(dim=-2, keepdim=True)


def face_size(points: Tensor) -> Tensor:
    """Root mean square distance of the points from their centre: ... 8 2 -> ... 1 1, pixels."""
    size = (points - face_centre(points)).square().sum(dim=-1).mean(dim=-1).sqrt()[..., None, None]
    if bool((size <= 1e-6).any()) or not bool(torch.isfinite(size).all()):
        raise PortraitError("the keypoints of a face lie on one spot or are not numbers: extract or type them again")
    return size


def nearest_pose(driving: Tensor, target: Tensor) -> int:
    """The frame of driving (n 8 2) whose shape is nearest to target (8 2) once centre and size are taken away."""
    shapes = (driving - face_centre(driving)) / face_size(driving)
    shape = (target - face_centre(target)) / face_size(target)
    return int((shapes - shape).square().sum(dim=(1, 2)).argmin())
