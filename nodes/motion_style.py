"""Nodes for the style of motions: a clip's or an emotion's, mixed, saved, loaded, and put on another motion."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..svp_models.diffusion.style import EASINGS
from ..svp_models.motion.emotions import EMOTION_NAMES, emotion_style, liveportrait_emotion
from ..svp_models.motion.style import (
    LIVEPORTRAIT_LIDS,
    LIVEPORTRAIT_LIPS,
    WEIGHTS,
    TransferWeights,
    apply_style,
    load_motion_style,
    mix_styles,
    save_motion_style,
    style_of,
)
from ..svp_models.synthetic.motion_style import SPEECH_COLUMNS, emotion_parts
from ..svp_models.types import LIVEPORTRAIT, SVP
from . import host
from .host import io
from .saved_files import SavedKind
from .types import ADVANCED, MotionSocket, MotionStyleSocket, search_aliases, seed_input

STYLES = SavedKind("style", "svp_motion_styles", "Save Motion Style", "Load Motion Style", "no style is chosen")
CATEGORY = "SVP Portrait/motion"
LIPS = {LIVEPORTRAIT: LIVEPORTRAIT_LIPS, SVP: SPEECH_COLUMNS}
BLINKS = {LIVEPORTRAIT: LIVEPORTRAIT_LIDS, SVP: ()}  # in svp lids are no part of the expression
EMOTIONS = {LIVEPORTRAIT: liveportrait_emotion, SVP: emotion_parts}


def style_input(name: str, tooltip: str) -> Any:
    """A socket for a style, or for a motion that stands for its own."""
    return io.MultiType.Input(name, types=[MotionStyleSocket, MotionSocket], tooltip=tooltip)


def factor_input(name: str, default: float, tooltip: str, advanced: bool = False) -> Any:
    """A widget for one of TransferWeights."""
    low, high = WEIGHTS[name]
    more = ADVANCED if advanced else None
    return io.Float.Input(name, default=default, min=low, max=high, step=0.05, extra_dict=more, tooltip=tooltip)


class SVPMotionStyle(io.ComfyNode):
    """SVP_MOTION, style -> SVP_MOTION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionStyle",
            display_name="Apply Motion Style (SVP)",
            **search_aliases("emotion", "expression", "style transfer", "mood"),
            category=CATEGORY,
            description="Gives a motion the style of a clip or an emotion, without training: expression, head and gaze get the "
            "style's mean and spread, the lips its mean alone, so that they keep to the voice.",
            inputs=[
                MotionSocket.Input("motion", tooltip="The motion to change, such as one generated from a voice."),
                style_input(
                    "style",
                    "The motion of a style clip, or a style from Motion Emotion, Mix Motion Styles or Load Motion Style; in the "
                    "same space as the motion.",
                ),
                factor_input(
                    "weight",
                    1.0,
                    "How far everything is moved, as a factor: 0 changes nothing, 1 takes the style, up to 2 exaggerates it.",
                ),
                factor_input(
                    "lips_weight",
                    1.0,
                    "How far the lips' mean is moved, as a factor on weight: 0 leaves them to the voice alone.",
                ),
                factor_input(
                    "pose_weight",
                    1.0,
                    "How far head angles and gaze are moved, as a factor on weight: 0 leaves them as they are.",
                ),
                factor_input(
                    "temperature",
                    0.0,
                    "A factor for the variation of the style's mean: 0 takes the mean itself, 1 draws one that another clip in "
                    "this style could have, above 1 more varied ones.",
                ),
                io.Boolean.Input(
                    "keep_blinks",
                    default=True,
                    tooltip="The lids get the style's mean alone, so that every blink still closes the eyes. Without, blinks become "
                    "deeper or shallower with the style's spread.",
                ),
                seed_input(
                    "Which mean is drawn where the temperature is above 0. The same seed gives the same motion."
                ),
            ],
            outputs=[MotionSocket.Output("motion", tooltip="The motion in the style, as long as before.")],
        )

    @classmethod
    def execute(
        cls,
        motion,
        style,
        weight: float,
        lips_weight: float,
        pose_weight: float,
        temperature: float,
        keep_blinks: bool,
        seed: int,
    ) -> io.NodeOutput:
        weights = TransferWeights(weight, lips_weight, pose_weight, temperature)
        lips, lids = LIPS[motion.space], BLINKS[motion.space] if keep_blinks else ()
        return io.NodeOutput(apply_style(motion, style_of(style), lips, weights, seed, lids=lids))


class SVPMotionEmotion(io.ComfyNode):
    """Names of emotions -> SVP_MOTION_STYLE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionEmotion",
            display_name="Motion Emotion (SVP)",
            **search_aliases("happy", "sad", "angry", "expression", "mood"),
            category=CATEGORY,
            description="An emotion by name, or a mixture of them, as a style for Apply Motion Style: it shifts the expression and "
            "leaves its movements.",
            inputs=[
                io.String.Input(
                    "emotion",
                    default="happy",
                    tooltip=f"One or more of {', '.join(EMOTION_NAMES)}, with strengths from 0 to 1 where they are not 1, as in "
                    "'happy 0.7, surprised 0.3'.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="A factor on all strengths: 0 is neutral, 1 a strong but natural emotion.",
                ),
                io.Combo.Input(
                    "space",
                    options=[LIVEPORTRAIT, SVP],
                    default=LIVEPORTRAIT,
                    tooltip="The motion's space: liveportrait for photographs, svp for the built-in synthetic faces.",
                ),
            ],
            outputs=[MotionStyleSocket.Output("motion_style", tooltip="For Apply Motion Style or Mix Motion Styles.")],
        )

    @classmethod
    def execute(cls, emotion: str, strength: float, space: str) -> io.NodeOutput:
        return io.NodeOutput(emotion_style(emotion, strength, space, EMOTIONS[space]))


class SVPMotionStyleMix(io.ComfyNode):
    """Two styles -> SVP_MOTION_STYLE between them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        position = {"min": -1.0, "max": 2.0, "step": 0.05}
        return io.Schema(
            node_id="SVPMotionStyleMix",
            display_name="Mix Motion Styles (SVP)",
            category=CATEGORY,
            description="Moves from one motion style to another over the clip, or mixes them in fixed parts (start = end).",
            inputs=[
                style_input("style_a", "The style at position 0: a style, or the motion of a clip."),
                style_input("style_b", "The style at position 1: a style, or the motion of a clip."),
                io.Float.Input(
                    "start",
                    default=0.0,
                    tooltip="Position in the first frame, as a share of the way from style_a to style_b; values outside 0 to 1 "
                    "exaggerate.",
                    **position,
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    tooltip="Position in the last frame, as a share of the way from style_a to style_b; values outside 0 to 1 "
                    "exaggerate.",
                    **position,
                ),
                io.Combo.Input(
                    "easing",
                    options=list(EASINGS),
                    default="linear",
                    tooltip="How the position runs from start to end: evenly, or slow at either or both ends.",
                ),
            ],
            outputs=[MotionStyleSocket.Output("motion_style", tooltip="A style that changes over the clip.")],
        )

    @classmethod
    def execute(cls, style_a, style_b, start: float, end: float, easing: str) -> io.NodeOutput:
        return io.NodeOutput(mix_styles(style_of(style_a), style_of(style_b), start, end, easing))


class SVPMotionStyleSave(io.ComfyNode):
    """Style -> file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionStyleSave",
            display_name="Save Motion Style (SVP)",
            category=CATEGORY,
            description="Saves a motion style as a small file in the output folder, for Load Motion Style.",
            is_output_node=True,
            inputs=[
                style_input("style", "The style to save, or the motion of a clip whose style is saved."),
                STYLES.prefix_input(),
            ],
            outputs=[STYLES.file_output()],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str) -> bool | str:
        return host.check_prefix(filename_prefix)

    @classmethod
    def execute(cls, style, filename_prefix: str) -> io.NodeOutput:
        return STYLES.write(filename_prefix, partial(save_motion_style, style=style_of(style)))


class SVPMotionStyleLoad(io.ComfyNode):
    """File -> SVP_MOTION_STYLE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionStyleLoad",
            display_name="Load Motion Style (SVP)",
            category=CATEGORY,
            description=f"Loads a motion style from models/{STYLES.folder} or output/{STYLES.folder}.",
            inputs=STYLES.file_inputs(),
            outputs=[MotionStyleSocket.Output("motion_style", tooltip="Mean and spread of how a face moves.")],
        )

    @classmethod
    def execute(cls, style: str, file: str | None = None) -> io.NodeOutput:
        return io.NodeOutput(load_motion_style(STYLES.path(style, file)))

    @classmethod
    def fingerprint_inputs(cls, style: str, file: str | None = None) -> float:
        return STYLES.changed(style, file)
