"""Texture of a face's skin without light: colour, pores, spots, wrinkles, stubble and beard, brows."""

from __future__ import annotations

import numpy as np

from ..optional_deps import cv2
from .canvas import curve
from .geometry import FaceGeometry
from .identity import Appearance
from .natural_look import NaturalLook
from .noise import fractal_noise, smooth_noise
from .surface import Span


def skin_texture(look: NaturalLook, drawn: Appearance, geometry: FaceGeometry, span: Span) -> np.ndarray:
    """h x w x 3 uint8 over the span, lids closed; eyes and mouth are painted on it later."""
    rng, shape = look.rng(3), span.shape
    x, y = span.mesh()
    unit = span.density
    neutral = geometry.neutral

    def spot(cx: float, cy: float, rx: float, ry: float) -> np.ndarray:
        return np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)

    redness = 0.25 * look.blotches * fractal_noise(rng, shape, 0.5 * unit, 3)
    flush = float(rng.uniform(0.1, 0.9)) + 0.5 * look.make_up
    for side in (-1.0, 1.0):
        redness = redness + flush * spot(side * 0.55, 0.32, 0.26, 0.22)
    redness += 0.5 * flush * spot(0, neutral[30, 1] + 0.02, 0.16, 0.16) + 0.25 * spot(
        0, neutral[8, 1] - 0.1, 0.25, 0.15
    )
    tone = 0.05 * look.blotches * fractal_noise(rng, shape, 0.25 * unit, 3)
    grain = smooth_noise(rng, shape, max(1.0, 0.018 * unit)) + 0.7 * smooth_noise(rng, shape, max(1.2, 0.035 * unit))
    tone += 0.014 * look.pores**1.5 * grain
    for side in (-1.0, 1.0):
        eye = neutral[36:42] if side < 0 else neutral[42:48]
        centre = eye[:, :2].mean(axis=0)
        tone -= (0.045 + 0.03 * drawn.shape["eye_shadow"]) * spot(centre[0], centre[1] + 0.08, 0.27, 0.10)
        tone -= 0.08 * spot(centre[0] - side * 0.16, centre[1] - 0.03, 0.12, 0.14)  # beside the nose's root
        tone -= 0.05 * spot(centre[0], centre[1] - 0.09, 0.24, 0.07)
        redness += 0.3 * spot(centre[0], centre[1] - 0.02, 0.26, 0.10)
        tone -= 0.22 * spot(side * 0.15, neutral[33, 1] - 0.02, 0.05, 0.05)  # beside the wings
    tone -= 0.18 * spot(0, neutral[33, 1] + 0.03, 0.17, 0.05)  # under the nose
    tone -= 0.14 * spot(0, neutral[57, 1] + 0.045, 0.20, 0.04)
    tone += _wrinkles(rng, look, span, neutral)
    colour = look.skin * (1 + tone)[..., None]
    colour *= 1 + np.clip(redness, -1, 2)[..., None] * np.array([0.015, -0.055, -0.05], np.float32)
    _freckles(rng, colour, look, span)
    _stubble(rng, colour, look, drawn, neutral, span)
    picture = np.uint8(np.clip(np.rint(colour), 0, 255))
    if drawn.beard or drawn.moustache:
        _beard(rng, picture, look, drawn, neutral, span)
    _brows(rng, picture, look, drawn, neutral, span)
    return np.ascontiguousarray(picture)


def _lines(shape: tuple[int, int], span: Span, paths: list[np.ndarray], width: float, blur: float) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    fixed = [np.rint((span.pixels(path) - 0.5) * 16).astype(np.int32) for path in paths]
    cv2.polylines(mask, fixed, False, 255, max(1, round(width * span.density)), cv2.LINE_AA, 4)
    return cv2.GaussianBlur(np.float32(mask) / 255, (0, 0), max(0.5, blur * span.density))


def _wrinkles(rng: np.random.Generator, look: NaturalLook, span: Span, neutral: np.ndarray) -> np.ndarray:
    """Lines of age on the forehead, beside the eyes and below them."""
    paths = []
    across = np.linspace(-1, 1, 9)
    for row in range(int(1 + 4 * look.age)):
        height = -0.58 - 0.09 * row + rng.normal(0, 0.01)
        wave = 0.02 * rng.standard_normal(9)
        paths.append(
            np.stack(
                [across * rng.uniform(0.3, 0.5) + rng.normal(0, 0.05), height - 0.03 * (1 - across**2) + wave], axis=1
            )
        )
    for side, corner in ((-1.0, neutral[36]), (1.0, neutral[45])):
        for turn in (-0.5, -0.15, 0.2, 0.5):
            start = corner[:2] + [side * 0.06, 0.02]
            reach = rng.uniform(0.06, 0.16)
            paths.append(np.stack([start, start + reach * np.array([side, turn + 0.1])]))
    return -0.22 * look.age**1.5 * _lines(span.shape, span, paths, 0.014, 0.012)


def _freckles(rng: np.random.Generator, colour: np.ndarray, look: NaturalLook, span: Span) -> None:
    count = int(look.freckles * 160)
    mask = np.zeros(span.shape, np.uint8)
    places = np.stack([rng.normal(0, 0.45, count), rng.normal(0.22, 0.22, count)], axis=1)
    for place, size in zip(span.pixels(places), rng.uniform(0.006, 0.018, count), strict=True):
        cv2.circle(
            mask, tuple(int(v * 16) for v in place), max(8, int(size * span.density * 16)), 255, -1, cv2.LINE_AA, 4
        )
    moles = np.zeros(span.shape, np.uint8)
    for _ in range(rng.poisson(1.2)):
        place = span.pixels(np.array([rng.uniform(-0.75, 0.75), rng.uniform(-0.6, 1.0)]))
        cv2.circle(
            moles,
            tuple(int(v * 16) for v in place),
            int(rng.uniform(0.008, 0.022) * span.density * 16),
            255,
            -1,
            cv2.LINE_AA,
            4,
        )
    for spots, target, strength in ((mask, [0.80, 0.64, 0.52], 0.5), (moles, [0.45, 0.35, 0.32], 0.8)):
        alpha = cv2.GaussianBlur(np.float32(spots), (0, 0), 0.6)[..., None] / 255 * strength
        colour += (look.skin * np.array(target, np.float32) - colour) * alpha


def beard_zone(drawn: Appearance, neutral: np.ndarray, span: Span, moustache: bool, cheeks: bool) -> np.ndarray:
    """Where a beard grows: h x w float32, 0 .. 1, soft."""
    zone = np.zeros(span.shape, np.uint8)
    if cheeks:
        jaw = curve(neutral[1:16, :2]) * [1.02, 1.03]
        inner = np.array(
            [neutral[15, :2] * [0.94, 1], neutral[13, :2] * [0.72, 0.92], neutral[54, :2] + [0.16, 0.0],
             neutral[54, :2] + [0.05, 0.06], neutral[57, :2] + [0.16, 0.035], neutral[57, :2] + [-0.16, 0.035],
             neutral[48, :2] + [-0.05, 0.06], neutral[48, :2] + [-0.16, 0.0], neutral[3, :2] * [0.72, 0.92],
             neutral[1, :2] * [0.94, 1]]
        )  # fmt: skip
        outline = np.concatenate([jaw, inner])
        cv2.fillPoly(zone, [np.rint(span.pixels(outline) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    if moustache:
        lip, base = neutral[48:55, :2], neutral[31:36, :2]
        outline = np.concatenate(
            [
                lip + [0, -0.012],
                [neutral[54, :2] + [0.07, 0.06]],
                base[::-1] + [[0.08, 0.09], [0.04, 0.07], [0, 0.06], [-0.04, 0.07], [-0.08, 0.09]],
                [neutral[48, :2] + [-0.07, 0.06]],
            ]
        )
        cv2.fillPoly(zone, [np.rint(span.pixels(outline) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return cv2.GaussianBlur(np.float32(zone) / 255, (0, 0), 0.035 * span.density)


def _stubble(
    rng: np.random.Generator, colour: np.ndarray, look: NaturalLook, drawn: Appearance, neutral: np.ndarray, span: Span
) -> None:
    if not look.stubble:
        return
    zone = beard_zone(drawn, neutral, span, True, True) * look.stubble
    dots = np.clip(smooth_noise(rng, span.shape, max(1.0, 0.014 * span.density)) * 0.5 + 0.35, 0, 1)
    alpha = zone * (0.12 + 0.45 * dots * look.stubble)
    colour += (look.hair * 0.8 + look.skin * np.array([0.1, 0.12, 0.14], np.float32) - colour) * alpha[..., None]


def _beard(
    rng: np.random.Generator, picture: np.ndarray, look: NaturalLook, drawn: Appearance, neutral: np.ndarray, span: Span
) -> None:
    zone = beard_zone(drawn, neutral, span, drawn.moustache > 0 or drawn.beard > 0.7, drawn.beard > 0)
    density = float(0.5 + 0.5 * max(drawn.beard, drawn.moustache))
    base = np.float32(picture)
    alpha = zone[..., None] * (0.35 + 0.35 * density)
    picture[:] = np.uint8(base + (look.hair * 0.62 - base) * alpha)
    count = int(5200 * density)
    places = np.stack([rng.uniform(-1.1, 1.1, count), rng.uniform(0.1, 1.45, count)], axis=1)
    keep = zone[
        tuple(np.clip(span.pixels(places).astype(int), 0, np.array(zone.shape[::-1]) - 1).T[::-1])
    ] > rng.uniform(0, 1, count)
    places = places[keep]
    outward = np.stack([places[:, 0] * 0.6 + rng.normal(0, 0.35, len(places)), np.full(len(places), 1.0)], axis=1)
    length = (0.035 + 0.05 * max(drawn.beard, 0.3)) * rng.uniform(0.5, 1.2, (len(places), 1))
    hairs = np.stack([places, places + outward * length], axis=1)
    _soft_strands(rng, picture, look.hair, hairs, span, 0.6, (0.5, 1.3))


def _brows(
    rng: np.random.Generator, picture: np.ndarray, look: NaturalLook, drawn: Appearance, neutral: np.ndarray, span: Span
) -> None:
    strength = float(rng.uniform(0.45, 0.8))
    thick = 0.050 * (1 + 0.38 * drawn.shape["brow_thickness"])
    for side, rows in ((-1.0, (21, 20, 19, 18, 17)), (1.0, (22, 23, 24, 25, 26))):
        centre = curve(neutral[list(rows), :2])
        along = np.linspace(0, 1, len(centre))
        half = thick * np.interp(along, [0, 0.1, 0.45, 0.8, 1], [0.6, 0.95, 1.0, 0.62, 0.15])
        outline = np.concatenate(
            [
                centre - np.stack([0 * half, half * 0.75], axis=1),
                (centre + np.stack([0 * half, half * 0.75], axis=1))[::-1],
            ]
        )
        mask = np.zeros(span.shape, np.uint8)
        cv2.fillPoly(mask, [np.rint((span.pixels(outline) - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
        soft = cv2.GaussianBlur(np.float32(mask) / 255, (0, 0), 0.022 * span.density)[..., None]
        base = np.float32(picture)
        picture[:] = np.uint8(base + (look.brow - base) * soft * strength)
        count = 240
        index = rng.uniform(0, len(centre) - 1.01, count)
        low = index.astype(int)
        root = centre[low] + (centre[low + 1] - centre[low]) * (index - low)[:, None]
        offset = rng.uniform(-1, 1, count)
        root = root + np.stack([np.zeros(count), offset * half[low] * 0.9], axis=1)
        progress = index / len(centre)
        tilt = np.stack([side * (0.35 + 0.65 * progress), -0.9 + 1.0 * progress + 0.25 * offset], axis=1)
        reach = rng.uniform(0.04, 0.08, (count, 1)) * (1.1 - 0.4 * progress[:, None])
        hairs = np.stack([root, root + tilt * reach], axis=1)
        _soft_strands(rng, picture, look.brow, hairs, span, 0.55, (0.6, 1.3))


def _soft_strands(
    rng: np.random.Generator,
    picture: np.ndarray,
    colour: np.ndarray,
    strands: np.ndarray,
    span: Span,
    opacity: float,
    tones: tuple[float, float],
) -> None:
    """Strands thinner than a pixel: drawn one pixel wide and mixed with what lies below."""
    drawn = picture.copy()
    draw_strands(rng, drawn, colour, strands, span, 0.008, tones)
    cv2.addWeighted(drawn, opacity, picture, 1 - opacity, 0, dst=picture)


def draw_strands(
    rng: np.random.Generator,
    picture: np.ndarray,
    colour: np.ndarray,
    strands: np.ndarray,
    span: Span,
    width: float,
    tones: tuple[float, float],
    alpha: np.ndarray | None = None,
) -> None:
    """Lines n x m x 2 (face units) with colours between two factors; alpha: uint8 mask that they are added to."""
    shades = np.linspace(tones[0], tones[1], 8)
    groups = rng.integers(0, len(shades), len(strands))
    fixed = np.rint((span.pixels(strands) - 0.5) * 16).astype(np.int32)
    thickness = max(1, round(width * span.density))
    for number, shade in enumerate(shades):
        paths = list(fixed[groups == number])
        if paths:
            tone = tuple(float(v) for v in np.clip(colour * shade, 0, 255))
            cv2.polylines(picture, paths, False, tone, thickness, cv2.LINE_AA, 4)
            if alpha is not None:
                cv2.polylines(alpha, paths, False, 255, thickness, cv2.LINE_AA, 4)
