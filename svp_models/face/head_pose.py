"""The mean head and the head pose: points of an average head, their fit to what a detector found, yaw, pitch and roll.

Yaw, pitch and roll are degrees, positive: nose to the right of the image, nose down, head tilted clockwise in the image. Space is
x right, y up, z towards the viewer; R = Rz(-roll) Ry(yaw) Rx(pitch) turns the frontal head. Left is the left of the image.
"Five points" are the centres of the left and right eye, the nose tip, the left and right mouth corner.
"""

from __future__ import annotations

import numpy as np

from ..errors import PortraitError
from .affine import fit_affine_camera, fit_similarity, transform_points

# Three mean heads: the five points that Deep3DFaceRecon aligns images to; the head that portraits are warped with; and the
# template that stands in for keypoints that a detector does not know.

# Mean places of eye centres (left, right), nose tip and mouth corners (left, right) on the Basel face, in decimetres: the
# standard landmarks (BFM/similarity_Lm3D_all.mat) that Deep3DFaceRecon_pytorch aligns images to.
FIVE_POINTS_3D = np.array(
    [
        [-0.31149, 0.29036, 0.13378],
        [0.30980, 0.28972, 0.13180],
        [0.00325, -0.04618, 0.55244],
        [-0.25217, -0.38134, 0.22406],
        [0.24847, -0.38128, 0.22236],
    ]
)

Point = tuple[float, float, float]


def _both_sides(*points: Point) -> tuple[Point, ...]:
    """Points of the image-right half and the middle, and those of the other half."""
    return tuple((side * x, y, z) for x, y, z in points for side in ((-1, 1) if x else (1,)))


RIGID = (0, 1, 2, 3, 6, 7)  # of the 8 head keypoints: the pupils move with a glance too
RIGID_3D: tuple[Point, ...] = (  # in half widths of the face: x to the right, y down, z towards the camera
    (-1, -0.11, -0.12),
    (-0.905, 0.555, 0.02),
    (1, -0.11, -0.12),
    (0.905, 0.555, 0.02),
    (0, -0.06, 0.5),
    (0, 0.4, 0.8),
)
CROWN_3D = _both_sides(
    (0, -1.22, -0.17), (0.5, -1.12, -0.17), (0.8, -0.88, -0.16), (0.93, -0.62, -0.15), (0.985, -0.36, -0.14)
)
HAIR_3D = tuple((1.15 * x, 1.15 * y, z - 0.2) for x, y, z in CROWN_3D)
FACE_3D = _both_sides((0, 1.2, 0.27), (0.665, 0.935, 0.15), (0, -0.65, 0.39), (0.43, -0.35, 0.38), (0.428, -0.04, 0.4))

# The mesh indices 127, 132, 168, 4, 61 and the middle of the eye corners 33 and 133 in MediaPipe's canonical face
# (canonical_face_model.obj), rounded to 0.01 cm: x right, y up, z towards the viewer. That face is symmetric.
EDGE_UPPER, EDGE_LOWER = (7.74, 2.36, -2.01), (7.27, -2.89, -2.25)
EYE, MOUTH_CORNER = (3.15, 2.62, 3.47), (2.46, -4.34, 4.28)
BRIDGE_TOP, BRIDGE_BOTTOM = (0.0, 3.27, 5.79), (0.0, -0.46, 7.59)
# cm from the eyes, as for a portrait. The edges lie 5.5 cm behind the eyes and look 8 % nearer together.
CAMERA_DISTANCE = 60.0


def _mirrored(point: Point) -> Point:
    return (-point[0], point[1], point[2])


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
_PERSPECTIVE = CAMERA_DISTANCE / (CAMERA_DISTANCE + EYE[2] - TEMPLATE_3D[:, 2:])
# 10 2: the same from the front, y down, the centre of the eyes at (0, 0), the eyes 1 apart
TEMPLATE = (TEMPLATE_3D[:, :2] - (0, EYE[1])) * _PERSPECTIVE * (1, -1) / (2 * EYE[0])
TEMPLATE_PUPILS = (4, 5)
TEMPLATE_FIVE_POINTS = (4, 5, 7, 8, 9)
# Heights of the two edge points of a side: 0 is that of the eyes, 1 that of the mouth corners
UPPER_HEIGHT, LOWER_HEIGHT = (float(height) for height in TEMPLATE[:2, 1] / TEMPLATE[8, 1])

# Box of OpenCV's frontal face cascade, as fractions of its side: the centre of the pupils and their distance.
BOX_EYES, BOX_EYE_DISTANCE = (0.5, 0.39), 0.355


def pose_from_rotation(rotation: np.ndarray) -> np.ndarray:
    """A rotation 3 3 -> yaw, pitch, roll in degrees, float32."""
    yaw = np.arcsin(np.clip(-rotation[2, 0], -1, 1))
    pitch = np.arctan2(rotation[2, 1], rotation[2, 2])
    roll = -np.arctan2(rotation[1, 0], rotation[0, 0])
    return np.degrees([yaw, pitch, roll]).astype(np.float32)


def pose_from_five_points(points: np.ndarray) -> np.ndarray:
    """Pose from eye centres, nose tip and mouth corners in pixels (5 2, y down) -> 3, float32."""
    camera = fit_affine_camera(np.asarray(points, np.float64) * (1, -1), FIVE_POINTS_3D)  # 4 2
    u, _, v = np.linalg.svd(camera[:3].T, full_matrices=False)  # the nearest two orthonormal rows
    rows = u @ v
    return pose_from_rotation(np.vstack([rows, np.cross(rows[0], rows[1])]))


def template_on_pupils(pupils: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A frontal head on two pupils (left, right: 2 2 pixels) -> head keypoints 8 2 and five points 5 2, pixels."""
    points = transform_points(TEMPLATE, fit_similarity(TEMPLATE[list(TEMPLATE_PUPILS)], pupils))
    return points[:8], points[list(TEMPLATE_FIVE_POINTS)]


def pupils_in_box(box: np.ndarray) -> np.ndarray:
    """The expected pupils of an upright frontal face in the box of a cascade (left, top, right, bottom) -> 2 2 pixels."""
    left, top, right, bottom = (float(edge) for edge in box)
    centre = np.array([left + BOX_EYES[0] * (right - left), top + BOX_EYES[1] * (bottom - top)])
    half = np.array([BOX_EYE_DISTANCE * (right - left) / 2, 0.0])
    return np.stack([centre - half, centre + half])


def face_edges(left: np.ndarray, right: np.ndarray, five_points: np.ndarray) -> np.ndarray:
    """Left upper, left lower, right upper and right lower edge of a face -> 4 2 pixels.

    left, right: the two sides of its contour from ear to chin, k 2 each, in any order. The edge points are where a side
    crosses their heights in the template, measured along the upright axis of the face between eyes and mouth corners;
    beyond the end of the side they are that end.
    """
    centre = five_points[:2].mean(axis=0)
    across = five_points[1] - five_points[0]
    width = float(np.linalg.norm(across))
    if width <= 1e-6:
        raise PortraitError("both eyes of a face lie on one spot: choose another image")
    axes = np.stack([across, (-across[1], across[0])]) / width  # right and down in the face
    mouth = float(((five_points[3:].mean(axis=0) - centre) @ axes.T)[1])
    edges = []
    for side in (left, right):
        local = (side - centre) @ axes.T  # k 2
        ordered = local[np.argsort(local[:, 1])]
        for relative in (UPPER_HEIGHT, LOWER_HEIGHT):
            height = np.clip(relative * mouth, ordered[0, 1], ordered[-1, 1])
            edges.append((np.interp(height, ordered[:, 1], ordered[:, 0]), height))
    return np.array(edges) @ axes + centre
