"""Everything random in a natural picture that the 80 identity parameters leave open: skin, light, camera, make-up.

A look belongs to an identity: its generator is seeded with the parameters themselves.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from .identity import Appearance

# Average skin in a neutral light, fair to dark, sRGB.
_SKIN = np.array(
    [
        (238, 196, 178), (230, 182, 160), (220, 167, 140), (200, 148, 116), (174, 122, 90), (142, 94, 68), (108, 70, 50),
        (78, 52, 40),
    ],
    np.float32,
)  # fmt: skip
_HAIR = np.array(
    [
        (24, 20, 20), (38, 28, 24), (58, 40, 30), (82, 58, 42), (112, 80, 54), (140, 96, 60), (166, 126, 82),
        (196, 164, 116), (176, 172, 168), (210, 206, 200),
    ],
    np.float32,
)  # fmt: skip
_IRIS = np.array(
    [(44, 28, 20), (70, 44, 28), (98, 68, 40), (104, 98, 60), (96, 120, 100), (104, 132, 150), (86, 112, 146),
     (120, 134, 144)], np.float32
)  # fmt: skip


@dataclass(frozen=True)
class Light:
    """The light of a picture, in the viewer's space: x to the right, y down, z towards the viewer.

    key, fill: unit vectors towards the lights; key_colour, fill_colour, ambient: RGB factors; wrap: 0 .. 1, how far the key
    reaches round the head (a large source); exposure: mean factor on the colours of a face in front; gloss: strength of the skin's shine; sharpness: its exponent.
    """

    key: np.ndarray
    key_colour: np.ndarray
    fill: np.ndarray
    fill_colour: np.ndarray
    ambient: np.ndarray
    wrap: float
    exposure: float
    gloss: float
    sharpness: float


@dataclass(frozen=True)
class CameraLook:
    """How the picture was taken. gains: RGB; gamma, contrast, saturation: factors; lift: of black, 0 .. 255; vignette: loss
    of light in the corners; blur: standard deviation in pixels of 256; grain: of 255; jpeg: quality, 0 without."""

    gains: np.ndarray
    gamma: float
    contrast: float
    saturation: float
    lift: float
    vignette: float
    blur: float
    grain: float
    jpeg: int


@dataclass(frozen=True)
class NaturalLook:
    """seed: of the textures, see `rng`. Colours: RGB float32, 0 .. 255.

    frame: factor on the size of the head and its shift from the middle, shares of the width. age, freckles, blotches, pores,
    stubble, make_up, liner: strengths 0 .. 1. teeth: their colour; teeth_shift: how far down the edges of the upper and the
    lower row lie, face units; lip_relief: depth of the lips' creases; wet: shine of the lips; glasses_width: of the frame, face units; glasses_glare: how strongly the lenses mirror, 0 .. 1.
    """

    seed: int
    frame: tuple[float, float, float]
    skin: np.ndarray
    hair: np.ndarray
    brow: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    teeth: np.ndarray
    clothes: np.ndarray
    accent: np.ndarray
    sclera: np.ndarray
    age: float
    freckles: float
    blotches: float
    pores: float
    stubble: float
    make_up: float
    liner: float
    teeth_shift: tuple[float, float]
    lip_relief: float
    wet: float
    glasses: str
    glasses_colour: tuple[float, float, float]
    glasses_width: float
    glasses_glare: float
    light: Light
    camera: CameraLook

    def rng(self, purpose: int) -> np.random.Generator:
        """A generator for one texture, so that a change of one leaves the others alone."""
        return np.random.default_rng((self.seed, purpose))


def natural_look(identity: np.ndarray, look: Appearance) -> NaturalLook:
    """The look of an identity: the same parameters give the same look."""
    digest = blake2b(np.ascontiguousarray(identity, np.float32).tobytes(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little")
    rng = np.random.default_rng(seed)
    shape = look.shape
    depth = float(np.clip(((shape["skin_depth"] + 1) / 2) ** 1.7 + rng.normal(0, 0.06), 0, 1))
    skin = _ramp(_SKIN, depth) * (1 + rng.normal(0, 0.03, 3) * [0.5, 1.0, 1.2])
    rosy = rng.uniform(-1, 1)
    skin = skin * [1 + 0.01 * rosy, 1 - 0.03 * rosy, 1 - 0.03 * rosy]
    warm = rng.uniform(-1, 1)
    skin = np.clip(skin * [1, 1, 1 - 0.05 * warm], 0, 250)
    age = float(np.clip(rng.beta(1.4, 2.2), 0, 1))
    hair = _ramp(_HAIR, float(np.clip((shape["hair_hue"] + 1) / 1.6 * (1 - 0.6 * depth) * 0.86, 0, 0.86)))
    if age > 0.5:
        hair = hair + (np.array([186.0, 184, 182]) - hair) * (age - 0.5) * 2 * rng.uniform(0, 1)
    if rng.uniform() < 0.05:
        hair = np.array(colorsys.hsv_to_rgb(rng.uniform(), 0.45, 0.6)) * 255
    feminine = shape["lash_length"] > 0.0 and not (look.beard or look.moustache)
    make_up = float(rng.uniform(0.2, 1)) if feminine and rng.uniform() < 0.75 else 0.0
    natural_lips = skin * [0.93, 0.68, 0.73] + np.array([12.0, 4, 10])
    painted = np.array(colorsys.hsv_to_rgb(rng.normal(0.97, 0.025) % 1, rng.uniform(0.4, 0.7), rng.uniform(0.55, 0.9)))
    lips = natural_lips * rng.uniform(0.88, 1.14) * (1 + rng.normal(0, 0.03, 3))
    lips = lips + (painted * 255 * (1 - 0.35 * depth) - lips) * make_up * rng.uniform(0.2, 0.75)
    teeth = np.array([252.0, 236, 222]) * rng.uniform(0.84, 1.12) * [1, rng.uniform(0.95, 1.0), rng.uniform(0.84, 1.0)]
    eye = float(np.clip((shape["eye_hue"] + 1) / 2 * (1.0 if depth < 0.5 else 0.3), 0, 1))
    clothes = np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.beta(1.2, 2.4), rng.beta(1.4, 1.5) * 0.9 + 0.06)) * 255
    accent = np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.beta(1, 3), rng.uniform(0.3, 1))) * 255
    glasses = look.glasses
    return NaturalLook(
        seed=seed,
        frame=(float(rng.uniform(1.0, 1.24)), float(rng.normal(0, 0.012)), float(rng.normal(0.012, 0.012))),
        skin=np.float32(skin),
        hair=np.float32(np.clip(hair, 8, 235)),
        brow=np.float32(np.clip(hair * rng.uniform(0.55, 0.9) + skin * 0.08, 6, 160)),
        iris=np.float32(_ramp(_IRIS, eye) * rng.uniform(0.5, 1.1)),
        lips=np.float32(np.clip(lips, 20, 250)),
        teeth=np.float32(np.clip(teeth, 0, 252)),
        clothes=np.float32(clothes),
        accent=np.float32(accent),
        sclera=np.float32(np.array([232.0, 206, 196]) * rng.uniform(0.6, 1.02) * (1 + rng.normal(0, 0.012, 3))),
        age=age,
        freckles=float(look.freckles or max(0.0, rng.normal(-0.5, 0.6))) * (1 - depth),
        blotches=float(rng.uniform(0.2, 1)),
        pores=float(rng.uniform(0.15, 1)) * (1 - 0.5 * make_up),
        stubble=float(rng.uniform(0.2, 1)) if not feminine and rng.uniform() < 0.6 else 0.0,
        make_up=make_up,
        liner=float(rng.uniform(0.15, 0.45) + 0.55 * make_up),
        teeth_shift=(float(rng.normal(0.0, 0.02)), float(rng.normal(0.0, 0.03))),
        lip_relief=float(rng.uniform(0.3, 1)),
        wet=float(rng.uniform(0.15, 1)),
        glasses=glasses,
        glasses_colour=_frame_colour(rng),
        glasses_width=float(rng.uniform(0.014, 0.036)),
        glasses_glare=float(rng.uniform(0.0, 0.25)),
        light=_sample_light(rng),
        camera=_sample_camera(rng),
    )


def _ramp(colours: np.ndarray, position: float) -> np.ndarray:
    place = position * (len(colours) - 1)
    low = min(len(colours) - 2, int(place))
    return colours[low] + (colours[low + 1] - colours[low]) * (place - low)


def _frame_colour(rng: np.random.Generator) -> tuple[float, float, float]:
    if rng.uniform() < 0.75:
        tone, brown = rng.uniform(12, 90), rng.uniform(0.6, 1.0)
        return tone, tone * (0.4 + 0.6 * brown), tone * brown
    red, green, blue = np.array(colorsys.hsv_to_rgb(rng.uniform(), 0.5, rng.uniform(0.2, 0.7))) * 255
    return float(red), float(green), float(blue)


def _sample_light(rng: np.random.Generator) -> Light:
    """From soft frontal light to a hard lamp from one side, above or a little below."""
    side = rng.choice([-1.0, 1.0])
    azimuth, elevation = side * rng.uniform(5, 78), rng.triangular(-15, 30, 65)
    hardness = rng.beta(1.3, 1.6)
    key = _direction(azimuth, elevation)
    fill = _direction(-side * rng.uniform(40, 110), rng.uniform(-20, 35))
    warmth = rng.normal(0, 0.05)
    key_colour = np.array([1 + warmth, 1, 1 - warmth]) * (0.35 + 0.75 * hardness)
    tint = rng.normal(0, 0.05)
    ambient = np.array([1 - tint, 1, 1 + tint]) * (0.78 - 0.52 * hardness)
    rim = rng.uniform(0.0, 0.18) if rng.uniform() < 0.8 else rng.uniform(0.2, 0.5)
    fill_colour = np.array([1 - warmth, 1, 1 + warmth]) * rim * (1 + rng.normal(0, 0.12, 3) * (rng.uniform() < 0.3))
    return Light(
        key=key,
        key_colour=np.float32(key_colour),
        fill=fill,
        fill_colour=np.float32(fill_colour),
        ambient=np.float32(ambient),
        wrap=float(rng.uniform(0.1, 0.6) * (1.2 - hardness)),
        exposure=float(rng.uniform(0.86, 1.15)),
        gloss=float(rng.uniform(0.03, 0.24)),
        sharpness=float(rng.uniform(8, 34)),
    )


def _direction(azimuth: float, elevation: float) -> np.ndarray:
    """Degrees to the viewer's right and up -> a unit vector, y down."""
    turn, lift = np.radians([azimuth, elevation])
    return np.array([np.sin(turn) * np.cos(lift), -np.sin(lift), np.cos(turn) * np.cos(lift)], np.float32)


def _sample_camera(rng: np.random.Generator) -> CameraLook:
    cast = rng.normal(0, 0.035)
    return CameraLook(
        gains=np.array([1 + cast, 1 + rng.normal(0, 0.012), 1 - cast], np.float32),
        gamma=float(np.exp(rng.normal(0, 0.1))),
        contrast=float(rng.uniform(0.86, 1.16)),
        saturation=float(rng.uniform(0.84, 1.26)),
        lift=float(rng.uniform(0, 14)),
        vignette=float(rng.uniform(0, 0.3) if rng.uniform() < 0.5 else 0.0),
        blur=float(rng.uniform(0.0, 0.6) if rng.uniform() < 0.7 else rng.uniform(0.6, 1.2)),
        grain=float(rng.uniform(0.0, 2.0) if rng.uniform() < 0.75 else rng.uniform(2, 5)),
        jpeg=int(rng.integers(58, 94)) if rng.uniform() < 0.25 else 0,
    )
