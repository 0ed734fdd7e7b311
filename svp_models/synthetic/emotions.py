"""The eight emotions of MEAD: how each moves the face, how it moves over time, and how it sounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .parameters import EXPRESSION_NAMES, EXPRESSION_SIZE, expression_vector
from .visemes import VISEME_NAMES

EMOTIONS = ("neutral", "angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised")
INTENSITIES = (1, 2, 3)
INTENSITY_SCALE = {1: 0.45, 2: 0.72, 3: 1.0}

# Coefficients that tell emotions apart: speech leaves these alone.
EMOTION_INDEX = tuple(index for index, name in enumerate(EXPRESSION_NAMES) if name not in VISEME_NAMES)

# An emotion's ray from neutral is searched between these lengths: the middle of neutral and the shortest is the border.
SHORTEST, LONGEST = 0.36, 1.15
SCORE_WIDTH = 0.35  # coefficient units: squared distances are taken in this unit before they become scores

_DIRECTIONS = {
    "neutral": {},
    "angry": dict(
        brow_lower=1.0, brow_squeeze=0.9, lower_lid_raise=0.45, upper_lid_raise=0.3, nostril_flare=0.8,
        jaw_forward=0.55, corner_down=0.25, lips_press=0.25,
    ),
    "contempt": dict(
        corner_up_r=0.9, corner_out_r=0.5, smile_fold_r=0.8, mouth_side=0.55, cheek_raise_r=0.35,
        upper_lid_droop=0.55, brow_outer_up_l=0.7, brow_lower_r=0.3,
    ),
    "disgusted": dict(
        nose_wrinkle=1.0, upper_lip_raise=0.55, smile_fold=0.5, cheek_raise=0.35, brow_lower=0.45,
        upper_lid_droop=0.35, lower_lid_raise=0.4, chin_raise=0.35,
    ),
    "fear": dict(
        brow_inner_up=0.75, brow_squeeze=0.75, eye_widen=0.95, corner_out=0.7, corner_down=0.3, lower_lip_drop=0.25,
        forehead_wrinkle=0.25,
    ),
    "happy": dict(
        corner_up=1.0, corner_out=0.5, cheek_raise=0.85, smile_fold=0.75, lower_lid_raise=0.5, upper_teeth_show=0.25,
    ),
    "sad": dict(
        brow_inner_up=0.85, corner_down=1.0, upper_lid_droop=0.75, chin_raise=0.6, forehead_wrinkle=0.2,
    ),
    "surprised": dict(
        brow_outer_up=1.0, brow_inner_up=0.65, upper_lid_raise=0.9, eye_widen=0.3, forehead_wrinkle=0.9, jaw_open=0.25,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Manner:
    """How an emotion moves over time. Factors multiply the speaker's own habits; degrees as in FaceStates.pose.

    blink, sway, tempo, beat: factors on blink rate, head amplitude, head speed and brow beats; beat_shape: the brow
    movement on loud syllables; pitch, roll: degrees added to the head at intensity 3; lean: added to the scale;
    gaze_x, gaze_y: preferred direction; dart: factor on how often the eyes jump; swing: slow wax and wane.
    """

    blink: float = 1.0
    sway: float = 1.0
    tempo: float = 1.0
    beat: float = 1.0
    beat_shape: str = "brow_outer_up"
    pitch: float = 0.0
    roll: float = 0.0
    lean: float = 0.0
    gaze_x: float = 0.0
    gaze_y: float = 0.0
    dart: float = 1.0
    swing: float = 0.10


MANNERS = {
    "neutral": Manner(),
    "angry": Manner(0.6, 1.3, 1.3, 1.6, "brow_lower", 2.0, 0.0, 0.02, dart=0.6, swing=0.12),
    "contempt": Manner(0.8, 0.7, 0.7, 0.6, "brow_outer_up", -3.0, 3.0, gaze_x=0.15, gaze_y=0.1, dart=0.7, swing=0.08),
    "disgusted": Manner(1.1, 0.8, 0.9, 0.8, "brow_lower", -1.5, -2.0, -0.015, gaze_x=-0.15, swing=0.14),
    "fear": Manner(1.7, 0.9, 1.9, 1.0, "brow_inner_up", -1.0, 0.0, -0.02, dart=2.2, swing=0.14),
    "happy": Manner(1.1, 1.35, 1.15, 1.3, "brow_outer_up", -1.0, -2.0, 0.01, swing=0.14),
    "sad": Manner(1.2, 0.6, 0.6, 0.5, "brow_inner_up", 3.5, 2.0, -0.01, gaze_y=0.25, dart=0.6, swing=0.08),
    "surprised": Manner(0.6, 1.1, 1.2, 1.8, "brow_outer_up", -2.5, 0.0, -0.01, dart=0.9, swing=0.12),
}


@dataclass(frozen=True)
class Tone:
    """What an emotion adds to a voice at intensity 3. pitch: espeak units; the others are factors."""

    pitch: float = 0.0
    pitch_range: float = 1.0
    rate: float = 1.0
    volume: float = 1.0
    tilt: float = 0.0


TONES = {
    "neutral": Tone(),
    "angry": Tone(8, 1.35, 1.12, 1.5, 0.16),
    "contempt": Tone(-9, 0.75, 0.88, 0.9, 0.0),
    "disgusted": Tone(-5, 0.9, 0.84, 1.05, -0.05),
    "fear": Tone(20, 0.65, 1.22, 0.85, 0.06),
    "happy": Tone(13, 1.6, 1.08, 1.2, 0.10),
    "sad": Tone(-7, 0.5, 0.78, 0.65, -0.15),
    "surprised": Tone(22, 1.75, 0.98, 1.25, 0.06),
}


def emotion_direction(emotion: str) -> np.ndarray:
    """The movement of an emotion at intensity 3: 64 coefficients, zero for neutral. Unknown emotions raise KeyError."""
    return expression_vector(**_DIRECTIONS[emotion])


def classify_emotion(expression: np.ndarray) -> tuple[str, np.ndarray]:
    """Which emotion a clip shows.

    expression: n x 64 coefficients of the frames (a single row is a still picture). The mean over time, without the
    coefficients that speech moves, is compared with the nearest point of every emotion's ray from the relaxed face.
    Returns the emotion and 8 scores in the order of EMOTIONS: positive, sum 1, the nearest has the highest.
    """
    index = list(EMOTION_INDEX)
    mean = np.asarray(expression, np.float64).reshape(-1, EXPRESSION_SIZE).mean(axis=0)[index]
    squared = np.empty(len(EMOTIONS))
    for position, emotion in enumerate(EMOTIONS):
        ray = emotion_direction(emotion)[index].astype(np.float64)
        length = ray @ ray
        amount = np.clip(mean @ ray / length, SHORTEST, LONGEST) if length else 0.0
        squared[position] = np.sum((mean - amount * ray) ** 2)
    scores = np.exp(-0.5 * (squared - squared.min()) / SCORE_WIDTH**2)
    return EMOTIONS[int(np.argmin(squared))], (scores / scores.sum()).astype(np.float32)
