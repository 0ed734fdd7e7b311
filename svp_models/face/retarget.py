"""Carrying the head motion of one face over to another face and picture: geometry of the 8 points alone.

V-Express' three keypoints (left eye, right eye, nose): their picture, their retargeting and their number of frames.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..errors import PortraitError
from ..optional_deps import cv2
from ..types import HeadMotion

POINT_COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))  # RGB
LIMBS = ((0, 2), (1, 2))  # each in the colour of its first point
LIMB_BRIGHTNESS = 0.6
LIMB_WIDTH = 4  # half axis of the ellipse, pixels at any size of the picture
POINT_RADIUS = 4
VEXPRESS_RETARGET_MODES = ("fix_face", "offset", "naive")
HEAD_POINTS = (4, 5, 7)  # of the 8 head keypoints: both pupils and the bridge's bottom, the tip of the nose
FAR = 30_000.0  # pixels; what lies further out is drawn towards there
TINY = 1e-6  # pixels


def draw_three_points(keypoints: Tensor | np.ndarray, width: int, height: int) -> np.ndarray:
    """n 3 2, in pixels of the picture -> n height width 3, uint8 RGB on black; points may lie outside.

    Every pixel is as V-Express draws it, whose guider was trained on these pictures: ellipses of whole pixels and degrees.
    """
    points = np.asarray(keypoints, dtype=np.float32)
    if points.ndim != 3 or points.shape[1:] != (3, 2):
        raise PortraitError(f"the keypoints have the shape {points.shape}: it must be frames x 3 x 2")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))
    if len(bad):
        raise PortraitError(f"the keypoints of frame {bad[0]} are not finite numbers: extract or type them again")
    return np.stack([_draw(each, width, height) for each in points.clip(-FAR, FAR)])  # n height width 3


def _draw(points: np.ndarray, width: int, height: int) -> np.ndarray:
    canvas = np.zeros((height, width, 3), np.uint8)
    for start, end in LIMBS:
        across, down = points[start] - points[end]
        length = float(np.sqrt(across**2 + down**2))
        angle = int(math.degrees(math.atan2(down, across)))
        centre = tuple(int(each) for each in points[[start, end]].mean(axis=0))
        outline = cv2.ellipse2Poly(centre, (int(length / 2), LIMB_WIDTH), angle, 0, 360, 1)
        cv2.fillConvexPoly(canvas, outline, [int(each * LIMB_BRIGHTNESS) for each in POINT_COLORS[start]])
    for point, color in zip(points, POINT_COLORS, strict=True):
        cv2.circle(canvas, (int(point[0]), int(point[1])), POINT_RADIUS, color, cv2.FILLED)
    return canvas


def draw_three_frames(motion: HeadMotion, indices: Sequence[int], width: int, height: int) -> Tensor:
    """The pictures of some frames of a head motion for V-Express' guider: f 3 height width, float32 in [0, 1]."""
    points = three_points(motion.keypoints[list(indices)]).cpu() * torch.tensor(
        [width / motion.width, height / motion.height]
    )
    return torch.from_numpy(draw_three_points(points, width, height)).permute(0, 3, 1, 2).float() / 255


def three_points(head_keypoints: Tensor) -> Tensor:
    """The three points among the 8 head keypoints: ... 8 2 -> ... 3 2."""
    return head_keypoints[..., list(HEAD_POINTS), :]


def resize_keypoints(keypoints: Tensor, frames: int) -> Tensor:
    """The motion stretched or squeezed to `frames` frames: n 3 2 -> frames 3 2, linear between the centres of frames."""
    if frames < 1 or len(keypoints) < 1:
        raise PortraitError(f"{len(keypoints)} frames of keypoints to be made {frames}: both must be at least 1")
    flat = keypoints.float().flatten(1).T[None]  # 1 6 n
    return functional.interpolate(flat, size=frames, mode="linear")[0].T.unflatten(1, keypoints.shape[1:])


def retarget_three_points(reference: Tensor, driving: Tensor, mode: str, anchor: int | None = None) -> Tensor:
    """Driving points n 3 2 carried over to the face of the reference (3 2): n 3 2 float32, pixels of the reference.

    `fix_face`: the reference's points in every frame; `offset`, `naive` and `anchor`: see `carry_over`.
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
    return carry_over(reference.double(), driving.double(), mode == "offset", (0, 1, 2), anchor).float()


def carry_over(
    reference: Tensor, driving: Tensor, offset: bool, three: Sequence[int] = HEAD_POINTS, anchor: int | None = None
) -> Tensor:
    """Any driving points n k 2 carried over to the face of the reference (k 2) as V-Express does it: n k 2, its pixels.

    three: which of the k are left eye, right eye and nose; they alone decide how all points are moved. The driving points
    are scaled, across by the distance of the eyes and down by the nose's distance from the line of the eyes, so that they
    fit the reference in frame `anchor` (None: the one in which the head is turned most like the reference's,
    `nearest_turn`). With `offset` the answer is the reference's points, moved by half of the scaled nose's way since the
    first frame, against its direction (sic); without, the scaled points, moved so that the nose of the first frame is the
    reference's.
    """
    three = list(three)
    target, points = reference[three], driving[:, three]
    anchor = nearest_turn(points, target) if anchor is None else anchor
    scaled = driving * (_extent(target) / _extent(points[anchor]))  # n k 2
    nose = scaled[:, three[2], None]  # n 1 2
    return reference - (nose - nose[:1]) / 2 if offset else scaled - (nose[:1] - target[2])


def turn(points: Tensor) -> Tensor:
    """How the head is turned: the nose's distance from the left eye over that from the right one, ... 3 2 -> ..."""
    left, right = (points[..., eye, :] - points[..., 2, :] for eye in (0, 1))
    return left.norm(dim=-1) / (right.norm(dim=-1) + TINY)


def nearest_turn(driving: Tensor, reference: Tensor) -> int:
    """The frame of driving (n 3 2) whose turn is nearest to that of reference (3 2)."""
    return int((turn(driving) - turn(reference)).abs().argmin())


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
