"""Version 2 of the pictures: heads with skin, hair, cloth, light and a camera that come near photographs.

Textures of one identity and size are made once; a frame bends them with the face's points and lays mouth and eyes on them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..motion.coefficients import EXPRESSION_NAMES
from ..optional_deps import cv2
from .camera import Camera
from .canvas import SHIFT, Canvas, curve
from .expressions import GROUPS
from .features import lens_outline, paint_glasses
from .geometry import UNIT, FaceGeometry, Pose, project
from .hair import COVERS_EARS, Hair
from .identity import appearance
from .natural_body import NaturalBody, blend_masked, blend_over
from .natural_eyes import NaturalEyes
from .natural_hair import NaturalHair
from .natural_look import natural_look
from .natural_mouth import NaturalMouth
from .natural_scene import background
from .natural_shadows import Frame, Shadows
from .natural_skin import skin_texture
from .rendered import RenderedFace
from .surface import Bending, Box, FaceSheet, Relief, Sheet, Span

_SPAN = (-1.75, 1.75, -2.0, 1.8)  # of the skin and of the hair on the head, face units


class _Textures:
    """What one identity needs at one size."""

    def __init__(self, renderer: NaturalRenderer, size: int) -> None:
        look, geometry = renderer.natural, renderer.geometry
        span = Span(*_SPAN, density=UNIT * size * look.frame[0] * 1.06)
        self.sheet = FaceSheet(geometry, span)
        self.skin = skin_texture(look, renderer.look, geometry, span)
        self.hair = NaturalHair(look, renderer.look, geometry, renderer.hair, span)
        self.front_end = _covered(self.hair.front, span)[3]
        self.fall = Sheet(self.hair.fall, 14, 17)
        depth = np.interp(self.fall.nodes[:, 1], [-0.3, 0.8], [-0.15, -0.28]).astype(np.float32)
        self.fall_points = np.column_stack([self.fall.nodes, depth])
        falling = [layer for layer in (self.hair.back, self.hair.locks) if layer is not None]
        self.fall_corners = None
        if falling:
            left, top, right, bottom = _covered(np.maximum.reduce(falling), self.hair.fall)
            corners = [[left, top], [right, top], [left, bottom], [right, bottom]]
            self.fall_corners = np.array([[x, y, depth] for x, y in corners for depth in (-0.15, -0.28)], np.float32)
        self.body = NaturalBody(look, renderer.look, size)
        self.background = background(look.rng(6), size)
        self.camera = Camera(look.camera, size, look.rng(7))


class NaturalRenderer:
    """Renders one identity; the same interface as FaceRenderer."""

    def __init__(self, identity: np.ndarray) -> None:
        self.look = appearance(identity)
        self.geometry = FaceGeometry(self.look.shape, version=2)
        look = natural_look(identity, self.look)
        self.relief = Relief(FaceSheet(self.geometry, Span(*_SPAN, density=60)), self.look.shape, look.age)
        self.natural = replace(look, light=self.relief.exposed(look.light))
        self.hair = Hair(self.look, self.geometry.neutral[GROUPS["forehead"]])
        self.mouth = NaturalMouth(self.natural)
        self.eyes = NaturalEyes(self.natural)
        self.shadows = Shadows(self.natural, self.look, self.hair, float(self.geometry.neutral[16, 0]) - 1)
        self.lenses = lens_outline(self.natural.glasses, self.look.shape["glasses_size"])
        self._textures: dict[int, _Textures] = {}

    def render(
        self, expression: np.ndarray, pose: np.ndarray, blink: np.ndarray, gaze: np.ndarray, size: int
    ) -> RenderedFace:
        """expression 64, pose 6, blink 2, gaze 2 (see `FaceStates`) -> an image `size` pixels wide and high."""
        if size not in self._textures:
            self._textures[size] = _Textures(self, size)
        ready, head = self._textures[size], self._framed(pose)
        solid, solid_pupils = self.geometry.deform(expression, blink, gaze)
        points, pupils = project(solid, head, size), project(solid_pupils, head, size)
        frame = Frame(
            points=points,
            pupils=pupils,
            outline=curve(np.concatenate([points[:17], points[GROUPS["forehead"]]]), samples=4, closed=True),
            expression=dict(zip(EXPRESSION_NAMES, (float(value) for value in expression), strict=True)),
            head=head,
            size=size,
            unit=UNIT * size * head.scale,
            light=self.relief.shading(head, self.natural.light),
        )
        image = ready.background.copy()
        canvas = Canvas(image, 1)
        falling = self._falling(ready, frame)
        if ready.hair.back is not None:
            _paint_bent(image, ready.hair.back, falling)
        ready.body.place_neck(image, head)
        self.shadows.chin(canvas, frame, ready.body.neck_outline(head))
        ready.body.place_clothes(image, head)
        if self.look.hair_style not in COVERS_EARS:
            self.shadows.paint_ears(canvas, frame)
        self._paint_head(image, ready, frame, solid)
        if ready.hair.locks is not None:
            _paint_bent(image, ready.hair.locks, falling)
        if self.natural.glasses:
            self._paint_glasses(canvas, head, size, frame.unit)
        fine = np.zeros((size * 2, size * 2), np.uint8)
        cv2.fillPoly(fine, [Canvas(fine, 2).fixed(frame.outline)], 255, cv2.LINE_8, SHIFT)
        mask = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
        return RenderedFace(
            image=ready.camera.develop(image),
            landmarks=points[:68].copy(),
            head_keypoints=np.concatenate([points[[0, 3, 16, 13]], pupils, points[[27, 30]]]),
            mask=np.where(mask >= 128, 255, 0).astype(np.uint8),
        )

    def _framed(self, pose: np.ndarray) -> Pose:
        """The pose with the picture's own framing."""
        head, (scale, right, down) = Pose.of(pose), self.natural.frame
        return Pose(head.yaw, head.pitch, head.roll, head.shift_x + right, head.shift_y + down, head.scale * scale)

    def _falling(self, ready: _Textures, frame: Frame) -> Bending | None:
        """Where hair lies that hangs behind and beside the head; None without, or where none of it is in the picture."""
        if ready.fall_corners is None:
            return None
        box = _box(self.hair.to_image(ready.fall_corners, frame.head, frame.size), frame.size, 3)
        if box is None:
            return None
        return ready.fall.bent(self.hair.to_image(ready.fall_points, frame.head, frame.size), box, 8)

    def _paint_head(self, image: np.ndarray, ready: _Textures, frame: Frame, solid: np.ndarray) -> None:
        """The face and the hair on it. solid: the face's points in space."""
        size = frame.size
        box = _box(frame.outline, size, 4)
        around = np.concatenate([frame.outline, project(self.hair.outer, frame.head, size)])
        wide = _box(around, size, int(0.2 * frame.unit) + 4)
        if box is None or wide is None:
            return
        bending = ready.sheet.bent(ready.sheet.places(solid, frame.head, size), wide, 6 if size <= 320 else 8)
        left, top, right, bottom = box
        mask = np.zeros((bottom - top, right - left), np.uint8)
        cv2.fillPoly(mask, [Canvas(mask, 1).fixed(frame.outline, left, top)], 255, cv2.LINE_AA, SHIFT)
        face = self._face(ready, bending, frame, box)
        blend_masked(image[top:bottom, left:right], face, cv2.GaussianBlur(mask, (3, 3), 0))
        end = project(np.array([[x, ready.front_end, -0.1] for x in (-1.1, 0.0, 1.1)], np.float32), frame.head, size)
        low = int(np.clip(np.ceil(end[:, 1].max() + 0.06 * frame.unit), wide[1], wide[3]))
        if low > wide[1]:
            _paint_bent(image, ready.hair.front, bending, (wide[0], wide[1], wide[2], low))

    def _face(self, ready: _Textures, bending: Bending, frame: Frame, box: Box) -> np.ndarray:
        """The lit face inside a box of the picture, h x w x 3 uint8."""
        face = bending.remap(ready.skin, box, cv2.BORDER_REPLICATE)
        offset = np.array(box[:2], np.float32)
        points, unit = frame.points - offset, frame.unit
        finer = 1.5 if frame.size <= 160 else 1.15 if frame.size <= 320 else 1.0
        self.shadows.nose(face, points, unit)
        self.mouth.paint(face, points, unit, finer)
        self.eyes.paint(face, points, frame.pupils - offset, self.geometry.iris_radius * unit, unit, finer)
        lit = bending.field(frame.light, box)
        dark = self.shadows.creases(frame, face.shape[:2], offset)
        tone = cv2.multiply(lit[..., :3], cv2.cvtColor(dark, cv2.COLOR_GRAY2RGB), scale=1 / 255, dtype=cv2.CV_32F)
        shaded = cv2.multiply(face, tone, dtype=cv2.CV_32F) + lit[..., 3:] * np.float32(255)
        return cv2.convertScaleAbs(np.maximum(shaded, 0))

    def _paint_glasses(self, canvas: Canvas, head: Pose, size: int, unit: float) -> None:
        lenses = np.stack([project(lens, head, size) for lens in self.lenses])
        ends = np.array(
            [[[-0.76, -0.10, 0.32], [-0.985, -0.12, -0.11]], [[0.76, -0.10, 0.32], [0.985, -0.12, -0.11]]], np.float32
        )
        arms = np.stack([project(end, head, size) for end in ends])
        look = self.natural
        paint_glasses(canvas, look.glasses_colour, lenses, arms, unit, look.glasses_width, look.glasses_glare)


def _paint_bent(image: np.ndarray, texture: np.ndarray, bending: Bending | None, box: Box | None = None) -> None:
    """Paint a texture with coverage where it is bent to; box: only inside it."""
    if bending is not None:
        left, top, right, bottom = box or bending.box
        layer = bending.remap(texture, (left, top, right, bottom), cv2.BORDER_CONSTANT)
        blend_over(image[top:bottom, left:right], layer)


def _covered(layer: np.ndarray, span: Span) -> tuple[float, float, float, float]:
    """left, top, right, bottom of what a texture covers, face units."""
    rows, columns = (np.flatnonzero(layer[..., 3].any(axis=axis)) for axis in (1, 0))
    left, right = span.left + columns[[0, -1]] / span.density
    top, bottom = span.top + rows[[0, -1]] / span.density
    return float(left), float(top), float(right), float(bottom)


def _box(points: np.ndarray, size: int, margin: int) -> Box | None:
    """left, top, right, bottom around points inside the picture; None where nothing of it is inside."""
    low = np.floor(points.min(axis=0)).astype(int) - margin
    high = np.ceil(points.max(axis=0)).astype(int) + margin
    left, top, right, bottom = max(0, low[0]), max(0, low[1]), min(size, high[0]), min(size, high[1])
    return (int(left), int(top), int(right), int(bottom)) if right > left and bottom > top else None
