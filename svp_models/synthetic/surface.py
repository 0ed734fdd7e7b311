"""The head as a bent sheet: how a texture of the face moves with expression and pose, its relief, and the light on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..optional_deps import cv2
from .expressions import GROUPS
from .geometry import FaceGeometry, Pose, project, rotation, surface_depth
from .natural_look import Light

Box = tuple[int, int, int, int]  # left, top, right, bottom, pixels

NO_SECOND_MAP = np.empty(0, np.float32)  # for OpenCV: the first map holds both x and y


class Span:
    """A rectangle of the face's plane as a texture. left, right, top, bottom: face units; density: pixels per unit."""

    def __init__(self, left: float, right: float, top: float, bottom: float, density: float) -> None:
        self.left, self.right, self.top, self.bottom, self.density = left, right, top, bottom, density
        self.shape = (round((bottom - top) * density), round((right - left) * density))

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Face units n x 2 or more -> float pixels of the texture, (0, 0) its corner."""
        return np.float32((points[..., :2] - np.array([self.left, self.top])) * self.density)

    def mesh(self) -> tuple[np.ndarray, np.ndarray]:
        """x and y of every pixel's centre in face units: h x w each, float32."""
        height, width = self.shape
        x = self.left + (np.arange(width, dtype=np.float32) + 0.5) / np.float32(self.density)
        y = self.top + (np.arange(height, dtype=np.float32) + 0.5) / np.float32(self.density)
        return np.meshgrid(x, y)


class Sheet:
    """Nodes in rows and columns over a span; the inverse of where they go is a map for cv2.remap."""

    def __init__(self, span: Span, columns: int, rows: int) -> None:
        self.span, self.columns, self.rows = span, columns, rows
        x, y = np.meshgrid(np.linspace(span.left, span.right, columns), np.linspace(span.top, span.bottom, rows))
        self.nodes = np.float32(np.stack([x.ravel(), y.ravel()], axis=1))
        index_x, index_y = np.meshgrid(np.arange(columns), np.arange(rows))
        self._index = np.column_stack([index_x.ravel(), index_y.ravel(), np.ones(columns * rows)])
        self._fit = np.linalg.pinv(self._index)
        scale = np.array([(span.right - span.left) / (columns - 1), (span.bottom - span.top) / (rows - 1)])
        self._to_texture = np.float32(scale * span.density)

    def inverse(self, places: np.ndarray, box: Box, step: int) -> np.ndarray:
        """For cells of `step` pixels of an image's box: which node lies there, rows x columns x 2, float32, node indices.

        places: where the nodes are in the image, n x 2 pixels. Fixed-point iteration from the best affine map.
        """
        affine = self._fit @ places  # 3 2
        back = np.linalg.inv(affine[:2])
        left, top, right, bottom = box
        across, down = -(-(right - left) // step), -(-(bottom - top) // step)
        x, y = np.meshgrid(left + (np.arange(across) + 0.5) * step, top + (np.arange(down) + 0.5) * step)
        wanted = np.stack([x, y], axis=-1)
        found = (wanted - affine[2]) @ back
        grid = np.float32(places.reshape(self.rows, self.columns, 2))
        back = np.float32(back)
        wanted, found = np.float32(wanted), np.float32(found)
        for _ in range(4):
            reached = cv2.remap(grid, found, NO_SECOND_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            found = found + (wanted - reached) @ back
        return found

    def bent(self, places: np.ndarray, box: Box, step: int) -> Bending:
        """Where the span's textures lie in a box of the image, when the nodes are at `places`."""
        cells = self.inverse(places, box, step)
        height, width = cells.shape[0] * step, cells.shape[1] * step
        fine = cv2.resize(cells * self._to_texture - np.float32(0.5), (width, height), interpolation=cv2.INTER_LINEAR)
        share = cells / np.array([self.columns - 1, self.rows - 1], np.float32)
        return Bending(box, step, share, cv2.convertMaps(fine, NO_SECOND_MAP, cv2.CV_16SC2))


class Bending:
    """How textures of one span lie in a box of an image. Boxes that are asked for lie inside that box."""

    def __init__(self, box: Box, step: int, share: np.ndarray, maps: tuple[np.ndarray, np.ndarray]) -> None:
        self.box, self._step, self._share, self._maps = box, step, share, maps

    def _inside(self, box: Box) -> tuple[slice, slice]:
        left, top = self.box[:2]
        return slice(box[1] - top, box[3] - top), slice(box[0] - left, box[2] - left)

    def remap(self, texture: np.ndarray, box: Box, border: int) -> np.ndarray:
        """A texture over the span as it looks in a box of the image."""
        picked = self._inside(box)
        return cv2.remap(texture, self._maps[0][picked], self._maps[1][picked], cv2.INTER_LINEAR, borderMode=border)

    def field(self, values: np.ndarray, box: Box) -> np.ndarray:
        """Smooth values over the span, rows x columns x c float32, in a box of the image."""
        scale = np.array([values.shape[1] - 1, values.shape[0] - 1], np.float32)
        coarse = cv2.remap(
            values, self._share * scale, NO_SECOND_MAP, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        size = (coarse.shape[1] * self._step, coarse.shape[0] * self._step)
        return cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)[self._inside(box)]


class FaceSheet(Sheet):
    """The skin of one identity's head, beyond the face too. It follows the face's points."""

    def __init__(self, geometry: FaceGeometry, span: Span) -> None:
        super().__init__(span, 29, 31)
        self.geometry = geometry
        skipped = {37, 38, 40, 41, 43, 44, 46, 47, *range(60, 68)}  # lids and inner lips are painted apart
        groups = [i for name, rows in GROUPS.items() if name not in ("bites", "tongue", "eyes") for i in _rows(rows)]
        self.used = [i for i in range(68) if i not in skipped] + groups
        edge = np.array(
            [[-1.75, -2], [-0.9, -2], [0, -2], [0.9, -2], [1.75, -2], [-1.75, -1], [1.75, -1], [-1.75, 0], [1.75, 0],
             [-1.75, 1], [1.75, 1], [-1.75, 1.8], [1.75, 1.8]]
        )  # fmt: skip
        known = np.concatenate([geometry.neutral[self.used, :2], edge])
        self.weights = _interpolation(known, self.nodes)[:, : len(self.used)]
        flat = surface_depth(self.nodes[:, 0], self.nodes[:, 1])
        neutral = geometry.neutral[self.used]
        self.depth = flat + self.weights @ (neutral[:, 2] - surface_depth(neutral[:, 0], neutral[:, 1]))
        self.rest = np.float32(np.column_stack([self.nodes, self.depth]))

    def places(self, points: np.ndarray, pose: Pose, size: int) -> np.ndarray:
        """Face points VERTEX_COUNT x 3 -> where the nodes are in the picture, n x 2 pixels."""
        moved = points[self.used] - self.geometry.neutral[self.used]
        return project(self.rest + self.weights @ moved, pose, size)


def _rows(rows: slice) -> range:
    return range(rows.start, rows.stop)


def _interpolation(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights by which values at known points give those at wanted ones: wanted x known (linear radial functions)."""
    count = len(known)
    system = np.ones((count + 1, count + 1))
    system[:count, :count] = -np.linalg.norm(known[:, None] - known[None], axis=-1) - 0.004 * np.eye(count)
    system[count, count] = 0
    reach = -np.linalg.norm(wanted[:, None] - known[None], axis=-1)
    weights = np.column_stack([reach, np.ones(len(wanted))]) @ np.linalg.inv(system)
    return np.float32(weights[:, :count])


class Relief:
    """Normals of the face over a span, and the light on them. Half a hundred cells a side are enough for soft light."""

    SIDE = 72

    def __init__(self, sheet: FaceSheet, shape: dict[str, float], age: float) -> None:
        span, side = sheet.span, self.SIDE
        self.span = span
        depth = cv2.resize(
            np.float32(sheet.depth.reshape(sheet.rows, sheet.columns)), (side, side), interpolation=cv2.INTER_CUBIC
        )
        x, y = np.meshgrid(np.linspace(span.left, span.right, side), np.linspace(span.top, span.bottom, side))
        depth = depth + _features(x, y, sheet.geometry.neutral, shape, age)
        depth = cv2.GaussianBlur(np.float32(depth), (0, 0), 0.8)
        step_y, step_x = (span.bottom - span.top) / (side - 1), (span.right - span.left) / (side - 1)
        slope_y, slope_x = np.gradient(depth, step_y, step_x)
        slope_x, slope_y = (1.1 * np.tanh(slope / 1.1) for slope in (slope_x, slope_y))  # soft, as skin scatters light
        normal = np.stack([-slope_x, -slope_y, np.full_like(depth, 1.0)], axis=-1)
        normal = normal / np.linalg.norm(normal, axis=-1, keepdims=True)
        self.normal = np.float32(normal.reshape(-1, 3))
        oily = np.exp(-((x / 0.35) ** 2)) * (y < 0.62) + np.exp(
            -(((np.abs(x) - 0.55) / 0.25) ** 2) - ((y - 0.25) / 0.25) ** 2
        )
        self.front = (np.abs(x) < 0.75) & (y > -0.7) & (y < 1.0)
        self.oily = np.float32(0.35 + 0.65 * np.clip(oily, 0, 1)).ravel()[:, None]

    def exposed(self, light: Light) -> Light:
        """The same light, so strong that the face in front has the light's mean exposure."""
        colours = self.shading(Pose(0, 0, 0, 0, 0, 1), light)[self.front][:, 1]
        factor = np.float32(light.exposure / colours.mean())
        return replace(
            light,
            key_colour=light.key_colour * factor,
            fill_colour=light.fill_colour * factor,
            ambient=light.ambient * factor,
        )

    def shading(self, pose: Pose, light: Light) -> np.ndarray:
        """Factors on the skin's colour, SIDE x SIDE x 3 float32, and the shine that is added, 0 .. 1, in a fourth channel."""
        turn = rotation(pose)
        key, fill = turn.T @ light.key, turn.T @ light.fill
        half = turn.T @ (light.key + np.array([0, 0, 1], np.float32))
        half = half / np.linalg.norm(half)
        above = turn.T @ np.array([0, -1, 0], np.float32)
        toward = self.normal @ np.stack([key, fill, half, above], axis=1)  # n 4
        lit = np.maximum(toward[:, :1] + light.wrap, 0) / (1 + light.wrap)
        rim = np.maximum(toward[:, 1:2], 0)
        shine = (
            np.maximum(toward[:, 2:3], 0) ** light.sharpness * self.oily * (light.gloss * float(light.key_colour[1]))
        )
        colour = light.ambient * (0.84 + 0.16 * toward[:, 3:4]) + light.key_colour * lit + light.fill_colour * rim
        colour = np.minimum(colour, 1) + 0.28 * np.tanh(np.maximum(colour - 1, 0) / 0.28)  # a film's shoulder
        return np.concatenate([colour, shine], axis=1).reshape(self.SIDE, self.SIDE, 4)


def _features(x: np.ndarray, y: np.ndarray, neutral: np.ndarray, shape: dict[str, float], age: float) -> np.ndarray:
    """Height of brows, sockets, nose, cheeks, lips and chin above the head's round form, face units."""

    def bump(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)

    height = np.zeros_like(x)
    mouth = neutral[[48, 54]].mean(axis=0)[1]
    lip_low = neutral[57, 1]
    chin = neutral[8, 1]
    nose = neutral[30]
    for side in (-1.0, 1.0):
        eye = neutral[GROUPS["eyes"]][1 if side > 0 else 0]
        height += 0.035 * bump(side * 0.45, neutral[24, 1] + 0.05, 0.36, 0.13)  # brow bone
        height -= (0.06 + 0.02 * shape["eye_shadow"]) * bump(eye[0], eye[1] - 0.06, 0.28, 0.17)  # socket
        height += 0.055 * bump(eye[0], eye[1] + 0.01, 0.17, 0.10)  # the ball under the lids
        height += (0.04 + 0.02 * shape["cheek_width"]) * bump(side * 0.58, 0.26, 0.30, 0.24)
        height += 0.05 * bump(side * 0.13, nose[1] + 0.06, 0.08, 0.08)  # wings of the nose
        height -= (0.012 + 0.03 * age) * bump(side * 0.42, 0.58, 0.07, 0.16)  # fold beside the mouth
        height -= 0.02 * age * bump(side * 0.4, eye[1] + 0.17, 0.22, 0.04)
        height += 0.02 * bump(side * 0.07, mouth - 0.18, 0.03, 0.07)  # philtrum
    height += 0.03 * bump(0, nose[1], 0.12, 0.10)
    height += 0.04 * bump(0, mouth, 0.36, 0.20)
    height -= 0.035 * bump(0, lip_low + 0.07, 0.22, 0.07)
    height += 0.05 * bump(0, chin - 0.10, 0.24, 0.14)
    return height
