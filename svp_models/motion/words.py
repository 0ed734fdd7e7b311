"""Prompts for the head: "nods slowly, looks left, then still" or "at 2 s nods, from 4 to 6 s still" -> phrases with times."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import PortraitError
from ..networks.motion_generator import PADDING

FIRST, PAUSE, USUAL = 0.4, 0.6, 2.0  # s: of untimed phrases: when the first begins, between two, and how long one lasts
SHORTEST = 0.4  # s of a phrase
LASTING = frozenset(("still", "calm", "rests", "lively", "animated", "energetic"))  # last until the next phrase begins
FILLERS = frozenset(
    ("a", "an", "and", "the", "his", "her", "their", "its", "he", "she", "it", "they", "person", "with", "of")
)
MOST_WORDS = 8  # of a phrase that the generator reads
LONGEST_PROMPT = 2000  # characters
NUMBER = r"(\d+(?:\.\d+)?)"
SECONDS = r"(?:\s*(?:seconds|second|secs|sec|s)\b)?"
SPAN = re.compile(rf"\b(?:from\s+)?{NUMBER}{SECONDS}\s*(?:to|until|-)\s*{NUMBER}{SECONDS}", re.IGNORECASE)
AT = re.compile(rf"(?:\bat|@)\s*{NUMBER}{SECONDS}", re.IGNORECASE)
FOR = re.compile(rf"\bfor\s+{NUMBER}{SECONDS}", re.IGNORECASE)
CLAUSES = re.compile(r"[,;\n]|\.(?!\d)|\b(?:and\s+)?then\b", re.IGNORECASE)
WORDS = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?|\d+(?:\.\d+)?")


@dataclass(frozen=True)
class TimedPhrase:
    """A phrase of a prompt with its time in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Prompt:
    """A prompt as it was understood. unknown: words outside the vocabulary, in order; nothing is made of them."""

    phrases: tuple[TimedPhrase, ...]
    unknown: tuple[str, ...]

    @property
    def warning(self) -> str:
        """One line about unknown words; empty where every word is known."""
        if not self.unknown:
            return ""
        return f"the motion generator does not know {', '.join(map(repr, self.unknown))}: these words change nothing"


def parse_prompt(text: str, seconds: float, vocabulary: Sequence[str]) -> Prompt:
    """Clauses (parted by commas, semicolons, full stops, "then") with their times; those without one follow each other.

    Times: "at 2 s", "from 1 to 3 s", "for 2 s", anywhere in a clause. seconds: of the clip; what does not fit is moved closer,
    and a time beyond its end raises PortraitError.
    """
    if len(text) > LONGEST_PROMPT:
        raise PortraitError(f"the prompt has {len(text)} characters: at most {LONGEST_PROMPT} can be read")
    text = without_comments(text)
    known, unknown = set(vocabulary), dict[str, None]()
    clauses: list[tuple[str, float | None, float | None]] = []
    for clause in CLAUSES.split(text):
        rest, start, end = _times(clause, seconds)
        words = [word.lower() for word in WORDS.findall(rest)]
        unknown |= dict.fromkeys(word for word in words if word not in known and word not in FILLERS)
        said = " ".join(word for word in words if word in known)
        if any(word not in FILLERS and word in known for word in words):
            clauses.append((said, start, end))
    return Prompt(tuple(_placed(clauses, seconds)), tuple(unknown))


def without_comments(text: str) -> str:
    """A prompt without lines that begin with #."""
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _times(clause: str, seconds: float) -> tuple[str, float | None, float | None]:
    """(clause without its times, start, end); an end without a start is a length."""
    start = end = None
    if match := SPAN.search(clause):
        start, end = float(match[1]), float(match[2])
    elif match := AT.search(clause):
        start = float(match[1])
    if match is not None:
        clause = clause[: match.start()] + " " + clause[match.end() :]
    if end is None and (match := FOR.search(clause)):
        end = float(match[1]) + (start or 0.0)
        clause = clause[: match.start()] + " " + clause[match.end() :]
    if start is not None and start >= seconds:
        raise PortraitError(f"the prompt asks for {clause.strip()!r} at {start:g} s, the clip ends at {seconds:g} s")
    if start is not None and end is not None and end <= start:
        raise PortraitError(
            f"the prompt asks for {clause.strip()!r} from {start:g} to {end:g} s: the end is before the start"
        )
    return clause, start, end


def _placed(clauses: list[tuple[str, float | None, float | None]], seconds: float) -> list[TimedPhrase]:
    """Times for all: untimed clauses follow the one before, closer together where the clip is short."""
    count = len(clauses)
    stretch = min(1.0, seconds / (FIRST + count * USUAL + max(0, count - 1) * PAUSE)) if count else 1.0
    phrases: list[TimedPhrase] = []
    position = FIRST * stretch
    for number, (text, start, end) in enumerate(clauses):
        length = USUAL * stretch if end is None else end - (start or 0.0)
        begins = min(position if start is None else start, max(0.0, seconds - SHORTEST))
        ends = begins + max(length, SHORTEST)
        if end is None and set(text.split()) & LASTING:
            ends = next((when for _, when, _ in clauses[number + 1 :] if when is not None), seconds)
            ends = ends if number + 1 == count or clauses[number + 1][1] is not None else begins + length
        phrases.append(TimedPhrase(text, begins, min(max(ends, begins + SHORTEST), seconds)))
        position = phrases[-1].end + PAUSE * stretch
    return phrases


def word_tensors(
    phrases: Sequence[TimedPhrase], vocabulary: Sequence[str], first: int, frames: int, fps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Phrases for frames `first` to `first` + `frames` - 1 as the network reads them: words k MOST_WORDS, phrase n, times n 2.

    Where two phrases overlap, the later one counts. See networks.motion_generator.MotionConditions.
    """
    number_of = {word: number for number, word in enumerate(vocabulary, 1)}
    words = torch.full((max(1, len(phrases)), MOST_WORDS), PADDING)
    phrase, times = torch.full((frames,), PADDING), torch.zeros(frames, 2)
    moments = (first + torch.arange(frames) + 0.5) / fps
    for row, item in enumerate(phrases):
        numbers = [number_of[word] for word in item.text.split() if word in number_of][:MOST_WORDS]
        words[row, : len(numbers)] = torch.tensor(numbers, dtype=torch.long)
        inside = (moments >= item.start) & (moments < item.end)
        phrase[inside] = row + 1
        times[inside] = torch.stack([moments - item.start, item.end - moments], dim=1)[inside]
    return words, phrase, times
