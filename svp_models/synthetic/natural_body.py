"""Neck and clothes as textures with cloth, folds and light."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..optional_deps import cv2
from .body import Body
from .canvas import Canvas, as_colour, curve
from .geometry import UNIT, Pose, project, project_body
from .identity import Appearance
from .natural_look import NaturalLook
from .noise import cloth_texture, fractal_noise, smooth_noise
from .surface import Span

MARGIN = 0.16  # of the picture's width around the clothes' texture, so that no edge of it moves into the picture
_FOLLOWS = 0.22  # see geometry.BODY_FOLLOWS
_ANCHOR = np.array([[-1.2, 2.2], [1.2, 2.2], [0.0, 3.4]], np.float32)
_NECK = np.array([[-0.47, 0.75, -0.2], [0.47, 0.75, -0.2]], np.float32)
_NECK_LOW = np.array([[0.0, 2.2]], np.float32)


class NaturalBody:
    """Clothes h x w x 4 uint8 in a picture's own scale, and the neck over a span."""

    def __init__(self, look: NaturalLook, drawn: Appearance, size: int) -> None:
        self.size = size
        rng = look.rng(5)
        self.rest = Pose(0, 0, 0, MARGIN / _FOLLOWS, MARGIN / _FOLLOWS, 1.0)
        self.side = round(size * (1 + 2 * MARGIN))
        self.clothes = self._clothes(rng, look, drawn)
        self.source = project_body(_ANCHOR, self.rest, size)
        self.neck_span = Span(-1.25, 1.25, 0.4, 2.6, UNIT * size)
        self.neck = self._neck(rng, look, drawn)

    def _clothes(self, rng: np.random.Generator, look: NaturalLook, drawn: Appearance) -> np.ndarray:
        cloth, dark = as_colour(look.clothes), as_colour(look.clothes * 0.72)
        plain = replace(drawn, clothes=cloth, clothes_dark=dark, accent=as_colour(look.accent))
        body = Body(plain)
        painted = []
        for ground in (0, 255):
            canvas = Canvas(np.full((self.side * 2, self.side * 2, 3), ground, np.uint8), 2)
            body.paint_clothes(canvas, self.rest, self.size)
            painted.append(cv2.resize(canvas.image, (self.side, self.side), interpolation=cv2.INTER_AREA))
        cover = 255 - (painted[1].astype(np.int16) - painted[0]).max(axis=2)
        cover = np.uint8(np.clip(cover, 0, 255))
        colour = np.float32(painted[0]) * (255 / np.maximum(cover, 1)[..., None])
        shape = (self.side, self.side)
        unit = UNIT * self.size
        colour *= cloth_texture(rng, shape, unit)
        x = (np.arange(self.side, dtype=np.float32) / self.side - 0.5) * 2
        light = look.light
        lit = light.ambient + light.key_colour * np.clip(0.55 + 0.6 * float(light.key[0]) * x[:, None], 0.05, 1.2)
        colour *= np.clip(lit * 0.95, 0.1, 1.3)[None]
        low = np.linspace(1.0, 0.86, self.side, dtype=np.float32)[:, None, None]
        return np.dstack([np.uint8(np.clip(colour * low, 0, 255)), cv2.GaussianBlur(cover, (0, 0), 0.6)])

    def _neck(self, rng: np.random.Generator, look: NaturalLook, drawn: Appearance) -> np.ndarray:
        span = self.neck_span
        half = 0.56 * (1 + 0.10 * drawn.shape["neck_width"])
        steps = [[half, 0.4], [half, 1.0], [half + 0.01, 1.5], [half + 0.12, 1.7], [0.98, 1.9], [1.2, 2.1], [1.3, 2.6]]
        right = curve(np.array(steps))
        outline = np.concatenate([right * [-1, 1], right[::-1]])
        self._outline = span.pixels(outline)
        mask = np.zeros(span.shape, np.uint8)
        cv2.fillPoly(mask, [np.rint((span.pixels(outline) - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        x, y = span.mesh()
        normal_x = np.clip(x / (half + 0.06 + np.clip(y - 1.4, 0, 1)), -1, 1)
        normal_z = np.sqrt(1 - 0.96 * normal_x**2)
        light = look.light
        toward = normal_x * light.key[0] + normal_z * light.key[2] * 0.9 + 0.1 * -light.key[1] * (y > 1.6)
        lit = np.clip((toward + light.wrap) / (1 + light.wrap), 0, 1)[..., None]
        rim = np.clip(normal_x * light.fill[0] + normal_z * light.fill[2], 0, 1)[..., None]
        factor = light.ambient * 0.9 + light.key_colour * lit * 0.88 + light.fill_colour * rim
        bones = np.zeros_like(x)
        for sign in (-1, 1):
            for path, strength in (
                (np.array([[0.12, 1.85], [0.42, 1.80], [0.8, 1.83]]), 0.10),
                (np.array([[0.10, 1.80], [0.24, 1.3], [0.36, 0.9]]), 0.07),
            ):
                line = np.zeros(span.shape, np.uint8)
                fixed = np.rint((span.pixels(curve(path * [sign, 1])) - 0.5) * 16).astype(np.int32)
                cv2.polylines(line, [fixed], False, 255, max(1, round(0.06 * span.density)), cv2.LINE_AA, 4)
                bones += strength * cv2.GaussianBlur(np.float32(line) / 255, (0, 0), 0.04 * span.density)
        tone = 1 + 0.03 * fractal_noise(rng, span.shape, 0.3 * span.density, 3)
        tone += 0.012 * look.pores * smooth_noise(rng, span.shape, 1.5)
        colour = look.skin * factor * (tone - bones)[..., None]
        return np.dstack([np.uint8(np.clip(colour, 0, 255)), mask])

    def _neck_places(self, pose: Pose) -> tuple[np.ndarray, np.ndarray]:
        """Three points of the neck's texture and where they are in the picture: head and shoulders both hold it."""
        source = np.concatenate([self.neck_span.pixels(_NECK), self.neck_span.pixels(_NECK_LOW)])
        return source, np.concatenate([project(_NECK, pose, self.size), project_body(_NECK_LOW, pose, self.size)])

    def place_neck(self, image: np.ndarray, pose: Pose) -> None:
        lay(image, self.neck, *self._neck_places(pose))

    def neck_outline(self, pose: Pose) -> np.ndarray:
        matrix = cv2.getAffineTransform(*self._neck_places(pose))
        return self._outline @ matrix[:, :2].T + matrix[:, 2]

    def place_clothes(self, image: np.ndarray, pose: Pose) -> None:
        lay(image, self.clothes, self.source, project_body(_ANCHOR, pose, self.size))


def lay(image: np.ndarray, texture: np.ndarray, source: np.ndarray, target: np.ndarray) -> None:
    """Paint a texture with coverage onto an image; three points say where. Rows above the texture are left alone."""
    matrix = cv2.getAffineTransform(np.float32(source) - np.float32(0.5), np.float32(target) - np.float32(0.5))
    rows = np.flatnonzero(texture[..., 3].any(axis=1))
    corners = np.array([[0, rows[0]], [texture.shape[1], rows[0]]]) @ matrix[:, :2].T + matrix[:, 2]
    top = int(np.clip(np.floor(corners[:, 1].min()) - 1, 0, image.shape[0] - 1))
    matrix[1, 2] -= top
    region = image[top:]
    warped = cv2.warpAffine(texture, matrix, (image.shape[1], len(region)), flags=cv2.INTER_LINEAR)
    blend_over(region, warped)


def blend_over(region: np.ndarray, layer: np.ndarray) -> None:
    """region h x w x 3, layer h x w x 4, both uint8: paint the layer where it covers."""
    blend_masked(region, cv2.cvtColor(layer, cv2.COLOR_RGBA2RGB), cv2.extractChannel(layer, 3))


def blend_masked(region: np.ndarray, layer: np.ndarray, cover: np.ndarray) -> None:
    """region, layer h x w x 3, cover h x w, all uint8: paint the layer where it covers."""
    weight = cover.astype(np.float32) * np.float32(1 / 255)
    region[:] = cv2.blendLinear(layer, region, weight, 1 - weight)
