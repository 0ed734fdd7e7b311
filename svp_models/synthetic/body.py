"""Neck, shoulders and clothes."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, curve, mix, shade
from .geometry import UNIT, Pose, project, project_body
from .identity import Appearance

_NECKLINE_DEPTH = {
    "crew": 1.86, "v_neck": 2.22, "turtleneck": 1.66, "shirt": 1.98, "jacket": 2.2, "scoop": 2.08, "hoodie": 1.90,
}  # fmt: skip


class Body:
    """Neck, shoulders and clothes of one identity, face units."""

    def __init__(self, look: Appearance) -> None:
        self.look = look
        self.neck = 0.47 * (1 + 0.10 * look.shape["neck_width"])
        self.shoulder = 1.62 + 0.16 * look.shape["shoulder_width"]

    def paint(self, canvas: Canvas, pose: Pose, size: int, chin: np.ndarray) -> None:
        """chin: the rendered jaw line n x 2 px, which casts a shadow on the neck."""
        unit = size * UNIT * pose.scale
        self._paint_neck(canvas, pose, size, chin, unit)
        self.paint_clothes(canvas, pose, size)

    def _paint_neck(self, canvas: Canvas, pose: Pose, size: int, chin: np.ndarray, unit: float) -> None:
        look, neck = self.look, self.neck
        top = project(np.array([[-neck, 0.72, -0.2], [neck, 0.72, -0.2]], dtype=np.float32), pose, size)
        left = np.array([[-neck - 0.02, 1.50], [-neck - 0.16, 1.70], [-0.95, 1.90], [-1.05, 2.3]], dtype=np.float32)
        right = left[::-1] * np.array([-1, 1], dtype=np.float32)
        low_left, low_right = project_body(left, pose, size), project_body(right, pose, size)
        bottom = project_body(np.array([[1.05, 3.2], [-1.05, 3.2]], dtype=np.float32), pose, size)
        side_left, side_right = curve(np.concatenate([top[:1], low_left])), curve(np.concatenate([low_right, top[1:]]))
        outline = np.concatenate([side_left, bottom[::-1], side_right])
        canvas.fill(outline, look.skin)
        drop = np.array([0.0, 0.17 * unit])
        shadow = np.concatenate([chin, chin[::-1] * [1, 0] + [0, chin[:, 1].min() - 0.1 * unit]])
        canvas.soft(shadow + drop, look.skin_shadow, 0.85, 0.07 * unit, clip=outline)
        for sign in (-1, 1):
            bone = np.array([[0.12 * sign, 1.83], [0.42 * sign, 1.78], [0.8 * sign, 1.80]], dtype=np.float32)
            canvas.line(curve(project_body(bone, pose, size)), mix(look.skin, look.skin_shadow, 0.6), 0.018 * unit)

    def paint_clothes(self, canvas: Canvas, pose: Pose, size: int) -> None:
        look, style, neck, unit = self.look, self.look.clothes_style, self.neck, size * UNIT
        wide = {"scoop": 0.34, "v_neck": 0.12, "turtleneck": 0.0}.get(style, 0.08)
        collar_x = neck + 0.04 + wide
        collar_y = {"scoop": 1.77, "turtleneck": 1.60}.get(style, 1.68)
        dip = _NECKLINE_DEPTH[style]
        right = np.array(
            [[collar_x, collar_y], [collar_x + 0.35, collar_y + 0.115], [1.25, 1.96], [self.shoulder, 2.16],
             [self.shoulder + 0.16, 2.6], [self.shoulder + 0.2, 3.2]], dtype=np.float32
        )  # fmt: skip
        if style in ("v_neck", "shirt", "jacket"):
            neckline = np.array([[-collar_x, collar_y], [0, dip], [collar_x, collar_y]], dtype=np.float32)
        else:
            turn = np.linspace(np.pi, 0, 15)
            neckline = np.stack([np.cos(turn) * collar_x, collar_y + np.sin(turn) * (dip - collar_y)], axis=1)

        def to_image(points: np.ndarray | list[list[float]]) -> np.ndarray:
            return project_body(np.asarray(points, dtype=np.float32), pose, size)

        side = curve(right)
        outline = to_image(np.concatenate([neckline, side[1:], side[::-1] * [-1, 1]]))
        if style == "jacket":  # a shirt underneath
            under = to_image([[-collar_x, collar_y], [0, 1.92], [collar_x, collar_y], [0.5, 3.2], [-0.5, 3.2]])
            canvas.fill(under, look.accent)
        canvas.fill(outline, look.clothes)
        lit = -1.0 if look.shape["light_side"] < 0 else 1.0
        far = to_image(np.array([[0.95, 1.7], [2.2, 1.7], [2.2, 3.2], [1.2, 3.2]]) * [-lit, 1])
        canvas.soft(far, look.clothes_dark, 0.55, 0.25 * unit, clip=outline)
        for sign in (-1, 1):  # sleeve seams
            seam = np.array([[1.22, 2.12], [1.16, 2.34], [1.20, 2.7]]) * [sign, 1]
            canvas.line(curve(to_image(seam)), look.clothes_dark, 0.02 * unit)
        edge = to_image(neckline)
        if style in ("crew", "scoop"):
            canvas.line(edge, look.clothes_dark if style == "crew" else look.accent, 0.055 * unit)
        if style == "v_neck":
            canvas.line(edge, look.accent, 0.05 * unit)
        if style == "turtleneck":
            hem = np.stack([np.cos(turn[::-1]) * (collar_x + 0.03), 1.9 + 0.16 * np.sin(turn)], axis=1)
            canvas.fill(to_image(np.concatenate([neckline, hem])), mix(look.clothes, look.clothes_dark, 0.35))
            canvas.line(edge, look.clothes_dark, 0.02 * unit)
            rib = mix(look.clothes, look.clothes_dark, 0.7)
            for x in np.linspace(-0.8, 0.8, 7) * collar_x:
                canvas.line(to_image([[x, 1.70 + 0.03 * (1 - (x / collar_x) ** 2)], [x, 2.0]]), rib, 0.014 * unit)
        if style in ("shirt", "jacket"):
            for sign in (-1, 1):
                if style == "shirt":
                    corners = [
                        [collar_x, collar_y - 0.06],
                        [0.02, dip],
                        [0.36, dip + 0.16],
                        [collar_x + 0.16, collar_y + 0.05],
                    ]
                    tone, edge_tone = shade(look.clothes, 1.18), look.clothes_dark
                else:
                    corners = [
                        [collar_x, collar_y - 0.02],
                        [0, dip],
                        [0.42, 2.12],
                        [0.62, 1.98],
                        [collar_x + 0.14, collar_y + 0.05],
                    ]
                    tone, edge_tone = look.clothes_dark, mix(look.clothes, look.clothes_dark, 0.4)
                flap = to_image(np.array(corners) * [sign, 1])
                canvas.fill(flap, tone)
                canvas.line(flap[1:], edge_tone, 0.014 * unit)
            if style == "shirt":
                canvas.line(to_image([[0, dip], [0, 3.0]]), look.clothes_dark, 0.016 * unit)
                canvas.disc(to_image([[0.0, dip + 0.16]])[0], 0.025 * unit, look.accent)
        if style == "hoodie":
            for sign in (-1, 1):
                hood = [
                    [collar_x, collar_y - 0.10],
                    [collar_x + 0.28, collar_y + 0.04],
                    [0.55, 2.02],
                    [0.12, dip + 0.02],
                ]
                canvas.fill(
                    curve(to_image(np.array(hood) * [sign, 1]), closed=True), mix(look.clothes, look.clothes_dark, 0.55)
                )
                canvas.line(to_image([[0.16 * sign, 1.98], [0.18 * sign, 2.32]]), look.accent, 0.03 * unit)
