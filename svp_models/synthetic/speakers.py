"""Synthetic speakers: identity, voice, habits, and their sentences from a small grammar, in two splits without overlap."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ..motion.coefficients import EXPRESSION_INDEX, EXPRESSION_NAMES, EXPRESSION_SIZE
from .identity import IDENTITY_NAMES, sample_identity
from .speech import Voice

TRAIN_SPEAKERS = 384
TEST_SPEAKERS = 24
POPULATION = 0x535650  # seed of all speakers
SPLITS = ("train", "test")
TEST_SHARE = 4  # one sentence in four belongs to the test split

ACCENTS = ("en-us", "en-us", "en-us", "en", "en-gb-x-rp", "en-gb-scotland")
DEEP_VARIANTS = {
    "train": (
        "m1", "m2", "m3", "m4", "m6", "m7", "Andy", "boris", "grandpa", "Michael", "quincy", "robert", "norbert",
        "edward", "max", "kaukovalta", "michel",
    ),
    "test": ("m5", "m8", "rob", "Alex", "Mike", "ed"),
}  # fmt: skip
HIGH_VARIANTS = {
    "train": ("f1", "f2", "f3", "f4", "aunty", "grandma", "Annie", "Alicia"),
    "test": ("f5", "linda", "belinda"),
}

WORDS = {
    "person": (
        "my brother", "the old baker", "our neighbour", "a young painter", "the bus driver", "her father", "Bob",
        "the whole family", "a famous writer", "Mary", "the new teacher", "my best friend", "this farmer", "Victoria",
        "a quiet visitor", "the football team", "your uncle", "George", "the judge", "Sophie",
    ),
    "did": (
        "found", "bought", "opened", "moved", "forgot", "watched", "finished", "showed me", "painted", "saved",
        "brought home", "left behind", "gave away", "looked for", "wrapped up", "fixed", "threw away", "borrowed",
        "measured", "wanted",
    ),
    "thing": (
        "a blue umbrella", "the broken window", "five warm waffles", "the yellow boat", "two heavy bags",
        "a pair of shoes", "the wooden table", "some fresh bread", "a very big fish", "the front page",
        "an apple pie", "the purple flowers", "a cup of coffee", "both of the maps", "the longest bridge",
        "a beautiful garden", "three small puppies", "the missing key", "a few old photographs", "the wrong jacket",
    ),
    "place": (
        "near the river", "in the village", "at the market", "above the shop", "by the open fire", "on the beach",
        "in front of the museum", "behind the church", "at my house", "under the bridge", "on the way to work",
        "outside the theatre",
    ),
    "time": (
        "this morning", "before lunch", "after the movie", "on Friday", "every week", "last summer", "at five o'clock",
        "during the holidays", "just now", "in the evening", "a moment ago", "for the first time",
    ),
    "say": (
        "I think", "you know", "they told me", "we both hope", "everybody says", "I was sure", "she believes",
        "it seems", "I never thought", "people say",
    ),
    "will": (
        "will come back", "may never arrive", "should call us", "could help you", "might move away",
        "wants to sing", "must leave early", "will be very proud", "is going to win", "would rather wait",
    ),
    "quality": (
        "warm and bright", "far too small", "bigger than before", "as good as new", "very expensive",
        "rather strange", "worth the money", "full of surprises", "beyond my wishes", "awfully quiet",
    ),
    "please": ("Please bring", "Show them", "Give me back", "Don't forget", "Put down", "Remember", "Just take",),
}  # fmt: skip

PATTERNS = (
    "{person} {did} {thing} {time}.",
    "{person} {did} {thing} {place}.",
    "{say} {person} {will} {time}.",
    "{say} {person} {did} {thing}.",
    "{please} {thing} {place}, {person} {will}.",
    "{thing} {place} was {quality}.",
    "{time}, {person} {did} {thing}.",
    "{say} {thing} is {quality}, but {person} {will}.",
    "{person} {will} {time}, because {thing} was {quality}.",
    "{thing} and {thing} are {quality}.",
)


@dataclass(frozen=True)
class Habits:
    """Motion of a person, independent of the emotion.

    viseme_strength: factor on speech's movements, 0.7 .. 1.2; blink_rate: blinks a second; head_sway: factor on head
    movement, 0.5 .. 1.3; nod: degrees a loud syllable lowers the head; brow_activity: brow beat on loud syllables;
    asymmetry: share by which one side of the face moves less, signed, positive weakens the image's left; smile_bias:
    resting smile, -0.12 .. 0.12; gaze_unrest: eye movements per second; rest: 64, the resting face; emotion_gain: 64,
    factors on the coefficients of emotions.
    """

    viseme_strength: float
    blink_rate: float
    head_sway: float
    nod: float
    brow_activity: float
    asymmetry: float
    smile_bias: float
    gaze_unrest: float
    rest: np.ndarray
    emotion_gain: np.ndarray


@dataclass(frozen=True)
class Speaker:
    """A person. identity: 80, see identity.py; voice: without emotion."""

    index: int
    split: str
    identity: np.ndarray
    voice: Voice
    habits: Habits


def speaker(index: int, split: str) -> Speaker:
    """Speaker number `index` (from 0, without limit) of a split, always the same one."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, not one of {SPLITS}")
    seeds = np.random.SeedSequence((POPULATION, SPLITS.index(split), index)).spawn(3)
    face, audio, motion = map(np.random.default_rng, seeds)
    identity = sample_identity(face)
    return Speaker(index, split, identity, sample_voice(audio, split, sounds_deep(identity)), sample_habits(motion))


def sounds_deep(identity: np.ndarray) -> bool:
    """Whether a face gets a deep voice: those with a broad neck or a beard."""
    shape = dict(zip(IDENTITY_NAMES, identity, strict=True))
    if shape["beard"] > 0.4 or shape["moustache"] > 0.45:
        return True
    return (
        shape["neck_width"] + shape["jaw_square"] + shape["brow_thickness"]
        > shape["lash_length"] + shape["lip_strength"]
    )


def sample_voice(rng: np.random.Generator, split: str, deep: bool) -> Voice:
    variants = (DEEP_VARIANTS if deep else HIGH_VARIANTS)[split]
    return Voice(
        variant=f"{ACCENTS[rng.integers(len(ACCENTS))]}+{variants[rng.integers(len(variants))]}",
        rate=rng.uniform(140, 185),
        pitch=rng.uniform(36, 60),
        pitch_range=rng.uniform(38, 62),
        volume=rng.uniform(62, 78),
        tract=rng.uniform(0.9, 1.04) if deep else rng.uniform(0.95, 1.1),
        tilt=rng.uniform(-0.25, 0.25),
    )


def sample_habits(rng: np.random.Generator) -> Habits:
    smile = float(np.clip(rng.normal(0, 0.05), -0.12, 0.12))
    return Habits(
        viseme_strength=rng.uniform(0.7, 1.2),
        blink_rate=rng.uniform(0.2, 0.5),
        head_sway=rng.uniform(0.5, 1.3),
        nod=rng.uniform(0.5, 3.0),
        brow_activity=rng.uniform(0.05, 0.3),
        asymmetry=float(np.clip(rng.normal(0, 0.1), -0.22, 0.22)),
        smile_bias=smile,
        gaze_unrest=rng.uniform(0.5, 1.3),
        rest=sample_rest(rng, smile),
        emotion_gain=np.clip(rng.normal(1, 0.12, EXPRESSION_SIZE), 0.7, 1.3).astype(np.float32),
    )


def sample_rest(rng: np.random.Generator, smile: float) -> np.ndarray:
    """The resting face: individual modes and a slight smile; the mouth stays closed. 64, float32."""
    rest = np.zeros(EXPRESSION_SIZE, np.float32)
    for index, name in enumerate(EXPRESSION_NAMES):
        if "_mode_" in name:
            rest[index] = np.clip(rng.normal(0, 0.16), -0.35, 0.35)
    # Lips that move apart would open the mouth at rest.
    for lip in ("upper", "lower"):
        for mode in (1, 2, 4):
            rest[EXPRESSION_INDEX[f"{lip}_lip_mode_{mode}"]] *= 0.4
    for side in ("l", "r"):
        rest[EXPRESSION_INDEX[f"corner_up_{side}"]] = max(smile, 0)
        rest[EXPRESSION_INDEX[f"corner_down_{side}"]] = max(-smile, 0)
    return rest


def split_of(text: str) -> str:
    """The split that a text belongs to, by a hash of it."""
    return "test" if blake2b(text.encode(), digest_size=8).digest()[0] % TEST_SHARE == 0 else "train"


def sentence(rng: np.random.Generator, split: str) -> str:
    """A random sentence of a split, 5 to 16 words."""
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, not one of {SPLITS}")
    while True:
        text = expand(PATTERNS[rng.integers(len(PATTERNS))], rng)
        if split_of(text) == split:
            return text


def expand(pattern: str, rng: np.random.Generator) -> str:
    """A pattern with its {names} replaced by random words, none of them twice."""
    parts = pattern.split("{")
    text = parts[0]
    for part in parts[1:]:
        name, rest = part.split("}")
        unused = [word for word in WORDS[name] if word not in text.lower()]
        text += unused[rng.integers(len(unused))] + rest
    return text[0].upper() + text[1:]
