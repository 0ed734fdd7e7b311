"""Renderer of one identity: images with exact landmarks, head keypoints and face masks; background, body and clothes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..motion.coefficients import EXPRESSION_NAMES
from ..optional_deps import cv2
from .canvas import SHIFT, Canvas, Colour, curve, mix, shade
from .expressions import GROUPS
from .features import lens_outline, paint_brows, paint_eyes, paint_glasses, paint_mouth
from .geometry import UNIT, FaceGeometry, Pose, project, project_body
from .hair import COVERS_EARS, Hair
from .identity import Appearance, FaceStates, appearance
from .skin import Skin

_NECKLINE_DEPTH = {
    "crew": 1.86, "v_neck": 2.22, "turtleneck": 1.66, "shirt": 1.98, "jacket": 2.2, "scoop": 2.08, "hoodie": 1.90,
}  # fmt: skip
BLUR_SIDE = 160  # pixels: backgrounds are soft, so they are painted small and enlarged


@dataclass(frozen=True)
class RenderedFace:
    """One image and its ground truth; positions in pixels, (0, 0) is the top-left corner of the image.

    image: size x size x 3 uint8 RGB. landmarks: 68 x 2 float32, iBUG order, 0 at the image-left jaw. head_keypoints:
    8 x 2 float32: left edge upper, left edge lower, right edge upper, right edge lower, left pupil, right pupil, nose
    bridge top, nose tip ('left' is the image's). mask: size x size uint8, 255 inside the face's contour.
    """

    image: np.ndarray
    landmarks: np.ndarray
    head_keypoints: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class RenderedClip:
    """The `RenderedFace`s of n frames, stacked: images n h w 3, landmarks n 68 2, head_keypoints n 8 2, masks n h w."""

    images: np.ndarray
    landmarks: np.ndarray
    head_keypoints: np.ndarray
    masks: np.ndarray


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
        paint_glasses(canvas, self.look, lenses, arms, unit)


def render_clip(identity: np.ndarray, states: FaceStates, size: int) -> RenderedClip:
    """All frames of a clip of one identity."""
    renderer = FaceRenderer(identity)
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


def paint_background(look: Appearance, side: int) -> np.ndarray:
    """side x side x 3, uint8 RGB."""
    small = BLUR_SIDE
    canvas = Canvas(_gradient(look.background, mix(look.background, look.background_second, 0.6), small), 1)
    accent, light = look.shape["background_accent"], look.shape["background_light"]
    rng = np.random.default_rng(int(1000 * (accent + 1)) * 7919 + int(1000 * (light + 1)))
    bright, second = shade(look.background, 1.45), look.background_second
    kind = look.background_kind
    if kind == "glow":
        canvas.soft(_ring(np.array([0.5 + 0.2 * accent, 0.42]) * small, 0.36 * small), bright, 0.85, 0.18 * small)
    if kind == "bokeh":
        for _ in range(11):
            centre, radius = rng.uniform(0, small, 2), rng.uniform(0.05, 0.13) * small
            tone = mix(bright, shade(second, 1.25), rng.uniform())
            canvas.soft(_ring(centre, radius), tone, rng.uniform(0.3, 0.6), 0.018 * small)
    if kind == "bands":
        slope = 0.5 + 0.4 * accent
        for number in range(-2, 8, 2):
            left = (number * 0.2 + 0.1 * accent) * small
            width = 0.17 * small
            corners = [
                [left, 0],
                [left + width, 0],
                [left + width + slope * small, small],
                [left + slope * small, small],
            ]
            canvas.soft(np.array(corners), mix(bright, second, 0.25 + 0.1 * (number % 3)), 0.45, 2.0)
    if kind == "circle":
        canvas.disc(np.array([0.5 + 0.06 * accent, 0.46]) * small, 0.40 * small, mix(look.background, second, 0.85))
        canvas.disc(np.array([0.5 + 0.06 * accent, 0.46]) * small, 0.355 * small, mix(look.background, second, 0.6))
    if kind == "window":
        left = (0.10 if accent > 0 else 0.58) * small
        for row in (0, 1):
            for column in (0, 1):
                x, y = left + column * 0.17 * small, (0.08 + row * 0.24) * small
                pane = np.array(
                    [[x, y], [x + 0.15 * small, y], [x + 0.15 * small, y + 0.22 * small], [x, y + 0.22 * small]]
                )
                canvas.soft(pane, shade(bright, 1.3), 0.8, 1.5)
    if kind == "hills":
        across = np.linspace(-2, small + 2, 40)
        for row in range(3):
            down = small * (0.52 + 0.15 * row + 0.05 * np.sin(across / small * (5 + row) + 2.2 * row + 3 * accent))
            outline = np.concatenate([np.stack([across, down], axis=1), [[small + 2, small + 2], [-2, small + 2]]])
            canvas.soft(outline, mix(look.background, second, 0.35 + 0.3 * row), 0.9, 1.2)
    smooth = cv2.GaussianBlur(canvas.image, (0, 0), 0.8)
    return np.ascontiguousarray(cv2.resize(smooth, (side, side), interpolation=cv2.INTER_CUBIC))


def _gradient(top: Colour, bottom: Colour, side: int) -> np.ndarray:
    ramp = np.linspace(0, 1, side)[:, None, None]
    column = np.asarray(top) * (1 - ramp) + np.asarray(bottom) * ramp  # side 1 3
    return np.ascontiguousarray(np.broadcast_to(np.rint(np.clip(column, 0, 255)), (side, side, 3)).astype(np.uint8))


def _ring(centre: np.ndarray, radius: float) -> np.ndarray:
    turn = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    return centre + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)


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
        self._paint_clothes(canvas, pose, size)

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

    def _paint_clothes(self, canvas: Canvas, pose: Pose, size: int) -> None:
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
