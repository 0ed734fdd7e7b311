"""Shadows, folds and small forms of a head that move with every frame: nose, creases, ears, the chin's shadow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..optional_deps import cv2
from .canvas import Canvas, as_colour, curve
from .expressions import GROUPS
from .geometry import Pose, project
from .hair import Hair
from .identity import Appearance
from .natural_look import NaturalLook

_EARS = np.array(
    [[0.90, -0.16], [1.01, -0.27], [1.10, -0.23], [1.12, -0.06], [1.08, 0.14], [1.03, 0.27], [0.93, 0.24]], np.float32
)


@dataclass(frozen=True)
class Frame:
    """One frame before it is painted.

    points: VERTEX_COUNT x 2, pupils: 2 x 2, outline: m x 2 of the face, all in pixels of the picture; expression: by name;
    head: the pose; unit: pixels of one face unit; light: see Relief.shading.
    """

    points: np.ndarray
    pupils: np.ndarray
    outline: np.ndarray
    expression: dict[str, float]
    head: Pose
    size: int
    unit: float
    light: np.ndarray


class Shadows:
    """Paints them for one look. edge: how far the face's side lies outside of 1 face unit."""

    def __init__(self, look: NaturalLook, drawn: Appearance, hair: Hair, edge: float) -> None:
        self.look, self.drawn, self.hair = look, drawn, hair
        shift = np.array([1.0 + edge, 0.06 * drawn.shape["ear_height"]])
        ear = (_EARS - [1.0, 0.0]) * (1 + 0.15 * drawn.shape["ear_size"]) + shift
        flat = np.column_stack([ear, np.full(len(ear), -0.32)])
        self.ears = [np.float32(flat * [sign, 1, 1]) for sign in (-1, 1)]

    def nose(self, face: np.ndarray, points: np.ndarray, unit: float) -> None:
        """Nostrils and the wings' edges on a picture of the face; points in its pixels."""
        canvas, skin = Canvas(face, 1), self.look.skin
        deep = as_colour(skin * np.array([0.36, 0.24, 0.22], np.float32))
        edge = as_colour(skin * np.array([0.62, 0.50, 0.47], np.float32))
        for sign, corner, nostril in zip((-1, 1), (points[31], points[35]), points[GROUPS["nostrils"]], strict=True):
            size = 0.034 * (1 + 0.25 * self.drawn.shape["nostril_size"]) * unit
            turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
            hole = nostril + np.stack(
                [np.cos(turn) * size * 1.15, np.sin(turn) * size * 0.5 + sign * np.cos(turn) * 0.25 * size], axis=1
            )
            canvas.soft(hole, deep, 0.8, 0.022 * unit)
            width = np.array([0.0, 0.035, 0.045, 0.01])
            wing = corner + np.stack([sign * (width - 0.01), [0.045, 0.02, -0.035, -0.09]], axis=1) * unit
            band = np.concatenate([curve(wing), curve(wing)[::-1] + [0.03 * sign * unit, 0]])
            canvas.soft(band, edge, 0.30, 0.035 * unit)

    def creases(self, frame: Frame, shape: tuple[int, int], offset: np.ndarray) -> np.ndarray:
        """Light that is left where skin folds and where hair and nose cast shadows: h x w uint8.

        offset: of the face's part within the picture, pixels.
        """
        age, unit, expression, points = self.look.age, frame.unit, frame.expression, frame.points - offset
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
        light = self.look.light
        cast = float(np.clip(np.linalg.norm(light.key[:2]), 0, 0.9)) * float(light.key_colour[1])
        away = -light.key[:2] / (np.linalg.norm(light.key[:2]) + 1e-6)
        nose = np.concatenate([points[28:31], points[[35 if away[0] > 0 else 31]], points[33:34]])
        shadow = np.concatenate([nose, nose[1:4][::-1] + away * [0.17, 0.12] * unit * cast])
        hull = cv2.convexHull(np.float32(shadow))[:, 0]
        cv2.fillPoly(
            dark, [np.rint((hull - 0.5) * 16).astype(np.int32)], int(255 * min(0.18, 0.2 * cast)), cv2.LINE_AA, 4
        )
        if self.hair.style != "shaved":
            hairline, outer = (
                project(self.hair.line, frame.head, frame.size),
                project(self.hair.outer, frame.head, frame.size),
            )
            cover = np.concatenate([hairline, outer[::-1]]) - offset + [0.03 * unit * float(away[0]), 0.07 * unit]
            cv2.fillPoly(
                dark, [np.rint((cover - 0.5) * 16).astype(np.int32)], int(255 * (0.2 + 0.25 * cast)), cv2.LINE_AA, 4
            )
        kernel = max(1, round(0.035 * unit)) * 2 + 1
        return cv2.bitwise_not(cv2.blur(cv2.blur(dark, (kernel, kernel)), (kernel // 2 | 1,) * 2))

    def chin(self, canvas: Canvas, frame: Frame, neck: np.ndarray) -> None:
        """The shadow that the head casts on its neck. neck: outline, m x 2 pixels."""
        unit, chin = frame.unit, curve(frame.points[2:15], samples=4)
        light = self.look.light
        drop = np.array([-0.10 * float(light.key[0]), 0.20]) * unit
        shadow = np.concatenate([chin + drop, chin[::-1] * [1, 0] + [0, chin[:, 1].min() - 0.1 * unit]])
        tone = self.look.skin * light.ambient * np.array([0.55, 0.42, 0.40], np.float32)
        canvas.soft(shadow, as_colour(tone), 0.62, 0.09 * unit, clip=neck)

    def paint_ears(self, canvas: Canvas, frame: Frame) -> None:
        unit, light = frame.unit, frame.light
        for sign, ear in zip((-1, 1), self.ears, strict=True):
            places = project(ear, frame.head, frame.size)
            outline = curve(places, closed=True)
            row, column = light.shape[0] // 2, int(light.shape[1] * (0.5 + sign * 0.24))
            tone = self.look.skin * light[row, column, :3] * np.array([0.98, 0.84, 0.80], np.float32)
            colour = as_colour(tone)
            canvas.fill(outline, colour)
            middle = places.mean(axis=0)
            inner = curve((places[1:6] - middle) * 0.58 + middle)
            dark = as_colour(tone * np.array([0.62, 0.5, 0.48], np.float32))
            canvas.soft(
                np.concatenate([inner, inner[::-1] - [sign * 0.05 * unit, 0]]), dark, 0.7, 0.02 * unit, clip=outline
            )
            bright = as_colour(tone * 1.14)
            rim = curve((places[1:6] - middle) * 0.84 + middle)
            canvas.soft(
                np.concatenate([rim, rim[::-1] - [sign * 0.02 * unit, 0]]), bright, 0.6, 0.012 * unit, clip=outline
            )
