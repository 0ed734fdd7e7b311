"""Version 2 of the pictures: heads with skin, hair, cloth, light and a camera that come near photographs.

Textures of one identity and size are made once; a frame bends them with the face's points and lays mouth and eyes on them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..motion.coefficients import EXPRESSION_NAMES
from ..optional_deps import cv2
from .camera import Camera
from .canvas import SHIFT, Canvas, as_colour, curve
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
from .natural_skin import skin_texture
from .rendered import RenderedFace
from .surface import FaceSheet, Relief, Sheet, Span

_SPAN = (-1.75, 1.75, -2.0, 1.8)  # of the skin and of the hair on the head, face units
_EARS = np.array(
    [[0.90, -0.16], [1.01, -0.27], [1.10, -0.23], [1.12, -0.06], [1.08, 0.14], [1.03, 0.27], [0.93, 0.24]], np.float32
)


class _Textures:
    """What one identity needs at one size."""

    def __init__(self, renderer: NaturalRenderer, size: int) -> None:
        look, geometry = renderer.natural, renderer.geometry
        density = UNIT * size * look.frame[0] * 1.06
        span = Span(*_SPAN, density=density)
        self.sheet = FaceSheet(geometry, span)
        self.skin = skin_texture(look, renderer.look, geometry, span)
        self.hair = NaturalHair(look, renderer.look, geometry, renderer.hair, span)
        self.fall = Sheet(self.hair.fall, 14, 17)
        depth = np.interp(self.fall.nodes[:, 1], [-0.3, 0.8], [-0.15, -0.28]).astype(np.float32)
        self.fall_points = np.column_stack([self.fall.nodes, depth])
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
        self.lenses = lens_outline(self.natural.glasses, self.look.shape["glasses_size"])
        edge = self.geometry.neutral[16, 0] - 1.0
        ear = (_EARS - [1.0, 0.0]) * (1 + 0.15 * self.look.shape["ear_size"]) + [
            1.0 + edge,
            0.06 * self.look.shape["ear_height"],
        ]
        flat = np.column_stack([ear, np.full(len(ear), -0.32)])
        self.ears = [np.float32(flat * [sign, 1, 1]) for sign in (-1, 1)]
        self._textures: dict[int, _Textures] = {}

    def textures(self, size: int) -> _Textures:
        if size not in self._textures:
            self._textures[size] = _Textures(self, size)
        return self._textures[size]

    def framed(self, pose: np.ndarray) -> Pose:
        """The pose with the picture's own framing."""
        head, (scale, right, down) = Pose.of(pose), self.natural.frame
        return Pose(head.yaw, head.pitch, head.roll, head.shift_x + right, head.shift_y + down, head.scale * scale)

    def render(
        self, expression: np.ndarray, pose: np.ndarray, blink: np.ndarray, gaze: np.ndarray, size: int
    ) -> RenderedFace:
        """expression 64, pose 6, blink 2, gaze 2 (see `FaceStates`) -> an image `size` pixels wide and high."""
        ready, head = self.textures(size), self.framed(pose)
        unit = UNIT * size * head.scale
        solid, solid_pupils = self.geometry.deform(expression, blink, gaze)
        points, pupils = project(solid, head, size), project(solid_pupils, head, size)
        outline = curve(np.concatenate([points[:17], points[GROUPS["forehead"]]]), samples=4, closed=True)
        image = ready.background.copy()
        fall = self._fall_map(ready, head, size)
        if ready.hair.back is not None:
            self._remapped(image, ready.hair.back, fall)
        ready.body.place_neck(image, head)
        canvas = Canvas(image, 1)
        self._chin_shadow(canvas, points, unit, ready.body.neck_outline(head))
        ready.body.place_clothes(image, head)
        light = self.relief.shading(head, self.natural.light)
        if self.look.hair_style not in COVERS_EARS:
            self._paint_ears(canvas, head, size, light)
        step = 6 if size <= 320 else 8
        box = _box(outline, size, 4)
        wide = _box(np.concatenate([outline, project(self.hair.outer, head, size)]), size, int(0.2 * unit) + 4)
        if box is not None and wide is not None:
            coefficients = dict(zip(EXPRESSION_NAMES, (float(value) for value in expression), strict=True))
            places = ready.sheet.places(solid, head, size)
            cells = ready.sheet.inverse(places, wide, step)
            maps = ready.sheet.texture_map(cells, step)
            face = self._face(
                ready, maps, cells, step, light, wide, box, points, pupils, coefficients, head, size, unit
            )
            left, top, right, bottom = box
            mask = np.zeros((bottom - top, right - left), np.uint8)
            cv2.fillPoly(mask, [canvas.fixed(outline, left, top)], 255, cv2.LINE_AA, SHIFT)
            blend_masked(image[top:bottom, left:right], face, cv2.GaussianBlur(mask, (3, 3), 0))
            self._remapped(image, ready.hair.front, (wide, maps))
        if ready.hair.locks is not None:
            self._remapped(image, ready.hair.locks, fall)
        if self.natural.glasses:
            self._paint_glasses(canvas, head, size, unit)
        fine = np.zeros((size * 2, size * 2), np.uint8)
        cv2.fillPoly(fine, [Canvas(fine, 2).fixed(outline)], 255, cv2.LINE_8, SHIFT)
        mask = cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA)
        return RenderedFace(
            image=ready.camera.develop(image),
            landmarks=points[:68].copy(),
            head_keypoints=np.concatenate([points[[0, 3, 16, 13]], pupils, points[[27, 30]]]),
            mask=np.where(mask >= 128, 255, 0).astype(np.uint8),
        )

    def _fall_map(self, ready: _Textures, head: Pose, size: int) -> tuple[tuple[int, int, int, int], tuple]:
        box = (0, 0, size, size)
        if ready.hair.back is None and ready.hair.locks is None:
            return box, ()
        places = self.hair.to_image(ready.fall_points, head, size)
        return box, ready.fall.texture_map(ready.fall.inverse(places, box, 8), 8)

    def _remapped(self, image: np.ndarray, texture: np.ndarray, where: tuple) -> None:
        """Paint a texture with coverage through a map over a box of the picture, in fixed point."""
        (left, top, right, bottom), maps = where
        picked = tuple(part[: bottom - top, : right - left] for part in maps)
        layer = cv2.remap(texture, *picked, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        blend_over(image[top:bottom, left:right], layer)

    def _face(
        self, ready, maps, cells, step, light, wide, box, points, pupils, coefficients, head, size, unit
    ) -> np.ndarray:
        """The lit face inside a box of the picture, h x w x 3 uint8."""
        left, top, right, bottom = box
        across, down = slice(left - wide[0], right - wide[0]), slice(top - wide[1], bottom - wide[1])
        picked = tuple(part[down, across] for part in maps)
        face = cv2.remap(ready.skin, *picked, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        offset = np.float32([left, top])
        near, eyes = points - offset, pupils - offset
        self._nose(face, near, unit)
        finer = 1.5 if size <= 160 else 1.25 if size <= 320 else 1.0
        self.mouth.paint(face, near, unit, finer)
        self.eyes.paint(face, near, eyes, self.geometry.iris_radius * unit, unit, finer)
        scale = np.float32([(Relief.SIDE - 1) / (ready.sheet.columns - 1), (Relief.SIDE - 1) / (ready.sheet.rows - 1)])
        lit = cv2.remap(light, cells * scale, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        lit = cv2.resize(lit, (cells.shape[1] * step, cells.shape[0] * step), interpolation=cv2.INTER_LINEAR)
        lit = lit[down, across]
        dark = self._creases(near, coefficients, face.shape[:2], head, size, unit, offset)
        tone = cv2.multiply(lit[..., :3], cv2.cvtColor(dark, cv2.COLOR_GRAY2RGB), scale=1 / 255, dtype=cv2.CV_32F)
        shaded = cv2.multiply(face, tone, dtype=cv2.CV_32F)
        shine = lit[..., 3] * np.float32(255)
        shaded += shine[..., None]
        return cv2.convertScaleAbs(np.maximum(shaded, 0))

    def _nose(self, face: np.ndarray, points: np.ndarray, unit: float) -> None:
        """Nostrils and the wings' edges."""
        canvas, skin = Canvas(face, 1), self.natural.skin
        deep = as_colour(skin * np.float32([0.36, 0.24, 0.22]))
        edge = as_colour(skin * np.float32([0.62, 0.50, 0.47]))
        for sign, corner, nostril in zip((-1, 1), (points[31], points[35]), points[GROUPS["nostrils"]], strict=True):
            size = 0.034 * (1 + 0.25 * self.look.shape["nostril_size"]) * unit
            turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
            hole = nostril + np.stack(
                [np.cos(turn) * size * 1.15, np.sin(turn) * size * 0.5 + sign * np.cos(turn) * 0.25 * size], axis=1
            )
            canvas.soft(hole, deep, 0.8, 0.022 * unit)
            width = np.array([0.0, 0.035, 0.045, 0.01])
            wing = corner + np.stack([sign * (width - 0.01), [0.045, 0.02, -0.035, -0.09]], axis=1) * unit
            band = np.concatenate([curve(wing), curve(wing)[::-1] + [0.03 * sign * unit, 0]])
            canvas.soft(band, edge, 0.30, 0.035 * unit)

    def _creases(
        self,
        points: np.ndarray,
        expression: dict[str, float],
        shape: tuple[int, int],
        head: Pose,
        size: int,
        unit: float,
        offset: np.ndarray,
    ) -> np.ndarray:
        """Light that is left where skin folds and where hair and nose cast shadows: h x w uint8."""
        age = self.natural.age
        dark = np.zeros(shape, np.uint8)

        def line(path: np.ndarray, strength: float, width: float) -> None:
            if strength > 0.02:
                layer = [np.rint((path - 0.5) * 16).astype(np.int32)]
                cv2.polylines(
                    dark, layer, False, int(255 * min(strength, 0.6)), max(1, round(width * unit)), cv2.LINE_AA, 4
                )

        for name, sign in (("l", -1), ("r", 1)):
            smile = expression[f"smile_fold_{name}"] + 0.7 * expression[f"corner_up_{name}"]
            fold = curve(points[GROUPS[f"fold_{name}"]])
            line(fold, 0.10 + 0.22 * age + 0.30 * max(0.0, smile), 0.035)
            frown = expression["brow_squeeze"] + 0.4 * expression[f"brow_lower_{name}"]
            line(points[GROUPS[f"frown_{name}"]], 0.05 * age + 0.4 * max(0.0, frown), 0.024)
            wrinkle = max(0.0, expression[f"nose_wrinkle_{name}"])
            for down in (0.0, 0.07):
                bridge = points[28] + unit * (np.array([[0.05, -0.06], [0.12, -0.09], [0.16, -0.06]]) + [0, down]) * [
                    sign,
                    1,
                ]
                line(bridge, 0.5 * wrinkle, 0.02)
            squint = 0.5 * expression[f"cheek_raise_{name}"] + 0.3 * expression[f"lower_lid_raise_{name}"]
            low = points[[36, 41, 40, 39]] if name == "l" else points[[45, 46, 47, 42]]
            line(curve(low + [0, 0.075 * unit])[3:-4], 0.06 + 0.2 * age + 0.35 * max(0.0, squint), 0.022)
            corner = points[48 if name == "l" else 54]
            line(
                np.stack(
                    [corner + unit * np.array([sign * 0.02, -0.05]), corner + unit * np.array([sign * 0.045, 0.02])]
                ),
                0.12 + 0.25 * max(0.0, smile),
                0.03,
            )
        raised = 0.3 * (expression["brow_inner_up_l"] + expression["brow_inner_up_r"])
        for row in points[GROUPS["lines"]].reshape(2, 5, 2):
            line(
                curve(row),
                0.4 * max(0.0, expression["forehead_wrinkle"]) * (0.5 + age) + raised * (0.3 + 0.5 * age),
                0.022,
            )
        under = curve(points[[59, 58, 57, 56, 55]])
        line(under[4:-4] + [0, 0.055 * unit], 0.26, 0.06)
        light = self.natural.light
        cast = float(np.clip(np.linalg.norm(light.key[:2]), 0, 0.9)) * float(light.key_colour[1])
        away = -light.key[:2] / (np.linalg.norm(light.key[:2]) + 1e-6)
        nose = np.concatenate([points[28:31], points[[35 if away[0] > 0 else 31]], points[33:34]])
        shadow = np.concatenate([nose, nose[1:4][::-1] + away * [0.17, 0.12] * unit * cast])
        hull = cv2.convexHull(np.float32(shadow))[:, 0]
        cv2.fillPoly(
            dark, [np.rint((hull - 0.5) * 16).astype(np.int32)], int(255 * min(0.18, 0.2 * cast)), cv2.LINE_AA, 4
        )
        if self.hair.style != "shaved":
            hairline, outer = project(self.hair.line, head, size), project(self.hair.outer, head, size)
            cover = np.concatenate([hairline, outer[::-1]]) - offset + [0.03 * unit * float(away[0]), 0.07 * unit]
            cv2.fillPoly(
                dark, [np.rint((cover - 0.5) * 16).astype(np.int32)], int(255 * (0.2 + 0.25 * cast)), cv2.LINE_AA, 4
            )
        kernel = max(1, round(0.035 * unit)) * 2 + 1
        return cv2.bitwise_not(cv2.blur(cv2.blur(dark, (kernel, kernel)), (kernel // 2 | 1,) * 2))

    def _chin_shadow(self, canvas: Canvas, points: np.ndarray, unit: float, neck: np.ndarray) -> None:
        chin = curve(points[2:15], samples=4)
        light = self.natural.light
        drop = np.array([-0.10 * float(light.key[0]), 0.20]) * unit
        shadow = np.concatenate([chin + drop, chin[::-1] * [1, 0] + [0, chin[:, 1].min() - 0.1 * unit]])
        tone = self.natural.skin * light.ambient * np.float32([0.55, 0.42, 0.40])
        canvas.soft(shadow, as_colour(tone), 0.62, 0.09 * unit, clip=neck)

    def _paint_ears(self, canvas: Canvas, head: Pose, size: int, light: np.ndarray) -> None:
        unit = size * UNIT * head.scale
        for sign, ear in zip((-1, 1), self.ears, strict=True):
            places = project(ear, head, size)
            outline = curve(places, closed=True)
            row, column = light.shape[0] // 2, int(light.shape[1] * (0.5 + sign * 0.24))
            tone = self.natural.skin * light[row, column, :3] * np.float32([0.98, 0.84, 0.80])
            colour = as_colour(tone)
            canvas.fill(outline, colour)
            middle = places.mean(axis=0)
            inner = curve((places[1:6] - middle) * 0.58 + middle)
            dark = as_colour(tone * np.float32([0.62, 0.5, 0.48]))
            canvas.soft(
                np.concatenate([inner, inner[::-1] - [sign * 0.05 * unit, 0]]), dark, 0.7, 0.02 * unit, clip=outline
            )
            bright = as_colour(tone * 1.14)
            rim = curve((places[1:6] - middle) * 0.84 + middle)
            canvas.soft(
                np.concatenate([rim, rim[::-1] - [sign * 0.02 * unit, 0]]), bright, 0.6, 0.012 * unit, clip=outline
            )

    def _paint_glasses(self, canvas: Canvas, head: Pose, size: int, unit: float) -> None:
        lenses = np.stack([project(lens, head, size) for lens in self.lenses])
        ends = np.array(
            [[[-0.76, -0.10, 0.32], [-0.985, -0.12, -0.11]], [[0.76, -0.10, 0.32], [0.985, -0.12, -0.11]]], np.float32
        )
        arms = np.stack([project(end, head, size) for end in ends])
        paint_glasses(canvas, self.natural.glasses_colour, lenses, arms, unit)


def _box(points: np.ndarray, size: int, margin: int) -> tuple[int, int, int, int] | None:
    """left, top, right, bottom around points inside the picture; None where nothing of it is inside."""
    low = np.floor(points.min(axis=0)).astype(int) - margin
    high = np.ceil(points.max(axis=0)).astype(int) + margin
    left, top, right, bottom = max(0, low[0]), max(0, low[1]), min(size, high[0]), min(size, high[1])
    return (int(left), int(top), int(right), int(bottom)) if right > left and bottom > top else None
