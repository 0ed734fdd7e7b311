"""The 64 expression coefficients of synthetic faces by name.

They are named after their movement; `_l` and `_r` are the image's left and right. Zero is the relaxed face and 1 a strong but
natural movement; a few are signed (`*_side`, `lips_wide`, modes).
"""

from __future__ import annotations

import numpy as np

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


def expression_vector(**coefficients: float) -> np.ndarray:
    """64 coefficients by name; a name without a side sets both sides (`brow_lower=0.5`). Unknown names raise KeyError."""
    vector = np.zeros(EXPRESSION_SIZE, dtype=np.float32)
    for name, value in coefficients.items():
        names = (name,) if name in EXPRESSION_INDEX else (f"{name}_l", f"{name}_r")
        for full_name in names:
            vector[EXPRESSION_INDEX[full_name]] = value
    return vector
