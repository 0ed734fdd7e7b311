"""Parameters of synthetic faces by name, and the appearance (shape, styles, colours) of an identity.

A face has 80 identity parameters (shape, colours, clothes, background), 64 expression coefficients (`motion.coefficients`), a
head pose, two blinks and a gaze direction.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import numpy as np

from .canvas import Colour, mix, multiplied, shade

VERSIONS = (1, 2)  # of the pictures: drawings; looks like photographs

IDENTITY_NAMES = (
    "face_width", "face_length", "jaw_width", "jaw_square", "chin_width", "chin_length", "cheek_width",
    "forehead_height", "skull_height", "temple_width",
    "eye_size", "eye_width", "eye_open", "eye_distance", "eye_height", "eye_tilt", "lid_crease", "iris_size",
    "lash_length", "eye_shadow",
    "brow_height", "brow_thickness", "brow_length", "brow_arch", "brow_tilt", "brow_taper",
    "nose_length", "nose_width", "nose_bridge", "nose_tip", "nostril_size", "nose_shadow",
    "mouth_width", "mouth_height", "upper_lip", "lower_lip", "cupid_bow", "mouth_curve",
    "ear_size", "ear_height",
    "skin_depth", "skin_warmth", "skin_red", "blush", "freckles", "mole", "lip_hue", "lip_strength",
    "eye_hue", "eye_light",
    "hair_style", "hair_hue", "hair_light", "hair_volume", "hair_length", "hair_parting", "hair_fringe", "hair_wave",
    "hair_shine",
    "brow_dark", "beard", "beard_length", "moustache", "glasses", "glasses_size", "glasses_hue", "earrings",
    "earring_hue",
    "clothes_style", "clothes_hue", "clothes_light", "clothes_accent", "shoulder_width", "neck_width",
    "background_kind", "background_hue", "background_light", "background_accent",
    "light_side", "light_strength",
)  # fmt: skip
IDENTITY_SIZE = len(IDENTITY_NAMES)  # 80

POSE_NAMES = ("yaw", "pitch", "roll", "shift_x", "shift_y", "scale")
POSE_SIZE = len(POSE_NAMES)

HAIR_STYLES = ("shaved", "short", "quiff", "spiky", "curly", "bob", "wavy", "long", "ponytail", "bun")
CLOTHES_STYLES = ("crew", "v_neck", "turtleneck", "shirt", "jacket", "scoop", "hoodie")
BACKGROUND_KINDS = ("glow", "bokeh", "bands", "circle", "window", "hills")

SKIN_TONES = (
    (255, 228, 208), (250, 212, 184), (238, 192, 156), (218, 165, 124), (184, 129, 90), (140, 93, 64), (104, 68, 50),
)  # fmt: skip
HAIR_TONES = (
    (38, 34, 40), (62, 44, 40), (92, 60, 44), (128, 78, 48), (160, 78, 46), (204, 110, 56), (224, 178, 108),
    (238, 216, 176), (176, 176, 184), (202, 104, 138), (74, 110, 148),
)  # fmt: skip
IRIS_TONES = (
    (84, 54, 36),
    (120, 78, 44),
    (126, 120, 60),
    (88, 130, 92),
    (92, 142, 172),
    (70, 112, 176),
    (120, 132, 144),
)
LIP_TONES = ((172, 86, 92), (204, 90, 98), (190, 74, 88), (176, 62, 66), (222, 112, 86))


@dataclass(frozen=True)
class FaceStates:
    """The moving parameters of a clip, one row per frame.

    expression: n x 64, zero is relaxed, 1 a strong movement; a few coefficients are signed (`*_side`, `lips_wide`, modes).
    pose: n x 6, yaw, pitch, roll in degrees (positive: nose to the image's right, nose down, head tilts clockwise in the
        image), shift_x, shift_y as fractions of the image width (right, down), scale as a factor (1 = as framed).
    blink: n x 2, image-left and image-right lid, 0 open .. 1 closed.
    gaze: n x 2, right and down, -1 .. 1 (the pupil reaches the eye's corner at 1).
    """

    expression: np.ndarray
    pose: np.ndarray
    blink: np.ndarray
    gaze: np.ndarray

    def __len__(self) -> int:
        return len(self.expression)


@dataclass(frozen=True)
class Appearance:
    """The appearance of one identity.

    shape: identity parameters by name, -1 .. 1. The other fields are computed from them: names of styles, and RGB colours
    0 .. 255. `beard`, `moustache` and `freckles` are strengths 0 .. 1, 0 means none.
    """

    shape: dict[str, float]
    hair_style: str
    clothes_style: str
    background_kind: str
    skin: Colour
    skin_shadow: Colour
    skin_light: Colour
    blush: Colour
    lips: Colour
    lips_dark: Colour
    iris: Colour
    hair: Colour
    hair_dark: Colour
    hair_light: Colour
    brow: Colour
    clothes: Colour
    clothes_dark: Colour
    accent: Colour
    background: Colour
    background_second: Colour
    beard: float
    moustache: float
    freckles: float
    mole: bool
    glasses: str
    glasses_colour: Colour
    earrings: str
    earring_colour: Colour


def sample_identity(rng: np.random.Generator) -> np.ndarray:
    """A random person: float32, 80, every parameter in -1 .. 1."""
    identity = rng.uniform(-1, 1, IDENTITY_SIZE)
    # A few traits are correlated in people; the others are independent.
    trend = rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.0)
    index = {name: position for position, name in enumerate(IDENTITY_NAMES)}
    for name, pull in (
        ("jaw_width", 0.3), ("jaw_square", 0.4), ("brow_thickness", 0.4), ("neck_width", 0.5), ("shoulder_width", 0.4),
        ("lash_length", -0.5), ("eye_size", -0.3), ("upper_lip", -0.3), ("lip_strength", -0.4), ("beard", 0.5),
        ("moustache", 0.4), ("earrings", -0.4), ("brow_arch", -0.3),
    ):  # fmt: skip
        identity[index[name]] = np.clip(identity[index[name]] * 0.8 + pull * trend, -1, 1)
    if rng.uniform() < 0.85:
        identity[index["hair_style"]] = rng.uniform(-1, 0) if trend > 0 else rng.uniform(-0.2, 1)
    if trend < 0:
        identity[index["beard"]] = min(identity[index["beard"]], 0.2)
        identity[index["moustache"]] = min(identity[index["moustache"]], 0.2)
    natural = rng.uniform() < 0.85  # dyed hair is rare
    if natural:
        identity[index["hair_hue"]] = rng.uniform(-1, 0.6)
    if identity[index["skin_depth"]] > 0.2 and natural:  # dark skin is rare with fair hair
        identity[index["hair_hue"]] = rng.uniform(-1, -0.4)
    return identity.astype(np.float32)


def appearance(identity: np.ndarray) -> Appearance:
    """80 identity parameters -> appearance."""
    shape = {name: float(np.clip(value, -1, 1)) for name, value in zip(IDENTITY_NAMES, identity, strict=True)}
    skin = _skin(shape)
    depth = (shape["skin_depth"] + 1) / 2
    hair = shade(_ramp(HAIR_TONES, shape["hair_hue"]), 1 + 0.16 * shape["hair_light"])
    lips = mix(_ramp(LIP_TONES, shape["lip_hue"]), skin, 0.34 - 0.22 * shape["lip_strength"])
    lips = shade(lips, 1 - 0.28 * depth)
    clothes = _hue_colour(shape["clothes_hue"], 0.5, 0.62 + 0.26 * shape["clothes_light"])
    accent = _hue_colour(shape["clothes_hue"] + 0.5 + 0.4 * shape["clothes_accent"], 0.34, 0.88)
    background = _hue_colour(shape["background_hue"], 0.20, 0.82 + 0.14 * shape["background_light"])
    second = _hue_colour(
        shape["background_hue"] + 0.14 + 0.2 * shape["background_accent"], 0.27, 0.68 + 0.2 * shape["background_light"]
    )
    return Appearance(
        shape=shape,
        hair_style=_choose(HAIR_STYLES, shape["hair_style"]),
        clothes_style=_choose(CLOTHES_STYLES, shape["clothes_style"]),
        background_kind=_choose(BACKGROUND_KINDS, shape["background_kind"]),
        skin=skin,
        skin_shadow=multiplied(skin, (0.80, 0.68, 0.66)),
        skin_light=mix(skin, (255, 246, 232), 0.42 - 0.12 * depth),
        blush=mix(skin, (232, 92, 88), 0.62 - 0.2 * depth),
        lips=lips,
        lips_dark=multiplied(lips, (0.80, 0.72, 0.74)),
        iris=shade(_ramp(IRIS_TONES, shape["eye_hue"]), 1 + 0.25 * shape["eye_light"]),
        hair=hair,
        hair_dark=multiplied(hair, (0.68, 0.64, 0.68)),
        hair_light=mix(hair, (255, 236, 214), 0.20 + 0.10 * shape["hair_shine"]),
        brow=mix(shade(hair, 0.72), (38, 28, 28), 0.25 + 0.25 * shape["brow_dark"]),
        clothes=clothes,
        clothes_dark=multiplied(clothes, (0.76, 0.74, 0.80)),
        accent=accent,
        background=background,
        background_second=second,
        beard=max(0.0, (shape["beard"] - 0.4) / 0.6) * 0.5 + 0.5 if shape["beard"] > 0.4 else 0.0,
        moustache=0.6 + 0.4 * (shape["moustache"] - 0.45) / 0.55 if shape["moustache"] > 0.45 else 0.0,
        freckles=max(0.0, (shape["freckles"] - 0.6) / 0.4),
        mole=shape["mole"] > 0.7,
        glasses="round" if shape["glasses"] > 0.78 else "square" if shape["glasses"] > 0.56 else "",
        glasses_colour=_hue_colour(shape["glasses_hue"], 0.45, 0.32),
        earrings="hoop" if shape["earrings"] > 0.7 else "stud" if shape["earrings"] > 0.35 else "",
        earring_colour=_hue_colour(0.13 + 0.5 * max(0.0, shape["earring_hue"]), 0.5, 0.9),
    )


def _choose(names: tuple[str, ...], value: float) -> str:
    return names[min(len(names) - 1, int((value + 1) / 2 * len(names)))]


def _ramp(tones: tuple[Colour, ...], value: float) -> Colour:
    """A colour on a scale of colours, at -1 .. 1."""
    position = (value + 1) / 2 * (len(tones) - 1)
    low = min(len(tones) - 2, int(position))
    return mix(tones[low], tones[low + 1], position - low)


def _skin(shape: dict[str, float]) -> Colour:
    red, green, blue = _ramp(SKIN_TONES, shape["skin_depth"])
    warm, rosy = shape["skin_warmth"], shape["skin_red"]
    return (min(255.0, red + 3 * rosy), green + 3 * warm - 5 * rosy, blue - 9 * warm - 2 * rosy)


def _hue_colour(hue: float, saturation: float, value: float) -> Colour:
    """hue: -1 .. 1 goes once around the colour wheel."""
    return multiplied(colorsys.hsv_to_rgb((hue / 2) % 1.0, saturation, value), (255.0, 255.0, 255.0))
