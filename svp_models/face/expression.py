"""Expression and pose of a tracked face in photographs: the Deep3DFaceRecon network on crops aligned on five points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from ..errors import PortraitError
from ..io.progress import Progress
from ..media.frame_stream import Frames
from .affine import fit_affine_camera, warp_square
from .detection import FaceTrack, frame_ranges
from .head_pose import FIVE_POINTS_3D

CROP_SIZE = 224  # pixels
CROP_SCALE = 102.0  # pixels per decimetre of the standard face in a crop
BATCH_SIZE = 16  # crops per call
EXPRESSION_SIZE, POSE_SIZE = 64, 3


def deep3d_alignment(five_points: np.ndarray) -> np.ndarray:
    """Eyes, nose tip, mouth corners in pixels (5 2) -> the map 2 3 of the image onto the crop of the network.

    The standard face seen by an affine camera is fitted to the points; its origin is mapped to the centre of the crop and its
    scale to 102 pixels per decimetre. The crop is not rotated: the network predicts the rotation.
    """
    camera = fit_affine_camera(np.asarray(five_points, np.float64) * (1, -1), FIVE_POINTS_3D)  # 4 2
    scale = float(np.linalg.norm(camera[:3], axis=0).mean())
    if not np.isfinite(scale) or scale <= 1e-6 or not np.isfinite(camera).all():
        raise PortraitError("the five points of a face lie on one spot or are not numbers: choose another image")
    factor = CROP_SCALE / scale
    centre = camera[3] * (1, -1)
    return np.column_stack([np.eye(2) * factor, CROP_SIZE / 2 - centre * factor])


@torch.no_grad()
def predict_expression(
    network: nn.Module, frames: Frames, track: FaceTrack, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(expression n 64, pose n 3: yaw, pitch, roll in degrees) of a track in frames n h w 3, uint8; float32.

    Frames without the face are zeros. network: `Deep3DNetwork`. progress(frames done, frames in all) counts the frames with
    the face.
    """
    shown = np.flatnonzero(track.present)
    expression = np.zeros((len(track), EXPRESSION_SIZE), np.float32)
    pose = np.zeros((len(track), POSE_SIZE), np.float32)
    like = next(network.parameters())
    done = 0
    for crops in _batches(frames, track):
        rows = shown[done : done + len(crops)]
        images = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).to(like) / 255  # b 3 224 224
        coefficients = network(images)
        expression[rows] = coefficients["expression"].float().cpu().numpy()
        pose[rows] = pose_from_angles(coefficients["angle"].float().cpu().numpy())
        done += len(crops)
        if progress is not None:
            progress(done, len(shown))
    bad = np.flatnonzero(~np.isfinite(expression).all(axis=1)).tolist()
    if bad:
        raise PortraitError(f"the expression of frames {frame_ranges(bad)} is not finite: the weights are damaged")
    return expression, pose


def _batches(frames: Frames, track: FaceTrack) -> Iterator[list[np.ndarray]]:
    """Crops of the face, 224 224 3, BATCH_SIZE at a time, of the frames that show it."""
    crops: list[np.ndarray] = []
    count = 0
    for count, frame in enumerate(frames, start=1):
        if count <= len(track) and track.present[count - 1]:
            crops.append(warp_square(frame, deep3d_alignment(track.five_points[count - 1]), CROP_SIZE))
        if len(crops) == BATCH_SIZE:
            yield crops
            crops = []
    if count != len(track):
        raise PortraitError(f"{count} frames and a track of {len(track)} frames: analyse the same frames again")
    if crops:
        yield crops


def pose_from_angles(angles: np.ndarray) -> np.ndarray:
    """The predicted angles about x, y, z in radians (n 3) -> yaw, pitch, roll in degrees (n 3), float32.

    The network rotates the face by Rz Ry Rx with z counterclockwise, where roll is positive clockwise.
    """
    return np.degrees(np.stack([angles[:, 1], angles[:, 0], -angles[:, 2]], axis=1)).astype(np.float32)
