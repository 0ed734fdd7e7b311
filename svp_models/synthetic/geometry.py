"""The face as points in space: neutral shape of an identity, expression, blink and gaze, and the head's pose.

Face units as in `expressions.py`: 1 is half the face's width, x to the image's right, y down, z towards the viewer, the
origin between the eyes' height and the nose. Images: float pixels, (0, 0) is the top-left corner of the image (the
first pixel's centre is at (0.5, 0.5)). 'Left' is the image's left; landmark 0 is the image-left end of the jaw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..motion.coefficients import EXPRESSION_INDEX
from .expressions import GROUPS, VERTEX_COUNT, displacement_fields, mirror_index

UNIT = 0.235  # one face unit as a fraction of the image's width
CENTRE = (0.5, 0.452)  # where the origin of a face at rest lies in the image
CAMERA = 9.0  # the viewer's distance in face units: weak perspective
TURN_PIVOT = np.array([0.0, 0.80, -0.22], dtype=np.float32)  # yaw and pitch turn about the top of the neck
TILT_PIVOT = np.array([0.0, 1.35], dtype=np.float32)  # roll bends the neck
BODY_FOLLOWS = 0.22  # how much of the head's shift and roll the shoulders share

_HALF = {  # the image-right half of the neutral face; the left is its mirror image
    8: (0.0, 1.20), 9: (0.26, 1.165), 10: (0.49, 1.075), 11: (0.665, 0.935), 12: (0.805, 0.755),
    13: (0.905, 0.555), 14: (0.96, 0.345), 15: (0.99, 0.12), 16: (1.0, -0.11),
    22: (0.175, -0.375), 23: (0.335, -0.455), 24: (0.505, -0.475), 25: (0.655, -0.435), 26: (0.785, -0.335),
    27: (0.0, -0.06), 28: (0.0, 0.10), 29: (0.0, 0.25), 30: (0.0, 0.40),
    33: (0.0, 0.515), 34: (0.095, 0.50), 35: (0.185, 0.455),
    42: (0.215, -0.015), 43: (0.335, -0.15), 44: (0.51, -0.155), 45: (0.645, -0.055),
    46: (0.525, 0.055), 47: (0.345, 0.06),
    51: (0.0, 0.708), 52: (0.095, 0.682), 53: (0.235, 0.712), 54: (0.365, 0.752),
    55: (0.245, 0.862), 56: (0.11, 0.915), 57: (0.0, 0.928),
    62: (0.0, 0.787), 63: (0.165, 0.778), 64: (0.33, 0.756),
    65: (0.165, 0.784), 66: (0.0, 0.792),
}  # fmt: skip

_GROUP_HALF = {  # groups that are pairs or symmetric rows: the image-right half
    "fold_r": ((0.245, 0.44), (0.345, 0.55), (0.43, 0.66), (0.485, 0.77)),
    "frown_r": ((0.075, -0.42), (0.06, -0.30)),
    "crease_r": ((0.205, -0.11), (0.325, -0.215), (0.515, -0.225), (0.675, -0.13)),
}


@dataclass(frozen=True)
class Pose:
    """Head pose: degrees, fractions of the image's width, factor; signs as in `FaceStates.pose`."""

    yaw: float
    pitch: float
    roll: float
    shift_x: float
    shift_y: float
    scale: float

    @classmethod
    def of(cls, values: np.ndarray) -> Pose:
        return cls(*(float(value) for value in values))


def surface_depth(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """z of the face's skin without the nose: an ellipsoid."""
    inside = 1 - (x / 1.12) ** 2 - ((y - 0.02) / 1.5) ** 2
    return 0.62 * np.sqrt(np.maximum(inside, 0)) - 0.17


@lru_cache(maxsize=16)
def rotation(pose: Pose) -> np.ndarray:
    """3 x 3, read-only: yaw, then pitch, then roll. A point in front (z > 0) moves right with yaw and down with pitch."""
    yaw, pitch, roll = np.radians([pose.yaw, pose.pitch, pose.roll])
    cy, sy, cp, sp, cr, sr = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    turn = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    nod = np.array([[1, 0, 0], [0, cp, sp], [0, -sp, cp]])
    tilt = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    product = (tilt @ nod @ turn).astype(np.float32)
    product.setflags(write=False)
    return product


def project(points: np.ndarray, pose: Pose, size: int) -> np.ndarray:
    """Head points n x 3, face units -> n x 2 pixels of an image `size` wide."""
    roll = rotation(Pose(0, 0, pose.roll, 0, 0, 1))[:2, :2]
    turned = (points - TURN_PIVOT) @ rotation(Pose(pose.yaw, pose.pitch, 0, 0, 0, 1)).T + TURN_PIVOT
    flat = turned[:, :2] * (CAMERA / (CAMERA - turned[:, 2:]))
    flat = (flat - TILT_PIVOT) @ roll.T + TILT_PIVOT
    origin = np.array([CENTRE[0] + pose.shift_x, CENTRE[1] + pose.shift_y])
    return ((flat * (UNIT * pose.scale) + origin) * size).astype(np.float32)


def project_body(points: np.ndarray, pose: Pose, size: int) -> np.ndarray:
    """Body points n x 2, face units -> n x 2 pixels; the shoulders follow the head only a little."""
    roll = rotation(Pose(0, 0, pose.roll * BODY_FOLLOWS * 0.5, 0, 0, 1))[:2, :2]
    pivot = np.array([0.0, 3.0])
    flat = (points - pivot) @ roll.T + pivot
    origin = np.array([CENTRE[0] + pose.shift_x * BODY_FOLLOWS, CENTRE[1] + pose.shift_y * BODY_FOLLOWS])
    scale = 1 + (pose.scale - 1) * 0.6
    return ((flat * (UNIT * scale) + origin) * size).astype(np.float32)


class FaceGeometry:
    """Neutral points of one identity and how they move. shape: identity parameters by name, -1 .. 1.

    version: 1 a drawing's proportions, 2 a person's.
    """

    def __init__(self, shape: dict[str, float], version: int = 1) -> None:
        self.shape, self.version = shape, version
        self.neutral = _neutral(shape)  # VERTEX_COUNT x 3
        if version == 2:
            _as_in_people(self.neutral)
        self.iris_radius = (
            (0.112 if version == 1 else 0.093) * (1 + 0.10 * shape["iris_size"]) * (1 + 0.08 * shape["eye_size"])
        )
        width = self.neutral[45, 0] - self.neutral[42, 0]
        self.gaze_reach = np.array([0.5 * width - 0.45 * self.iris_radius, 0.085], dtype=np.float32)
        fields = displacement_fields().copy()
        fields[:, 48:68] *= (self.neutral[54, 0] - self.neutral[48, 0]) / 0.72  # a wide mouth moves further
        if version == 2:
            _move_as_in_people(fields)
        self.fields = fields

    def deform(self, expression: np.ndarray, blink: np.ndarray, gaze: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """expression 64, blink 2, gaze 2 -> points VERTEX_COUNT x 3 and pupils 2 x 3, face units."""
        coefficients = np.array(expression, dtype=np.float32)
        if self.version == 2:  # a jaw opens the harder the further it is open
            jaw = coefficients[EXPRESSION_INDEX["jaw_open"]]
            coefficients[EXPRESSION_INDEX["jaw_open"]] = min(jaw, 0.6 + 0.5 * (jaw - 0.6))
        points = self.neutral + np.tensordot(coefficients, self.fields, axes=1)
        _close_lips(points)
        _close_lids(points, np.clip(blink, 0, 1))
        pupils = points[GROUPS["eyes"]].copy()
        pupils[:, :2] += (
            np.clip(gaze, -1, 1).astype(np.float32) * self.gaze_reach * np.array([0.8, 1], dtype=np.float32)
        )
        return points, pupils


def _neutral(shape: dict[str, float]) -> np.ndarray:
    points = np.zeros((VERTEX_COUNT, 3), dtype=np.float32)
    for index, point in _HALF.items():
        points[index, :2] = point
    for name, rows in _GROUP_HALF.items():
        points[GROUPS[name], :2] = rows
    crown = [(0.985, -0.36), (0.93, -0.62), (0.80, -0.88), (0.50, -1.12), (0.0, -1.22)]
    points[GROUPS["forehead"], :2] = crown + [(-x, y) for x, y in crown[-2::-1]]
    points[GROUPS["eyes"], :2] = [(-0.428, -0.04), (0.428, -0.04)]
    points[GROUPS["cheeks"], :2] = [(-0.56, 0.36), (0.56, 0.36)]
    points[GROUPS["nostrils"], :2] = [(-0.085, 0.478), (0.085, 0.478)]
    points[GROUPS["bites"], :2] = [(0, 0.838), (0, 0.80)]
    points[GROUPS["tongue"], :2] = [(0, 0.90)]
    points[GROUPS["lines"], :2] = [
        (x, y - 0.02 * (1 - (x / 0.4) ** 2)) for y in (-0.72, -0.62) for x in (-0.4, -0.2, 0, 0.2, 0.4)
    ]
    _apply_shape(points, shape)
    points = _mirrored(points)
    points[:, 2] = surface_depth(points[:, 0], points[:, 1])
    _shape_depth(points)
    return points


def _mirrored(points: np.ndarray) -> np.ndarray:
    """Fill the image-left half from the right one."""
    order = mirror_index()
    reflected = points[order] * np.array([-1, 1, 1], dtype=np.float32)
    left = np.zeros(VERTEX_COUNT, dtype=bool)
    left[[*range(8), *range(17, 22), 31, 32, *range(36, 42), 48, 49, 50, 58, 59, 60, 61, 67]] = True
    for name in ("fold_l", "frown_l", "crease_l"):
        left[GROUPS[name]] = True
    for name in ("eyes", "cheeks", "nostrils"):
        left[GROUPS[name].start] = True
    return np.where(left[:, None], reflected, points)


def _apply_shape(points: np.ndarray, shape: dict[str, float]) -> None:
    """Identity parameters that move points; only the image-right half and the middle need to be right."""
    x, y = points[:, 0], points[:, 1]
    jaw = slice(8, 17)
    x[jaw] *= 1 + 0.035 * shape["face_width"]
    x[9:14] *= 1 + shape["jaw_width"] * np.array([0.02, 0.04, 0.06, 0.05, 0.025])
    y[9:14] += shape["jaw_square"] * np.array([0.0, 0.035, 0.055, 0.05, 0.025])
    x[9:11] *= 1 + shape["chin_width"] * np.array([0.14, 0.06])
    x[12:16] *= 1 + shape["cheek_width"] * np.array([0.02, 0.03, 0.03, 0.015])
    y[8:13] += 0.055 * shape["chin_length"] * np.array([1, 0.95, 0.75, 0.4, 0.12])
    forehead = GROUPS["forehead"]
    x[forehead] *= 1 + 0.03 * shape["temple_width"]
    y[forehead] += -0.05 * shape["skull_height"] * np.array([0, 0.3, 0.7, 1, 1, 1, 0.7, 0.3, 0])

    eye = [*range(42, 48), *range(GROUPS["crease_r"].start, GROUPS["crease_r"].stop), GROUPS["eyes"].start + 1]
    centre = np.array([0.428, -0.04])
    local = points[eye, :2] - centre
    local *= 1 + 0.08 * shape["eye_size"]
    local[:, 0] *= 1 + 0.06 * shape["eye_width"]
    local[:, 1] *= 1 + 0.14 * shape["eye_open"]
    local[6:10, 1] -= 0.028 * shape["lid_crease"]
    local[:, 1] -= local[:, 0] * 0.14 * shape["eye_tilt"]
    points[eye, :2] = local + centre + [0.03 * shape["eye_distance"], 0.03 * shape["eye_height"]]

    brow = slice(22, 27)
    y[brow] += -0.03 * shape["brow_height"] + 0.03 * shape["eye_height"]
    y[brow] -= 0.03 * shape["brow_arch"] * np.array([-0.6, 0.3, 1, 0.7, -0.6])
    y[brow] -= 0.035 * shape["brow_tilt"] * np.array([-1, -0.5, 0, 0.5, 1])
    x[brow] += 0.045 * shape["brow_length"] * np.array([-0.5, 0, 0.2, 0.6, 1]) + 0.02 * shape["eye_distance"]

    nose = [28, 29, 30, 33, 34, 35, GROUPS["nostrils"].start + 1]
    y[nose] += 0.05 * shape["nose_length"] * np.array([0.4, 0.7, 1, 1, 1, 1, 1])
    y[30] += 0.025 * shape["nose_tip"]
    y[33] += 0.012 * shape["nose_tip"]
    wide = [34, 35, GROUPS["nostrils"].start + 1]
    x[wide] *= 1 + 0.20 * shape["nose_width"]

    mouth = [*range(51, 58), *range(62, 67)]
    x[mouth] *= 1 + 0.13 * shape["mouth_width"]
    y[[52, 53]] -= 0.022 * shape["upper_lip"] * np.array([1, 0.6])
    y[51] -= 0.022 * shape["upper_lip"] - 0.012 * shape["cupid_bow"]
    y[52] -= 0.008 * shape["cupid_bow"]
    y[55:58] += 0.026 * shape["lower_lip"] * np.array([0.6, 1, 1])
    y[[54, 64]] -= 0.022 * shape["mouth_curve"]
    low = [*mouth, *range(GROUPS["bites"].start, GROUPS["tongue"].stop)]
    y[low] += 0.03 * shape["mouth_height"] + 0.02 * shape["nose_length"] + 0.02 * shape["chin_length"]
    folds = GROUPS["fold_r"]
    y[folds] += 0.03 * shape["nose_length"]
    x[folds] += 0.04 * shape["mouth_width"] * np.array([0, 0.3, 0.8, 1])
    y[GROUPS["lines"]] -= 0.03 * shape["brow_height"]
    long = 1 + 0.035 * shape["face_length"]
    y[:] *= long


def _shape_depth(points: np.ndarray) -> None:
    z = points[:, 2]
    z[:17] = np.interp(
        np.abs(np.arange(17) - 8), np.arange(9), [0.27, 0.25, 0.21, 0.15, 0.08, 0.02, -0.04, -0.09, -0.12]
    )
    z[GROUPS["forehead"]] = [-0.14, -0.15, -0.16, -0.17, -0.17, -0.17, -0.16, -0.15, -0.14]
    z[27:31] = [0.50, 0.60, 0.70, 0.80]
    z[31:36] = [0.50, 0.58, 0.64, 0.58, 0.50]
    z[GROUPS["nostrils"]] = 0.60
    z[48:68] += 0.05
    z[GROUPS["bites"]] -= 0.06
    z[GROUPS["tongue"]] -= 0.02


def _as_in_people(points: np.ndarray) -> None:
    """Smaller, longer eyes, a longer chin, thinner lips than in a drawing."""
    for side, name in ((0, "crease_l"), (1, "crease_r")):
        eye = [*range(36 + 6 * side, 42 + 6 * side)]
        centre = points[GROUPS["eyes"].start + side, :2]
        points[eye, :2] = (points[eye, :2] - centre) * [0.92, 0.80] + centre
        fold = GROUPS[name]
        points[fold, :2] = (points[fold, :2] - centre) * [0.95, 0.80] + centre
    lower = slice(3, 14)
    points[lower, 1] += 0.07 * np.clip((points[lower, 1] - 0.3) / 0.9, 0, 1)
    mouth = [*range(48, 68), *range(GROUPS["bites"].start, GROUPS["tongue"].stop)]
    points[mouth, 1] += 0.03
    points[[53, 55, 49, 59], 0] *= 1.10
    points[[56, 58, 61, 63, 65, 67], 0] *= 1.22
    points[[7, 9], 0] *= 1.14
    points[[6, 10], 0] *= 1.08
    points[17:27, 1] += 0.035  # brows
    above = [0, 1, 15, 16, *range(GROUPS["forehead"].start, GROUPS["forehead"].stop)]
    points[above, 0] *= 0.95
    points[4:13, 0] *= 1.05


def _move_as_in_people(fields: np.ndarray) -> None:
    """The opened lower lip is a bow, not a wedge; lids and brows move less far than a drawing's."""
    jaw = fields[EXPRESSION_INDEX["jaw_open"]]
    jaw[[55, 59], 1] *= 1.18
    jaw[[56, 58, 65, 67], 1] *= 1.04
    jaw[[55, 59, 65, 67], 0] *= 0.3
    fields[EXPRESSION_INDEX["lips_round"], 48:68, 0] *= 0.8
    for name, row in EXPRESSION_INDEX.items():
        if "lid" in name or name.startswith("eye_"):
            fields[row] *= 0.8
        if name.startswith("brow"):
            fields[row] *= 0.75


def _close_lips(points: np.ndarray) -> None:
    """Lips touch but never cross: a pair that overlaps meets in between and takes its outer edge along."""
    upper, lower = [61, 62, 63], [67, 66, 65]
    overlap = np.maximum(points[upper, 1] - points[lower, 1] + 0.004, 0)
    points[upper, 1] -= overlap * 0.4
    points[lower, 1] += overlap * 0.6
    points[[50, 51, 52], 1] = np.minimum(points[[50, 51, 52], 1], points[upper, 1] - 0.022)
    points[[58, 57, 56], 1] = np.maximum(points[[58, 57, 56], 1], points[lower, 1] + 0.026)
    # the outline beside the corners keeps on its own side of the inner line
    for outer, corner, inner, sign in ((49, 48, 61, -1), (53, 54, 63, -1), (59, 48, 67, 1), (55, 54, 65, 1)):
        middle = 0.5 * (points[corner, 1] + points[inner, 1])
        points[outer, 1] = sign * max(sign * points[outer, 1], sign * middle + 0.014)
    # corners of the inner line lie just inside the outer corners
    points[60, :2] = points[48, :2] * 0.9 + 0.1 * 0.5 * (points[61, :2] + points[67, :2])
    points[64, :2] = points[54, :2] * 0.9 + 0.1 * 0.5 * (points[63, :2] + points[65, :2])


def _close_lids(points: np.ndarray, blink: np.ndarray) -> None:
    """Blink brings the upper lid down to a line near the lower lid; lids never cross."""
    for side, (upper, lower) in enumerate((((37, 38), (41, 40)), ((43, 44), (47, 46)))):
        top, bottom = points[list(upper), 1], points[list(lower), 1]
        meet = bottom * 0.82 + top * 0.18
        top = top + (meet - top) * blink[side]
        bottom = bottom + (meet - bottom) * blink[side]
        crossing = np.maximum(top - bottom + 0.006, 0)
        points[list(upper), 1] = top - crossing * 0.3
        points[list(lower), 1] = bottom + crossing * 0.7
