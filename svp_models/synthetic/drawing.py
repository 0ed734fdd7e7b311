"""The painter: one identity, and for every state a picture with its exact landmarks, head keypoints and face mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..libraries import cv2
from .backdrop import Body, paint_background
from .canvas import SHIFT, Canvas, curve
from .expressions import GROUPS
from .features import lens_outline, paint_brows, paint_eyes, paint_glasses, paint_mouth
from .geometry import UNIT, FaceGeometry, Pose, project
from .hair import COVERS_EARS, Hair
from .identity import appearance
from .parameters import EXPRESSION_NAMES, FaceStates
from .skin import Skin


@dataclass(frozen=True)
class Drawn:
    """One picture and its ground truth; positions in pixels, (0, 0) is the picture's top-left corner.

    image: size x size x 3 uint8 RGB. landmarks: 68 x 2 float32, iBUG order, 0 at the image-left jaw. head_keypoints:
    8 x 2 float32: left edge upper, left edge lower, right edge upper, right edge lower, left pupil, right pupil, nose
    bridge top, nose tip ('left' is the image's). mask: size x size uint8, 255 inside the face's contour.
    """

    image: np.ndarray
    landmarks: np.ndarray
    head_keypoints: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class DrawnClip:
    """`Drawn` of n frames stacked: images n h w 3, landmarks n 68 2, head_keypoints n 8 2, masks n h w."""

    images: np.ndarray
    landmarks: np.ndarray
    head_keypoints: np.ndarray
    masks: np.ndarray


class FacePainter:
    """Draws one identity. Everything that does not move is prepared once; backgrounds are kept per picture size."""

    def __init__(self, identity: np.ndarray) -> None:
        self.look = appearance(identity)
        self.geometry = FaceGeometry(self.look.shape)
        self.skin = Skin(self.look, self.geometry)
        self.hair = Hair(self.look, self.geometry.neutral[GROUPS["forehead"]])
        self.body = Body(self.look)
        self.lenses = lens_outline(self.look.glasses, self.look.shape["glasses_size"])
        self._backgrounds: dict[int, np.ndarray] = {}

    def draw(self, expression: np.ndarray, pose: np.ndarray, blink: np.ndarray, gaze: np.ndarray, size: int) -> Drawn:
        """expression 64, pose 6, blink 2, gaze 2 (see `FaceStates`) -> a picture `size` pixels wide and high."""
        factor = 3 if size <= 160 else 2
        where, look = Pose.of(pose), self.look
        unit = UNIT * size * where.scale
        solid, solid_pupils = self.geometry.deform(expression, blink, gaze)
        points = project(solid, where, size)
        pupils = project(solid_pupils, where, size)
        coefficients = dict(zip(EXPRESSION_NAMES, (float(value) for value in expression), strict=True))
        outline = curve(np.concatenate([points[:17], points[GROUPS["forehead"]]]), samples=4, closed=True)
        chin = curve(points[2:15], samples=4)

        canvas = Canvas(self._background(size * factor).copy(), factor)
        self.hair.paint_back(canvas, where, size)
        self.body.paint(canvas, where, size, chin)
        if look.hair_style not in COVERS_EARS:
            self.skin.paint_ears(canvas, where, size)
        self.skin.paint_face(canvas, outline, where, size)
        self.skin.paint_marks(canvas, points, outline, coefficients, where, size)
        self.hair.paint_shadow(canvas, outline, where, size)
        self.skin.paint_nose(canvas, points, unit)
        self.skin.paint_beard(canvas, points, outline, unit)
        paint_mouth(canvas, look, points, unit)
        radius = self.geometry.iris_radius * unit
        paint_eyes(canvas, look, points, pupils, radius, np.asarray(blink), unit)
        self.hair.paint_front(canvas, where, size)
        paint_brows(canvas, look, points, unit)
        if look.glasses:
            self._paint_glasses(canvas, where, size, unit)

        mask = np.zeros((size * factor, size * factor), dtype=np.uint8)
        cv2.fillPoly(mask, [canvas.fixed(outline)], 255, cv2.LINE_8, SHIFT)
        mask = cv2.resize(mask, (size, size), interpolation=cv2.INTER_AREA)
        keypoints = np.concatenate([points[[0, 3, 16, 13]], pupils, points[[27, 30]]])
        return Drawn(
            image=cv2.resize(canvas.image, (size, size), interpolation=cv2.INTER_AREA),
            landmarks=points[:68].copy(),
            head_keypoints=keypoints,
            mask=np.where(mask >= 128, 255, 0).astype(np.uint8),
        )

    def _background(self, side: int) -> np.ndarray:
        if side not in self._backgrounds:
            self._backgrounds[side] = paint_background(self.look, side)
        return self._backgrounds[side]

    def _paint_glasses(self, canvas: Canvas, pose: Pose, size: int, unit: float) -> None:
        lenses = np.stack([project(lens, pose, size) for lens in self.lenses])
        ends = np.array(
            [[[-0.76, -0.10, 0.32], [-0.985, -0.12, -0.11]], [[0.76, -0.10, 0.32], [0.985, -0.12, -0.11]]], np.float32
        )
        arms = np.stack([project(end, pose, size) for end in ends])
        paint_glasses(canvas, self.look, lenses, arms, unit)


def draw_clip(identity: np.ndarray, states: FaceStates, size: int) -> DrawnClip:
    """Every frame of a clip of one identity."""
    painter = FacePainter(identity)
    frames = [
        painter.draw(states.expression[i], states.pose[i], states.blink[i], states.gaze[i], size)
        for i in range(len(states))
    ]
    return DrawnClip(
        images=np.stack([frame.image for frame in frames]),
        landmarks=np.stack([frame.landmarks for frame in frames]),
        head_keypoints=np.stack([frame.head_keypoints for frame in frames]),
        masks=np.stack([frame.mask for frame in frames]),
    )
