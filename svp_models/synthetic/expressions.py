"""How each expression coefficient moves the face's points: displacement fields in face units.

The face is described by `VERTEX_COUNT` points: the 68 landmarks of the iBUG order first, then the groups of `GROUPS`.
Face units: 1 is half the face's width; x to the image's right, y down, z towards the viewer.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..motion.coefficients import EXPRESSION_INDEX, EXPRESSION_SIZE

_SIZES = {
    "forehead": 9,  # from the image-right temple over the crown to the image-left temple, closes the outline of the jaw
    "eyes": 2,  # centres of the eyes
    "cheeks": 2,
    "fold_l": 4,  # from the nose's wing to beside the mouth's corner
    "fold_r": 4,
    "crease_l": 4,  # above the upper lid, from the image's left to right
    "crease_r": 4,
    "nostrils": 2,
    "bites": 2,  # edge of the upper teeth, edge of the lower teeth
    "tongue": 1,
    "frown_l": 2,  # between the brows
    "frown_r": 2,
    "lines": 10,  # two lines of five points on the forehead
}


def _groups() -> dict[str, slice]:
    start, groups = 68, {}
    for name, size in _SIZES.items():
        groups[name] = slice(start, start + size)
        start += size
    return groups


GROUPS = _groups()
VERTEX_COUNT = 68 + sum(_SIZES.values())

LANDMARK_MIRROR = (
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40,
    54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55, 64, 63, 62, 61, 60, 67, 66, 65,
)  # fmt: skip


def mirror_index() -> np.ndarray:
    """For every point, the index of the point that is its mirror image."""
    order = np.arange(VERTEX_COUNT)
    order[:68] = LANDMARK_MIRROR
    for name in ("forehead", "eyes", "cheeks", "nostrils"):
        order[GROUPS[name]] = order[GROUPS[name]][::-1].copy()
    for name in ("fold", "frown"):
        left, right = order[GROUPS[f"{name}_l"]].copy(), order[GROUPS[f"{name}_r"]].copy()
        order[GROUPS[f"{name}_l"]], order[GROUPS[f"{name}_r"]] = right, left
    left, right = order[GROUPS["crease_l"]].copy(), order[GROUPS["crease_r"]].copy()
    order[GROUPS["crease_l"]], order[GROUPS["crease_r"]] = right[::-1], left[::-1]
    lines = GROUPS["lines"].start
    order[GROUPS["lines"]] = [lines + 4 - i for i in range(5)] + [lines + 9 - i for i in range(5)]
    return order


_UPPER_OUT, _LOWER_OUT = (49, 50, 51, 52, 53), (59, 58, 57, 56, 55)  # both from the image's left to right
_UPPER_IN, _LOWER_IN = (61, 62, 63), (67, 66, 65)
_CORNERS = (48, 60, 54, 64)
_MOUTH = tuple(range(48, 68))
_JAW = tuple(range(17))
_JAW_DROP = (0, 0, 0.0, 0.04, 0.22, 0.52, 0.82, 0.97, 1, 0.97, 0.82, 0.52, 0.22, 0.04, 0.0, 0, 0)
_CHEEK_L, _CHEEK_R = GROUPS["cheeks"].start, GROUPS["cheeks"].start + 1
_BITE_UP, _BITE_LOW = GROUPS["bites"].start, GROUPS["bites"].start + 1
_TONGUE = GROUPS["tongue"].start
_FOLD_L, _FOLD_R = (tuple(range(GROUPS[n].start, GROUPS[n].stop)) for n in ("fold_l", "fold_r"))
_CREASE_L = tuple(range(GROUPS["crease_l"].start, GROUPS["crease_l"].stop))
_FROWN = tuple(range(GROUPS["frown_l"].start, GROUPS["frown_r"].stop))
_LINES = tuple(range(GROUPS["lines"].start, GROUPS["lines"].stop))

# name: ((points, weights or None, (dx, dy) or (dx, dy, dz)), ...)
_Moves = tuple[tuple[tuple[int, ...], tuple[float, ...] | None, tuple[float, ...]], ...]

_LOWER_LIP = ((_LOWER_OUT, (0.70, 0.95, 1, 0.95, 0.70)), (_LOWER_IN, (0.90, 1, 0.90)))


def _lower(dx: float, dy: float, dz: float = 0.0) -> _Moves:
    return tuple((points, weights, (dx, dy, dz)) for points, weights in _LOWER_LIP)


def _corner_in(amount: float) -> _Moves:
    return (
        ((48, 60), None, (amount, 0)),
        ((54, 64), None, (-amount, 0)),
        ((49, 59, 61, 67), (0.75, 0.75, 0.55, 0.55), (amount, 0)),
        ((53, 55, 63, 65), (0.75, 0.75, 0.55, 0.55), (-amount, 0)),
        ((50, 58), (0.4, 0.45), (amount, 0)),
        ((52, 56), (0.4, 0.45), (-amount, 0)),
    )


_CENTRED: dict[str, _Moves] = {
    "jaw_open": (
        *_lower(0, 0.32),
        (_CORNERS, None, (0, 0.085)),
        *_corner_in(0.03),
        (_JAW, _JAW_DROP, (0, 0.27)),
        (_UPPER_OUT, None, (0, -0.012)),
        (_UPPER_IN, (0.6, 1, 0.6), (0, -0.025)),
        ((_BITE_LOW, _TONGUE), (1, 0.85), (0, 0.24)),
        ((*_FOLD_L[2:], *_FOLD_R[2:]), (0.5, 1, 0.5, 1), (0, 0.10)),
        ((_CHEEK_L, _CHEEK_R), None, (0, 0.03)),
    ),
    "jaw_side": (*_lower(0.13, 0), (_JAW, _JAW_DROP, (0.13, 0)), ((_BITE_LOW, _TONGUE), None, (0.12, 0))),
    "jaw_forward": (
        *_lower(0, -0.035, 0.12),
        (_JAW, _JAW_DROP, (0, 0.07, 0.14)),
        ((5, 6, 7), None, (-0.05, 0)),
        ((9, 10, 11), None, (0.05, 0)),
        ((57, 58, 56), None, (0, 0.05)),
    ),
    "lips_wide": (*_corner_in(-0.11), (_UPPER_OUT, None, (0, 0.012)), (_LOWER_OUT, None, (0, -0.015))),
    "lips_round": (
        *_corner_in(0.16),
        (_UPPER_OUT, None, (0, -0.035, 0.08)),
        (_LOWER_OUT, None, (0, 0.04, 0.08)),
        (_UPPER_IN, (0.45, 1, 0.45), (0, -0.045, 0.08)),
        (_LOWER_IN, (0.8, 1, 0.8), (0, 0.06, 0.08)),
        ((_BITE_UP, _BITE_LOW), (-0.65, 0.7), (0, 0.1)),
    ),
    "lips_press": (
        (_UPPER_OUT, (0.6, 1, 0.8, 1, 0.6), (0, 0.055)),
        (_LOWER_OUT, (0.6, 1, 1, 1, 0.6), (0, -0.07)),
        *_corner_in(-0.03),
    ),
    "lower_lip_in": ((_LOWER_OUT, (0.6, 1, 1, 1, 0.6), (0, -0.085)), (_LOWER_IN, None, (0, -0.01))),
    "upper_lip_in": ((_UPPER_OUT, (0.6, 1, 0.9, 1, 0.6), (0, 0.065)), (_UPPER_IN, None, (0, 0.01))),
    "lips_funnel": (
        *_corner_in(0.10),
        (_UPPER_OUT, (0.6, 1, 1, 1, 0.6), (0, -0.07, 0.10)),
        (_LOWER_OUT, (0.6, 1, 1, 1, 0.6), (0, 0.09, 0.10)),
        (_UPPER_IN, (0.6, 1, 0.6), (0, -0.055, 0.08)),
        (_LOWER_IN, None, (0, 0.07, 0.08)),
        ((_BITE_UP, _BITE_LOW), (-0.75, 0.8), (0, 0.1)),
    ),
    "tongue_up": (((_TONGUE,), None, (0, -0.17)), *_lower(0, 0.035)),
    "upper_teeth_show": (
        ((_BITE_UP,), None, (0, 0.05)),
        (_UPPER_IN, None, (0, -0.045)),
        (_UPPER_OUT, None, (0, -0.03)),
    ),
    "mouth_side": ((_MOUTH, None, (0.11, 0)), ((7, 8, 9), None, (0.03, 0))),
    "chin_raise": (
        *_lower(0, -0.06, 0.03),
        (_JAW, _JAW_DROP, (0, -0.055)),
        (_UPPER_OUT, None, (0, -0.02)),
        (_UPPER_IN, None, (0, -0.02)),
        (_CORNERS, None, (0, 0.03)),
    ),
    "lips_full": (
        (_UPPER_OUT, (0.6, 1, 0.9, 1, 0.6), (0, -0.055)),
        (_LOWER_OUT, (0.6, 1, 1, 1, 0.6), (0, 0.065)),
    ),
    "brow_squeeze": (
        ((21, 20, 19), (1, 0.7, 0.3), (0.085, 0.03)),
        ((22, 23, 24), (1, 0.7, 0.3), (-0.085, 0.03)),
        (_FROWN, None, (0, 0.01)),
    ),
    "nostril_flare": (
        ((31,), None, (-0.06, -0.015)),
        ((35,), None, (0.06, -0.015)),
        ((32, 34), None, (0, -0.01)),
        ((GROUPS["nostrils"].start,), None, (-0.03, -0.01)),
        ((GROUPS["nostrils"].start + 1,), None, (0.03, -0.01)),
    ),
    "cheek_puff": (
        ((1, 2, 3, 4, 5, 6), (0.3, 0.75, 1, 1, 0.7, 0.3), (-0.11, 0.01)),
        ((15, 14, 13, 12, 11, 10), (0.3, 0.75, 1, 1, 0.7, 0.3), (0.11, 0.01)),
        ((_CHEEK_L, _CHEEK_R), None, (0, 0.06)),
        *_corner_in(0.02),
    ),
    "forehead_wrinkle": ((_LINES, None, (0, -0.02)),),
    "upper_lip_mode_1": (
        (_UPPER_OUT, (-0.5, 0.4, 1, 0.4, -0.5), (0, -0.05)),
        (_UPPER_IN, (-0.4, 1, -0.4), (0, -0.035)),
    ),
    "upper_lip_mode_2": ((_UPPER_OUT, (-1, -0.7, 0, 0.7, 1), (0, -0.05)), (_UPPER_IN, (-1, 0, 1), (0, -0.045))),
    "upper_lip_mode_3": ((_UPPER_OUT, (0.6, 1, 0.2, 1, 0.6), (0, -0.04)),),
    "upper_lip_mode_4": (
        (_UPPER_OUT, (1, -0.4, -0.8, -0.4, 1), (0, -0.045)),
        (_UPPER_IN, (0.8, -0.2, 0.8), (0, -0.04)),
    ),
    "lower_lip_mode_1": ((_LOWER_OUT, (-0.5, 0.4, 1, 0.4, -0.5), (0, 0.055)), (_LOWER_IN, (-0.4, 1, -0.4), (0, 0.04))),
    "lower_lip_mode_2": ((_LOWER_OUT, (-1, -0.7, 0, 0.7, 1), (0, 0.055)), (_LOWER_IN, (-1, 0, 1), (0, 0.05))),
    "lower_lip_mode_3": ((_LOWER_OUT, (0.6, 1, 1, 1, 0.6), (0, 0.04)),),
    "lower_lip_mode_4": ((_LOWER_OUT, (1, -0.4, -0.8, -0.4, 1), (0, 0.05)), (_LOWER_IN, (0.8, -0.2, 0.8), (0, 0.045))),
    "jaw_mode_1": (
        ((3, 4, 5, 6, 7), (0.4, 1, 1, 0.8, 0.4), (-0.06, 0)),
        ((13, 12, 11, 10, 9), (0.4, 1, 1, 0.8, 0.4), (0.06, 0)),
    ),
    "jaw_mode_2": ((_JAW, _JAW_DROP, (0, 0.07)),),
}

_LEFT: dict[str, _Moves] = {  # the image's left; the right side is its mirror image
    "upper_lip_raise": (
        ((49, 50, 51), (0.9, 1, 0.4), (0, -0.10)),
        ((61, 62), (1, 0.45), (0, -0.095)),
        (_FOLD_L, (1, 0.6, 0.2, 0), (0, -0.03)),
        ((31,), None, (0, -0.015)),
    ),
    "lower_lip_drop": (((59, 58, 57), (0.8, 1, 0.45), (0, 0.11)), ((67, 66), (1, 0.45), (0, 0.105))),
    "corner_up": (
        ((48, 60), None, (-0.055, -0.16)),
        ((49, 59), (0.5, 0.62), (-0.05, -0.16)),
        ((61, 67, 50, 58), (0.22, 0.3, 0.08, 0.2), (-0.03, -0.15)),
        ((_CHEEK_L,), None, (-0.01, -0.06)),
        (_FOLD_L, (0, 0.35, 0.8, 0.9), (-0.075, -0.05)),
        ((3, 4, 5), (0.6, 1, 0.6), (-0.025, -0.01)),
    ),
    "corner_down": (
        ((48, 60), None, (-0.015, 0.14)),
        ((49, 59), (0.5, 0.42), (0, 0.14)),
        ((61, 67), (0.15, 0.15), (0, 0.14)),
        (_FOLD_L, (0, 0, 0.5, 1), (-0.02, 0.05)),
    ),
    "corner_out": (
        ((48, 60), None, (-0.10, 0)),
        ((49, 59, 61, 67), (0.6, 0.6, 0.4, 0.4), (-0.10, 0)),
        (_FOLD_L, (0, 0.2, 0.8, 1), (-0.06, 0)),
    ),
    "brow_inner_up": (
        ((21, 20, 19, 18), (1, 0.8, 0.4, 0.1), (0.01, -0.155)),
        (_CREASE_L, (0, 0.1, 0.3, 0.3), (0, -0.06)),
    ),
    "brow_outer_up": (((17, 18, 19, 20), (0.85, 1, 0.8, 0.3), (0, -0.14)), (_CREASE_L, (0.3, 0.3, 0.1, 0), (0, -0.05))),
    "brow_lower": (((17, 18, 19, 20, 21), (0.45, 0.7, 0.9, 1.05, 1.15), (0.02, 0.115)), (_CREASE_L, None, (0, 0.03))),
    "upper_lid_raise": (((37, 38), None, (0, -0.055)), (_CREASE_L, (0, 1, 1, 0), (0, -0.03))),
    "upper_lid_droop": (((37, 38), None, (0, 0.10)),),
    "lower_lid_raise": (((40, 41), None, (0, -0.075)),),
    "eye_widen": (((37, 38), None, (0, -0.055)), ((40, 41), None, (0, 0.045)), (_CREASE_L, (0, 1, 1, 0), (0, -0.035))),
    "nose_wrinkle": (
        ((31, 32), (1, 0.6), (-0.015, -0.055)),
        ((30, 33), (0.4, 0.4), (0, -0.04)),
        ((GROUPS["nostrils"].start,), None, (0, -0.04)),
        ((21, 20), (1, 0.6), (0.03, 0.05)),
        ((49, 50, 61), (0.5, 0.6, 0.5), (0, -0.05)),
        (_FOLD_L, (1, 0.6, 0.2, 0), (-0.01, -0.05)),
    ),
    "cheek_raise": (
        ((_CHEEK_L,), None, (-0.01, -0.12)),
        ((40, 41), (0.8, 1), (0, -0.045)),
        (_FOLD_L, (0.4, 1, 0.8, 0.4), (-0.03, -0.03)),
        ((2, 3), (1, 0.8), (-0.02, -0.01)),
    ),
    "smile_fold": ((_FOLD_L, (0, 0.35, 0.8, 1), (-0.035, 0)),),
    "brow_mode_1": (((17, 18, 19, 20, 21), (0.7, -0.6, -1, -0.5, 0.6), (0, 0.06)),),
    "brow_mode_2": (((17, 18, 19, 20, 21), (-1, -0.5, 0, 0.5, 1), (0, -0.07)),),
    "lid_mode_1": (((37, 38), (1, -0.7), (0, -0.05)),),
}


@lru_cache(maxsize=1)
def displacement_fields() -> np.ndarray:
    """Displacement of every point at coefficient 1: 64 x VERTEX_COUNT x 3, float32, face units (read-only)."""
    fields = np.zeros((EXPRESSION_SIZE, VERTEX_COUNT, 3), dtype=np.float32)
    for name, moves in _CENTRED.items():
        fields[EXPRESSION_INDEX[name]] = _field(moves)
    mirror = mirror_index()
    for name, moves in _LEFT.items():
        left = _field(moves)
        fields[EXPRESSION_INDEX[f"{name}_l"]] = left
        fields[EXPRESSION_INDEX[f"{name}_r"]] = left[mirror] * np.array([-1, 1, 1], dtype=np.float32)
    fields.setflags(write=False)
    return fields


def _field(moves: _Moves) -> np.ndarray:
    field = np.zeros((VERTEX_COUNT, 3), dtype=np.float32)
    for points, weights, vector in moves:
        full = np.array((*vector, 0.0)[:3], dtype=np.float32)
        scale = np.ones(len(points)) if weights is None else np.asarray(weights)
        for point, weight in zip(points, scale, strict=True):
            field[point] += full * weight
    return field
