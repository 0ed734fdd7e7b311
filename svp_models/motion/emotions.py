"""Emotions by name: the eight of MEAD as offsets of an expression, in LivePortrait's space made from published sliders.

Recipes follow the Facial Action Coding System (Ekman, Friesen and Hager 2002) and its emotion prototypes. The sliders that
public editors have are known to look right, so every action unit (AU) is a slider, or the rows of one that move as the action
unit does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PortraitError
from ..types import LIVEPORTRAIT
from .sliders import POINT_SLIDERS, POINTS, PointSlider, Y, Z
from .style import ANGLES, GAZE, MotionStylePrior, offset_style

EMOTION_NAMES = ("neutral", "angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised")
GRIN = PointSlider(8.0, ((20, Y, -0.001), (20, Z, -0.001), (14, Y, -0.001)))  # stretches the lips; published as well
SMILING_LIPS, CHEEKS, NOSE = (20, 14, 17, 3, 7), (13, 16), (3, 7)  # rows of the smile

# Action unit -> ((slider, position, the rows of it that move; none: all), ...)
ACTION_UNITS: dict[str, tuple[tuple[PointSlider, float, tuple[int, ...]], ...]] = {
    "AU1+2 brows up": ((POINT_SLIDERS["brows"], 1.0, ()),),
    "AU2 one brow up": ((POINT_SLIDERS["brows"], 1.0, (2,)),),
    "AU4 brows together": ((POINT_SLIDERS["brows"], -0.7, ()),),
    "AU5 upper lids up": ((POINT_SLIDERS["blink"], -0.2, ()),),
    "AU6 cheeks up": ((POINT_SLIDERS["smile"], 1.0, CHEEKS),),
    "AU7 lids narrow": ((POINT_SLIDERS["blink"], 0.24, ()),),
    "AU9 nose wrinkled": ((POINT_SLIDERS["smile"], 2.0, NOSE),),
    "AU10 upper lip up": ((POINT_SLIDERS["smile"], -0.6, (17,)), (POINT_SLIDERS["smile"], 0.5, NOSE)),
    "AU12 corners up": ((POINT_SLIDERS["smile"], 1.0, SMILING_LIPS),),
    "AU14 one corner": (
        (POINT_SLIDERS["wink_left"], 0.6, (17, 3)), (POINT_SLIDERS["smile"], 0.3, (14,)),
        (POINT_SLIDERS["mouth_width"], 0.1, ()),
    ),
    "AU15 corners down": ((POINT_SLIDERS["smile"], -0.4, SMILING_LIPS),),
    "AU17 chin up": ((POINT_SLIDERS["pout"], 0.4, ()),),
    "AU20 lips stretched": ((GRIN, 1.0, ()),),
    "AU23 lips tight": ((GRIN, -0.6, ()),),
    "AU26 jaw drops": ((POINT_SLIDERS["mouth_open"], 0.35, ()),),
    "AU62 eyes aside": ((POINT_SLIDERS["gaze_x"], 0.5, ()),),
    "AU64 eyes down": ((POINT_SLIDERS["gaze_y"], 1.0, ()),),
}  # fmt: skip

# Emotion -> action unit -> amount; 1 is strong but natural.
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
    moved = [amount * action_unit(unit) for unit, amount in recipe.items()]
    parts = torch.stack(moved) if moved else torch.zeros(0, 3 * POINTS)
    return EmotionParts(parts, torch.zeros(ANGLES + GAZE))


def action_unit(name: str) -> Tensor:
    """What an action unit adds to an expression at its strongest: 63."""
    total = torch.zeros(POINTS, 3)
    for slider, position, rows in ACTION_UNITS[name]:
        movement = abs(position) * slider.direction(1 if position > 0 else -1).unflatten(0, (POINTS, 3))
        kept = list(rows) or list(range(POINTS))
        total[kept] += movement[kept]
    return total.flatten()


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
