"""Turn of a head from the places of a few points: yaw, pitch and roll in degrees.

Positive: nose to the image's right, nose down, head tilted clockwise in the image. Space is x right, y up, z towards the
viewer; R = Rz(-roll) Ry(yaw) Rx(pitch) turns the frontal head.
"""

from __future__ import annotations

import numpy as np

# Mean places of eye centres (left, right), nose tip and mouth corners (left, right) on the Basel face, in decimetres: the
# standard landmarks (BFM/similarity_Lm3D_all.mat) that Deep3DFaceRecon_pytorch aligns pictures to; left is the image's.
FIVE_POINTS_3D = np.array(
    [
        [-0.31149, 0.29036, 0.13378],
        [0.30980, 0.28972, 0.13180],
        [0.00325, -0.04618, 0.55244],
        [-0.25217, -0.38134, 0.22406],
        [0.24847, -0.38128, 0.22236],
    ]
)


def pose_of_rotation(rotation: np.ndarray) -> np.ndarray:
    """A rotation 3 3 -> yaw, pitch, roll in degrees, float32."""
    yaw = np.arcsin(np.clip(-rotation[2, 0], -1, 1))
    pitch = np.arctan2(rotation[2, 1], rotation[2, 2])
    roll = -np.arctan2(rotation[1, 0], rotation[0, 0])
    return np.degrees([yaw, pitch, roll]).astype(np.float32)


def rotation_between(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation 3 3 that turns source nearest to target after shift and scale (Kabsch): k 3 both, k > 2."""
    a, b = source - source.mean(axis=0), target - target.mean(axis=0)
    u, _, v = np.linalg.svd(b.T @ a)
    return u @ np.diag([1, 1, np.linalg.det(u @ v)]) @ v


def affine_camera(points: np.ndarray, model: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """The scaled orthographic view of a model (k 3, k > 3, not in one plane) that shows points (k 2, y up).

    Least squares with 8 free numbers: linear part 2 3, shift 2 and the scale, its rows' mean length.
    """
    solved = np.linalg.lstsq(np.column_stack([model, np.ones(len(model))]), points, rcond=None)[0]  # 4 2
    linear, shift = solved[:3].T, solved[3]
    return linear, shift, float(np.linalg.norm(linear, axis=1).mean())


def pose_from_five_points(points: np.ndarray) -> np.ndarray:
    """Pose from eye centres, nose tip and mouth corners in pixels (5 2, y down) -> 3, float32."""
    linear, _, _ = affine_camera(np.asarray(points, np.float64) * (1, -1), FIVE_POINTS_3D)
    u, _, v = np.linalg.svd(linear, full_matrices=False)  # the nearest two orthonormal rows
    rows = u @ v
    return pose_of_rotation(np.vstack([rows, np.cross(rows[0], rows[1])]))
