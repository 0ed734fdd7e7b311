"""Skin of the head: ears, the shaded face, nose, folds, beard and what sits on the skin."""

from __future__ import annotations

import numpy as np

from ..optional_deps import cv2
from .canvas import Canvas, curve, mix, shade
from .expressions import GROUPS
from .geometry import UNIT, FaceGeometry, Pose, project, surface_depth
from .identity import Appearance

TEXTURE_SIDE = 192
_SPAN = (-1.35, 1.35, -1.45, 1.45)  # face units that the texture covers: left, right, top, bottom


class Skin:
    """The skin of one identity. The shading of the relaxed face is a texture that is warped with the head."""

    def __init__(self, look: Appearance, geometry: FaceGeometry) -> None:
        self.look = look
        self.lit = -1.0 if look.shape["light_side"] < 0 else 1.0
        self.strength = 0.62 + 0.38 * look.shape["light_strength"]
        self.geometry = geometry
        self.texture = self._texture()
        self.anchor = np.array([[-0.8, -0.3, 0.12], [0.8, -0.3, 0.12], [0.0, 0.9, 0.25]], dtype=np.float32)
        ear = np.array(
            [[0.93, -0.16], [1.03, -0.28], [1.13, -0.24], [1.15, -0.06], [1.10, 0.14], [1.04, 0.27], [0.94, 0.24]]
        )
        centre = np.array([1.0, 0.0])
        ear = (ear - centre) * (1 + 0.15 * look.shape["ear_size"]) + centre + [0.0, 0.06 * look.shape["ear_height"]]
        edge = geometry.neutral[16, 0] - 1.0
        ear = np.column_stack([ear[:, 0] + edge, ear[:, 1], np.full(len(ear), -0.32)])
        self.ears = [np.asarray(ear * [sign, 1, 1], dtype=np.float32) for sign in (-1, 1)]
        rng = np.random.default_rng(int((look.shape["freckles"] + 1) * 5000))
        spots = np.stack([rng.uniform(-0.72, 0.72, 34), rng.uniform(0.10, 0.42, 34)], axis=1)
        self.spots = np.column_stack([spots, surface_depth(spots[:, 0], spots[:, 1])]).astype(np.float32)
        mole = np.array([[0.42 * self._mole_side(), 0.58]])
        self.mole = np.column_stack([mole, surface_depth(mole[:, 0], mole[:, 1])]).astype(np.float32)

    def _mole_side(self) -> float:
        return 1.0 if self.look.shape["mole"] > 0.85 else -1.0

    def _texture(self) -> np.ndarray:
        """Lit skin: TEXTURE_SIDE x TEXTURE_SIDE x 3, uint8."""
        look = self.look
        x, y = np.meshgrid(np.linspace(_SPAN[0], _SPAN[1], TEXTURE_SIDE), np.linspace(_SPAN[2], _SPAN[3], TEXTURE_SIDE))
        radius = np.clip((x / 1.12) ** 2 + ((y - 0.02) / 1.42) ** 2, 0, 1)
        normal = np.stack([x / 1.12, (y - 0.02) / 1.42, np.sqrt(1 - radius)], axis=-1)
        toward = np.array([0.52 * self.lit, -0.42, 0.74])
        light = normal @ (toward / np.linalg.norm(toward))
        dark = np.clip((0.60 - light) / 0.75, 0, 1) ** 1.15 * self.strength
        bright = np.clip((light - 0.72) / 0.28, 0, 1) ** 1.4 * (0.35 + 0.35 * self.strength)
        colour = np.empty((TEXTURE_SIDE, TEXTURE_SIDE, 3))
        colour[:] = look.skin

        def toward_colour(target: tuple[float, ...], amount: np.ndarray) -> None:
            colour[:] = colour + (np.asarray(target) - colour) * amount[..., None]

        def spot(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
            return np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)

        toward_colour(look.skin_light, bright)
        toward_colour(look.skin_shadow, dark)
        eyes = self.geometry.neutral[GROUPS["eyes"]]
        depth = 0.16 + 0.14 * look.shape["eye_shadow"]
        for eye in eyes:
            toward_colour(look.skin_shadow, depth * spot(eye[0] * 0.97, eye[1] - 0.02, 0.30, 0.19))
        lip = self.geometry.neutral[57, 1]
        toward_colour(look.skin_shadow, 0.42 * spot(0, lip + 0.06, 0.20, 0.05))  # below the lower lip
        toward_colour(look.skin_light, 0.35 * spot(0, lip + 0.19, 0.16, 0.09))  # chin
        toward_colour(look.skin_light, 0.25 * spot(0.2 * self.lit, -0.62, 0.45, 0.22))  # forehead
        return np.ascontiguousarray(np.rint(np.clip(colour, 0, 255)).astype(np.uint8))

    def paint_ears(self, canvas: Canvas, pose: Pose, size: int) -> None:
        look, unit = self.look, size * UNIT * pose.scale
        for side, ear in zip((-1, 1), self.ears, strict=True):
            points = project(ear, pose, size)
            outline = curve(points, closed=True)
            tone = mix(look.skin, look.skin_shadow, 0.15 if side == self.lit else 0.55)
            canvas.fill(outline, tone)
            middle = points.mean(axis=0)
            inner = (points[1:6] - middle) * 0.62 + middle
            canvas.line(curve(inner), mix(tone, look.skin_shadow, 0.75), 0.022 * unit)
            if look.earrings == "stud":
                canvas.disc(points[5] + [0, -0.02 * unit], 0.045 * unit, look.earring_colour)
            if look.earrings == "hoop":
                turn = np.linspace(0, 2 * np.pi, 20)
                ring = points[5] + unit * np.stack([0.085 * np.cos(turn), 0.10 + 0.12 * np.sin(turn)], axis=1)
                canvas.line(ring, look.earring_colour, 0.03 * unit, closed=True)

    def paint_face(self, canvas: Canvas, outline: np.ndarray, pose: Pose, size: int) -> None:
        """outline: the rendered contour of the face, m x 2 px."""
        canvas.fill(outline, mix(self.look.skin, self.look.skin_shadow, 0.3))
        box = canvas.box(outline)
        if box is None:
            return
        left, top, right, bottom = box
        target = project(self.anchor, pose, size) * canvas.factor - [left + 0.5, top + 0.5]
        scale = [(TEXTURE_SIDE - 1) / (_SPAN[1] - _SPAN[0]), (TEXTURE_SIDE - 1) / (_SPAN[3] - _SPAN[2])]
        source = (self.anchor[:, :2] - [_SPAN[0], _SPAN[2]]) * scale
        warp = cv2.getAffineTransform(source.astype(np.float32), target.astype(np.float32))
        image = cv2.warpAffine(
            self.texture, warp, (right - left, bottom - top), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        region = canvas.image[top:bottom, left:right]
        cv2.copyTo(image, canvas.mask(outline, box), region)

    def paint_marks(
        self,
        canvas: Canvas,
        points: np.ndarray,
        outline: np.ndarray,
        expression: dict[str, float],
        pose: Pose,
        size: int,
    ) -> None:
        """Cheeks, freckles, folds and wrinkles. points: projected face points, VERTEX_COUNT x 2 px."""
        look, unit = self.look, size * UNIT * pose.scale
        crease = mix(look.skin, look.skin_shadow, 0.95)
        deep = shade(look.skin_shadow, 0.86)
        for side, name in enumerate("lr"):
            raised = max(0.0, expression[f"cheek_raise_{name}"]) + 0.5 * max(0.0, expression[f"corner_up_{name}"])
            cheek = points[GROUPS["cheeks"]][side]
            puff = max(0.0, expression["cheek_puff"])
            turn = np.linspace(0, 2 * np.pi, 16, endpoint=False)
            ellipse = cheek + unit * np.stack([0.23 * np.cos(turn), 0.15 * np.sin(turn)], axis=1)
            glow = 0.28 + 0.22 * look.shape["blush"]
            canvas.soft(ellipse, look.blush, min(0.8, glow + 0.18 * min(raised, 1.5)), 0.13 * unit, clip=outline)
            if puff > 0 or raised > 0.05:
                high = cheek + unit * np.stack([0.13 * np.cos(turn), -0.05 + 0.08 * np.sin(turn)], axis=1)
                canvas.soft(high, look.skin_light, min(0.65, 0.5 * puff + 0.35 * raised), 0.07 * unit, clip=outline)
            fold = curve(points[GROUPS[f"fold_{name}"]])
            smile = 0.85 * expression[f"smile_fold_{name}"] + 0.45 * expression[f"corner_up_{name}"]
            smile += 0.35 * expression[f"nose_wrinkle_{name}"] + 0.3 * expression[f"upper_lip_raise_{name}"]
            self._line(canvas, fold, deep, min(0.9, 0.07 + smile), 0.030 * unit)
            self._wrinkles(canvas, points, name, expression, deep, unit)
        frown = max(0.0, expression["brow_squeeze"]) + 0.45 * max(
            0.0, expression["brow_lower_l"] + expression["brow_lower_r"]
        )
        for name in "lr":
            self._line(canvas, points[GROUPS[f"frown_{name}"]], deep, min(0.85, 0.75 * frown), 0.026 * unit)
        rows = points[GROUPS["lines"]].reshape(2, 5, 2)
        raised = 0.25 * (expression["brow_inner_up_l"] + expression["brow_inner_up_r"])
        for row in rows:
            self._line(canvas, curve(row), deep, min(0.8, 0.8 * expression["forehead_wrinkle"] + raised), 0.022 * unit)
        if look.freckles:
            for spot in project(self.spots[: 12 + int(22 * look.freckles)], pose, size):
                canvas.disc(spot, 0.016 * unit, mix(look.skin, (150, 84, 54), 0.45))
        if look.mole:
            canvas.disc(project(self.mole, pose, size)[0], 0.026 * unit, shade(crease, 0.55))

    def _wrinkles(
        self, canvas: Canvas, points: np.ndarray, name: str, expression: dict[str, float], colour: tuple, unit: float
    ) -> None:
        """Small lines beside the nose's bridge and below a raised cheek."""
        sign = -1 if name == "l" else 1
        bridge = points[28]
        nose = min(0.9, max(0.0, expression[f"nose_wrinkle_{name}"]))
        for step in (0.0, 0.09):
            line = np.array([[0.05, -0.06], [0.12, -0.09], [0.16, -0.06]]) + [0, step]
            line = bridge + unit * line * [sign, 1]
            self._line(canvas, line, colour, 0.9 * nose, 0.022 * unit)
        squint = 0.5 * expression[f"cheek_raise_{name}"] + 0.3 * expression[f"lower_lid_raise_{name}"]
        low = points[[36, 41, 40, 39]] if name == "l" else points[[45, 46, 47, 42]]
        bag = curve(low + [0, 0.07 * unit])
        strength = 0.12 + 0.10 * self.look.shape["eye_shadow"] + max(0.0, squint)
        self._line(canvas, bag[3:-4], colour, min(0.6, strength), 0.020 * unit)

    def _line(self, canvas: Canvas, path: np.ndarray, colour: tuple, opacity: float, width: float) -> None:
        """A thin line that fades in with opacity."""
        if opacity <= 0.02:
            return
        box = canvas.box(path, margin=width)
        if box is None:
            return
        left, top, right, bottom = box
        alpha = np.zeros((bottom - top, right - left), dtype=np.uint8)
        thickness = max(1, round(width * canvas.factor))
        cv2.polylines(alpha, [canvas.fixed(path, left, top)], False, 255, thickness, cv2.LINE_AA, 6)
        canvas.blend(box, colour, alpha, opacity)

    def paint_nose(self, canvas: Canvas, points: np.ndarray, unit: float) -> None:
        """Shadow on the far side of the bridge, tip light, wings and nostrils."""
        look, shape = self.look, self.look.shape
        away = -self.lit
        wide = 0.10 + 0.025 * shape["nose_bridge"]
        wing_left, wing_right = points[31], points[35]
        wing = wing_right if away > 0 else wing_left
        bridge = points[27:31]
        reach = np.array([[wide * 1.1, -0.02], [wide * 0.9, 0], [wide * 1.1, 0], [wide * 1.5, 0.06]])
        side = bridge + reach * [away * unit, unit]
        shadow = np.concatenate([bridge, [points[33]], [wing * 0.8 + points[33] * 0.2], side[::-1]])
        canvas.soft(shadow, look.skin_shadow, 0.42 + 0.22 * shape["nose_shadow"], 0.045 * unit)
        under = np.concatenate([points[31:36], (points[31:36] * 0.75 + points[33] * 0.25 + [0, 0.10 * unit])[::-1]])
        canvas.soft(under, look.skin_shadow, 0.55 + 0.2 * shape["nose_shadow"], 0.04 * unit)
        light = np.array([[-0.03, 0.02], [0.03, 0.02], [0.045, 0.2], [0.0, 0.28], [-0.045, 0.2]])
        ridge = points[28] + light * [unit, 0] + (points[30] - points[28]) * (light[:, 1:] * 3.2)
        canvas.soft(ridge, look.skin_light, 0.55, 0.035 * unit)
        deep = shade(look.skin_shadow, 0.74)
        for sign, corner, nostril in zip((-1, 1), (wing_left, wing_right), points[GROUPS["nostrils"]], strict=True):
            width = np.array([0.018, 0.05, 0.065, 0.03])
            wing_line = corner + np.stack([sign * (width - 0.03), [0.045, 0.02, -0.035, -0.09]], axis=1) * unit
            self._line(canvas, curve(wing_line), deep, 0.55, 0.024 * unit)
            size = 0.042 * (1 + 0.25 * shape["nostril_size"]) * unit
            canvas.disc(nostril, (size, size * 0.5), deep, angle=-14 * sign)
        base = curve(points[[32, 33, 34]])
        self._line(canvas, base + [0, 0.012 * unit], deep, 0.5, 0.020 * unit)

    def paint_beard(self, canvas: Canvas, points: np.ndarray, outline: np.ndarray, unit: float) -> None:
        look, shape = self.look, self.look.shape
        tone = mix(look.hair_dark, look.skin_shadow, 0.25)
        if look.beard:
            full = shape["beard_length"]
            side = 2 if full > 0.0 else 3
            jaw = points[side : 17 - side]
            drop = np.zeros_like(jaw)
            drop[:, 1] = np.sin(np.linspace(0, np.pi, len(jaw))) * max(0.0, 0.03 + 0.10 * full) * unit
            below = np.array([0, 0.075]) * unit
            inner = np.stack(
                [
                    points[side] * 0.9 + points[48] * 0.1,
                    points[4] * 0.62 + points[48] * 0.38,
                    points[48] + [-0.08 * unit, 0.02 * unit],
                    points[59] + below,
                    points[57] + below,
                    points[55] + below,
                    points[54] + [0.08 * unit, 0.02 * unit],
                    points[12] * 0.62 + points[54] * 0.38,
                    points[16 - side] * 0.9 + points[54] * 0.1,
                ]
            )
            shape_points = np.concatenate([curve(jaw + drop), curve(inner)[::-1]])
            canvas.soft(shape_points, tone, 0.45 + 0.45 * look.beard * (full + 1) / 2, 0.03 * unit)
        if look.moustache:
            nose, lip = points[33], points[51]
            middle = nose * 0.35 + lip * 0.65
            top = np.stack([points[48], points[49], middle, points[53], points[54]])
            top = top + np.array([[-0.03, 0.03], [0, -0.09], [0, -0.03], [0, -0.09], [0.03, 0.03]]) * unit
            low = np.stack([points[53], points[52], lip, points[50], points[49]])
            low = low - np.array([[0, 0.005], [0, 0.012], [0, 0.015], [0, 0.012], [0, 0.005]]) * unit
            canvas.soft(np.concatenate([curve(top), curve(low)]), tone, 0.55 + 0.4 * look.moustache, 0.02 * unit)
