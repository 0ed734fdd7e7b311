"""Turn of a head from the places of a few points: yaw, pitch and roll in degrees.

Positive: nose to the image's right, nose down, head tilted clockwise in the image. Space is x right, y up, z towards the
viewer; R = Rz(-roll) Ry(yaw) Rx(pitch) turns the frontal head.

A head of average proportions, in half widths of the face: x to the right, y down, z towards the camera.

The mean head: where the 8 head keypoints, eyes, nose and mouth lie, and their fit to what a detector found.

Left is the image's left, as everywhere. `five points`: eye centres left and right, nose tip, mouth corners left and right.
"""

from __future__ import annotations

import numpy as np

from ..errors import PortraitError
from .crop import fit_similarity, move

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


Point = tuple[float, float, float]


def _both_sides(*points: Point) -> tuple[Point, ...]:
    """Points of the image-right half and the middle, and those of the other half."""
    return tuple((side * x, y, z) for x, y, z in points for side in ((-1, 1) if x else (1,)))


RIGID = (0, 1, 2, 3, 6, 7)  # of the 8 head keypoints: the pupils move with a glance too
KEYPOINTS: tuple[Point, ...] = (  # those
    (-1, -0.11, -0.12),
    (-0.905, 0.555, 0.02),
    (1, -0.11, -0.12),
    (0.905, 0.555, 0.02),
    (0, -0.06, 0.5),
    (0, 0.4, 0.8),
)
CROWN = _both_sides(
    (0, -1.22, -0.17), (0.5, -1.12, -0.17), (0.8, -0.88, -0.16), (0.93, -0.62, -0.15), (0.985, -0.36, -0.14)
)
HAIR = tuple((1.15 * x, 1.15 * y, z - 0.2) for x, y, z in CROWN)
FACE = _both_sides((0, 1.2, 0.27), (0.665, 0.935, 0.15), (0, -0.65, 0.39), (0.43, -0.35, 0.38), (0.428, -0.04, 0.4))


# Places of the mesh indices 127, 132, 168, 4, 61 and the middle of the eye corners 33 and 133 in MediaPipe's canonical face
# (canonical_face_model.obj), rounded to 0.01 cm: x right, y up, z towards the viewer. That face is symmetric.
EDGE_UPPER, EDGE_LOWER = (7.74, 2.36, -2.01), (7.27, -2.89, -2.25)
EYE, MOUTH_CORNER = (3.15, 2.62, 3.47), (2.46, -4.34, 4.28)
BRIDGE_TOP, BRIDGE_BOTTOM = (0.0, 3.27, 5.79), (0.0, -0.46, 7.59)
# cm from the eyes: a portrait's. The edges lie 5.5 cm behind the eyes and look 8 % nearer together.
CAMERA_DISTANCE = 60.0


def _mirrored(place: tuple[float, float, float]) -> tuple[float, float, float]:
    return (-place[0], place[1], place[2])


# 10 3 cm: the 8 head keypoints, then both mouth corners
TEMPLATE_3D = np.array(
    [
        _mirrored(EDGE_UPPER),
        _mirrored(EDGE_LOWER),
        EDGE_UPPER,
        EDGE_LOWER,
        _mirrored(EYE),
        EYE,
        BRIDGE_TOP,
        BRIDGE_BOTTOM,
        _mirrored(MOUTH_CORNER),
        MOUTH_CORNER,
    ]
)
_NEARNESS = CAMERA_DISTANCE / (CAMERA_DISTANCE + EYE[2] - TEMPLATE_3D[:, 2:])
# 10 2: the same from the front, y down, the eyes' middle at (0, 0) and 1 apart
TEMPLATE = (TEMPLATE_3D[:, :2] - (0, EYE[1])) * _NEARNESS * (1, -1) / (2 * EYE[0])
PUPILS = (4, 5)
FIVE_OF_TEMPLATE = (4, 5, 7, 8, 9)
# Share of the way from the eyes' to the mouth corners' height at which the two edge points of a side lie
UPPER_SHARE, LOWER_SHARE = (float(each) for each in TEMPLATE[:2, 1] / TEMPLATE[8, 1])

# Of a box by OpenCV's frontal face cascade, as fractions of its side: the middle of the pupils and their distance.
BOX_EYES, BOX_EYE_DISTANCE = (0.5, 0.39), 0.355

# 478-point mesh -> the 68 points of the iBUG markup, and the five points
MESH_68 = (
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 6, 195, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
MESH_FIVE = (468, 473, 4, 61, 291)


def template_on_pupils(pupils: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A frontal head on two pupils (left, right: 2 2 pixels) -> head keypoints 8 2 and five points 5 2, pixels."""
    points = move(TEMPLATE, fit_similarity(TEMPLATE[list(PUPILS)], pupils))
    return points[:8], points[list(FIVE_OF_TEMPLATE)]


def pupils_of_box(box: np.ndarray) -> np.ndarray:
    """Where the pupils of an upright frontal face lie in a cascade's box (left, top, right, bottom) -> 2 2 pixels."""
    left, top, right, bottom = (float(each) for each in box)
    middle = np.array([left + BOX_EYES[0] * (right - left), top + BOX_EYES[1] * (bottom - top)])
    half = np.array([BOX_EYE_DISTANCE * (right - left) / 2, 0.0])
    return np.stack([middle - half, middle + half])


def five_points_from_68(landmarks: np.ndarray) -> np.ndarray:
    """... 68 2 (iBUG markup) -> ... 5 2: the means of the eyes' six points, nose tip, mouth corners."""
    eyes = [landmarks[..., start : start + 6, :].mean(axis=-2, keepdims=True) for start in (36, 42)]
    return np.concatenate([*eyes, landmarks[..., (30, 48, 54), :]], axis=-2)


def face_edges(left: np.ndarray, right: np.ndarray, five_points: np.ndarray) -> np.ndarray:
    """Left upper, left lower, right upper and right lower edge of a face -> 4 2 pixels.

    left, right: the two sides of its outline from ear to chin, k 2 each, in any order. The edge points are where a side
    crosses the heights that the template gives them, measured along the face's own upright axis between eyes and mouth
    corners; above the side's end they are that end.
    """
    middle = five_points[:2].mean(axis=0)
    across = five_points[1] - five_points[0]
    width = float(np.linalg.norm(across))
    if width <= 1e-6:
        raise PortraitError("both eyes of a face lie on one spot: choose another picture")
    axes = np.stack([across, (-across[1], across[0])]) / width  # right and down in the face
    mouth = float(((five_points[3:].mean(axis=0) - middle) @ axes.T)[1])
    edges = []
    for side in (left, right):
        local = (side - middle) @ axes.T  # k 2
        ordered = local[np.argsort(local[:, 1])]
        for share in (UPPER_SHARE, LOWER_SHARE):
            height = np.clip(share * mouth, ordered[0, 1], ordered[-1, 1])
            edges.append((np.interp(height, ordered[:, 1], ordered[:, 0]), height))
    return np.array(edges) @ axes + middle
