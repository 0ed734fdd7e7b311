"""Backgrounds of drawings, soft and without detail."""

from __future__ import annotations

import numpy as np

from ..optional_deps import cv2
from .canvas import Canvas, Colour, mix, shade
from .identity import Appearance

BLUR_SIDE = 160  # pixels: backgrounds are soft, so they are painted small and enlarged


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
