"""Phonemes to mouth shapes, and mouth shapes to a track of coefficients with coarticulation.

Each phoneme pulls every coefficient towards its target with a dominance that fades around it; a frame shows the
dominance-weighted mean (Cohen and Massaro 1993). Lips prepare earlier than the jaw; closures win over everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..motion.coefficients import EXPRESSION_INDEX, EXPRESSION_NAMES, EXPRESSION_SIZE, expression_vector

LIP_NAMES = (
    "lips_wide", "lips_round", "lips_press", "upper_lip_raise_l", "upper_lip_raise_r", "lower_lip_drop_l",
    "lower_lip_drop_r", "lower_lip_in", "lips_funnel",
)  # fmt: skip
VISEME_NAMES = ("jaw_open", *LIP_NAMES, "tongue_up", "upper_teeth_show")  # all that speech moves

JAW, LIPS, TONGUE = 0, 1, 2
GROUP = np.array([LIPS if name in LIP_NAMES else JAW if name == "jaw_open" else TONGUE for name in EXPRESSION_NAMES])
# Seconds by which the shape of a phoneme extends before and after it: jaw, lips, tongue. Lips anticipate most.
REACH_BEFORE = np.array([0.026, 0.055, 0.028])
REACH_AFTER = np.array([0.026, 0.038, 0.028])
REST_DOMINANCE = 0.03  # far from all phonemes the mouth rests

CLOSED_HALF = 0.028  # s: a closure holds at least this long to either side, so that a 25 fps frame falls into it
CLOSED_EDGE = 0.022  # s: and opens with this spread


@dataclass(frozen=True)
class Viseme:
    """One mouth shape. target: 64 coefficients; grip: dominance over jaw, lips, tongue; closes: lips must meet."""

    target: np.ndarray
    grip: tuple[float, float, float] = (1.6, 1.0, 1.0)
    closes: bool = False


def shape(**coefficients: float) -> np.ndarray:
    return expression_vector(**coefficients)


VISEMES = {
    "rest": Viseme(shape()),
    "ah": Viseme(shape(jaw_open=1.1, lips_wide=0.1, lower_lip_drop=0.35, upper_lip_raise=0.25, upper_teeth_show=0.1)),
    "uh": Viseme(shape(jaw_open=0.75, lower_lip_drop=0.25, upper_lip_raise=0.15)),
    "ae": Viseme(shape(jaw_open=0.95, lips_wide=0.4, lower_lip_drop=0.35, upper_lip_raise=0.3, upper_teeth_show=0.3)),
    "eh": Viseme(shape(jaw_open=0.65, lips_wide=0.4, lower_lip_drop=0.25, upper_lip_raise=0.2, upper_teeth_show=0.3)),
    "ih": Viseme(shape(jaw_open=0.38, lips_wide=0.5, lower_lip_drop=0.2, upper_teeth_show=0.35)),
    "ee": Viseme(shape(jaw_open=0.24, lips_wide=0.9, lower_lip_drop=0.3, upper_teeth_show=0.55), (1.0, 1.4, 1.0)),
    "schwa": Viseme(shape(jaw_open=0.42, lower_lip_drop=0.1), (0.7, 0.5, 0.6)),
    "er": Viseme(shape(jaw_open=0.45, lips_round=0.3, lips_funnel=0.15), (1.0, 1.0, 0.8)),
    "aw": Viseme(shape(jaw_open=0.85, lips_round=0.5, lips_funnel=0.15, lips_wide=-0.1), (1.0, 1.5, 1.0)),
    "oh": Viseme(shape(jaw_open=0.6, lips_round=0.7, lips_funnel=0.2, lips_wide=-0.1), (1.0, 1.7, 1.0)),
    "oo": Viseme(shape(jaw_open=0.25, lips_round=0.78, lips_funnel=0.25, lips_wide=-0.1), (1.2, 2.2, 1.0)),
    "w": Viseme(shape(jaw_open=0.12, lips_round=0.9, lips_funnel=0.25, lips_wide=-0.1), (1.6, 3.0, 1.0)),
    "pb": Viseme(shape(lips_press=1.0), (1.5, 0.6, 0.5), True),
    "m": Viseme(shape(lips_press=0.8), (1.5, 0.6, 0.5), True),
    "fv": Viseme(shape(jaw_open=0.12, lower_lip_in=1.0, upper_teeth_show=0.8, upper_lip_raise=0.25), (1.8, 4.0, 3.0)),
    "th": Viseme(shape(jaw_open=0.28, tongue_up=0.8, upper_teeth_show=0.4, lower_lip_drop=0.2), (1.6, 0.8, 3.0)),
    "td": Viseme(shape(jaw_open=0.16, tongue_up=0.9, upper_teeth_show=0.5, lower_lip_drop=0.3), (1.5, 0.4, 2.5)),
    "nl": Viseme(shape(jaw_open=0.26, tongue_up=1.0, upper_teeth_show=0.35, lower_lip_drop=0.2), (1.2, 0.35, 2.5)),
    "sz": Viseme(
        shape(jaw_open=0.06, lips_wide=0.45, tongue_up=0.3, upper_teeth_show=0.85, lower_lip_drop=0.45), (2.6, 0.9, 2.5)
    ),
    "sh": Viseme(
        shape(jaw_open=0.14, lips_funnel=0.8, lips_round=0.15, upper_teeth_show=0.5, lower_lip_drop=0.3),
        (2.0, 2.8, 2.0),
    ),
    "r": Viseme(shape(jaw_open=0.25, lips_round=0.4, lips_funnel=0.25), (1.1, 1.3, 1.0)),
    "kg": Viseme(shape(jaw_open=0.3, upper_teeth_show=0.15), (0.8, 0.2, 0.6)),
    "h": Viseme(shape(jaw_open=0.45), (0.3, 0.15, 0.2)),
}

# espeak's mnemonics, without stress marks and without the variant marks # / - 2 3 5 at their end.
PHONEME_VISEMES: dict[str, tuple[str, ...]] = {
    "a": ("ae",), "aa": ("ae",), "A": ("ah",), "A:": ("ah",), "A@": ("ah", "schwa"), "0": ("aw",), "V": ("uh",),
    "VR": ("uh", "r"), "E": ("eh",), "e": ("eh",), "e:": ("eh",), "e@": ("eh", "schwa"), "eI": ("eh", "ih"),
    "3": ("er",), "3:": ("er",), "@": ("schwa",), "@L": ("schwa", "nl"), "I": ("ih",), "IR": ("ih", "r"),
    "i": ("ee",), "i:": ("ee",), "i@": ("ee", "schwa"), "O": ("aw",), "O:": ("aw",), "O@": ("aw", "schwa"),
    "OI": ("aw", "ih"), "o": ("oh",), "o:": ("oh",), "o@": ("oh", "schwa"), "oU": ("oh", "oo"), "u": ("oo",),
    "u:": ("oo",), "U": ("oo",), "U@": ("oo", "schwa"), "aI": ("ah", "ih"), "aI@": ("ah", "ih", "schwa"),
    "aU": ("ah", "oo"), "aU@": ("ah", "oo", "schwa"),
    "p": ("pb",), "b": ("pb",), "m": ("m",), "f": ("fv",), "v": ("fv",), "T": ("th",), "D": ("th",),
    "t": ("td",), "d": ("td",), "n": ("nl",), "l": ("nl",), "*": ("td",), "s": ("sz",), "z": ("sz",), "S": ("sh",),
    "Z": ("sh",), "tS": ("sh",), "dZ": ("sh",), "r": ("r",), "w": ("w",), "W": ("w",), "j": ("ee",), "k": ("kg",),
    "g": ("kg",), "N": ("kg",), "x": ("kg",), "h": ("h",), "?": ("h",), ";": ("h",),
}  # fmt: skip
STOPS = frozenset(("p", "b", "t", "d", "k", "g", "tS", "dZ"))
VOWEL_ONSET = 0.022  # s: a vowel is reported when its onset glide is over, the mouth opens this much before
STOP_CLOSURE = 0.055  # s: espeak reports a stop at its burst, the mouth closes this long before it


def base_symbol(symbol: str) -> str:
    """A mnemonic without marks of stress, length of pause or variant: "'eI#" -> "eI"; every pause -> "_"."""
    bare = symbol.lstrip("',%=|")
    if bare.startswith("_") or not bare:
        return "_"
    return bare if bare in PHONEME_VISEMES else bare.rstrip("#/-2345|^") or "_"


def stress(symbol: str) -> float:
    """How far a vowel opens: stressed vowels open wide, unstressed ones hardly."""
    if symbol.startswith("'"):
        return 1.15
    return 1.0 if symbol.startswith(",") else 0.88


def visemes_of(symbol: str) -> tuple[Viseme, ...]:
    """The mouth shapes of a mnemonic, in order; an unknown one is spoken as a schwa."""
    base = base_symbol(symbol)
    if base == "_":
        return (VISEMES["rest"],)
    return tuple(VISEMES[name] for name in PHONEME_VISEMES.get(base, ("schwa",)))


def viseme_track(phonemes: Sequence[tuple[float, str]], seconds: float, frames: int, fps: float) -> np.ndarray:
    """Coefficients that speech asks for, taken at frame centres (k + 0.5) / fps: frames x 64, float32.

    phonemes: (start in seconds, mnemonic) in order of time; seconds: the end of the last one.
    """
    times = (np.arange(frames) + 0.5) / fps  # n
    weighted = np.zeros((frames, EXPRESSION_SIZE))
    weights = np.full((frames, EXPRESSION_SIZE), REST_DOMINANCE)
    pressed = np.zeros(frames)
    opened = np.ones(frames)
    for start, end, symbol in intervals(phonemes, seconds):
        shapes = visemes_of(symbol)
        length = (end - start) / len(shapes)
        for index, viseme in enumerate(shapes):
            low, high = start + index * length, start + (index + 1) * length
            dominance = dominance_of(viseme, times, low, high)  # n 64
            scale = stress(symbol) if viseme.target[EXPRESSION_INDEX["jaw_open"]] > 0.35 else 1.0
            weighted += dominance * (viseme.target * scale)
            weights += dominance
            if viseme.closes:
                outside = np.maximum(np.abs(times - (low + high) / 2) - max(CLOSED_HALF, (high - low) / 2 - 0.02), 0)
                closed = np.exp(-0.5 * (outside / CLOSED_EDGE) ** 2)
                opened = np.minimum(opened, 1 - closed)
                pressed = np.maximum(pressed, closed * viseme.target[EXPRESSION_INDEX["lips_press"]])
    track = weighted / weights
    track[:, EXPRESSION_INDEX["lips_press"]] = pressed
    for name in ("jaw_open", "upper_lip_raise_l", "upper_lip_raise_r", "lower_lip_drop_l", "lower_lip_drop_r",
                 "upper_teeth_show", "lips_funnel"):  # fmt: skip
        track[:, EXPRESSION_INDEX[name]] *= opened
    return track.astype(np.float32)


def symbol_is_vowel(symbol: str) -> bool:
    return base_symbol(symbol)[0] in "aA0VEe3@IiOoUu"


def intervals(phonemes: Sequence[tuple[float, str]], seconds: float) -> list[tuple[float, float, str]]:
    """(start, end, mnemonic) of each phoneme, with stops moved onto their closure and silence around everything."""
    starts = [start for start, _ in phonemes] + [max(seconds, phonemes[-1][0] if phonemes else 0.0)]
    spans = [(-1.0, starts[0], "_")]
    for index, (start, symbol) in enumerate(phonemes):
        end = starts[index + 1]
        if base_symbol(symbol) in STOPS:
            previous_start, _, previous = spans[-1]
            closing = max(start - STOP_CLOSURE, (previous_start + start) / 2)
            spans[-1] = (previous_start, closing, previous)
            start, end = closing, min(start + 0.02, end)
        elif symbol_is_vowel(symbol):
            previous_start, _, previous = spans[-1]
            start = max(start - VOWEL_ONSET, (previous_start + start) / 2)
            spans[-1] = (previous_start, start, previous)
        if end > start:
            spans.append((start, end, symbol))
    spans.append((starts[-1], starts[-1] + 1.0, "_"))
    return spans


def dominance_of(viseme: Viseme, times: np.ndarray, low: float, high: float) -> np.ndarray:
    """Pull of a phoneme on each coefficient: n x 64, its grip inside the middle of [low, high], fading around it."""
    silent = not viseme.target.any()
    margin = 0.03 if silent else 0.35 * (high - low)
    margin = min(margin, (high - low) / 2)
    spread = 0.0 if silent else 0.15 * min(high - low, 0.25)
    before = np.maximum(low + margin - times, 0)[:, None] / (spread + REACH_BEFORE)  # n 3
    after = np.maximum(times - high + margin, 0)[:, None] / (spread + REACH_AFTER)  # n 3
    pull = np.array(viseme.grip) * np.exp(-0.5 * (before**2 + after**2))  # n 3
    return pull[:, GROUP]  # n 64
