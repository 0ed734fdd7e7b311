"""Hair: outlines in face units for every style, and how they are painted behind and in front of the face."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, curve, mix, resample, ribbon
from .geometry import UNIT, Pose, project, project_body
from .identity import Appearance

_LONG = ("long", "wavy")
COVERS_EARS = ("bob", *_LONG)


class Hair:
    """Everything about one identity's hair that does not move.

    crown: the face's outline above the ears, 9 x 2 face units from the image-right temple to the left one.
    """

    def __init__(self, look: Appearance, crown: np.ndarray) -> None:
        self.look = look
        self.style = look.hair_style
        self.shape = look.shape
        self.volume = 0.15 + 0.06 * self.shape["hair_volume"] + _EXTRA_VOLUME.get(self.style, 0.0)
        self.outer = self._outer(crown)  # n x 3, image-left sideburn over the top to the right one
        self.line = self._hairline(crown)  # n x 3, hairline from left to right
        self.back = self._back()  # m x 3 or None
        self.strands = self._strands()

    def _outer(self, crown: np.ndarray) -> np.ndarray:
        top = -crown[4, 1]
        side = crown[0, 0] + 0.035 + 0.45 * self.volume
        angle = np.linspace(-0.12, np.pi + 0.12, 49)
        x = -np.cos(angle) * side
        lift = np.sin(angle)
        y = np.where(lift > 0, -0.20 - lift * (top + self.volume - 0.20), -0.20 - lift * 1.6)
        if self.style == "quiff":
            y -= 0.16 * np.exp(-(((x - 0.3 * np.sign(self.shape["hair_parting"] + 1e-6)) / 0.45) ** 2))
        phase = np.arange(len(x))
        if self.style == "curly":
            bump = 0.055 * np.abs(np.sin(phase * np.pi / (4 + round(self.shape["hair_wave"]))))
            x, y = x * (1 + bump), y + bump * np.minimum(0, y + 0.2) * 1.2
        if self.style == "spiky":
            bump = 0.10 * np.abs((phase + 1.5 * self.shape["hair_wave"]) % 6 / 3 - 1) * np.clip(np.sin(angle), 0, 1)
            x, y = x * (1 + 0.4 * bump), y - bump
        z = -0.10 - 0.06 * np.abs(np.cos(angle))
        return np.stack([x, y, z], axis=1).astype(np.float32)

    def _hairline(self, crown: np.ndarray) -> np.ndarray:
        shape = self.shape
        x = np.linspace(-1, 1, 49)
        edge = crown[0, 0] + 0.03
        top = -0.86 - 0.06 * shape["forehead_height"]
        y = top + 0.76 * np.abs(x) ** 3.6
        part = 0.45 * shape["hair_parting"]
        if self.style in ("short", "quiff", "shaved", "bun", "ponytail"):
            y += 0.05 * np.cos((x - part) * 5.0) * (1 - x**2)
        if self.style in ("bob", "long", "wavy"):
            if shape["hair_fringe"] > 0:  # straight fringe down to the brows
                depth = 0.20 + 0.14 * shape["hair_fringe"]
                y = y + depth * np.clip(1.25 - np.abs(x) ** 4, 0, 1) + 0.014 * np.sin(x * 28)
            else:  # parted: an arch on either side
                y = top - 0.14 + 0.95 * np.abs((x - part) / (1 + part * np.sign(part - x))) ** 1.15
        if self.style in ("short", "spiky") and shape["hair_fringe"] > 0.1:
            swing = np.sign(shape["hair_parting"] + 1e-6)
            y = y + (0.16 + 0.10 * shape["hair_fringe"]) * np.clip(1 - x**4, 0, 1) * (1 + 0.5 * swing * x)
            y = y + 0.03 * np.abs((x * 5.5) % 1 - 0.5)
        if self.style == "curly":
            y = y + 0.10 + 0.045 * np.abs(np.sin(x * 8 + shape["hair_wave"]))
        low = 0.20 if self.style in ("short", "quiff", "spiky", "shaved") else 0.0
        y = np.minimum(y, -0.02 + low * 0.4)
        z = 0.34 * np.sqrt(np.clip(1 - x**2, 0, 1)) - 0.16 + 0.04
        points = np.stack([x * edge, y, z], axis=1)
        if self.style in ("short", "quiff", "spiky"):  # sideburns
            burn = np.array([[edge, 0.16, -0.20], [edge - 0.07, 0.14, -0.15], [edge - 0.10, -0.05, -0.10]])
            points = np.concatenate([burn * [-1, 1, 1], points[3:-3], burn[::-1]])
        return points.astype(np.float32)

    def _contour(self, y: np.ndarray) -> np.ndarray:
        """Half the width of the hair's outer outline at heights above the ears; unlimited below."""
        high = -self.outer[:, 1].min()
        inside = np.clip(1 - ((np.minimum(y, -0.2) + 0.2) / (high - 0.2)) ** 2, 0, 1)
        limit = np.sqrt(inside) * self.outer[:, 0].max() * 0.985
        return np.where(y < -0.2, limit, limit + 0.30 * np.maximum(0, y + 0.2))

    def _back(self) -> np.ndarray | None:
        reach = {"bob": 1.15, "long": 2.0, "wavy": 2.0, "curly": 0.45, "bun": 0.45, "ponytail": 0.5}.get(self.style)
        if reach is None:
            return None
        reach += (
            0.22
            * self.shape["hair_length"]
            * (1.0 if self.style in (*_LONG, "bob") else 1.6 if self.style == "curly" else 0.4)
        )
        wide = 1.02 + 0.6 * self.volume + (0.20 if self.style in _LONG else 0.10 if self.style == "bob" else 0.0)
        if self.style == "curly":
            wide = self.outer[:, 0].max() + 0.02
        if self.style in ("bun", "ponytail"):
            wide -= 0.10
        steps = np.linspace(0, 1, 25)
        y = -0.75 + steps * (reach + 0.75)
        swell = np.sin(np.clip(steps * 1.25, 0, 1) * np.pi / 2)
        x = wide * (0.84 + 0.16 * swell)
        if self.style == "wavy":
            x = x + 0.06 * np.sin(steps * (15 + 3 * self.shape["hair_wave"])) * steps
        if self.style == "curly":
            x = x + 0.05 * np.abs(np.sin(steps * 14))
        if self.style == "bob":
            x = x - 0.22 * np.clip(steps - 0.72, 0, 1) / 0.28 * (1 + 0.3 * self.shape["hair_wave"])
        x = np.minimum(x, self._contour(y))
        x = x - 0.10 * np.clip((steps - 0.92) / 0.08, 0, 1) ** 2  # round ends
        if self.style in ("curly", "bun", "ponytail"):
            x = x * np.sqrt(np.clip(1 - np.clip((steps - 0.62) / 0.40, 0, 1) ** 2, 0.05, 1))
        right = np.stack([x, y, np.interp(y, [-0.3, 0.8], [-0.17, -0.36])], axis=1)
        return np.concatenate([right * [-1, 1, 1], right[::-1]]).astype(np.float32)

    def _strands(self) -> list[tuple[np.ndarray, bool]]:
        """Lines that follow the hair from the hairline's side to the outer side: (n x 3, is it light)."""
        if self.style in ("curly", "shaved"):
            return []
        outer = self.outer
        line = self.line[np.linspace(0, len(self.line) - 1, len(outer)).round().astype(int)]
        strands = []
        if self.style in ("bob", *_LONG) and self.shape["hair_fringe"] > 0:  # a fringe hangs straight down
            reach = np.linspace(0.03, 0.62, 8)[:, None]
            for number, row in enumerate(range(8, 42, 3)):
                path = line[row] * (1 - reach) + outer[24 + (row - 24) * 2 // 3] * reach
                strands.append((path.astype(np.float32), number % 3 == 0))
            return strands
        kernel = np.ones(9) / 9  # strands do not repeat the hairline's jags
        for axis in (0, 1, 2):
            line[4:-4, axis] = np.convolve(line[:, axis], kernel, mode="valid")
        wave = 0.012 * self.shape["hair_wave"]
        for number, amount in enumerate((0.14, 0.30, 0.44, 0.58, 0.72, 0.86)):
            for half in (0, 1):
                start = 3 + (number * 5 + half * 3) % 7
                length = 15 + (number * 7 + half * 5) % 8
                rows = slice(start, start + length) if half == 0 else slice(49 - start - length, 49 - start)
                path = line[rows] * (1 - amount) + outer[rows] * amount
                path[:, 1] += wave * np.sin(np.arange(len(path)) * 0.9)
                strands.append((path.astype(np.float32), (number + half) % 3 == 0))
        return strands

    def to_image(self, points: np.ndarray, pose: Pose, size: int) -> np.ndarray:
        """Project hair; what hangs below the neck rests on the shoulders and follows them."""
        head = project(points, pose, size)
        hang = np.clip((points[:, 1:2] - 0.8) / 1.0, 0, 1) * 0.8
        if not hang.any():
            return head
        return head * (1 - hang) + project_body(points[:, :2], pose, size) * hang

    def paint_back(self, canvas: Canvas, pose: Pose, size: int) -> None:
        look, unit = self.look, size * UNIT * pose.scale
        if self.style == "ponytail":
            side = 1.0 if self.shape["hair_parting"] > 0 else -1.0
            length = 0.25 * self.shape["hair_length"]
            tail = np.array(
                [[0.55 * side, -0.75, -0.5], [1.15 * side, -0.72, -0.5], [1.38 * side, -0.2, -0.5],
                 [1.30 * side, 0.5, -0.5], [1.34 * side, 1.0 + length, -0.5]], dtype=np.float32
            )  # fmt: skip
            centre = curve(self.to_image(tail, pose, size))
            width = np.interp(np.linspace(0, 1, len(centre)), [0, 0.3, 0.7, 1], [0.3, 0.46, 0.40, 0.05]) * unit
            canvas.fill(ribbon(centre, width), look.hair_dark)
            canvas.fill(ribbon(centre + [0.03 * unit * side, 0], width * 0.55), mix(look.hair_dark, look.hair, 0.7))
        if self.style == "bun":
            centre = project(np.array([[0.0, self.outer[:, 1].min() - 0.16, -0.35]], dtype=np.float32), pose, size)[0]
            radius = (0.36 + 0.05 * self.shape["hair_length"]) * unit
            canvas.disc(centre, (radius, radius * 0.86), look.hair_dark)
            canvas.disc(centre + [-0.03 * unit, -0.03 * unit], (radius * 0.9, radius * 0.76), look.hair)
            for turn in (0.62, 0.36):
                arc = np.linspace(3.6, 6.0, 12)
                path = centre + np.stack([np.cos(arc) * radius * turn, np.sin(arc) * radius * turn * 0.8], axis=1)
                canvas.line(path, look.hair_light, 0.016 * unit)
        if self.back is not None:
            outline = self.to_image(self.back, pose, size)
            canvas.fill(outline, mix(look.hair_dark, look.hair, 0.6 if self.style == "curly" else 0.0))

    def paint_shadow(self, canvas: Canvas, face: np.ndarray, pose: Pose, size: int) -> None:
        """The shadow that the hair casts on the forehead. face: the rendered contour m x 2 px."""
        if self.style == "shaved":
            return
        unit = size * UNIT * pose.scale
        line, outer = project(self.line, pose, size), project(self.outer, pose, size)
        cast = np.concatenate([line, outer[::-1]]) + [0, 0.07 * unit]
        canvas.soft(cast, self.look.skin_shadow, 0.55, 0.05 * unit, clip=face)

    def paint_front(self, canvas: Canvas, pose: Pose, size: int) -> None:
        look, unit = self.look, size * UNIT * pose.scale
        outer = project(self.outer, pose, size)
        line = project(self.line, pose, size)
        outline = np.concatenate([outer, line[::-1]])
        if self.style == "shaved":
            canvas.soft(outline, look.hair, 0.55, 0.03 * unit)
            return
        if self.style in ("bob", *_LONG):
            self._paint_locks(canvas, pose, size, unit)
        canvas.fill(outline, look.hair)
        inner = line * 0.80 + resample(outer, len(line)) * 0.20
        canvas.soft(np.concatenate([line, inner[::-1]]), look.hair_dark, 0.55, 0.07 * unit, clip=outline)
        for light, colour in (
            (False, mix(look.hair, look.hair_dark, 0.75)),
            (True, mix(look.hair, look.hair_light, 0.9)),
        ):
            paths = [project(path, pose, size) for path, is_light in self.strands if is_light == light]
            if paths:
                canvas.lines(paths, colour, 0.014 * unit)
        if self.style == "curly":
            self._paint_curls(canvas, outer, line, unit)
        self._paint_shine(canvas, outer, line, outline, unit)

    def _paint_shine(
        self, canvas: Canvas, outer: np.ndarray, line: np.ndarray, outline: np.ndarray, unit: float
    ) -> None:
        """A soft crescent of light on the lit side."""
        lit = 12 if self.shape["light_side"] < 0 else 24
        rows = slice(lit, lit + 15)
        inner = resample(line, len(outer))
        thick = np.sin(np.linspace(0, np.pi, 15))[:, None] * 0.13
        middle = outer[rows] * 0.62 + inner[rows] * 0.38
        across = outer[rows] - inner[rows]
        band = np.concatenate([middle + across * thick, (middle - across * thick)[::-1]])
        canvas.soft(band, self.look.hair_light, 0.60 + 0.3 * self.shape["hair_shine"], 0.05 * unit, clip=outline)

    def _paint_curls(self, canvas: Canvas, outer: np.ndarray, line: np.ndarray, unit: float) -> None:
        inner = resample(line, len(outer))
        dark, light = mix(self.look.hair, self.look.hair_dark, 0.8), mix(self.look.hair, self.look.hair_light, 0.7)
        arc = np.linspace(0.3, 3.6, 9)
        ring = np.stack([np.cos(arc), np.sin(arc)], axis=1) * 0.085 * unit
        paths: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        for row, amount in enumerate((0.22, 0.5, 0.78)):
            for number in range(4 + row % 2 * 2, 46, 5):
                centre = inner[number] * (1 - amount) + outer[number] * amount
                turned = ring if (number + row) % 2 else ring * [-1, -1]
                paths[(number + row) % 3 == 0].append(centre + turned)
        canvas.lines(paths[0], dark, 0.020 * unit)
        canvas.lines(paths[1], light, 0.020 * unit)

    def _paint_locks(self, canvas: Canvas, pose: Pose, size: int, unit: float) -> None:
        """Hair that falls in front of the ears on both sides."""
        look = self.look
        end = {"bob": 0.98, "long": 1.9, "wavy": 1.9}[self.style] + 0.20 * self.shape["hair_length"]
        steps = np.linspace(0, 1, 16)
        y = -0.80 + steps * (end + 0.80)
        outer_edge = self.outer[:, 0].max()
        bow = outer_edge + 0.02 + 0.10 * np.sin(np.clip(steps * 1.1, 0, 1) * np.pi / 2)
        inner = outer_edge - 0.17 - 0.05 * np.sin(steps * np.pi) + 0.02 * steps
        if self.style == "wavy":
            wave = 0.055 * np.sin(steps * (12 + 3 * self.shape["hair_wave"])) * steps
            bow, inner = bow + wave, inner + wave
        if self.style == "bob":
            bow = bow - 0.16 * np.clip(steps - 0.7, 0, 1) / 0.3
        bow = np.minimum(bow, self._contour(y))
        inner = np.minimum(inner, bow - 0.10)
        z = np.interp(y, [-0.45, 0.9], [-0.12, -0.05])
        for sign in (-1.0, 1.0):
            out = self.to_image(np.stack([bow * sign, y, z], axis=1).astype(np.float32), pose, size)
            within = self.to_image(np.stack([inner * sign, y, z], axis=1).astype(np.float32), pose, size)
            tip = (out[-1:] + within[-1:]) / 2 + [0, 0.07 * unit]
            end_curve = curve(np.concatenate([out[-2:], tip, within[:-3:-1]]))
            canvas.fill(np.concatenate([out[:-2], end_curve, within[-2::-1]]), look.hair)
            middle, third = out * 0.45 + within * 0.55, out * 0.75 + within * 0.25
            canvas.lines([middle[3:], third[1:-3]], mix(look.hair, look.hair_dark, 0.8), 0.014 * unit)
            canvas.line(within, look.hair_dark, 0.014 * unit)


_EXTRA_VOLUME = {
    "curly": 0.16,
    "quiff": 0.03,
    "bob": 0.03,
    "shaved": -0.13,
    "bun": -0.06,
    "ponytail": -0.05,
    "spiky": 0.02,
}
