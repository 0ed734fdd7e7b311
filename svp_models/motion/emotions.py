"""Emotions by name: the eight of MEAD as offsets of an expression, in LivePortrait's space made from published sliders.

Recipes follow the Facial Action Coding System (Ekman, Friesen and Hager 2002) and its emotion prototypes. A slider moves some
of LivePortrait's 21 points; what public editors do with them is known to look right, so every action unit (AU) is one slider
or the part of one that moves as the action unit does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PortraitError
from ..types import LIVEPORTRAIT
from .style import ANGLES, GAZE, MotionStylePrior, offset_style

EMOTION_NAMES = ("neutral", "angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised")
POINTS = 21
X, Y, Z = range(3)  # right, down, in

# AU -> ((point, axis, movement at the strongest natural setting of the slider), ...)
ACTION_UNITS: dict[str, tuple[tuple[int, int, float], ...]] = {
    # brows up, 15 units of (1,y) +0.001, (2,y) -0.001
    "AU1+2 brows up": ((1, Y, 0.015), (2, Y, -0.015)),
    # the half of brows up that lifts one brow
    "AU2 one brow up": ((2, Y, -0.015),),
    # brows together, 10 units of (1,x) +0.001, (2,x) -0.001, (1,y) -0.0003, (2,y) +0.0003
    "AU4 brows together": ((1, X, 0.010), (2, X, -0.010), (1, Y, -0.003), (2, Y, 0.003)),
    # lids open, 5 units of (11,y) and (15,y) -0.001, (13,y) and (16,y) +0.0003
    "AU5 upper lids up": ((11, Y, -0.005), (15, Y, -0.005), (13, Y, 0.0015), (16, Y, 0.0015)),
    # cheeks and lower lids of the smile: (13,y) and (16,y) -0.00275
    "AU6 cheeks up": ((13, Y, -0.00275), (16, Y, -0.00275)),
    # lids closing, 6 units: the other way from AU5
    "AU7 lids narrow": ((11, Y, 0.006), (15, Y, 0.006), (13, Y, -0.0018), (16, Y, -0.0018)),
    # nose and cheeks of the smile: (3,y) and (7,y) -0.0035, doubled
    "AU9 nose wrinkled": ((3, Y, -0.007), (7, Y, -0.007)),
    # smile 0.5 without its corners: the upper lip and what is beside it
    "AU10 upper lip up": ((17, Y, -0.004), (3, Y, -0.00175), (7, Y, -0.00175)),
    # smile 1: (20,y) -0.01, (14,y) -0.02, (17,y) +0.0065, (17,z) +0.003, (3,y) and (7,y) -0.0035
    "AU12 corners up": (
        (20, Y, -0.010), (14, Y, -0.020), (17, Y, 0.0065), (17, Z, 0.003), (3, Y, -0.0035), (7, Y, -0.0035),
    ),
    # the one-sided part of the wink, 15 units of (17,x) and (17,y) +0.0003, (3,y) -0.0003, and mouth to that side
    "AU14 one corner": ((17, X, 0.0045), (17, Y, 0.0045), (3, Y, -0.0045), (14, Y, -0.006), (19, X, 0.004)),
    # smile -0.4
    "AU15 corners down": (
        (20, Y, 0.004), (14, Y, 0.008), (17, Y, -0.0026), (17, Z, -0.0012), (3, Y, 0.0014), (7, Y, 0.0014),
    ),
    # pout, 6 units of (14,y) +0.001, (3,y) and (7,y) -0.0005, (17,z) -0.0005
    "AU17 chin up": ((14, Y, 0.006), (3, Y, -0.003), (7, Y, -0.003), (17, Z, -0.003)),
    # grin, 8 units of (20,y), (20,z) and (14,y) -0.001: lips stretched
    "AU20 lips stretched": ((20, Y, -0.008), (20, Z, -0.008), (14, Y, -0.008)),
    # grin, 5 units the other way: lips tightened
    "AU23 lips tight": ((20, Y, 0.005), (20, Z, 0.005), (14, Y, 0.005)),
    # mouth open, 20 units of (19,y) +0.001, (19,z) +0.0001, (17,y) -0.0001
    "AU26 jaw drops": ((19, Y, 0.020), (19, Z, 0.002), (17, Y, -0.002)),
    # gaze, 8 units of (11,x) +0.0007, (15,x) +0.001
    "AU62 eyes aside": ((11, X, 0.0056), (15, X, 0.008)),
    # gaze, 8 units of (11,y) and (15,y) +0.001: the lids follow
    "AU64 eyes down": ((11, Y, 0.008), (15, Y, 0.008), (13, Y, -0.0012), (16, Y, -0.0012)),
}  # fmt: skip

# Emotion -> action unit -> amount; 1 is the slider's strongest natural setting.
RECIPES: dict[str, dict[str, float]] = {
    "neutral": {},
    "angry": {"AU4 brows together": 1.0, "AU5 upper lids up": 0.4, "AU7 lids narrow": 0.4, "AU23 lips tight": 0.8},
    "contempt": {
        "AU14 one corner": 1.0, "AU2 one brow up": 0.5, "AU7 lids narrow": 0.4, "AU62 eyes aside": 0.3,
    },
    "disgusted": {
        "AU9 nose wrinkled": 1.0, "AU10 upper lip up": 1.0, "AU4 brows together": 0.5, "AU7 lids narrow": 0.7,
        "AU15 corners down": 0.4,
    },
    "fear": {
        "AU1+2 brows up": 0.6, "AU4 brows together": 0.7, "AU5 upper lids up": 1.0, "AU20 lips stretched": 0.7,
        "AU26 jaw drops": 0.25,
    },
    "happy": {"AU6 cheeks up": 1.0, "AU12 corners up": 1.0},
    "sad": {
        "AU1+2 brows up": 0.4, "AU4 brows together": 0.5, "AU15 corners down": 1.0, "AU17 chin up": 0.6,
        "AU64 eyes down": 0.4,
    },
    "surprised": {"AU1+2 brows up": 1.0, "AU5 upper lids up": 1.0, "AU26 jaw drops": 0.6},
}  # fmt: skip


@dataclass(frozen=True)
class EmotionParts:
    """What an emotion moves at full strength. parts: b e, movements that people show more or less strongly each; pose: yaw,
    pitch, roll in degrees, gaze right and down."""

    parts: Tensor
    pose: Tensor


@dataclass(frozen=True)
class EmotionConfig:
    """variation: standard deviation of each part's strength between people, as a share of it."""

    variation: float = 0.15


def liveportrait_emotion(emotion: str) -> EmotionParts:
    """An emotion in LivePortrait's space, a row of 63 for every action unit of its recipe."""
    recipe = RECIPES[emotion]
    parts = torch.zeros(len(recipe), POINTS, 3)
    for row, (unit, amount) in zip(parts, recipe.items(), strict=True):
        for point, axis, movement in ACTION_UNITS[unit]:
            row[point, axis] += amount * movement
    return EmotionParts(parts.flatten(1), torch.zeros(ANGLES + GAZE))


def emotion_weights(text: str) -> dict[str, float]:
    """`happy 0.7, surprised 0.3` -> the emotions and their strengths, 0 to 1; a name alone is 1."""
    weights: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.replace(";", ",").replace("\n", ",").split(","))):
        name, _, number = part.partition(" ")
        name = name.lower()
        if name not in EMOTION_NAMES:
            raise PortraitError(f"unknown emotion {name!r}: choose from {', '.join(EMOTION_NAMES)}")
        if name in weights:
            raise PortraitError(f"the emotion {name} stands there twice: give it one strength")
        try:
            weights[name] = float(number) if number.strip() else 1.0
        except ValueError:
            raise PortraitError(
                f"the strength of {name} is {number.strip()!r}: write a number from 0 to 1, as in 'happy 0.7, surprised 0.3'"
            ) from None
        if not (math.isfinite(weights[name]) and 0 <= weights[name] <= 1):
            raise PortraitError(f"the strength of {name} is {number.strip()}: choose 0 to 1")
    if not weights:
        raise PortraitError("there is no emotion: write one or more, as in 'happy 0.7, surprised 0.3'")
    return weights


def emotion_style(
    text: str,
    strength: float = 1.0,
    space: str = LIVEPORTRAIT,
    parts_of: Callable[[str], EmotionParts] = liveportrait_emotion,
    config: EmotionConfig = EmotionConfig(),
) -> MotionStylePrior:
    """A mixture of emotions as an offset, linear in `strength` (0 to 1) and in the strengths of the text.

    parts_of: an emotion's movements in the space; those of the synthetic speakers are in `synthetic.performance`.
    """
    if not 0 <= strength <= 1:
        raise PortraitError(f"the strength of the emotion is {strength}: choose 0 to 1")
    weights = emotion_weights(text)
    emotions = [(parts_of(name), strength * weight) for name, weight in weights.items()]
    parts = torch.cat([emotion.parts * amount for emotion, amount in emotions])
    pose = torch.stack([emotion.pose * amount for emotion, amount in emotions]).sum(0)
    return offset_style(parts, pose, config.variation, space)
