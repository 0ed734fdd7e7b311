"""Eyes with lids, lashes, iris and the reflection of the light."""

from __future__ import annotations

import numpy as np

from ..optional_deps import cv2
from .canvas import curve
from .expressions import GROUPS
from .natural_look import NaturalLook
from .noise import fractal_noise, smooth_noise
from .patch import Patch

_EYES = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47))
IRIS_SIDE = 96


class NaturalEyes:
    """Paints both eyes of one look."""

    def __init__(self, look: NaturalLook) -> None:
        self.look = look
        rng = look.rng(2)
        self.iris = _iris_texture(rng, look.iris)
        self.open_shade = float(rng.uniform(0.25, 0.6))  # of light under the upper lid
        self.pupil = float(rng.uniform(0.30, 0.52))
        self.veins = np.float32(np.clip(smooth_noise(rng, (24, 48), 3) - 0.6, 0, 2)) * float(rng.uniform(0.2, 1))
        place = np.linspace(0.1, 0.99, 21) + rng.normal(0, 0.012, 21)  # 0 at the nose, 1 at the temple
        self.lashes = (place, rng.uniform(0.75, 1.2, 21), rng.normal(0, 0.25, 21))  # with length and turn
        self.lash_length = float(0.040 + 0.035 * rng.uniform() + 0.03 * look.make_up)
        self.dark = np.float32(look.brow * 0.30 + np.array([10, 6, 6], np.float32))
        self.rim = np.float32(look.skin * [0.92, 0.72, 0.70])
        self.crease = float(rng.uniform(0.25, 0.75))
        self.shadow = np.float32(look.skin * [0.60, 0.46, 0.42])
        self.paint_lid = np.float32(rng.uniform(0.3, 0.75, 3)) if look.make_up > 0.5 else None
        lit = look.light.key
        self.catch = (np.array([lit[0] * 0.55, min(-0.12, lit[1] * 0.8)], np.float32), float(rng.uniform(0.13, 0.24)))
        self.catch_strength = float(rng.uniform(70, 220))

    def paint(
        self, image: np.ndarray, points: np.ndarray, pupils: np.ndarray, radius: float, unit: float, finer: float
    ) -> None:
        """points: VERTEX_COUNT x 2, pupils: 2 x 2, radius of the iris, all in pixels of the image."""
        for side, order in enumerate(_EYES):
            start, end = points[order[0]], points[order[3]]
            creases = points[GROUPS["crease_l" if side == 0 else "crease_r"]]
            ring = Patch.frame(
                start, end, unit, np.concatenate([points[list(order)], creases, pupils[side : side + 1]])
            )
            low = ring[:10].min(axis=0) - [0.16, 0.10]
            high = ring[:10].max(axis=0) + [0.16, 0.14]
            patch = Patch(start, end, unit, low, np.minimum(high, low + 2), finer)
            self._eye(patch, ring, side, radius / unit)
            patch.lay(image)

    def _eye(self, patch: Patch, ring: np.ndarray, side: int, radius: float) -> None:
        x, y = patch.x, patch.y
        upper_line = curve(ring[:4])
        lower_line = curve(np.concatenate([ring[3:6], ring[:1]]))[::-1]
        upper, lower = patch.column(upper_line), patch.column(lower_line)
        width = ring[3, 0] - ring[0, 0]
        along = (x - ring[0, 0]) / width
        outward = 1 - along if side == 0 else along  # 0 at the nose, 1 at the temple
        within = patch.edge(np.minimum(x - ring[0, 0], ring[3, 0] - x), 0.02)
        height = float((lower - upper).max())
        self._lid(patch, ring, upper, lower, outward, within, height)
        opening = patch.edge(y - upper) * patch.edge(lower - y) * within * np.clip((lower - upper) / 0.02 - 0.35, 0, 1)
        if height > 0.012:
            patch.over(self._ball(patch, ring[10], upper, lower, outward, radius), opening)
        # the wet rim of the lower lid, the corner by the nose, lashes
        rim = np.exp(-(((y - lower - 0.004) / 0.011) ** 2)) * within * min(1.0, height / 0.08)
        corner = np.exp(-((outward / 0.075) ** 2) - (((y - (upper + lower) / 2) / 0.03) ** 2)) * min(1.0, height / 0.06)
        patch.over(self.rim, np.minimum(0.55 * rim + 0.8 * corner * within, 0.85))
        self._lashes(patch, upper_line, lower_line, side, height)

    def _lid(
        self,
        patch: Patch,
        ring: np.ndarray,
        upper: np.ndarray,
        lower: np.ndarray,
        outward: np.ndarray,
        within: np.ndarray,
        height: float,
    ) -> None:
        """The fold above the lid, colour of make-up, and the soft shadow below the eye."""
        y, open_share = patch.y, min(1.0, height / 0.15)
        fold_line = curve(ring[6:10])
        fold = patch.column(fold_line)
        span = patch.edge(np.minimum(patch.x - fold_line[0, 0], fold_line[-1, 0] - patch.x) + 0.02, 0.12)
        if self.paint_lid is not None:
            lid = patch.edge(y - fold + 0.05, 0.12) * patch.edge(upper - y, 0.02) * span
            patch.over(self.look.skin * self.paint_lid, 0.55 * self.look.make_up * lid)
        depth = np.exp(-(((y - fold) / (0.014 + 0.012 * (1 - open_share))) ** 2))
        crease = (0.35 + 0.5 * self.crease) * (0.35 + 0.65 * open_share) * depth
        soft = np.exp(-((np.maximum(y - fold, 0) / 0.05) ** 2)) * (y > fold - 0.02) * patch.edge(upper - y, 0.02)
        below = np.exp(-(((y - lower - 0.075) / 0.03) ** 2)) * np.clip(1 - np.abs(outward - 0.42) / 0.6, 0, 1)
        shadow = (crease + 0.22 * open_share * soft) * span + (0.10 + 0.25 * self.look.age) * below
        patch.over(self.shadow, np.minimum(shadow, 0.9))

    def _ball(
        self, patch: Patch, pupil: np.ndarray, upper: np.ndarray, lower: np.ndarray, outward: np.ndarray, radius: float
    ) -> np.ndarray:
        """Colours of the eyeball, h x w x 3."""
        look, x, y = self.look, patch.x, patch.y
        side = np.abs(outward - 0.5) * 2
        form = 1 - 0.26 * np.clip(side, 0, 1.1) ** 2.4
        shade = (
            form
            * (self.open_shade + (1 - self.open_shade) * np.clip((y - upper) / 0.085, 0, 1))
            * (0.85 + 0.15 * np.clip((lower - y) / 0.04, 0, 1))
        )
        veins = cv2.resize(self.veins, (len(x), len(y)), interpolation=cv2.INTER_LINEAR) * np.clip(side - 0.35, 0, 1)
        colour = look.sclera * shade[..., None]
        colour = colour * (
            1 - np.array([0.02, 0.18, 0.17], np.float32) * np.minimum(0.15 + veins + 0.45 * side**2, 1)[..., None]
        )
        from_x, from_y = (x - pupil[0]) / radius, (y - pupil[1]) / radius
        place = np.float32(IRIS_SIDE / 2 - 0.5)
        scale = np.float32(IRIS_SIDE / 2 / 1.12)
        shape = shade.shape
        map_x = np.broadcast_to(np.float32(from_x * scale + place), shape)
        map_y = np.broadcast_to(np.float32(from_y * scale + place), shape)
        disc = cv2.remap(self.iris, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        distance = np.sqrt(from_x**2 + from_y**2)
        edge = 1 / (radius * patch.density)
        cover = np.clip((1.02 - distance) / max(0.10, edge) + 0.5, 0, 1)[..., None]
        hole = np.clip((self.pupil - distance) / max(0.08, edge) + 0.5, 0, 1)[..., None]
        lid_shade = (self.open_shade - 0.08 + (1.08 - self.open_shade) * np.clip((y - upper) / 0.07, 0, 1))[..., None]
        disc = disc + (np.array([9, 7, 8], np.float32) - disc) * hole
        colour = colour + (disc * lid_shade - colour) * cover
        spot, size = self.catch
        glint = np.exp(-(((from_x - spot[0]) / size) ** 4) - (((from_y - spot[1]) / size) ** 4))
        glint = glint + 0.22 * np.exp(-(((from_x + spot[0]) / 0.2) ** 2) - (((from_y - 0.45) / 0.14) ** 2))
        return colour + (glint * self.catch_strength)[..., None]

    def _lashes(self, patch: Patch, upper: np.ndarray, lower: np.ndarray, side: int, height: float) -> None:
        look = self.look
        opened = min(1.0, height / 0.14)
        line = patch.strokes(upper[None], 0.020 + 0.020 * look.liner) * np.float32(0.55 + 0.45 * look.liner)
        sign = -1.0 if side == 0 else 1.0
        place, stretch, turn = self.lashes
        index = place if side == 1 else 1 - place
        root = upper[(np.clip(index, 0, 1) * (len(upper) - 1)).astype(int)]
        reach = (self.lash_length * stretch * (0.55 + 0.75 * place))[:, None]
        tilt = sign * (0.15 + 0.75 * place) + 0.35 * turn
        rise = -0.95 * opened + 0.75 * (1 - opened)
        tip = np.stack([tilt, np.full_like(tilt, rise)], axis=1)
        paths = np.stack([root, root + reach * (tip * [0.45, 0.32] + [0, 0.12]), root + reach * tip], axis=1)
        hair = cv2.GaussianBlur(patch.strokes(paths, 0.007), (0, 0), 0.5) * np.float32(1.3)
        low = patch.strokes(lower[None, 3:-3] + [0, 0.008], 0.010) * np.float32(0.18 + 0.3 * look.liner * opened)
        cover = np.maximum(np.maximum(line, low), hair * np.float32(0.45 + 0.5 * look.liner))
        patch.over(self.dark, np.minimum(cover, 1))


def _iris_texture(rng: np.random.Generator, colour: np.ndarray) -> np.ndarray:
    """Fibres, a lighter ring round the pupil, a dark rim: IRIS_SIDE x IRIS_SIDE x 3 float32."""
    place = (np.arange(IRIS_SIDE) - IRIS_SIDE / 2 + 0.5) / (IRIS_SIDE / 2) * 1.12
    x, y = np.meshgrid(place, place)
    distance, angle = np.hypot(x, y), np.arctan2(y, x) / (2 * np.pi) + 0.5
    fibres = fractal_noise(rng, (32, 128), 3.5, 2)
    fibres[:, -8:] = fibres[:, :8][:, ::-1]  # meet behind
    strands = cv2.remap(
        cv2.blur(fibres, (1, 9)), np.float32(angle * 127), np.float32(np.clip(distance, 0, 1) * 31), cv2.INTER_LINEAR
    )
    rim = 1 - 0.62 * np.clip((distance - 0.72) / 0.28, 0, 1) ** 1.6
    ring = np.exp(-(((distance - 0.45) / 0.16) ** 2))
    lower = 1 + 0.22 * np.clip(y, -1, 1)  # light falls through onto the lower half
    inner = colour * np.array([1.25, 1.05, 0.72], np.float32)
    tone = colour + (inner - colour) * (0.6 * ring)[..., None]
    return np.float32(np.clip(tone * (rim * lower * (1 + 0.20 * strands))[..., None], 0, 255))
