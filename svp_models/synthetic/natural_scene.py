"""What stands behind a head in a photograph: walls, rooms, leaves and streets out of focus."""

from __future__ import annotations

import colorsys

import numpy as np

from ..optional_deps import cv2
from .noise import fractal_noise, smooth_noise

SIDE = 256  # backgrounds are out of focus: they are made at this size and enlarged
_KINDS = ("studio", "leaves", "room", "street", "wall", "lights")
_PROBS = (0.3, 0.18, 0.2, 0.12, 0.12, 0.08)


def background(rng: np.random.Generator, size: int) -> np.ndarray:
    """size x size x 3 uint8 RGB."""
    kind = rng.choice(_KINDS, p=_PROBS)
    picture = {
        "studio": _studio, "leaves": _leaves, "room": _room, "street": _street, "wall": _wall, "lights": _lights,
    }[str(kind)](rng)  # fmt: skip
    picture = picture * (1 + 0.05 * fractal_noise(rng, (SIDE, SIDE), 120, 2))[..., None]
    x = np.linspace(-1, 1, SIDE, dtype=np.float32)
    picture *= (1 + rng.uniform(-0.25, 0.25) * x)[None, :, None] * (1 + rng.uniform(-0.15, 0.2) * x)[:, None, None]
    picture = np.clip(picture, 0, 255)
    large = cv2.resize(np.float32(picture), (size, size), interpolation=cv2.INTER_CUBIC)
    large += rng.normal(0, rng.uniform(0.3, 1.5), (size, size, 1)).astype(np.float32)
    return np.uint8(np.clip(np.rint(large), 0, 255))


def _colour(rng: np.random.Generator, saturation: float = 0.35, hue: float | None = None) -> np.ndarray:
    value = rng.beta(1.6, 1.4) * 0.9 + 0.05
    return (
        np.array(
            colorsys.hsv_to_rgb(rng.uniform() if hue is None else hue % 1, rng.beta(1, 2) * 2 * saturation % 1, value),
            np.float32,
        )
        * 255
    )


def _blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), max(0.6, sigma))


def _studio(rng: np.random.Generator) -> np.ndarray:
    base = _colour(rng, 0.18)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE
    centre = rng.uniform(0.25, 0.75, 2)
    glow = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / rng.uniform(0.08, 0.5))
    tone = 0.8 + rng.uniform(0.1, 0.5) * glow + 0.04 * fractal_noise(rng, (SIDE, SIDE), 60, 4, 0.6)
    return base * tone[..., None]


def _leaves(rng: np.random.Generator) -> np.ndarray:
    base = _colour(rng, 0.45, rng.normal(0.27, 0.06))
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:] = base * 0.5
    for scale, count in ((60, 60), (26, 160), (12, 260)):
        for _ in range(count):
            tone = base * rng.uniform(0.25, 1.5) * (1 + rng.normal(0, 0.12, 3))
            centre = tuple(int(v) for v in rng.uniform(-20, SIDE + 20, 2))
            axes = tuple(int(v) for v in scale * rng.uniform(0.2, 0.6, 2) + 1)
            cv2.ellipse(picture, centre, axes, float(rng.uniform(0, 180)), 0, 360, tuple(map(float, tone)), -1)
    for _ in range(rng.integers(0, 12)):  # sky through the leaves
        centre = tuple(int(v) for v in rng.uniform(0, SIDE, 2) * [1, 0.6])
        cv2.circle(picture, centre, int(rng.uniform(4, 26)), tuple(map(float, rng.uniform(190, 250, 3))), -1)
    return _blurred(picture, rng.uniform(1.5, 8))


def _room(rng: np.random.Generator) -> np.ndarray:
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:] = _colour(rng, 0.25)
    for _ in range(rng.integers(5, 18)):
        low = rng.uniform(-0.2, 1, 2) * SIDE
        high = low + rng.uniform(0.03, 0.6, 2) * SIDE
        tone = tuple(map(float, _colour(rng, 0.3)))
        cv2.rectangle(picture, tuple(map(int, low)), tuple(map(int, high)), tone, -1)
        if rng.uniform() < 0.4:
            shelf = (int(low[0]), int(high[1])), (int(high[0]), int(high[1]) + 4)
            cv2.rectangle(picture, *shelf, tuple(float(v) * 0.4 for v in tone), -1)
    if rng.uniform() < 0.4:
        left = int(rng.uniform(0, 0.8) * SIDE)
        cv2.rectangle(
            picture, (left, 0), (left + int(rng.uniform(30, 90)), int(rng.uniform(90, 200))), (244.0, 246.0, 250.0), -1
        )
    return _blurred(picture, rng.uniform(1.2, 9))


def _street(rng: np.random.Generator) -> np.ndarray:
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:] = _colour(rng, 0.2) * 0.5 + 110
    x = 0.0
    while x < SIDE:
        width = rng.uniform(6, 50)
        top = rng.uniform(-40, 160)
        cv2.rectangle(picture, (int(x), int(top)), (int(x + width), SIDE), tuple(map(float, _colour(rng, 0.3))), -1)
        for row in range(int(max(top, 0)) + 8, SIDE, int(rng.uniform(14, 30))):
            if rng.uniform() < 0.6:
                tone = tuple(map(float, _colour(rng, 0.2)))
                cv2.rectangle(picture, (int(x + 3), row), (int(x + width - 3), row + 6), tone, -1)
        x += width
    return _blurred(picture, rng.uniform(2, 9))


def _wall(rng: np.random.Generator) -> np.ndarray:
    base = _colour(rng, 0.3)
    noise = fractal_noise(rng, (SIDE, SIDE), rng.uniform(12, 60), 5, 0.7)
    picture = base * (1 + 0.12 * noise)[..., None] * (1 + 0.03 * smooth_noise(rng, (SIDE, SIDE), 5))[..., None]
    if rng.uniform() < 0.5:  # bricks
        high = int(rng.uniform(12, 34))
        for number, row in enumerate(range(0, SIDE, high)):
            for column in range(-high * 2 * (number % 2) // 2, SIDE, high * 2):
                tone = 1 + rng.normal(0, 0.1)
                picture[row : row + high, max(column, 0) : column + high * 2] *= tone
                picture[row : row + high, max(column, 0) : max(column, 0) + 2] *= 0.75
            picture[row : row + 2] *= 0.75
    return _blurred(np.float32(picture), rng.uniform(0.8, 4))


def _lights(rng: np.random.Generator) -> np.ndarray:
    picture = np.empty((SIDE, SIDE, 3), np.float32)
    picture[:] = _colour(rng, 0.4) * 0.35
    layer = np.zeros_like(picture)
    for _ in range(rng.integers(10, 45)):
        disc = np.zeros_like(picture)
        centre = tuple(int(v) for v in rng.uniform(0, SIDE, 2))
        cv2.circle(
            disc, centre, int(rng.uniform(4, 22)), tuple(map(float, _colour(rng, 0.5) * 0.6 + 60)), -1, cv2.LINE_AA
        )
        layer += disc * rng.uniform(0.3, 0.9)
    return _blurred(picture, 20) + _blurred(layer, rng.uniform(1, 3))
