"""Expressions for models that read an expression track, where nobody gives one: the built-in motion generator makes it of the voice."""

from __future__ import annotations

import logging

from torch import Tensor

from ..face.portrait_face import expression_track
from ..types import Audio, Style
from .built_in import STYLE_GUIDANCE
from .built_in_generator import BuiltInConditions, BuiltInGenerator
from .generators import GenerateOptions, generate_motion

LOG = logging.getLogger(__name__)


def spoken_expression(
    generator: BuiltInGenerator,
    audio: Audio,
    style: Style | None,
    frames: int,
    fps: float,
    seed: int = 0,
    voice_weight: float = 1.0,
    style_weight: float = 1.0,
) -> Tensor:
    """Expression, lids and gaze of somebody who says a voice in a style: a track of frames x 68, see `expression_track`.

    voice_weight, style_weight: how much both count, 0 not at all. They are guidance (Ho and Salimans 2022), of the style in units of
    STYLE_GUIDANCE. A style of a space that the generator does not know is left out, with a warning.
    """
    if style is not None and style.style_space != generator.model.style_space:
        LOG.warning(
            "the expression of the voice is made without the style, which is of another style space than the motion generator's: "
            "connect motion to choose it"
        )
        style = None
    given = generator.given(BuiltInConditions(style=style, style_guidance=STYLE_GUIDANCE * style_weight))
    motion = generate_motion(given, audio, fps, GenerateOptions(seed, guidance=voice_weight))
    return expression_track(motion, frames, fps)
