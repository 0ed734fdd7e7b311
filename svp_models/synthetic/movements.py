"""Named head movements with exact times: nod, shake, tilt, look, lean, sway, still, lively; what they add to a head's pose.

They belong to performances that ask for them: without one a performance is what it always was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

KINDS = ("nod", "shake", "tilt", "look", "lean", "sway", "still", "lively")
SIDES = {"tilt": ("left", "right"), "look": ("left", "right", "up", "down"), "lean": ("forward", "back")}
TEMPOS = ("slow", "normal", "quick")
SIZES = ("small", "normal", "large")
OSCILLATING = (
    "nod",
    "shake",
    "sway",
    "lively",
)  # their tempo is a frequency, that of the others how fast they come and go
VERSION = "2"  # of the data that contains named movements

YAW, PITCH, ROLL, SHIFT_X, SHIFT_Y, SCALE = range(6)  # columns of a pose
# What the movement is at its height, by size; degrees, shares of the picture's width, factor on the size.
AMPLITUDES = {
    "nod": {PITCH: (5.0, 8.0, 12.0)},
    "shake": {YAW: (7.0, 11.0, 17.0)},
    "tilt": {ROLL: (5.0, 7.5, 11.0)},
    "look": {YAW: (10.0, 15.0, 24.0), PITCH: (5.0, 8.0, 13.0)},
    "lean": {SCALE: (0.030, 0.050, 0.090), SHIFT_Y: (0.010, 0.016, 0.025)},
    "sway": {ROLL: (3.5, 5.0, 8.0), SHIFT_X: (0.018, 0.028, 0.045)},
    "lively": {YAW: (4.0, 6.0, 9.0), PITCH: (3.0, 4.0, 6.0), ROLL: (2.5, 3.5, 5.0)},
}
FREQUENCIES = {"nod": (1.0, 1.5, 2.3), "shake": (0.9, 1.4, 2.1), "sway": (0.4, 0.55, 0.75), "lively": (0.6, 0.8, 1.1)}
LIVELY_RATIOS = {YAW: 1.0, PITCH: 1.37, ROLL: 0.79}  # the axes of a lively head are out of step
RAMPS = (0.5, 0.3, 0.18)  # s in which a movement comes and goes, by tempo
BASE_KEPT = {"still": 0.03, "lively": 1.0}  # how much of the usual movement stays meanwhile
USUALLY_KEPT = 0.3
GAZE_ALONG = 0.35  # how far the eyes lead where the head looks aside
USUAL_SECONDS = {"sway": (2.4, 5.0), "lively": (2.0, 5.0), "still": (1.6, 5.0)}
OTHERS_SECONDS = (1.2, 3.0)


@dataclass(frozen=True)
class Movement:
    """One named movement. start, seconds: when, from the clip's beginning; side: of SIDES, '' where a kind has none, as seen in
    the picture; tempo, size: of TEMPOS and SIZES; phase: of its oscillation, 0 .. 1."""

    kind: str
    start: float
    seconds: float
    side: str = ""
    tempo: str = "normal"
    size: str = "normal"
    phase: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.side not in SIDES.get(self.kind, ("",)):
            raise ValueError(f"there is no movement {self.kind!r} with side {self.side!r}")
        if self.tempo not in TEMPOS or self.size not in SIZES or self.seconds <= 0:
            raise ValueError(f"{self.kind}: tempo {self.tempo!r}, size {self.size!r} or {self.seconds} s is unknown")

    @property
    def end(self) -> float:
        return self.start + self.seconds


def envelope(movement: Movement, times: np.ndarray) -> np.ndarray:
    """How much of a movement is there at `times` (s): 0 outside, 1 in its middle. Shape of times."""
    ramp = min(RAMPS[TEMPOS.index(movement.tempo)], movement.seconds / 2)
    rising, falling = (times - movement.start) / ramp, (movement.end - times) / ramp
    inside = np.clip(np.minimum(rising, falling), 0, 1)
    return inside * inside * (3 - 2 * inside)


def added_pose(movement: Movement, times: np.ndarray) -> np.ndarray:
    """What a movement adds to the pose at `times`: n x 6, scale as an addition."""
    added = np.zeros((len(times), 6))
    size, tempo = SIZES.index(movement.size), TEMPOS.index(movement.tempo)
    height = envelope(movement, times)
    amplitudes = {axis: values[size] for axis, values in AMPLITUDES.get(movement.kind, {}).items()}
    if movement.kind == "look":
        axis = YAW if movement.side in ("left", "right") else PITCH
        added[:, axis] = amplitudes[axis] * (-1 if movement.side in ("left", "up") else 1) * height
        return added
    sign = -1 if movement.side in ("left", "back") else 1
    for axis, amplitude in amplitudes.items():
        wave = np.ones_like(times)
        if movement.kind in OSCILLATING:
            frequency = FREQUENCIES[movement.kind][tempo] * LIVELY_RATIOS.get(axis, 1.0) ** (movement.kind == "lively")
            wave = np.sin(2 * np.pi * (frequency * (times - movement.start) + movement.phase))
        added[:, axis] = sign * amplitude * wave * height
    return added


def with_movements(pose: np.ndarray, movements: Sequence[Movement], times: np.ndarray) -> np.ndarray:
    """A head's usual pose about 0 (n x 6) with named movements in it: the usual movement steps back meanwhile."""
    moved = pose.copy()
    for movement in movements:
        height = envelope(movement, times)[:, None]
        first = int(np.clip(np.searchsorted(times, movement.start), 0, len(times) - 1))
        around = moved[first : first + 1] if movement.kind == "still" else moved.mean(axis=0, keepdims=True)
        kept = 1 - (1 - BASE_KEPT.get(movement.kind, USUALLY_KEPT)) * height
        moved = around + (moved - around) * kept + added_pose(movement, times)
    return moved


def added_gaze(movements: Sequence[Movement], times: np.ndarray) -> np.ndarray:
    """What looking aside adds to the direction of the eyes: n x 2, right and down."""
    gaze = np.zeros((len(times), 2))
    for movement in movements:
        if movement.kind == "look":
            axis = 0 if movement.side in ("left", "right") else 1
            gaze[:, axis] += (-1 if movement.side in ("left", "up") else 1) * GAZE_ALONG * envelope(movement, times)
    return gaze


def sample_movement(rng: np.random.Generator, kind: str, start: float, seconds: float | None = None) -> Movement:
    """A random movement of a kind; half of them have the usual tempo, half the usual size."""
    length = rng.uniform(*USUAL_SECONDS.get(kind, OTHERS_SECONDS)) if seconds is None else seconds
    sides = SIDES.get(kind, ("",))
    weights = (0.25, 0.5, 0.25)
    tempo, size = (str(rng.choice(names, p=weights)) for names in (TEMPOS, SIZES))
    if kind == "still":
        tempo = size = "normal"
    return Movement(
        kind=kind,
        start=start,
        seconds=length,
        side=sides[rng.integers(len(sides))],
        tempo=tempo,
        size=size,
        phase=0.0 if kind in ("nod", "shake") else float(rng.uniform()),
    )


def sample_movements(rng: np.random.Generator, seconds: float, most: int = 3) -> tuple[Movement, ...]:
    """Up to `most` movements one after the other, with pauses, in a clip of that length."""
    found: list[Movement] = []
    position = rng.uniform(0.2, 1.5)
    while len(found) < most:
        movement = sample_movement(rng, KINDS[rng.integers(len(KINDS))], position)
        if movement.end > seconds - 0.2:
            break
        found.append(movement)
        position = movement.end + rng.uniform(0.3, 2.0)
    return tuple(found)


# Ways to say a movement. Every word of them belongs to the vocabulary of prompts.
VERBS = {
    "nod": ("nods", "nod", "nodding"),
    "shake": ("shakes the head", "shake", "shaking", "shakes"),
    "tilt": ("tilts the head", "tilts", "tilt", "tilting"),
    "look": ("looks", "look", "glances", "turns", "looking"),
    "lean": ("leans", "lean", "leaning"),
    "sway": ("sways", "sway", "swaying"),
    "still": ("still", "holds still", "stays still", "calm", "rests"),
    "lively": ("lively", "animated", "moves lively", "energetic"),
}
SIDE_WORDS = {
    "left": ("left", "to the left"),
    "right": ("right", "to the right"),
    "up": ("up", "upwards"),
    "down": ("down", "downwards"),
    "forward": ("forward", "forwards", "in"),
    "back": ("back", "backwards"),
}
TEMPO_WORDS = {"slow": ("slowly", "slow"), "normal": ("",), "quick": ("quickly", "quick", "fast")}
SIZE_WORDS = {"small": ("slightly", "small", "little"), "normal": ("",), "large": ("large", "big", "strongly")}

VOCABULARY = tuple(
    sorted(
        {"aside"}
        | {
            word
            for ways in (VERBS, SIDE_WORDS, TEMPO_WORDS, SIZE_WORDS)
            for phrases in ways.values()
            for phrase in phrases
            for word in phrase.split()
        }
    )
)  # every word that a caption may contain


def caption(movement: Movement, rng: np.random.Generator) -> str:
    """A movement in words, in one of many ways: "nods slowly", "a small quick nod", "looks aside to the left"."""

    def one_of(words: tuple[str, ...]) -> str:
        return words[rng.integers(len(words))]

    parts = [one_of(VERBS[movement.kind])]
    if movement.side:
        parts += [
            *(["aside"] if movement.kind == "look" and rng.random() < 0.2 else []),
            one_of(SIDE_WORDS[movement.side]),
        ]
    if movement.kind != "still":
        describing = [one_of(TEMPO_WORDS[movement.tempo]), one_of(SIZE_WORDS[movement.size])]
        if rng.random() < 0.5:
            describing.reverse()
        parts = [*describing, *parts] if rng.random() < 0.4 else [*parts, *describing]
    return " ".join(part for part in parts if part)


CLASSES = (
    ("", ""),
    *((kind, side) for kind in KINDS for side in SIDES.get(kind, ("",))),
)  # what a detector tells apart
_KIND_OF = {phrase.split()[0]: kind for kind, phrases in VERBS.items() for phrase in phrases}
_SIDE_OF = {phrase.split()[-1]: side for side, phrases in SIDE_WORDS.items() for phrase in phrases}


def class_of(text: str) -> int:
    """The number in CLASSES of what a caption says; 0 where it names no movement."""
    words = text.split()
    kinds = (
        {"still"}
        if "still" in words
        else {"lively"}
        if "lively" in words
        else {_KIND_OF[word] for word in words if word in _KIND_OF}
    )
    if len(kinds) != 1:
        return 0
    kind = kinds.pop()
    sides = [_SIDE_OF[word] for word in words if _SIDE_OF.get(word) in SIDES.get(kind, ())]
    return CLASSES.index((kind, sides[-1] if sides else "")) if (kind, sides[-1] if sides else "") in CLASSES else 0
