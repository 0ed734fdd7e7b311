"""Head keypoints of a motion: the portrait's 8 points, lifted onto a mean head and moved as the motion moves the head.

    points 8 2 --fit--> camera, pose --lift--> 8 3 --turn, project, scale, shift--> n 8 2

So models that are driven by head keypoints follow a motion too. Lengths are half widths of the face, x right, y down, z towards
the viewer, the origin between the eyes' height and the nose, as in `face.head_pose`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..face.affine import fit_affine_camera
from ..face.head_pose import FACE_3D, RIGID, RIGID_3D, TEMPLATE_3D
from ..optional_deps import optimize, transform
from ..types import LIVEPORTRAIT, SVP, HeadMotion, Motion

MODES = ("relative", "absolute")
PUPILS = (4, 5)  # of the 8 head keypoints
EYES_AT = (0.0, -0.04, 0.4)  # the middle of the eyes


def _drawn_head() -> np.ndarray:
    """The head that portraits are warped with: 8 3."""
    head = np.zeros((8, 3))
    head[list(RIGID)] = RIGID_3D
    head[list(PUPILS)] = [point for point in FACE_3D if point[1:] == EYES_AT[1:]]
    return head


def _mesh_head() -> np.ndarray:
    """MediaPipe's canonical face, which is deeper, as a real one: 8 3."""
    head = TEMPLATE_3D[:8] * (1, -1, 1)
    eyes = head[list(PUPILS)].mean(axis=0)
    return (head - eyes) / head[:4, 0].max() + EYES_AT


MEAN_HEADS = (_drawn_head(), _mesh_head())


@dataclass(frozen=True)
class HeadFrame:
    """How the head moves in a space.

    turn_pivot: yaw and pitch turn about it, x y z; tilt_pivot: roll turns about it, x y; centre: what shift moves and scale
    enlarges about, x y. order: of scipy's Euler angles; the first turns last. half_width: of the face at scale 1, as a share of
    the picture's side. camera: the viewer's distance. gaze: way of the pupils at gaze 1, right and down.
    """

    turn_pivot: tuple[float, float, float]
    tilt_pivot: tuple[float, float]
    centre: tuple[float, float]
    order: str
    half_width: float
    camera: float
    gaze: tuple[float, float] = (0.0, 0.0)


# LivePortrait's points turn about their origin. On the mean face of its motions (KDTalker's statistics of real clips) it lies
# 0.35 of the eyes' distance below the eyes and 0.51 behind them, and that distance is 0.271 at scale 1 of a picture 2 wide.
EYES_APART = 0.856
LP_ORIGIN = (0.0, EYES_AT[1] + 0.346 * EYES_APART, EYES_AT[2] - 0.514 * EYES_APART)
HEAD_FRAMES = {
    SVP: HeadFrame((0.0, 0.80, -0.22), (0.0, 1.35), (0.0, 0.0), "ZXY", 0.235, 9.0, (0.13, 0.085)),
    LIVEPORTRAIT: HeadFrame(LP_ORIGIN, LP_ORIGIN[:2], LP_ORIGIN[:2], "ZYX", 0.271 / 2 / EYES_APART, 7.75),
}
LID_ROWS = (11, 15)  # of LivePortrait's points: the eyes


@dataclass(frozen=True)
class LiftedHead:
    """A portrait's head in space. points: 8 3, the head from the front; angles: yaw, pitch, roll of the portrait in degrees;
    centre: 2, pixels; half_width: pixels."""

    points: np.ndarray
    angles: np.ndarray
    centre: np.ndarray
    half_width: float


def head_keypoints_of_motion(motion: Motion, portrait: HeadMotion, mode: str = "relative") -> HeadMotion:
    """A motion as head keypoints of a portrait.

    relative: turned by how the angles differ from the motion's first frame, which shows the portrait's points exactly.
    absolute: turned to the motion's own angles. Shift and scale are relative to the first frame in both: place and size of
    two pictures' heads cannot be compared.
    """
    if mode not in MODES:
        raise PortraitError(f"the mode is {mode!r}: choose one of {', '.join(MODES)}")
    if len(portrait) != 1:
        raise PortraitError(f"the portrait's keypoints have {len(portrait)} frames: connect the points of one picture")
    frame, target = HEAD_FRAMES[motion.space], portrait.keypoints[0].double().numpy()
    head = lift_head(target, frame)
    angles = motion.angles.double().numpy()  # n 3
    if mode == "relative":
        angles = head.angles + angles - angles[0]
    size = (motion.scale / motion.scale[0]).double().numpy()
    side = head.half_width / (_half_width(motion, frame) * float(motion.scale[0]))  # pixels of the driver's picture
    centre = head.centre + (motion.shift - motion.shift[0]).double().numpy() * side
    points = project_head(_with_gaze(motion, head, frame, mode), angles, frame)
    points = centre[:, None] + (points - frame.centre) * (head.half_width * size)[:, None, None]
    if mode == "relative":
        points[0] = target  # to the last digit
    return HeadMotion(
        torch.from_numpy(points).float(), portrait.width, portrait.height, motion.fps, (), portrait.keypoints[0]
    )


def lift_head(points: np.ndarray, frame: HeadFrame) -> LiftedHead:
    """8 2 pixels -> the head in space that shows exactly these points, with the depths of the mean head that fits better."""
    fits = [(*_fit(points, model, frame), model) for model in MEAN_HEADS]
    _, angles, centre, scale, model = min(fits, key=lambda fit: fit[0])
    flat = (points - centre) / scale + frame.centre  # as project_head gives it
    tilted = (flat - frame.tilt_pivot) @ _rotation(angles[None] * (0, 0, 1), frame)[0, :2, :2] + frame.tilt_pivot
    turn = _rotation(angles[None] * (1, 1, 0), frame)[0]
    depth = ((model - frame.turn_pivot) @ turn.T + frame.turn_pivot)[:, 2:]
    turned = np.hstack([tilted * (frame.camera - depth) / frame.camera, depth])
    return LiftedHead((turned - frame.turn_pivot) @ turn + frame.turn_pivot, angles, centre, scale)


def project_head(head: np.ndarray, angles: np.ndarray, frame: HeadFrame) -> np.ndarray:
    """Points of a head (8 3 or n 8 3) at n angles -> n 8 2, half widths: turned, seen in weak perspective, tilted."""
    turns, tilts = angles * (1, 1, 0), angles * (0, 0, 1)
    turned = (head - frame.turn_pivot) @ _rotation(turns, frame).transpose(0, 2, 1) + frame.turn_pivot
    flat = turned[..., :2] * frame.camera / (frame.camera - turned[..., 2:])
    return (flat - frame.tilt_pivot) @ _rotation(tilts, frame)[:, :2, :2].transpose(0, 2, 1) + frame.tilt_pivot


def _rotation(angles: np.ndarray, frame: HeadFrame) -> np.ndarray:
    """n 3 (yaw, pitch, roll in a motion's signs) -> n 3 3, for columns."""
    about = {"X": -angles[:, 1], "Y": angles[:, 0], "Z": angles[:, 2]}
    turns = np.stack([about[axis] for axis in frame.order], axis=1)
    return transform.Rotation.from_euler(frame.order, turns, degrees=True).as_matrix()


def _fit(points: np.ndarray, model: np.ndarray, frame: HeadFrame) -> tuple[float, np.ndarray, np.ndarray, float]:
    """The pose in which a mean head shows these points best: error, angles, centre in pixels, pixels of a half width."""
    camera = fit_affine_camera(points, model)  # 4 2: without perspective
    u, sizes, v = np.linalg.svd(camera[:3].T, full_matrices=False)
    scale = float(sizes.mean())
    if not np.isfinite(scale) or scale <= 1e-6:
        raise PortraitError("the keypoints of the portrait lie on one spot: extract or type them again")
    rows = u @ v
    turns = transform.Rotation.from_matrix(np.vstack([rows, np.cross(rows[0], rows[1])])).as_euler(frame.order)
    about = dict(zip(frame.order, turns, strict=True))

    def placed(pose: np.ndarray) -> np.ndarray:
        shown = project_head(model, np.degrees(pose[None, :3]), frame)[0] - frame.centre
        return shown * pose[5] + pose[3:5]  # half widths

    start = np.array([about["Y"], -about["X"], about["Z"], 0, 0, 1])
    middle = points.mean(axis=0)
    start[3:5] = -placed(start).mean(axis=0)
    found = optimize.least_squares(lambda pose: (placed(pose) - (points - middle) / scale).ravel(), start)
    return float(found.cost), np.degrees(found.x[:3]), found.x[3:5] * scale + middle, float(found.x[5] * scale)


def _half_width(motion: Motion, frame: HeadFrame) -> float:
    """Half a face's width at scale 1, as a share of the driver's picture; of its own face where the motion has one."""
    if motion.space != LIVEPORTRAIT or motion.face is None or len(motion.face) <= max(LID_ROWS):
        return frame.half_width
    left, right = motion.face[list(LID_ROWS)].double()
    return float((right - left).norm()) / 2 / EYES_APART


def _with_gaze(motion: Motion, head: LiftedHead, frame: HeadFrame, mode: str) -> np.ndarray:
    """The head's points with the pupils where the gaze puts them: n 8 3, or 8 3 where the motion has no gaze."""
    if motion.gaze is None:
        return head.points
    gaze: Tensor = motion.gaze - (motion.gaze[0] if mode == "relative" else 0)
    points = np.repeat(head.points[None], len(motion), axis=0)
    points[:, list(PUPILS), :2] += gaze.double().numpy()[:, None] * frame.gaze
    return points
