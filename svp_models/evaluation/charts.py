"""Charts as SVG without scripts: lines, points in a plane; and the plane that style codes are shown in.

Lines and points differ in shape as well as in colour; text takes the colour of the page, so that they suit light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import import_module

import numpy as np

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 46
# Okabe and Ito's colours, which people with any colour vision can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8b6f47", "#7a7a7a")
DASHES = ("", "6 3", "2 3", "8 3 2 3", "1 2", "10 4", "4 4", "12 3 2 3 2 3")
MARKS = ("circle", "square", "triangle", "diamond", "cross", "ring", "bar", "star")
FEWEST_FOR_TSNE = 12


def project_codes(codes: np.ndarray, seed: int = 0) -> tuple[np.ndarray, str]:
    """Codes n x d in the plane, n x 2, and how: t-SNE (van der Maaten 2008) where scikit-learn is installed and there are
    enough of them, else the two principal components."""
    rows = np.asarray(codes, np.float64)
    centred = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    plane = centred @ axes[:2].T
    plane = np.pad(plane, ((0, 0), (0, 2 - plane.shape[1])))
    if len(rows) < FEWEST_FOR_TSNE:
        return plane, "PCA"
    try:
        manifold = import_module("sklearn.manifold")
    except ModuleNotFoundError:
        return plane, "PCA"
    spread = plane / max(float(plane[:, 0].std()), 1e-12) * 1e-4  # as scikit-learn scales its own start
    perplexity = min(30.0, (len(rows) - 1) / 3)
    tsne = manifold.TSNE(2, perplexity=perplexity, init=spread.astype(np.float32), random_state=seed, n_jobs=1)
    return tsne.fit_transform(rows.astype(np.float32)), "t-SNE"


def line_chart(title: str, lines: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str) -> str:
    """Lines by name, (x, y) each, as SVG."""
    points = np.array([point for line in lines.values() for point in line], np.float64).reshape(-1, 2)
    frame = _Frame(points)
    parts = [frame.axes(x_label, y_label)]
    for number, (name, line) in enumerate(lines.items()):
        colour, dash = COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)]
        places = [frame.place(*point) for point in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(
            f'<polyline fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}" points="{path}"/>'
        )
        parts += [_mark(number, x, y, colour, 4) for x, y in places]
        parts.append(_legend(number, name, colour))
    return _svg(title, parts, len(lines))


def scatter_chart(title: str, points: np.ndarray, groups: Sequence[str], sizes: Sequence[float] | None = None) -> str:
    """Points n x 2 in groups of their own colour and shape, as SVG; sizes: radii in pixels."""
    frame = _Frame(np.asarray(points, np.float64))
    radii = [4.0] * len(points) if sizes is None else sizes
    names = list(dict.fromkeys(groups))
    parts = [
        f'<rect x="{LEFT}" y="{TOP}" width="{frame.wide}" height="{frame.high}" fill="none" stroke="currentColor" opacity="0.3"/>'
    ]
    for (x, y), group, radius in zip(points, groups, radii, strict=True):
        number = names.index(group)
        place = frame.place(float(x), float(y))
        parts.append(
            f"<g><title>{escape(group)}</title>{_mark(number, *place, COLOURS[number % len(COLOURS)], radius)}</g>"
        )
    parts += [_legend(number, name, COLOURS[number % len(COLOURS)]) for number, name in enumerate(names)]
    return _svg(title, parts, len(names))


class _Frame:
    """From values to pixels."""

    def __init__(self, points: np.ndarray) -> None:
        self.wide, self.high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
        low, high = (points.min(0), points.max(0)) if len(points) else (np.zeros(2), np.ones(2))
        span = np.where(high > low, high - low, 1.0)
        self.low, self.high_value = low - 0.05 * span, high + 0.05 * span

    def place(self, x: float, y: float) -> tuple[float, float]:
        across, up = (np.array([x, y]) - self.low) / (self.high_value - self.low)
        return LEFT + float(across) * self.wide, TOP + (1 - float(up)) * self.high

    def axes(self, x_label: str, y_label: str) -> str:
        parts = []
        for value in _ticks(self.low[1], self.high_value[1]):
            _, y = self.place(self.low[0], value)
            parts.append(
                f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" opacity="0.15"/>'
            )
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
        for value in _ticks(self.low[0], self.high_value[0]):
            x, _ = self.place(value, self.low[1])
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:g}</text>')
        parts.append(f'<text x="{LEFT + self.wide / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
        middle = TOP + self.high / 2
        parts.append(
            f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(y_label)}</text>'
        )
        return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """About five round values between two."""
    raw = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * 0.999)
    return [round(float(index * step), 10) for index in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def _mark(number: int, x: float, y: float, colour: str, r: float) -> str:
    kind = MARKS[number % len(MARKS)]
    fill = f'fill="{colour}" stroke="{colour}"'
    shapes = {
        "circle": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" {fill}/>',
        "ring": f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" fill="none" stroke="{colour}" stroke-width="2"/>',
        "square": f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r:.1f}" height="{2 * r:.1f}" {fill}/>',
        "triangle": f'<path d="M{x:.1f},{y - r:.1f} l{r:.1f},{2 * r:.1f} h{-2 * r:.1f} z" {fill}/>',
        "diamond": f'<path d="M{x:.1f},{y - 1.3 * r:.1f} l{r:.1f},{1.3 * r:.1f} l{-r:.1f},{1.3 * r:.1f} l{-r:.1f},{-1.3 * r:.1f} z" {fill}/>',
        "cross": f'<path d="M{x - r:.1f},{y - r:.1f} l{2 * r:.1f},{2 * r:.1f} m0,{-2 * r:.1f} l{-2 * r:.1f},{2 * r:.1f}" fill="none" stroke="{colour}" stroke-width="2"/>',
        "bar": f'<rect x="{x - r:.1f}" y="{y - r / 2:.1f}" width="{2 * r:.1f}" height="{r:.1f}" {fill}/>',
        "star": f'<path d="M{x - r:.1f},{y:.1f} h{2 * r:.1f} M{x:.1f},{y - r:.1f} v{2 * r:.1f}" fill="none" stroke="{colour}" stroke-width="2"/>',
    }
    return shapes[kind]


def _legend(number: int, name: str, colour: str) -> str:
    x, y = LEFT + 8 + (number % 4) * 148, HEIGHT + 14 + (number // 4) * 18
    return f'{_mark(number, x, y, colour, 4)}<text x="{x + 10}" y="{y + 4}">{escape(name)}</text>'


def _svg(title: str, parts: Sequence[str], entries: int) -> str:
    height = HEIGHT + 10 + 18 * ((entries + 3) // 4)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}" '
        f'font-size="12" fill="currentColor"><title>{escape(title)}</title>{"".join(parts)}</svg>'
    )
