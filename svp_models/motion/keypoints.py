"""LivePortrait's key points: from pose, expression and scale to points, and from a driving motion to a portrait's own.

Points are x, y, z in [-1, 1] of the picture, right, down, in. Source: Guo et al. 2024, eq. 2, 5 and 6 and algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import PortraitError
from ..networks.liveportrait.stitching import KeypointMLP
from ..optional_deps import transform
from ..types import LIVEPORTRAIT, Motion

DEGREES_PER_BIN = 3.0
FIRST_BIN = -97.5  # degrees
SIDE = 2.0  # of the picture, in units of the points
# Rows of `exp` that move a part of the face, of the 21 published points.
LIPS = (6, 12, 14, 17, 19, 20)
EYES = (11, 13, 15, 16, 18)
ALL, EXPRESSION, POSE = "all", "expression", "pose"
# What of a face is driven -> the rows of its `exp` that are, None for all of them. 'all' and 'pose' drive rotation, scale and t.
REGIONS: dict[str, tuple[int, ...] | None] = {ALL: None, EXPRESSION: None, POSE: (), "lips": LIPS, "eyes": EYES}


@dataclass(frozen=True)
class KeypointMotion:
    """A motion in LivePortrait's space, n frames; n = 1 is a still picture.

    pitch, yaw, roll: n, degrees about x, y and z; t: n 3, shift (z is not used); scale: n; exp: n k 3, deformation of the
    points; kp: n k 3, the points of the face at rest, None where a generator knows no face.
    """

    pitch: Tensor
    yaw: Tensor
    roll: Tensor
    t: Tensor
    scale: Tensor
    exp: Tensor
    kp: Tensor | None = None

    def __len__(self) -> int:
        return len(self.scale)

    @property
    def rotation(self) -> Tensor:
        """n 3 3"""
        return rotation_matrices(self.pitch, self.yaw, self.roll)


def motion_from_network(outputs: dict[str, Tensor]) -> KeypointMotion:
    """What the motion extractor's outputs mean; n frames."""
    return KeypointMotion(
        pitch=degrees_from_bins(outputs["pitch"]),
        yaw=degrees_from_bins(outputs["yaw"]),
        roll=degrees_from_bins(outputs["roll"]),
        t=outputs["t"],
        scale=outputs["scale"].flatten(),
        exp=outputs["exp"].unflatten(1, (-1, 3)),
        kp=outputs["kp"].unflatten(1, (-1, 3)),
    )


def motion_of_keypoints(keypoint_motion: KeypointMotion, fps: float) -> Motion:
    """The same as it travels between nodes, without t's z, which is not used. LivePortrait's yaw turns the nose to the left."""
    parts = {
        name: getattr(keypoint_motion, name).detach().cpu().float() for name in ("pitch", "yaw", "roll", "t", "scale")
    }
    face = None if keypoint_motion.kp is None else keypoint_motion.kp[0].detach().cpu().float()
    return Motion(
        angles=torch.stack([-parts["yaw"].flatten(), parts["pitch"].flatten(), parts["roll"].flatten()], dim=1),
        shift=parts["t"][:, :2] / SIDE,
        scale=parts["scale"].flatten(),
        expression=keypoint_motion.exp.detach().cpu().float().flatten(1),
        fps=fps,
        space=LIVEPORTRAIT,
        face=face,
    )


def keypoints_of_motion(motion: Motion) -> KeypointMotion:
    """A motion of LivePortrait's space in LivePortrait's numbers; one of another space raises PortraitError."""
    if motion.space != LIVEPORTRAIT:
        raise PortraitError(
            f"the motion is in the space {motion.space}, LivePortrait needs one of its own: extract it with Load "
            "LivePortrait connected, or generate it with JoyVASA or KDTalker (svp download joyvasa)"
        )
    yaw, pitch, roll = motion.angles.unbind(1)
    face = None if motion.face is None else motion.face.expand(len(motion), -1, -1)
    exp = motion.expression.unflatten(1, (-1, 3))
    return KeypointMotion(pitch, -yaw, roll, functional.pad(motion.shift * SIDE, (0, 1)), motion.scale, exp, face)


def degrees_from_bins(logits: Tensor) -> Tensor:
    """The mean angle of the bins: n bins -> n, degrees."""
    bins = torch.arange(logits.shape[-1], dtype=logits.dtype, device=logits.device)
    # 3 sum(i p_i) - 97.5, with the angles of the bins in the sum: so no digits are lost where an angle is small.
    return (logits.softmax(dim=-1) * (DEGREES_PER_BIN * bins + FIRST_BIN)).sum(dim=-1)


def rotation_matrices(pitch: Tensor, yaw: Tensor, roll: Tensor) -> Tensor:
    """(Rz Ry Rx)^T of angles in degrees, n each -> n 3 3; points, as rows, are multiplied with it from the left."""
    x, y, z = (torch.deg2rad(angle.flatten()) for angle in (pitch, yaw, roll))
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    about_x = torch.stack([one, zero, zero, zero, x.cos(), -x.sin(), zero, x.sin(), x.cos()], dim=-1)
    about_y = torch.stack([y.cos(), zero, y.sin(), zero, one, zero, -y.sin(), zero, y.cos()], dim=-1)
    about_z = torch.stack([z.cos(), -z.sin(), zero, z.sin(), z.cos(), zero, zero, zero, one], dim=-1)
    rx, ry, rz = (flat.unflatten(-1, (3, 3)) for flat in (about_x, about_y, about_z))
    return (rz @ ry @ rx).transpose(-1, -2)


def angles_from_rotation(rotation: Tensor) -> Tensor:
    """The angles that `rotation_matrices` makes a rotation of, as a motion has them: n 3 3 -> n 3 (yaw, pitch, roll)."""
    turned = transform.Rotation.from_matrix(rotation.double().transpose(-1, -2).numpy())
    roll, yaw, pitch = torch.from_numpy(turned.as_euler("ZYX", degrees=True)).unbind(-1)
    return torch.stack([-yaw, pitch, roll], dim=-1).to(rotation.dtype)


def transform_keypoints(kp: Tensor, rotation: Tensor, exp: Tensor, scale: Tensor, t: Tensor) -> Tensor:
    """x = s (x_c R + exp) + t without t's z (eq. 2): n k 3, n 3 3, n k 3, n, n 3 -> n k 3."""
    points = scale.view(-1, 1, 1) * (kp @ rotation + exp)
    return points + functional.pad(t[..., :2], (0, 1))[:, None]


def keypoints(motion: KeypointMotion) -> Tensor:
    """The points of a motion that has a face of its own: n k 3."""
    if motion.kp is None:
        raise PortraitError(
            "the motion has no face of its own, only movements: give the portrait whose points are moved"
        )
    return transform_keypoints(motion.kp, motion.rotation, motion.exp, motion.scale, motion.t)


def drive_relative(
    source: KeypointMotion, driving: KeypointMotion, first: KeypointMotion | None = None, region: str = ALL
) -> Tensor:
    """The source's points moved by how the driving face differs from its first frame: n k 3 (algorithm 1).

    source: one frame, or n frames of a video, of which each is moved. first: the driving motion's first frame, if `driving` is a
    later part of it. region: see REGIONS.
    """
    first = driving_frame(driving, 0) if first is None else first
    moved = _Pose(
        driving.rotation @ first.rotation.transpose(-1, -2) @ source.rotation,
        source.scale * (driving.scale / first.scale),
        source.t + (driving.t - first.t),
    )
    return _moved_keypoints(source, len(driving), moved, source.exp + (driving.exp - first.exp), region)


def drive_absolute(source: KeypointMotion, driving: KeypointMotion, region: str = ALL) -> Tensor:
    """The source's face with the driving face's own pose, expression and shift, and the source's scale: n k 3.

    source and region as for `drive_relative`.
    """
    moved = _Pose(driving.rotation, source.scale, driving.t)
    return _moved_keypoints(source, len(driving), moved, driving.exp, region)


def driving_frame(motion: KeypointMotion, index: int) -> KeypointMotion:
    """One frame of a motion."""
    kp = None if motion.kp is None else motion.kp[index % len(motion.kp)][None]
    one = slice(index, index + 1)
    return KeypointMotion(
        motion.pitch[one], motion.yaw[one], motion.roll[one], motion.t[one], motion.scale[one], motion.exp[one], kp
    )


def with_rows(motion: KeypointMotion, other: KeypointMotion, rows: Sequence[int]) -> KeypointMotion:
    """The motion with some points' deformation taken from another, frame by frame; all else stays as it is, to the bit."""
    exp = motion.exp.clone()
    exp[:, list(rows)] = other.exp[:, list(rows)].to(exp)
    return replace(motion, exp=exp)


def stitch(network: KeypointMLP, source_keypoints: Tensor, driving_keypoints: Tensor) -> Tensor:
    """The driving points, corrected so that the shoulders stay where the source has them (eq. 5): 1 or n k 3, n k 3 -> n k 3."""
    frames, points = driving_keypoints.shape[:2]
    source = source_keypoints.expand(frames, -1, -1)
    delta = network(torch.cat([source.flatten(1), driving_keypoints.flatten(1)], dim=1))
    corrections, shift = delta[:, : 3 * points], delta[:, 3 * points :]  # the shift has x and y
    return driving_keypoints + corrections.unflatten(1, (points, 3)) + functional.pad(shift, (0, 1))[:, None]


def retarget(network: KeypointMLP, source_keypoints: Tensor, ratios: Tensor) -> Tensor:
    """What to add to the points for lids or lips as open as wanted (eq. 6): 1 or n k 3, n r -> n k 3.

    ratios: how far the source's are open (two eyes, or the mouth), then the wanted one; distance of the lids or lips over
    their width.
    """
    source = source_keypoints.expand(len(ratios), -1, -1)
    return network(torch.cat([source.flatten(1), ratios], dim=1)).unflatten(1, source.shape[1:])


class _Pose(NamedTuple):
    rotation: Tensor
    scale: Tensor
    t: Tensor


def _moved_keypoints(source: KeypointMotion, frames: int, moved: _Pose, exp: Tensor, region: str) -> Tensor:
    """The source's points with the pose and expression of a driving motion in one region, and its own elsewhere."""
    if region not in REGIONS:
        raise PortraitError(f"the region is {region!r}: choose one of {', '.join(REGIONS)}")
    if source.kp is None or len(source) not in (1, frames):
        raise PortraitError(
            f"the portrait has {len(source)} frames, the motion {frames}: give one with the points of its face, or as many "
            "as the motion has"
        )
    pose = moved if region in (ALL, POSE) else _Pose(source.rotation, source.scale, source.t)
    rows = REGIONS[region]
    if rows is not None:
        mixed = source.exp.expand_as(exp).clone()
        mixed[:, list(rows)] = exp[:, list(rows)]
        exp = mixed
    return transform_keypoints(source.kp, pose.rotation, exp, pose.scale, pose.t).expand(frames, -1, -1)
