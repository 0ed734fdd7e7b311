"""Eyes, brows, mouth and glasses, painted from projected face points."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Colour, curve, mix, resample, ribbon, shade
from .expressions import GROUPS
from .identity import Appearance

_EYES = ((36, 37, 38, 39, 40, 41), (42, 43, 44, 45, 46, 47))


def paint_eyes(
    canvas: Canvas,
    look: Appearance,
    points: np.ndarray,
    pupils: np.ndarray,
    radius: float,
    blink: np.ndarray,
    unit: float,
) -> None:
    """points: VERTEX_COUNT x 2 px; pupils: 2 x 2 px; radius of the iris in px."""
    for side, order in enumerate(_EYES):
        upper = curve(points[list(order[:4])])
        lower = curve(points[[order[3], order[4], order[5], order[0]]])
        closed = float(np.clip(blink[side], 0, 1))
        _paint_eyeball(canvas, look, np.concatenate([upper, lower[1:-1]]), upper, pupils[side], radius, unit)
        _paint_lids(canvas, look, points, upper, lower, side, closed, unit)


def _paint_eyeball(
    canvas: Canvas,
    look: Appearance,
    outline: np.ndarray,
    upper: np.ndarray,
    pupil: np.ndarray,
    radius: float,
    unit: float,
) -> None:
    box = canvas.box(outline)
    if box is None:
        return
    left, top, right, bottom = box
    region = canvas.image[top:bottom, left:right]
    layer = Canvas(np.empty_like(region), canvas.factor)
    layer.image[:] = (250, 247, 244)
    origin = np.array([left, top]) / canvas.factor
    lid = upper - origin
    layer.line(lid + [0, 0.03 * unit], (206, 200, 206), 0.085 * unit)  # the lid's shadow on the eyeball
    centre = pupil - origin
    layer.disc(centre, radius, shade(look.iris, 0.52))
    layer.disc(centre, radius * 0.86, look.iris)
    layer.disc(centre + [0, radius * 0.30], (radius * 0.62, radius * 0.48), shade(look.iris, 1.30))
    layer.disc(centre, radius * 0.50, (24, 18, 22))
    layer.line(lid, shade(look.iris, 0.35), 0.025 * unit)
    layer.disc(centre + [-radius * 0.34, -radius * 0.40], radius * 0.24, (255, 255, 255))
    layer.disc(centre + [radius * 0.36, radius * 0.38], radius * 0.11, (236, 240, 246))
    canvas.paste(box, layer.image, canvas.mask(outline, box))


def _paint_lids(
    canvas: Canvas,
    look: Appearance,
    points: np.ndarray,
    upper: np.ndarray,
    lower: np.ndarray,
    side: int,
    closed: float,
    unit: float,
) -> None:
    dark = (46, 30, 30)
    outward = -1.0 if side == 0 else 1.0
    crease = curve(points[GROUPS["crease_l" if side == 0 else "crease_r"]])
    lid_skin = mix(look.skin, look.skin_shadow, 0.42)
    canvas.line(crease[2:-2], mix(look.skin_shadow, look.skin, 0.15 + 0.35 * closed), 0.022 * unit)
    canvas.line(lower[2:-2], mix(lid_skin, (120, 70, 66), 0.45), 0.018 * unit)
    count = len(upper)
    along = np.linspace(0, 1, count) if side == 1 else np.linspace(1, 0, count)
    width = (0.026 + 0.034 * np.sin(np.clip(along * 0.85 + 0.12, 0, 1) * np.pi) ** 0.8) * unit
    canvas.fill(ribbon(upper - [0, 0.008 * unit], width), dark)
    lash = (0.075 + 0.045 * look.shape["lash_length"]) * unit
    if lash > 0.02 * unit:
        outer = upper[-1] if side == 1 else upper[0]
        before = upper[-5] if side == 1 else upper[4]
        lift = 1.0 - 1.3 * closed
        for start, reach in ((outer, 1.0), (outer * 0.55 + before * 0.45, 0.85)):
            tip = start + lash * reach * np.array([0.85 * outward, -0.62 * lift])
            wing = np.stack([start + [0, 0.014 * unit], start + [-0.05 * unit * outward, -0.016 * unit], tip])
            canvas.fill(wing, dark)


def paint_brows(canvas: Canvas, look: Appearance, points: np.ndarray, unit: float) -> None:
    shape = look.shape
    thick = 0.105 * (1 + 0.32 * shape["brow_thickness"])
    taper = 0.30 - 0.16 * shape["brow_taper"]
    for rows in ((21, 20, 19, 18, 17), (22, 23, 24, 25, 26)):
        centre = curve(points[list(rows)])
        along = np.linspace(0, 1, len(centre))
        width = thick * np.interp(along, [0, 0.12, 0.45, 0.8, 1], [0.62, 0.95, 1.0, 0.62 + 0.3 * taper, taper]) * unit
        canvas.fill(ribbon(centre, width), look.brow)
        canvas.line(centre[2:-6] - [0, 0.012 * unit], mix(look.brow, look.hair, 0.45), 0.016 * unit)


def paint_mouth(canvas: Canvas, look: Appearance, points: np.ndarray, unit: float) -> None:
    """Lips, and behind them teeth and tongue where the mouth is open."""
    upper_out, lower_out = _lip_curves(points[48:60])
    upper_in, lower_in = _lip_curves(points[60:68])
    outline = np.concatenate([upper_out, lower_out[1:-1]])
    opening = np.concatenate([upper_in, lower_in[1:-1]])
    canvas.soft(lower_out + [0, 0.02 * unit], look.skin_shadow, 0.5, 0.05 * unit)
    canvas.fill(outline, look.lips)
    upper = np.concatenate([upper_out, upper_in[::-1]])
    canvas.fill(upper, look.lips_dark)
    shine = lower_out * 0.55 + resample(lower_in, len(lower_out)) * 0.45
    third = len(shine) // 3
    band = ribbon(shine[third:-third], np.sin(np.linspace(0.2, np.pi - 0.2, len(shine) - 2 * third)) * 0.045 * unit)
    canvas.soft(band, shade(look.lips, 1.5), 0.55, 0.02 * unit, clip=outline)
    gap = float((points[65:68, 1] - points[[63, 62, 61], 1]).max())
    if gap > 0.012 * unit:
        _paint_inside(canvas, look, points, opening, unit)
    line = mix(look.lips_dark, (50, 16, 22), 0.6)
    canvas.lines([upper_in], line, 0.024 * unit)
    if gap > 0.012 * unit:
        canvas.lines([lower_in], mix(look.lips_dark, line, 0.3), 0.016 * unit)
    across, high = points[48:60].max(axis=0) - points[48:60].min(axis=0)
    for corner, sign in ((48, -1), (54, 1)) if high < 0.7 * across else ():
        end = points[corner]
        canvas.line(np.stack([end - [0.05 * unit * sign, 0], end + [0.012 * unit * sign, 0]]), line, 0.024 * unit)


def _lip_curves(ring: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A ring of lip points -> its upper and lower line; pointed at the corners, rounder the rounder the mouth is."""
    half = len(ring) // 2
    upper, lower = curve(ring[: half + 1]), curve(np.concatenate([ring[half:], ring[:1]]))
    smooth = curve(ring, closed=True)
    extent = ring.max(axis=0) - ring.min(axis=0)
    amount = float(np.clip((extent[1] / (extent[0] + 1e-6) - 0.40) / 0.35, 0, 1))
    count = len(upper)
    closed_upper, closed_lower = smooth[:count], np.concatenate([smooth[count - 1 :], smooth[:1]])
    return upper + (closed_upper - upper) * amount, lower + (closed_lower - lower) * amount


def _paint_inside(canvas: Canvas, look: Appearance, points: np.ndarray, opening: np.ndarray, unit: float) -> None:
    box = canvas.box(opening)
    if box is None:
        return
    left, top, right, bottom = box
    layer = Canvas(np.empty_like(canvas.image[top:bottom, left:right]), canvas.factor)
    layer.image[:] = (88, 26, 34)
    origin = np.array([left, top]) / canvas.factor
    corner_left, corner_right = points[60] - origin, points[64] - origin
    across = corner_right - corner_left
    down = np.array([-across[1], across[0]]) / (np.linalg.norm(across) + 1e-6) * unit
    bite_up, bite_low = points[GROUPS["bites"]] - origin
    tongue = points[GROUPS["tongue"]][0] - origin
    half = across * 0.5
    layer.disc((bite_up + bite_low) * 0.5, (0.24 * unit, 0.12 * unit), (58, 14, 22))
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    blade = tongue + 0.10 * down + np.outer(np.cos(turn) * 0.62, half) + np.outer(np.sin(turn) * 0.14, down)
    layer.fill(blade, (206, 96, 98))
    layer.line(np.stack([tongue + 0.0 * down, tongue + 0.2 * down]), (176, 72, 78), 0.02 * unit)
    arch = np.linspace(-1, 1, 11)
    low_edge = bite_low + np.outer(arch * 0.66, half) - np.outer(0.015 * arch**2, down)
    layer.fill(np.concatenate([low_edge, (low_edge + 0.14 * down)[::-1]]), (226, 220, 212))
    edge = bite_up + np.outer(arch * 0.86, half) - np.outer(0.055 * arch**2, down)
    layer.fill(np.concatenate([edge, (edge - 0.25 * down)[::-1]]), (250, 246, 240))
    layer.lines([np.stack([edge[i], edge[i] - 0.2 * down]) for i in (3, 5, 7)], (226, 218, 212), 0.01 * unit)
    lip_shadow = opening[: len(opening) // 2] - origin
    layer.line(lip_shadow + [0, 0.012 * unit], (120, 66, 66), 0.03 * unit)
    canvas.paste(box, layer.image, canvas.mask(opening, box))


def paint_glasses(
    canvas: Canvas,
    frame: Colour,
    lenses: np.ndarray,
    arms: np.ndarray,
    unit: float,
    width: float = 0.036,
    glare_opacity: float = 0.22,
) -> None:
    """frame: its colour; lenses: 2 x n x 2 px outlines; arms: 2 x 2 x 2 px from the lens to the ear; width: face units."""
    for lens in lenses:
        box = canvas.box(lens)
        if box is not None:
            canvas.blend(box, (255, 255, 255), canvas.mask(lens, box), 0.10)
            low, high = lens.min(axis=0), lens.max(axis=0)
            centre, reach = (low + high) / 2, (high - low) / 2
            glare = centre + reach * np.array([[-0.55, 0.35], [0.05, -0.75], [0.35, -0.75], [-0.30, 0.45]])
            canvas.soft(glare, (255, 255, 255), glare_opacity, 0.01 * unit)
    canvas.lines([np.concatenate([lens, lens[:1]]) for lens in lenses], frame, width * unit)
    bridge_left, bridge_right = lenses[0][lenses[0][:, 0].argmax()], lenses[1][lenses[1][:, 0].argmin()]
    middle = (bridge_left + bridge_right) / 2 - [0, 0.05 * unit]
    canvas.line(curve(np.stack([bridge_left, middle, bridge_right])), frame, width * unit)
    canvas.lines(list(arms), frame, (width - 0.002) * unit)


def lens_outline(kind: str, size: float) -> np.ndarray:
    """A pair of lenses around the eyes: 2 x n x 3, face units. size: -1 .. 1."""
    turn = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    power = 1.0 if kind == "round" else 0.55
    x = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** power * 0.335
    y = np.sign(np.sin(turn)) * np.abs(np.sin(turn)) ** power * (0.29 if kind == "round" else 0.23)
    local = np.stack([x, y], axis=1) * (1 + 0.10 * size)
    pair = [
        np.column_stack([local[:, 0] + cx, local[:, 1] + 0.0, 0.52 - 0.25 * np.abs(local[:, 0] + cx)])
        for cx in (-0.43, 0.43)
    ]
    return np.asarray(pair, dtype=np.float32)
