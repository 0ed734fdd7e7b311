"""The parameters that a drawn face is made of, by name.

A face is drawn from 80 identity parameters (shape, colours, clothes, background), 64 expression coefficients, a head
pose, two blinks and a gaze direction. Expression coefficients are named after the movement they cause; `_l` and `_r`
are the image's left and right. Zero is the relaxed face and 1 a strong but natural movement.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

IDENTITY_SIZE = 80

EXPRESSION_NAMES = (
    "jaw_open", "jaw_side", "jaw_forward", "lips_wide", "lips_round", "lips_press",
    "upper_lip_raise_l", "upper_lip_raise_r", "lower_lip_drop_l", "lower_lip_drop_r",
    "corner_up_l", "corner_up_r", "corner_down_l", "corner_down_r", "corner_out_l", "corner_out_r",
    "lower_lip_in", "upper_lip_in", "lips_funnel", "tongue_up", "upper_teeth_show", "mouth_side", "chin_raise",
    "lips_full",
    "brow_inner_up_l", "brow_inner_up_r", "brow_outer_up_l", "brow_outer_up_r", "brow_lower_l", "brow_lower_r",
    "brow_squeeze",
    "upper_lid_raise_l", "upper_lid_raise_r", "upper_lid_droop_l", "upper_lid_droop_r",
    "lower_lid_raise_l", "lower_lid_raise_r", "eye_widen_l", "eye_widen_r",
    "nose_wrinkle_l", "nose_wrinkle_r", "nostril_flare", "cheek_raise_l", "cheek_raise_r", "cheek_puff",
    "smile_fold_l", "smile_fold_r", "forehead_wrinkle",
    "upper_lip_mode_1", "upper_lip_mode_2", "upper_lip_mode_3", "upper_lip_mode_4",
    "lower_lip_mode_1", "lower_lip_mode_2", "lower_lip_mode_3", "lower_lip_mode_4",
    "brow_mode_1_l", "brow_mode_1_r", "brow_mode_2_l", "brow_mode_2_r",
    "lid_mode_1_l", "lid_mode_1_r", "jaw_mode_1", "jaw_mode_2",
)  # fmt: skip
EXPRESSION_SIZE = len(EXPRESSION_NAMES)
EXPRESSION_INDEX = {name: index for index, name in enumerate(EXPRESSION_NAMES)}

POSE_NAMES = ("yaw", "pitch", "roll", "shift_x", "shift_y", "scale")
POSE_SIZE = len(POSE_NAMES)


@dataclass(frozen=True)
class FaceStates:
    """The moving parameters of a clip, one row a frame.

    expression: n x 64, zero is relaxed, 1 a strong movement; a few coefficients are signed (`*_side`, `lips_wide`, modes).
    pose: n x 6, yaw, pitch, roll in degrees (positive: nose to the image's right, nose down, head tilts clockwise in the
        image), shift_x, shift_y as fractions of the picture's width (right, down), scale as a factor (1 = as framed).
    blink: n x 2, image-left and image-right lid, 0 open .. 1 closed.
    gaze: n x 2, right and down, -1 .. 1 (the pupil reaches the eye's corner at 1).
    """

    expression: np.ndarray
    pose: np.ndarray
    blink: np.ndarray
    gaze: np.ndarray

    def __len__(self) -> int:
        return len(self.expression)


def expression_vector(**coefficients: float) -> np.ndarray:
    """64 coefficients from names; a name without side sets both sides (`brow_lower=0.5`). Unknown names raise KeyError."""
    vector = np.zeros(EXPRESSION_SIZE, dtype=np.float32)
    for name, value in coefficients.items():
        names = (name,) if name in EXPRESSION_INDEX else (f"{name}_l", f"{name}_r")
        for each in names:
            vector[EXPRESSION_INDEX[each]] = value
    return vector
