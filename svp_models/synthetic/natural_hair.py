"""Hair made of strands: one texture behind the head, one that lies on it, one for locks beside the face."""

from __future__ import annotations

import numpy as np

from ..optional_deps import cv2
from .canvas import curve, resample, ribbon
from .geometry import FaceGeometry
from .hair import Hair
from .identity import Appearance
from .natural_look import NaturalLook
from .natural_skin import draw_strands
from .noise import fractal_noise, smooth_noise
from .surface import Span

LONG = ("bob", "long", "wavy")


class NaturalHair:
    """Textures h x w x 4 uint8 (RGB and coverage) or None: `front` over the span of the face; `back` and `locks` over
    `fall`, which reaches below the shoulders."""

    def __init__(self, look: NaturalLook, drawn: Appearance, geometry: FaceGeometry, shape: Hair, span: Span) -> None:
        self.look, self.drawn, self.shape, self.span = look, drawn, shape, span
        self.fall = Span(-2.0, 2.0, -2.0, 3.0, span.density)
        rng = look.rng(4)
        self.light = float(np.clip(look.light.key[0], -1, 1))
        self.spread = float(rng.uniform(0.16, 0.42))  # of the strands' tones
        self.front = self._front(rng)
        self.back = self._back(rng)
        self.locks = self._locks(rng) if shape.style in LONG else None

    def _layer(self, span: Span) -> tuple[np.ndarray, np.ndarray]:
        picture = np.empty((*span.shape, 3), np.uint8)
        picture[:] = np.uint8(np.clip(self.look.hair * 0.5, 0, 255))
        return picture, np.zeros(span.shape, np.uint8)

    def _fill(self, mask: np.ndarray, span: Span, outline: np.ndarray) -> None:
        cv2.fillPoly(mask, [np.rint((span.pixels(outline) - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)

    def _count(self, usual: int) -> int:
        """Strands: more of them, and thinner, in large pictures."""
        return int(usual * np.clip(self.span.density / 62, 1, 2.5))

    def _tones(self) -> tuple[float, float]:
        return 1 - 1.5 * self.spread, 1 + 1.3 * self.spread

    def _finish(self, picture: np.ndarray, alpha: np.ndarray, light: np.ndarray) -> np.ndarray:
        lit = np.clip(picture * light[..., None], 0, 255).astype(np.uint8)
        return np.dstack([lit, cv2.GaussianBlur(alpha, (0, 0), 0.7)])

    def _front(self, rng: np.random.Generator) -> np.ndarray:
        span, shape = self.span, self.shape
        picture, alpha = self._layer(span)
        outer, line = shape.outer[:, :2], resample(shape.line[:, :2], len(shape.outer))
        x, y = span.mesh()
        if shape.style == "shaved":
            self._fill(alpha, span, np.concatenate([outer, line[::-1]]))
            dots = 0.52 + 0.16 * smooth_noise(rng, span.shape, max(1.0, 0.016 * span.density))
            soft = cv2.GaussianBlur(alpha, (0, 0), 0.05 * span.density)
            cover = np.uint8(np.clip(soft * np.clip(dots, 0.2, 0.85), 0, 255))
            picture[:] = np.uint8(self.look.hair * 0.8)
            return np.dstack([picture, cover])
        set_back = line + (outer - line) * 0.08  # the edge itself is made of single hairs
        self._fill(alpha, span, np.concatenate([outer, set_back[::-1]]))
        alpha[:] = cv2.GaussianBlur(alpha, (0, 0), 0.03 * span.density)
        kernel = np.hanning(13)[1:-1]
        even = line.copy()
        for axis in (0, 1):
            even[5:-5, axis] = np.convolve(line[:, axis], kernel / kernel.sum(), mode="valid")
        if shape.style == "curly":
            strands = self._curls(rng, outer, even)
        elif shape.style in LONG or (shape.style in ("short", "spiky", "quiff") and rng.uniform() < 0.7):
            strands = self._combed(rng, outer, even)
        else:
            strands = self._swept(rng, outer, even)
        draw_strands(rng, picture, self.look.hair, strands, span, 0.008, self._tones(), alpha)
        if shape.style != "curly":
            draw_strands(rng, picture, self.look.hair, self._roots(rng, outer, line), span, 0.008, self._tones(), alpha)
        middle = even + (outer - even) * 0.45
        band = np.zeros(span.shape, np.uint8)
        lit = slice(26, 44) if self.light > 0 else slice(5, 23)
        path = np.rint((span.pixels(middle[lit]) - 0.5) * 16).astype(np.int32)
        cv2.polylines(band, [path], False, 255, max(1, round(0.22 * span.density)), cv2.LINE_AA, 4)
        shine = cv2.blur(np.float32(band) / 255, (round(0.3 * span.density),) * 2)
        light = 0.80 + 0.22 * self.light * np.clip(x, -1, 1) - 0.10 * np.clip(y + 1.0, -0.5, 1)
        strength = 0.5 + 0.5 * self.drawn.shape["hair_shine"]
        return self._finish(picture, alpha, light + (0.25 + 0.55 * max(0.0, strength)) * shine)

    def _roots(self, rng: np.random.Generator, outer: np.ndarray, line: np.ndarray) -> np.ndarray:
        """Short hairs that begin at the hairline."""
        count = self._count(420)
        place = rng.uniform(0, len(outer) - 1, (count, 1)) + rng.normal(0, 0.8, (count, 1)) * np.linspace(0, 1, 5)
        depth = rng.normal(0.0, 0.02, (count, 1)) + rng.uniform(0.1, 0.3, (count, 1)) * np.linspace(0, 1, 5)
        return _between(outer, line, np.clip(place, 0, len(outer) - 1), depth)

    def _combed(self, rng: np.random.Generator, outer: np.ndarray, line: np.ndarray) -> np.ndarray:
        """Strands from the hair's edge to the hairline; for long hair from the parting down its sides."""
        count, steps = self._count(750), 12
        row = rng.uniform(0, len(outer) - 1.01, count)
        drift = rng.normal(0, 1.2, count) + np.where(row < len(outer) / 2, -1, 1) * rng.uniform(0, 5, count)
        start, reach = rng.uniform(-0.02, 0.5, count), rng.uniform(0.35, 0.75, count)
        t = np.linspace(0, 1, steps)
        depth = np.clip(1 - (start[:, None] + reach[:, None] * t), -0.06, 1.02)  # 1 at the outer edge
        place = np.clip(row[:, None] + drift[:, None] * t, 0, len(outer) - 1)
        return self._wavy(rng, _between(outer, line, place, depth), 0.012)

    def _swept(self, rng: np.random.Generator, outer: np.ndarray, line: np.ndarray) -> np.ndarray:
        """Strands that run along the head from the parting to the ears, as hair that is combed aside or back."""
        count, steps = self._count(700), 16
        side = rng.choice([-1, 1], count)
        middle = len(outer) / 2 + 8 * self.drawn.shape["hair_parting"]
        start = middle + side * rng.uniform(-3, 14, count)
        length = side * rng.uniform(7, 22, count)
        amount = rng.uniform(0, 1.03, count)
        t = np.linspace(0, 1, steps)
        place = np.clip(start[:, None] + length[:, None] * t, 0, len(outer) - 1)
        depth = np.clip(amount[:, None] + rng.normal(0, 0.07, (count, 1)) * t, -0.03, 1.03)
        return self._wavy(rng, _between(outer, line, place, depth), 0.010)

    def _curls(self, rng: np.random.Generator, outer: np.ndarray, line: np.ndarray) -> np.ndarray:
        count, steps = self._count(900), 10
        place = rng.uniform(0, len(outer) - 1, (count, 1))
        centre = _between(outer, line, place, rng.uniform(-0.08, 1.05, (count, 1)))
        radius = rng.uniform(0.03, 0.10, (count, 1))
        angle = rng.uniform(0, 2 * np.pi, (count, 1)) + np.linspace(0, rng.uniform(2.5, 5.0), steps)
        return centre + radius[..., None] * np.stack([np.cos(angle), 0.8 * np.sin(angle)], axis=-1)

    def _wavy(self, rng: np.random.Generator, strands: np.ndarray, amount: float) -> np.ndarray:
        count, steps = strands.shape[:2]
        wave = 1.0 + 2.0 * max(0.0, self.drawn.shape["hair_wave"])
        phase, pace = rng.uniform(0, 2 * np.pi, (count, 1)), rng.uniform(0.3, 0.9, (count, 1))
        sway = amount * wave * np.sin(phase + pace * np.arange(steps))
        return strands + np.stack([sway, 0.6 * sway], axis=-1)

    def _back(self, rng: np.random.Generator) -> np.ndarray | None:
        shape, span = self.shape, self.fall
        if shape.back is None and shape.style not in ("ponytail", "bun"):
            return None
        picture, alpha = self._layer(span)
        strands = []
        if shape.style == "ponytail":
            side = 1.0 if self.drawn.shape["hair_parting"] > 0 else -1.0
            tail = np.array([[0.55, -0.75], [1.12, -0.72], [1.34, -0.2], [1.27, 0.5], [1.30, 1.1]]) * [side, 1]
            centre = curve(tail)
            width = np.interp(np.linspace(0, 1, len(centre)), [0, 0.3, 0.7, 1], [0.3, 0.44, 0.38, 0.05])
            self._fill(alpha, span, ribbon(centre, width))
            strands.append(self._wavy(rng, _along(rng, centre, width, 260), 0.02))
        if shape.style == "bun":
            middle, radius = np.array([0.0, shape.outer[:, 1].min() - 0.14]), 0.34
            turn = np.linspace(0, 2 * np.pi, 40)
            self._fill(alpha, span, middle + radius * np.stack([np.cos(turn), 0.86 * np.sin(turn)], axis=1))
            arc = rng.uniform(0, 2 * np.pi, (220, 1)) + np.linspace(0, 1.6, 10)
            reach = radius * np.sqrt(rng.uniform(0, 1.05, (220, 1)))
            strands.append(middle + reach[..., None] * np.stack([np.cos(arc), 0.86 * np.sin(arc)], axis=-1))
        if shape.back is not None:
            outline = shape.back[:, :2]
            self._fill(alpha, span, outline)
            half = len(outline) // 2
            right = outline[half:][::-1]  # from the top down
            count, steps = self._count(900), 14
            where = np.sign(rng.uniform(-1, 1, (count, 1))) * rng.uniform(0, 1.04, (count, 1)) ** 0.7
            start, reach = rng.uniform(0, 0.75, (count, 1)), rng.uniform(0.25, 0.6, (count, 1))
            place = np.clip(start + reach * np.linspace(0, 1, steps), 0, 1.02) * (half - 1)
            index = np.arange(half)
            edge = np.interp(place, index, right[:, 0])
            height = np.interp(place, index, right[:, 1]) + np.maximum(place - half + 1, 0) * 0.1
            lines = np.stack([edge * where, height], axis=-1)
            if shape.style == "curly":
                lines = self._curls(rng, right[:, :2] * [1, 1], right * [-1, 1])
            strands.append(self._wavy(rng, lines, 0.03 if shape.style == "wavy" else 0.014))
        for lines in strands:
            draw_strands(rng, picture, self.look.hair * 0.82, lines, span, 0.009, self._tones(), alpha)
        x, _ = span.mesh()
        clump = 1 + 0.10 * fractal_noise(rng, span.shape, 0.3 * span.density, 2)
        return self._finish(picture, alpha, (0.72 + 0.2 * self.light * np.clip(x / 1.3, -1, 1)) * clump)

    def _locks(self, rng: np.random.Generator) -> np.ndarray:
        """Hair that falls in front of the ears on both sides."""
        span, shape = self.fall, self.shape
        picture, alpha = self._layer(span)
        end = {"bob": 0.98, "long": 1.9, "wavy": 1.9}[shape.style] + 0.20 * self.drawn.shape["hair_length"]
        steps = np.linspace(0, 1, 18)
        y = -0.85 + steps * (end + 0.85)
        edge = float(shape.outer[:, 0].max())
        outer = edge + 0.01 + 0.10 * np.sin(np.clip(steps * 1.1, 0, 1) * np.pi / 2)
        outer = np.where(
            y < -0.2, np.minimum(outer, edge * np.sqrt(np.clip(1 - ((y + 0.2) / 0.95) ** 2, 0.1, 1))), outer
        )
        inner = edge - rng.uniform(0.15, 0.30) - 0.06 * np.sin(steps * np.pi) + 0.02 * steps
        inner = np.minimum(inner, outer - 0.08)
        wave = (
            (0.05 if shape.style == "wavy" else 0.012) * np.sin(steps * rng.uniform(9, 16) + rng.uniform(0, 6)) * steps
        )
        for sign in (-1.0, 1.0):
            outline = np.concatenate([np.stack([outer + wave, y], axis=1), np.stack([inner + wave, y], axis=1)[::-1]])
            self._fill(alpha, span, outline * [sign, 1])
            count = self._count(260)
            where = rng.uniform(-0.12, 1.05, (count, 1))
            start, reach = rng.uniform(0, 0.7, (count, 1)), rng.uniform(0.3, 0.6, (count, 1))
            place = np.clip(start + reach * np.linspace(0, 1, 14), 0, 1.03) * (len(steps) - 1)
            index = np.arange(len(steps))
            across = np.interp(place, index, inner + wave) * (1 - where) + np.interp(place, index, outer + wave) * where
            lines = np.stack([across * sign, np.interp(place, index, y) + np.maximum(place - 17, 0) * 0.1], axis=-1)
            draw_strands(rng, picture, self.look.hair, self._wavy(rng, lines, 0.012), span, 0.008, self._tones(), alpha)
        x, _ = span.mesh()
        return self._finish(picture, alpha, 0.85 + 0.25 * self.light * np.clip(x, -1, 1))


def _between(outer: np.ndarray, line: np.ndarray, place: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Points at rows `place` between the hairline (depth 0) and the outer edge (1): ... x 2."""
    index = np.arange(len(outer))
    points = [
        np.interp(place, index, line[:, axis]) * (1 - depth) + np.interp(place, index, outer[:, axis]) * depth
        for axis in (0, 1)
    ]
    return np.stack(points, axis=-1)


def _along(rng: np.random.Generator, centre: np.ndarray, width: np.ndarray, count: int) -> np.ndarray:
    """Strands along a tail: count x 14 x 2."""
    tangent = np.gradient(centre, axis=0)
    normal = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-6
    place = np.clip(rng.uniform(0, 0.7, (count, 1)) + rng.uniform(0.3, 0.6, (count, 1)) * np.linspace(0, 1, 14), 0, 1)
    place = place * (len(centre) - 1)
    side = rng.uniform(-0.53, 0.53, (count, 1))
    index = np.arange(len(centre))
    return np.stack(
        [
            np.interp(place, index, centre[:, axis]) + side * np.interp(place, index, normal[:, axis] * width)
            for axis in (0, 1)
        ],
        axis=-1,
    )
