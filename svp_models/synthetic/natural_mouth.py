"""A mouth with lips, two rows of teeth, tongue and cavity, shaded as in a photograph."""

from __future__ import annotations

import numpy as np

from ..optional_deps import cv2
from .canvas import curve
from .expressions import GROUPS
from .natural_look import NaturalLook
from .noise import fractal_noise, streaks
from .patch import Patch

ARCH = 0.40  # half the width of the upper row of teeth, face units
UPPER_TEETH = (0.112, 0.088, 0.092, 0.086, 0.084, 0.09, 0.09)  # widths from the middle outwards
LOWER_TEETH = (0.070, 0.074, 0.080, 0.082, 0.084, 0.09, 0.09)
UPPER_LENGTH, LOWER_LENGTH = 0.165, 0.15
TEXTURE = (48, 192)


class NaturalMouth:
    """Paints the mouth of one look."""

    def __init__(self, look: NaturalLook) -> None:
        self.look = look
        rng = look.rng(1)
        creases = streaks(rng, TEXTURE, 2.6, 17.0) + 0.6 * streaks(rng, TEXTURE, 6.0, 30.0)
        self.relief = np.float32(creases * 0.055 + fractal_noise(rng, TEXTURE, 11, 3) * 0.08) * look.lip_relief
        self.sparkle = np.float32(np.clip(streaks(rng, TEXTURE, 2.2, 8.0) * 0.5 + 0.55, 0, 1.6))
        self.tongue = np.float32(fractal_noise(rng, (32, 64), 5, 3))
        self.upper = _row(rng, UPPER_TEETH)
        self.lower = _row(rng, LOWER_TEETH)
        self.cavity = np.float32(np.array([98.0, 30, 28]) * rng.uniform(0.35, 1.7) * (1 + rng.normal(0, 0.05, 3)))
        self.gap = float(rng.uniform(0.05, 0.3))  # how dark the lines between teeth are
        self.seam = np.float32(look.lips * [0.42, 0.30, 0.30])

    def paint(self, image: np.ndarray, points: np.ndarray, unit: float, finer: float) -> None:
        """points: VERTEX_COUNT x 2 pixels of the image; unit: pixels of one face unit."""
        start, end = points[48], points[54]
        ring = Patch.frame(start, end, unit, points[48:68])
        low = np.array([ring[:, 0].min() - 0.09, ring[:, 1].min() - 0.09])
        high = np.array([ring[:, 0].max() + 0.09, ring[:, 1].max() + 0.09])
        patch = Patch(start, end, unit, low, np.minimum(high, low + 3), finer)
        upper_out, lower_out = lip_lines(ring[:12])
        upper_in, lower_in = lip_lines(ring[12:])
        lines = [patch.column(line) for line in (upper_out, upper_in, lower_in[::-1], lower_out[::-1])]
        lines[2] = np.maximum(lines[1], lines[2])
        self._lips(patch, lines, ring)
        gap = float((lines[2] - lines[1]).max())
        if gap > 0.008:
            inside = points[[*range(*GROUPS["bites"].indices(10**6)), GROUPS["tongue"].start]]
            self._inside(patch, lines, ring, Patch.frame(start, end, unit, inside))
        patch.lay(image)

    def _lips(self, patch: Patch, lines: list[np.ndarray], ring: np.ndarray) -> None:
        look, y = self.look, patch.y
        upper_out, upper_in, lower_in, lower_out = lines
        left, right = ring[0, 0], ring[6, 0]
        across = np.clip((patch.x - left) / (right - left), 0, 1)
        within = patch.edge(np.minimum(patch.x - left, right - patch.x), 0.03)
        cover = patch.edge(y - upper_out, 0.035) * patch.edge(lower_out - y, 0.04) * within
        middle = (upper_in + lower_in) / 2
        is_lower = y > middle
        depth_up = np.clip((y - upper_out) / (upper_in - upper_out + 1e-3), 0, 1)
        depth_low = np.clip((y - lower_in) / (lower_out - lower_in + 1e-3), 0, 1)
        form_up = 1.06 - 0.34 * depth_up - 0.10 * depth_up**6
        form_low = 0.90 + 0.24 * np.exp(-(((depth_low - 0.42) / 0.34) ** 2)) - 0.30 * np.exp(-depth_low / 0.10)
        form_low = form_low - 0.12 * depth_low**3
        form = np.where(is_lower, form_low, form_up)
        column = np.broadcast_to(np.float32(across * (TEXTURE[1] - 1)), form.shape)
        row = np.float32(np.where(is_lower, 24 + depth_low * 22, depth_up * 22))
        relief = cv2.remap(self.relief, column, row, cv2.INTER_LINEAR)
        corner = 1 - 0.35 * np.exp(-np.minimum(across, 1 - across) / 0.05)
        factor = (form + relief * (0.6 + 0.8 * is_lower)) * corner
        seam = np.exp(-np.maximum(np.minimum(np.abs(y - upper_in), np.abs(y - lower_in)), 0) / 0.016)
        colour = look.lips * factor[..., None]
        colour = colour + (self.seam - colour) * (0.75 * seam * within)[..., None]
        sparkle = cv2.remap(self.sparkle, column, row, cv2.INTER_LINEAR)
        light = 0.5 + 0.16 * float(look.light.key[0])
        shine = np.exp(-(((depth_low - 0.36) / 0.17) ** 2)) * np.exp(-(((across - light) / 0.26) ** 2)) * is_lower
        shine = shine + 0.25 * np.exp(-((depth_up / 0.12) ** 2)) * ~is_lower
        colour = colour + (shine * sparkle * (85 * look.wet))[..., None]
        patch.over(colour, cover)

    def _inside(self, patch: Patch, lines: list[np.ndarray], ring: np.ndarray, inner: np.ndarray) -> None:
        look, x, y = self.look, patch.x, patch.y
        upper_in, lower_in = lines[1], lines[2]
        opening = patch.edge(y - upper_in) * patch.edge(lower_in - y) * ((lower_in - upper_in) > 0.004)
        bite_up, bite_low, tip = inner
        half = max(0.12, (ring[16, 0] - ring[12, 0]) / 2)
        middle = (ring[16, 0] + ring[12, 0]) / 2
        side = (x - middle) / half
        lower_lip = lower_in.max()
        down = np.clip((y - upper_in.min()) / max(lower_lip - upper_in.min(), 0.05), 0, 1)
        colour = self.cavity * (0.35 + 0.75 * down[..., None]) + np.zeros((len(y), len(x), 3), np.float32)
        # the tongue's back rises behind the lower teeth
        top = tip[1] - 0.15 + 0.16 * np.abs((x - bite_low[0]) / 0.30) ** 2.4
        bed = patch.edge(y - top, 0.05) * patch.edge(0.34 - np.abs(x - bite_low[0]), 0.05)
        grain = cv2.resize(self.tongue, (len(x), len(y)), interpolation=cv2.INTER_LINEAR)
        depth = np.clip((y - top) / 0.22, 0, 1)
        groove = 1 - 0.22 * np.exp(-(((x - bite_low[0]) / 0.025) ** 2))
        flesh = np.array([172, 88, 92], np.float32) * ((0.62 + 0.42 * depth) * groove * (1 + 0.05 * grain))[..., None]
        colour += (flesh - colour) * (0.92 * bed)[..., None]
        low_edge = bite_low[1] + look.teeth_shift[1] + 0.02
        self._teeth(patch, colour, bite_low[0], low_edge, self.lower, ARCH * 0.86, LOWER_LENGTH, below=True)
        self._teeth(
            patch, colour, bite_up[0], bite_up[1] + look.teeth_shift[0], self.upper, ARCH, UPPER_LENGTH, below=False
        )
        shade = 0.58 + 0.42 * np.clip((y - upper_in) / 0.075, 0, 1) ** 0.7
        shade = (
            shade * (0.75 + 0.25 * np.clip((lower_in - y) / 0.05, 0, 1)) * (1 - 0.55 * np.clip(np.abs(side), 0, 1) ** 3)
        )
        patch.over(colour * shade[..., None], opening)

    def _teeth(
        self,
        patch: Patch,
        colour: np.ndarray,
        centre: float,
        edge: float,
        row: tuple[np.ndarray, np.ndarray, np.ndarray],
        arch: float,
        length: float,
        below: bool,
    ) -> None:
        """A row on an arch seen from the front: outer teeth look narrower and darker."""
        x, y = patch.x, patch.y
        ratio = np.clip((x - centre) / arch, -1, 1)
        around = np.arcsin(ratio) * arch  # length along the arch
        borders, offsets, tones = row
        place = np.clip(np.searchsorted(borders, around) - 1, 0, len(tones) - 1)
        local = 2 * (around - borders[place]) / (borders[place + 1] - borders[place]) - 1  # -1 .. 1 across a tooth
        rounding = 0.010 + 0.016 * np.abs(local) ** 4
        turned = np.sqrt(1 - ratio**2)  # cosine of the angle on the arch
        if below:
            line = edge + offsets[place] + rounding * 0.8 - 0.02 * ratio**2
            inside, from_edge = y - line, (y - line) / length
        else:
            line = edge + offsets[place] - rounding - 0.045 * ratio**2
            inside, from_edge = line - y, (line - y) / length
        cover = patch.edge(inside, 0.016) * (np.abs(x - centre) < arch * 0.985)
        gap = 1 - self.gap * np.exp(-(1 - np.abs(local)) / 0.09)
        bulge = 0.93 + 0.07 * (1 - local**2)
        tone = (0.42 + 0.60 * turned**1.1) * tones[place] * gap * bulge
        vertical = 0.90 + 0.12 * np.clip(from_edge * 2.2, 0, 1) - 0.18 * np.clip(from_edge - 0.55, 0, 1)
        enamel = self.look.teeth * (tone * vertical * (0.84 if below else 1.0))[..., None]
        gum_line = 1.0 - 0.22 * np.abs(local) ** 2 - 0.18 * ratio**2
        gum = np.clip((from_edge - gum_line) / 0.08, 0, 1)[..., None]
        flesh = np.array([176, 92, 92], np.float32) * (0.45 + 0.5 * turned)[..., None]
        enamel = enamel + (flesh - enamel) * gum
        colour += (enamel - colour) * cover[..., None]


def _row(rng: np.random.Generator, widths: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Borders along the arch, offset of every edge and its tone, from left to right."""
    sides = [np.array(widths) * (1 + rng.normal(0, 0.05, len(widths))) for _ in range(2)]
    row = np.concatenate([sides[0][::-1], sides[1]])
    borders = np.concatenate([[0], np.cumsum(row)]) - sides[0].sum()
    offsets = rng.normal(0, 0.006, len(row)) - 0.012 * (np.abs(np.arange(len(row)) - len(row) / 2 + 0.5) == 1.5)
    return np.float32(borders), np.float32(offsets), np.float32(1 + rng.normal(0, 0.025, len(row)))


def lip_lines(ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A ring of lip points -> the upper line (left to right) and the lower line (right to left); rounder than the points."""
    half = len(ring) // 2
    upper, lower = curve(ring[: half + 1]), curve(np.concatenate([ring[half:], ring[:1]]))
    smooth = curve(ring, closed=True)
    extent = ring.max(axis=0) - ring.min(axis=0)
    amount = float(np.clip((extent[1] / (extent[0] + 1e-6) - 0.25) / 0.35, 0, 0.9))
    count = len(upper)
    closed_upper, closed_lower = smooth[:count], np.concatenate([smooth[count - 1 :], smooth[:1]])
    return upper + (closed_upper - upper) * amount, lower + (closed_lower - lower) * amount
