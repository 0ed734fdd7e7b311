"""Expression and pose of a tracked face in photographs, by Deep3DFaceRecon's network on crops aligned on five points."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from ..errors import PortraitError
from ..media.frame_stream import Frames
from .crop import crop
from .detection import FaceTrack
from .head_pose import FIVE_POINTS_3D, affine_camera
from .keypoints import frame_ranges

SIDE = 224  # pixels of a crop
RESCALE = 102.0  # pixels per decimetre of the standard face in a crop
BATCH = 16  # crops a call
EXPRESSION, POSE = 64, 3


def recon_alignment(five_points: np.ndarray) -> np.ndarray:
    """Eyes, nose tip, mouth corners in pixels (5 2) -> the map 2 3 of the picture onto the network's crop.

    The standard face seen by an affine camera is fitted to the points; its origin comes to the crop's middle and its scale
    to 102 pixels per decimetre. Nothing is turned: the network tells the turn.
    """
    linear, shift, scale = affine_camera(np.asarray(five_points, np.float64) * (1, -1), FIVE_POINTS_3D)
    if not np.isfinite(scale) or scale <= 1e-6 or not np.isfinite(linear).all():
        raise PortraitError("the five points of a face lie on one spot or are not numbers: choose another picture")
    factor = RESCALE / scale
    centre = shift * (1, -1)
    return np.column_stack([np.eye(2) * factor, SIDE / 2 - centre * factor])


@torch.no_grad()
def read_faces(
    network: nn.Module, frames: Frames, track: FaceTrack, progress: Callable[[int, int], None] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(expression n 64, pose n 3: yaw, pitch, roll in degrees) of a track in frames n h w 3, uint8; float32.

    Frames without the face have zeros. network: `Deep3DNetwork`. progress(frames done, frames in all), the frames with
    the face.
    """
    shown = np.flatnonzero(track.present)
    expression = np.zeros((len(track), EXPRESSION), np.float32)
    pose = np.zeros((len(track), POSE), np.float32)
    like = next(network.parameters())
    done = 0
    for part in _crops(frames, track):
        rows = shown[done : done + len(part)]
        images = torch.from_numpy(np.stack(part)).permute(0, 3, 1, 2).to(like) / 255  # b 3 224 224
        coefficients = network(images)
        expression[rows] = coefficients["expression"].float().cpu().numpy()
        pose[rows] = pose_of_angles(coefficients["angle"].float().cpu().numpy())
        done += len(part)
        if progress is not None:
            progress(done, len(shown))
    bad = np.flatnonzero(~np.isfinite(expression).all(axis=1)).tolist()
    if bad:
        raise PortraitError(f"the expression of frames {frame_ranges(bad)} is not finite: the weights are damaged")
    return expression, pose


def _crops(frames: Frames, track: FaceTrack) -> Iterator[list[np.ndarray]]:
    """Crops of the face, 224 224 3 each, BATCH at a time, of the frames that show it."""
    part: list[np.ndarray] = []
    count = 0
    for count, frame in enumerate(frames, start=1):
        if count <= len(track) and track.present[count - 1]:
            part.append(crop(frame, recon_alignment(track.five_points[count - 1]), SIDE))
        if len(part) == BATCH:
            yield part
            part = []
    if count != len(track):
        raise PortraitError(f"{count} frames and a track of {len(track)} frames: analyse the same frames again")
    if part:
        yield part


def pose_of_angles(angles: np.ndarray) -> np.ndarray:
    """The network's angles about x, y, z in radians (n 3) -> yaw, pitch, roll in degrees (n 3), float32.

    The network turns the face by Rz Ry Rx with z counterclockwise, where roll is positive clockwise.
    """
    return np.degrees(np.stack([angles[:, 1], angles[:, 0], -angles[:, 2]], axis=1)).astype(np.float32)
