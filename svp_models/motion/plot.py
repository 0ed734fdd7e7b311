"""Curves of a motion as a picture: angles, shift, scale, eyes, mouth and gaze over time, one motion or two to compare."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..errors import PortraitError
from ..optional_deps import cv2
from ..types import Motion
from .sliders import gaze_direction, lid_closure, mouth_opening

Colour = tuple[int, int, int]  # RGB
FINER = 2  # drawn so many times larger and averaged down: smooth lines and letters
LEFT, RIGHT, TOP, BOTTOM, GAP = 78, 160, 40, 46, 16  # margins of the picture and between panels, pixels
LEAST = (360, 360)  # width, height
TICKS = 5  # about so many on an axis
FONT = 0.42  # of OpenCV's Hershey letters
ROOM = 0.08  # of a panel's span, above and below the curves
SUBPIXEL = 4  # bits of a coordinate's fraction
DASH = 7  # pixels of a dash, and of the gap behind it


@dataclass(frozen=True)
class Theme:
    """Colours. Curves are told apart on both grounds, also without red and green (Okabe and Ito 2008)."""

    ground: Colour
    panel: Colour
    grid: Colour
    text: Colour
    curves: tuple[Colour, ...]


THEMES = {
    "light": Theme(
        (255, 255, 255), (247, 247, 248), (216, 216, 220), (40, 40, 44), ((0, 96, 160), (204, 82, 0), (0, 130, 96))
    ),
    "dark": Theme(
        (28, 28, 32), (38, 38, 43), (70, 70, 78), (224, 224, 228), ((86, 180, 233), (240, 160, 40), (60, 200, 150))
    ),
}


@dataclass(frozen=True)
class Curve:
    """One line of a panel. seconds, values: n."""

    name: str
    seconds: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Panel:
    """One diagram: title with unit, and the curves of the first and of the second motion."""

    title: str
    first: tuple[Curve, ...]
    second: tuple[Curve, ...]


def plot_motion(
    motion: Motion, other: Motion | None = None, width: int = 1024, height: int = 1024, theme: str = "light"
) -> np.ndarray:
    """A picture of the curves, height x width x 3, uint8 RGB. other: drawn dashed in the same colours."""
    if theme not in THEMES:
        raise PortraitError(f"the theme is {theme!r}: choose one of {', '.join(THEMES)}")
    if width < LEAST[0] or height < LEAST[1]:
        raise PortraitError(f"the picture is {width} x {height}: curves need {LEAST[0]} x {LEAST[1]} pixels or more")
    panels, colours = motion_panels(motion, other), THEMES[theme]
    image = np.full((height * FINER, width * FINER, 3), colours.ground, np.uint8)
    seconds = max(_seconds(item)[-1] for item in (motion, other) if item is not None) or 1 / motion.fps
    room = (height - TOP - BOTTOM - GAP * (len(panels) - 1)) / len(panels)
    for index, panel in enumerate(panels):
        top = TOP + index * (room + GAP)
        axes = _Axes(image, (LEFT, top, width - RIGHT, top + room), (0, seconds), colours)
        axes.draw(panel, index == len(panels) - 1)
    _text(image, _heading(motion, other), (LEFT, TOP - 22), colours.text)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def motion_panels(motion: Motion, other: Motion | None = None) -> list[Panel]:
    """What is shown: head, and where the motions tell, eyes, mouth and gaze."""
    sources = [motion] if other is None else [motion, other]
    shown = [_curves(source) for source in sources]
    titles = list(dict.fromkeys(title for curves in shown for title in curves))
    parts = [[curves.get(title, ()) for curves in (*shown, {})[:2]] for title in titles]
    return [Panel(title, first, second) for title, (first, second) in zip(titles, parts, strict=True)]


def axis_ticks(low: float, high: float, count: int = TICKS) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from low to high, about `count` of them."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((factor * power for factor in (1, 2, 5, 10)), key=lambda step: abs(math.log(step / rough)))
    return [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _seconds(motion: Motion) -> np.ndarray:
    return np.arange(len(motion)) / motion.fps


def _curves(motion: Motion) -> dict[str, tuple[Curve, ...]]:
    """The curves of one motion by the title of their panel."""
    seconds = _seconds(motion)

    def curves(names: tuple[str, ...], values: Tensor, factor: float = 1.0) -> tuple[Curve, ...]:
        rows = values.double().numpy().reshape(len(motion), -1) * factor
        return tuple(Curve(name, seconds, column) for name, column in zip(names[: rows.shape[1]], rows.T, strict=True))

    found = {
        "angles (degrees)": curves(("yaw", "pitch", "roll"), motion.angles),
        "shift (% of the side)": curves(("right", "down"), motion.shift, 100),
        "scale": curves(("scale",), motion.scale),
    }
    for title, names, values in (
        ("lids (1 = closed)", ("left", "right"), lid_closure(motion)),
        ("mouth (1 = open)", ("open",), mouth_opening(motion)),
        ("gaze (1 = aside)", ("right", "down"), gaze_direction(motion)),
    ):
        if values is not None:
            found[title] = curves(names, values)
    return found


def _heading(motion: Motion, other: Motion | None) -> str:
    def about(item: Motion) -> str:
        return f"{len(item)} frames, {item.fps:g} fps, {item.space}"

    return about(motion) if other is None else f"solid: {about(motion)}    dashed: {about(other)}"


class _Axes:
    """One diagram within a picture. box: left, top, right, bottom in pixels of the finished picture."""

    def __init__(
        self, image: np.ndarray, box: tuple[float, float, float, float], span: tuple[float, float], theme: Theme
    ):
        self.image, self.box, self.span, self.theme = image, box, span, theme
        self.low, self.high = 0.0, 1.0

    def draw(self, panel: Panel, last: bool) -> None:
        """The diagram with its curves; the last one carries the numbers of the time."""
        values = np.concatenate([curve.values for curve in (*panel.first, *panel.second)])
        least = 1e-3 * max(1.0, float(np.abs(values).max()))  # a curve that stands still is a line in the middle
        low, high = float(values.min()), float(values.max())
        half = max((high - low) * (0.5 + ROOM), least)
        self.low, self.high = (low + high) / 2 - half, (low + high) / 2 + half
        self._grid(panel.title, last)
        for curves, dashed in ((panel.first, False), (panel.second, True)):
            for curve, colour in zip(curves, self.theme.curves, strict=False):  # there may be more colours
                self._line(curve, colour, dashed)
        self._legend(panel)

    def _grid(self, title: str, last: bool) -> None:
        left, top, right, bottom = self.box
        corners = [(round(x * FINER), round(y * FINER)) for x, y in ((left, top), (right, bottom))]
        cv2.rectangle(self.image, corners[0], corners[1], self.theme.panel, -1)
        for value in axis_ticks(self.low, self.high, max(2, min(TICKS, int((bottom - top) / 22)))):
            y = self._place(0, value)[1]
            self._segment((left, y), (right, y), self.theme.grid)
            _text(self.image, f"{value:.6g}", (left - 6, y + 4), self.theme.text, right=True)
        for value in axis_ticks(*self.span, max(2, int((right - left) / 90))):
            x = self._place(value, self.low)[0]
            self._segment((x, top), (x, bottom), self.theme.grid)
            if last:
                _text(self.image, f"{value:.6g}", (x, bottom + 16), self.theme.text, middle=True)
        if last:
            _text(self.image, "time (seconds)", ((left + right) / 2, bottom + 34), self.theme.text, middle=True)
        _text(self.image, title, (right + 10, top + 12), self.theme.text)

    def _line(self, curve: Curve, colour: Colour, dashed: bool) -> None:
        points = np.array([self._place(*pair) for pair in zip(curve.seconds, curve.values, strict=True)])
        if len(points) == 1:
            points = np.concatenate([points - (3, 0), points + (3, 0)])  # a still picture: a short dash
        parts = _dashes(points) if dashed else [points]
        fixed = [np.round(part * FINER * 2**SUBPIXEL).astype(np.int32)[:, None] for part in parts]
        cv2.polylines(self.image, fixed, False, colour, FINER + 1, cv2.LINE_AA, SUBPIXEL)

    def _legend(self, panel: Panel) -> None:
        right, top = self.box[2], self.box[1]
        for index, curve in enumerate(panel.first or panel.second):
            y = top + 28 + 15 * index
            if y > self.box[3] + GAP / 2:
                return
            self._segment((right + 10, y - 4), (right + 28, y - 4), self.theme.curves[index], FINER + 1)
            _text(self.image, curve.name, (right + 34, y), self.theme.text)

    def _segment(self, start: tuple[float, float], end: tuple[float, float], colour: Colour, width: int = 1) -> None:
        ends = [(round(x * FINER), round(y * FINER)) for x, y in (start, end)]
        cv2.line(self.image, ends[0], ends[1], colour, width, cv2.LINE_AA)

    def _place(self, seconds: float, value: float) -> tuple[float, float]:
        left, top, right, bottom = self.box
        x = left + (right - left) * (seconds - self.span[0]) / (self.span[1] - self.span[0])
        return x, bottom - (bottom - top) * (value - self.low) / (self.high - self.low)


def _dashes(points: np.ndarray) -> list[np.ndarray]:
    """A line in pieces of DASH pixels with gaps as long between them."""
    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    parts = []
    for start in np.arange(0, along[-1] + 1e-6, 2 * DASH):
        end = min(start + DASH, along[-1])
        inside = along[(along > start) & (along < end)]
        at = np.concatenate([[start], inside, [end]])
        parts.append(np.stack([np.interp(at, along, points[:, axis]) for axis in (0, 1)], axis=1))
    return parts


def _text(
    image: np.ndarray, text: str, place: tuple[float, float], colour: Colour, right: bool = False, middle: bool = False
) -> None:
    """Letters that begin at a place on their base line; or end there, or stand about it."""
    size = FONT * FINER
    width = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, FINER - 1)[0][0]
    x = place[0] * FINER - (width if right else width / 2 if middle else 0)
    start = (round(x), round(place[1] * FINER))
    cv2.putText(image, text, start, cv2.FONT_HERSHEY_SIMPLEX, size, colour, FINER - 1, cv2.LINE_AA)
