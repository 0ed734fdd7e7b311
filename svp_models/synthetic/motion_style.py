"""What motion styles need to know of the synthetic speakers: which columns speech moves, and their emotions exactly."""

from __future__ import annotations

import numpy as np
import torch

from ..motion.coefficients import EXPRESSION_INDEX, EXPRESSION_NAMES
from ..motion.emotions import EmotionParts
from .performance import MOTION_STYLES, PART_WORDS, emotion_direction, part_of
from .visemes import VISEME_NAMES

SPEECH_COLUMNS = tuple(EXPRESSION_INDEX[name] for name in VISEME_NAMES)


def emotion_parts(emotion: str) -> EmotionParts:
    """An emotion at intensity 3: a row of 64 for every part of the face that moves, and where head and gaze go."""
    direction, style = emotion_direction(emotion), MOTION_STYLES[emotion]
    parts = np.stack(
        [np.where([part_of(name) == part for name in EXPRESSION_NAMES], direction, 0) for part in PART_WORDS]
    )
    moving = torch.from_numpy(parts[np.any(parts != 0, axis=1)]).float()
    return EmotionParts(moving, torch.tensor([0.0, style.pitch, style.roll, style.gaze_x, style.gaze_y]))
