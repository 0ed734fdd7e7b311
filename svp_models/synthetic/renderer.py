"""Renderers of one identity: images with exact landmarks, head keypoints and face masks."""

from __future__ import annotations

import numpy as np

from ..motion.coefficients import EXPRESSION_NAMES
from ..optional_deps import cv2
from .backgrounds import paint_background
from .body import Body
from .canvas import SHIFT, Canvas, curve
from .expressions import GROUPS
from .features import lens_outline, paint_brows, paint_eyes, paint_glasses, paint_mouth
from .geometry import UNIT, FaceGeometry, Pose, project
from .hair import COVERS_EARS, Hair
from .identity import VERSIONS, FaceStates, appearance
from .natural import NaturalRenderer
from .rendered import RenderedClip, RenderedFace
from .skin import Skin


class FaceRenderer:
    """Renders one identity. Parts that do not move are prepared once; backgrounds are cached by image size."""

    def __init__(self, identity: np.ndarray) -> None:
        self.look = appearance(identity)
        self.geometry = FaceGeometry(self.look.shape)
        self.skin = Skin(self.look, self.geometry)
        self.hair = Hair(self.look, self.geometry.neutral[GROUPS["forehead"]])
        self.body = Body(self.look)
        self.lenses = lens_outline(self.look.glasses, self.look.shape["glasses_size"])
        self._backgrounds: dict[int, np.ndarray] = {}

    def render(
        self, expression: np.ndarray, pose: np.ndarray, blink: np.ndarray, gaze: np.ndarray, size: int
    ) -> RenderedFace:
        """expression 64, pose 6, blink 2, gaze 2 (see `FaceStates`) -> an image `size` pixels wide and high."""
        factor = 3 if size <= 160 else 2
        head, look = Pose.of(pose), self.look
        unit = UNIT * size * head.scale
        solid, solid_pupils = self.geometry.deform(expression, blink, gaze)
        points = project(solid, head, size)
        pupils = project(solid_pupils, head, size)
        coefficients = dict(zip(EXPRESSION_NAMES, (float(value) for value in expression), strict=True))
        outline = curve(np.concatenate([points[:17], points[GROUPS["forehead"]]]), samples=4, closed=True)
        chin = curve(points[2:15], samples=4)

        canvas = Canvas(self._background(size * factor).copy(), factor)
        self.hair.paint_back(canvas, head, size)
        self.body.paint(canvas, head, size, chin)
        if look.hair_style not in COVERS_EARS:
            self.skin.paint_ears(canvas, head, size)
        self.skin.paint_face(canvas, outline, head, size)
        self.skin.paint_marks(canvas, points, outline, coefficients, head, size)
        self.hair.paint_shadow(canvas, outline, head, size)
        self.skin.paint_nose(canvas, points, unit)
        self.skin.paint_beard(canvas, points, outline, unit)
        paint_mouth(canvas, look, points, unit)
        radius = self.geometry.iris_radius * unit
        paint_eyes(canvas, look, points, pupils, radius, np.asarray(blink), unit)
        self.hair.paint_front(canvas, head, size)
        paint_brows(canvas, look, points, unit)
        if look.glasses:
            self._paint_glasses(canvas, head, size, unit)

        fine = np.zeros((size * factor, size * factor), dtype=np.uint8)
        cv2.fillPoly(fine, [canvas.fixed(outline)], 255, cv2.LINE_8, SHIFT)
        mask = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
        keypoints = np.concatenate([points[[0, 3, 16, 13]], pupils, points[[27, 30]]])
        return RenderedFace(
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
        paint_glasses(canvas, self.look.glasses_colour, lenses, arms, unit)


def renderer_for(identity: np.ndarray, version: int = 1) -> FaceRenderer | NaturalRenderer:
    """The renderer of an identity. version: 1 drawings, 2 looks like photographs; the parameters mean the same in both."""
    if version not in VERSIONS:
        raise ValueError(f"version is {version!r}, not one of {VERSIONS}")
    return FaceRenderer(identity) if version == 1 else NaturalRenderer(identity)


def render_clip(identity: np.ndarray, states: FaceStates, size: int, version: int = 1) -> RenderedClip:
    """All frames of a clip of one identity. version: see `renderer_for`."""
    renderer = renderer_for(identity, version)
    frames = [
        renderer.render(states.expression[i], states.pose[i], states.blink[i], states.gaze[i], size)
        for i in range(len(states))
    ]
    return RenderedClip(
        images=np.stack([frame.image for frame in frames]),
        landmarks=np.stack([frame.landmarks for frame in frames]),
        head_keypoints=np.stack([frame.head_keypoints for frame in frames]),
        masks=np.stack([frame.mask for frame in frames]),
    )
