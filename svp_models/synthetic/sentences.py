"""English sentences from a small grammar, in two splits that share none."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

SPLITS = ("train", "test")
TEST_SHARE = 4  # one sentence in four belongs to the test split

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
    """A pattern with its {names} replaced by random words; nothing is named twice."""
    pieces = pattern.split("{")
    text = pieces[0]
    for piece in pieces[1:]:
        name, rest = piece.split("}")
        fresh = [word for word in WORDS[name] if word not in text.lower()]
        text += fresh[rng.integers(len(fresh))] + rest
    return text[0].upper() + text[1:]
