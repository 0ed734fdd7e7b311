"""Nodes that edit motions: the head and keyframes, and the face."""

from __future__ import annotations

from typing import Any

from ..svp_models.motion.edit import (
    ChannelEdit,
    ExpressionEdit,
    apply_keyframes,
    edit_expression,
    edit_head,
)
from ..svp_models.motion.keyframes import INTERPOLATIONS
from ..svp_models.types import Motion
from .host import io
from .motion import CATEGORY
from .types import ADVANCED, MotionSocket, search_aliases, seed_input

KEYFRAMES = "# time channel value"  # a comment: no keyframes
OWN_BLINKS = -1.0  # a blink rate that keeps the motion's own


def offset_input(name: str, what: str, limit: float, step: float) -> Any:
    """A widget for what is added to a channel of the head."""
    return io.Float.Input(f"{name}_offset", default=0.0, min=-limit, max=limit, step=step, tooltip=what)


def amplitude_input(name: str, what: str) -> Any:
    """A widget for how far a channel of the head moves."""
    tooltip = f"A factor on the movement of {what} about the clip's mean: 0 is still, 1 as it is, 2 twice as far."
    return io.Float.Input(
        f"{name}_amplitude", default=1.0, min=0.0, max=4.0, step=0.05, extra_dict=ADVANCED, tooltip=tooltip
    )


def smoothing_input(name: str, what: str) -> Any:
    """A widget for how much a channel of the head is smoothed."""
    tooltip = (
        f"Smooths {what} over time: standard deviation of a Gaussian in seconds; 0 is off, 0.1 takes out trembling."
    )
    return io.Float.Input(
        f"{name}_smoothing", default=0.0, min=0.0, max=2.0, step=0.01, extra_dict=ADVANCED, tooltip=tooltip
    )


def slider_input(name: str, what: str, limit: float = 2.0, low: float | None = None, advanced: bool = False) -> Any:
    """A widget for a slider of the face."""
    return io.Float.Input(
        name,
        default=0.0,
        min=-limit if low is None else low,
        max=limit,
        step=0.01,
        extra_dict=ADVANCED if advanced else None,
        tooltip=f"{what} A share of a strong but natural movement: 1 is all of it, 0 changes nothing.",
    )


HEAD = {
    "yaw": "the turn to the side",
    "pitch": "the nod",
    "roll": "the tilt",
    "shift_x": "the shift to the side",
    "shift_y": "the shift up and down",
    "scale": "the size of the head",
}


class SVPMotionEdit(io.ComfyNode):
    """SVP_MOTION -> SVP_MOTION with another head movement, and keyframes of everything."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionEdit",
            display_name="Edit Motion (SVP)",
            **search_aliases("head pose", "keyframes", "rotate head", "smooth motion", "expression editor"),
            category=CATEGORY,
            description="Changes the head of a motion (angles, shift and scale; their amplitude and smoothness), and anything of head "
            "and face over time by a table of keyframes.",
            inputs=[
                MotionSocket.Input("motion", tooltip="The motion to edit. What is left at its default stays as it is."),
                offset_input("yaw", "Turns the head, in degrees: positive to the right of the picture.", 90.0, 0.5),
                offset_input("pitch", "Nods the head, in degrees: positive down.", 90.0, 0.5),
                offset_input("roll", "Tilts the head, in degrees: positive clockwise.", 90.0, 0.5),
                offset_input(
                    "shift_x", "Moves the head, as a share of the picture's side: positive right.", 1.0, 0.005
                ),
                offset_input("shift_y", "Moves the head, as a share of the picture's side: positive down.", 1.0, 0.005),
                io.Float.Input(
                    "scale_offset",
                    default=0.0,
                    min=-0.9,
                    max=4.0,
                    step=0.01,
                    tooltip="Enlarges the head, as a share of its size: 0.1 is 10 percent larger.",
                ),
                io.String.Input(
                    "keyframes",
                    default=KEYFRAMES,
                    multiline=True,
                    placeholder="0 yaw 0\n1.5 yaw 20\n2.5 smile 0.8",
                    tooltip="One keyframe a line: time in seconds, channel, value. Channels: yaw, pitch, roll (degrees), shift_x, "
                    "shift_y, scale (shares), smile, brows, mouth_open, mouth_width, pout, wink_left, wink_right, blink, gaze_x, "
                    "gaze_y (as in Edit Expression), expression (factor). Values come on top of the motion. A motion of one frame becomes as "
                    "long as the table.",
                ),
                io.Combo.Input(
                    "interpolation",
                    options=list(INTERPOLATIONS),
                    default="smooth",
                    extra_dict=ADVANCED,
                    tooltip="Between keyframes. smooth: a cubic curve that does not overshoot. linear: straight lines.",
                ),
                *(amplitude_input(name, what) for name, what in HEAD.items()),
                *(smoothing_input(name, what) for name, what in HEAD.items()),
            ],
            outputs=[MotionSocket.Output("motion", tooltip="The edited motion.")],
        )

    @classmethod
    def execute(
        cls,
        motion: Motion,
        yaw_offset: float,
        pitch_offset: float,
        roll_offset: float,
        shift_x_offset: float,
        shift_y_offset: float,
        scale_offset: float,
        keyframes: str,
        interpolation: str,
        yaw_amplitude: float,
        pitch_amplitude: float,
        roll_amplitude: float,
        shift_x_amplitude: float,
        shift_y_amplitude: float,
        scale_amplitude: float,
        yaw_smoothing: float,
        pitch_smoothing: float,
        roll_smoothing: float,
        shift_x_smoothing: float,
        shift_y_smoothing: float,
        scale_smoothing: float,
    ) -> io.NodeOutput:
        edits = {
            "yaw": ChannelEdit(yaw_offset, yaw_amplitude, yaw_smoothing),
            "pitch": ChannelEdit(pitch_offset, pitch_amplitude, pitch_smoothing),
            "roll": ChannelEdit(roll_offset, roll_amplitude, roll_smoothing),
            "shift_x": ChannelEdit(shift_x_offset, shift_x_amplitude, shift_x_smoothing),
            "shift_y": ChannelEdit(shift_y_offset, shift_y_amplitude, shift_y_smoothing),
            "scale": ChannelEdit(scale_offset, scale_amplitude, scale_smoothing),
        }
        return io.NodeOutput(apply_keyframes(edit_head(motion, edits), keyframes, interpolation))


class SVPMotionExpression(io.ComfyNode):
    """SVP_MOTION -> SVP_MOTION with another expression."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionExpression",
            display_name="Edit Expression (SVP)",
            **search_aliases("expression editor", "blink", "smile", "gaze", "eye contact", "wink"),
            category=CATEGORY,
            description="Changes the face of a motion: smile, brows, mouth, gaze, blinks, winks, and how lively it is. Sliders of "
            "photographs act on LivePortrait's points, those of drawn faces on their coefficients.",
            inputs=[
                MotionSocket.Input(
                    "motion",
                    tooltip="The motion to edit: of LivePortrait, or of a drawn face. What is left at its default stays as it is.",
                ),
                slider_input("smile", "Smile, or corners of the mouth down."),
                slider_input("brows", "Brows up, or down and together."),
                slider_input("mouth_open", "Mouth further open, or further closed."),
                slider_input("gaze_x", "Eyes to the right of the picture, or to the left.", 1.0),
                slider_input("gaze_y", "Eyes down, or up.", 1.0),
                io.Float.Input(
                    "blink_rate",
                    default=OWN_BLINKS,
                    min=OWN_BLINKS,
                    max=1.5,
                    step=0.05,
                    tooltip="Blinks per second in place of the motion's own: 0 none, 0.3 usual. Below 0, the own blinks stay.",
                ),
                io.Float.Input(
                    "expression_amplitude",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="A factor on the movement of the face about the clip's mean: 0 is a mask, 1 as it is, 1.3 livelier.",
                ),
                io.Float.Input(
                    "blink_depth",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    extra_dict=ADVANCED,
                    tooltip="A factor on how far blinks close the eyes: 1 as they are, new ones all the way.",
                ),
                slider_input("mouth_width", "Mouth wider, or narrower.", advanced=True),
                slider_input("pout", "Lips forward, or drawn in.", advanced=True),
                slider_input("wink_left", "Closes the eye on the left of the picture.", 1.0, 0.0, advanced=True),
                slider_input("wink_right", "Closes the eye on the right of the picture.", 1.0, 0.0, advanced=True),
                seed_input("When new blinks happen. The same seed gives the same motion.", advanced=True),
            ],
            outputs=[MotionSocket.Output("motion", tooltip="The edited motion, as long as before.")],
        )

    @classmethod
    def execute(
        cls,
        motion: Motion,
        smile: float,
        brows: float,
        mouth_open: float,
        gaze_x: float,
        gaze_y: float,
        blink_rate: float,
        expression_amplitude: float,
        blink_depth: float,
        mouth_width: float,
        pout: float,
        wink_left: float,
        wink_right: float,
        seed: int,
    ) -> io.NodeOutput:
        sliders = {
            "smile": smile,
            "brows": brows,
            "mouth_open": mouth_open,
            "mouth_width": mouth_width,
            "pout": pout,
            "wink_left": wink_left,
            "wink_right": wink_right,
            "gaze_x": gaze_x,
            "gaze_y": gaze_y,
        }
        rate = None if blink_rate < 0 else blink_rate
        return io.NodeOutput(
            edit_expression(motion, ExpressionEdit(sliders, expression_amplitude, rate, blink_depth), seed)
        )
