"""Plots as pictures, for hosts that show pictures: a clip's figures frame by frame, and style priors in a plane."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..errors import PortraitError
from ..networks.style_extractor import sample_code
from ..optional_deps import cv2
from ..types import StylePrior
from .charts import COLOURS

WIDTH, PANEL = 960, 220  # pixels of a plot and of one panel in it
LEFT, RIGHT, TOP, BOTTOM = 70, 16, 30, 24
PAPER, INK, FAINT = 255, 30, 215
PLANE = 720  # pixels a side
FONT = 0  # FONT_HERSHEY_SIMPLEX


def panels(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> np.ndarray:
    """One panel below another, title -> curve -> one value a frame: h w 3, uint8. Values that are no numbers are left out."""
    if not curves:
        raise PortraitError("there are 0 curves to plot: at least one is needed")
    image = np.full((PANEL * len(curves), WIDTH, 3), PAPER, np.uint8)
    for number, (title, lines) in enumerate(curves.items()):
        _panel(image[number * PANEL : (number + 1) * PANEL], title, lines)
    return image


def _panel(image: np.ndarray, title: str, lines: Mapping[str, Sequence[float]]) -> None:
    values = np.concatenate([np.asarray(line, np.float64) for line in lines.values()])
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    wide, tall = WIDTH - LEFT - RIGHT, PANEL - TOP - BOTTOM
    _text(image, title, (LEFT, 19), 0.5)
    for value in (low, (low + high) / 2, high):
        y = TOP + round((high - value) / (high - low) * tall)
        cv2.line(image, (LEFT, y), (WIDTH - RIGHT, y), (FAINT,) * 3, 1)
        _text(image, f"{value:.3g}", (8, y + 4), 0.4)
    longest = max(len(line) for line in lines.values())
    for frame in range(0, longest, max(1, longest // 8)):
        _text(image, str(frame), (LEFT + round(frame / max(1, longest - 1) * wide), PANEL - 7), 0.4)
    for number, (name, line) in enumerate(lines.items()):
        points = [
            (LEFT + round(frame / max(1, longest - 1) * wide), TOP + round((high - value) / (high - low) * tall))
            for frame, value in enumerate(line)
            if np.isfinite(value)
        ]
        colour = _rgb(COLOURS[number % len(COLOURS)])
        cv2.polylines(
            image, [np.array(points, np.int32).reshape(-1, 1, 2)], False, colour, 1 + (number == 0), cv2.LINE_AA
        )
        place = WIDTH - RIGHT - 150 * (len(lines) - number)
        cv2.line(image, (place, 14), (place + 18, 14), colour, 2, cv2.LINE_AA)
        _text(image, name, (place + 24, 18), 0.42)


def style_plane(priors: Sequence[StylePrior], samples: int, seed: int) -> np.ndarray:
    """Style priors by the two principal components of their samples: h w 3, uint8.

    Every prior is a colour: its mean is large, `samples` draws of eq. 4 around it are small, and a line leads to its name. All have
    to be of one style space.
    """
    spaces = {prior.style_space for prior in priors}
    if len(spaces) > 1:
        raise PortraitError(
            f"the styles are of {len(spaces)} models ({', '.join(sorted(spaces))}): styles of one model lie in one plane"
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = [
        np.stack([prior.mu.numpy(), *(_draw(prior, generator) for _ in range(samples))]).astype(np.float64)
        for prior in priors
    ]
    every = np.concatenate(drawn)
    centre = every.mean(0)
    _, sizes, axes = np.linalg.svd(every - centre, full_matrices=False)
    shares = np.square(sizes) / max(float(np.square(sizes).sum()), 1e-12)
    axes = axes[:2] if len(axes) > 1 else np.concatenate([axes, 0 * axes])
    flat = [(rows - centre) @ axes.T for rows in drawn]
    reach = max(float(np.abs(np.concatenate(flat)).max()), 1e-9) * 1.15
    image = np.full((PLANE + 24 * len(priors) + 40, PLANE, 3), PAPER, np.uint8)
    cv2.rectangle(image, (8, 8), (PLANE - 8, PLANE - 8), (FAINT,) * 3, 1)
    for number, (prior, rows) in enumerate(zip(priors, flat, strict=True)):
        colour = _rgb(COLOURS[number % len(COLOURS)])
        places = np.rint(PLANE / 2 + rows * (1, -1) / reach * (PLANE / 2 - 16)).astype(int)
        for x, y in places[1:].tolist():
            cv2.circle(image, (x, y), 2, colour, -1, cv2.LINE_AA)
        x, y = places[0].tolist()
        cv2.circle(image, (x, y), 9, (PAPER,) * 3, -1, cv2.LINE_AA)
        cv2.circle(image, (x, y), 7, colour, -1, cv2.LINE_AA)
        _text(image, str(number + 1), (x + 10, y + 5), 0.5)
        line = PLANE + 20 + 24 * number
        cv2.circle(image, (20, line - 5), 6, colour, -1, cv2.LINE_AA)
        _text(
            image, f"{number + 1}  {prior.label or 'style'}, spread {float(prior.sigma.norm()):.3f}", (36, line), 0.48
        )
    shown = (
        f"two principal components of {len(every)} style codes, {100 * float(shares[:2].sum()):.0f} % of their variance"
    )
    _text(image, shown, (12, len(image) - 12), 0.45)
    return image


def _ticks(low: float, high: float, most: int = 8) -> list[float]:
    """Round numbers between two others, at most so many."""
    magnitude = 10.0 ** np.floor(np.log10((high - low) / most))
    step = next(size * magnitude for size in (1, 2, 5, 10) if (high - low) / (size * magnitude) <= most)
    return [round(float(count * step), 9) for count in range(int(np.ceil(low / step)), int(high // step) + 1)]


def _draw(prior: StylePrior, generator: torch.Generator) -> np.ndarray:
    return sample_code(prior.mu, prior.sigma, generator).numpy()


def _text(image: np.ndarray, text: str, place: tuple[int, int], size: float) -> None:
    plain = text.encode("ascii", "replace").decode()  # OpenCV's font knows no other letters
    cv2.putText(image, plain, place, FONT, size, (INK,) * 3, 1, cv2.LINE_AA)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def speed_against_quality(points: Mapping[str, tuple[float, float]], best: Sequence[str], x: str, y: str) -> np.ndarray:
    """A plot of settings, name -> (speed, quality), with a line through the `best` ones, by rising speed: h w 3, uint8.

    Points have numbers; a list below names them. x, y: what the axes say.
    """
    names = list(points)
    line = 22
    image = np.full((PLANE + line * len(names) + 30, PLANE, 3), PAPER, np.uint8)
    values = np.array([points[name] for name in names], np.float64)
    low, high = values.min(0), values.max(0)
    margin = 0.08 * np.maximum(high - low, 1e-6)
    low, high = low - margin, high + margin
    left, right, top, bottom = LEFT, PLANE - 24, 24, PLANE - 56

    def place(point: np.ndarray) -> tuple[int, int]:
        across, up = (point - low) / (high - low)
        return round(left + across * (right - left)), round(bottom - up * (bottom - top))

    for value in _ticks(low[0], high[0]):
        column, _ = place(np.array([value, low[1]]))
        cv2.line(image, (column, top), (column, bottom), (FAINT,) * 3, 1)
        _text(image, f"{value:g}", (column - 8, bottom + 18), 0.42)
    for value in _ticks(low[1], high[1]):
        _, row = place(np.array([low[0], value]))
        cv2.line(image, (left, row), (right, row), (FAINT,) * 3, 1)
        _text(image, f"{value:g}", (24, row + 4), 0.42)
    _text(image, x, ((left + right) // 2 - 4 * len(x), bottom + 42), 0.5)
    _text(image, y, (left, 16), 0.5)
    way = np.array([place(np.array(points[name])) for name in best], np.int32).reshape(-1, 1, 2)
    cv2.polylines(image, [way], False, _rgb(COLOURS[0]), 2, cv2.LINE_AA)
    for number, name in enumerate(names, start=1):
        column, row = place(np.array(points[name]))
        colour = _rgb(COLOURS[0] if name in best else COLOURS[1])
        cv2.circle(image, (column, row), 6, colour, -1, cv2.LINE_AA)
        _text(image, str(number), (column + 8, row - 6 if number % 2 else row + 16), 0.45)  # neighbours are often near
        speed, quality = points[name]
        _text(
            image, f"{number:2}  {name}: {speed:.2f} x, {quality:.1f}", (left, PLANE + line * (number - 1) + 12), 0.46
        )
    return image
