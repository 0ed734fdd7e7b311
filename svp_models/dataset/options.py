"""What is to be prepared and how: frozen dataclasses whose values, all of them, decide what the shards hold."""

from __future__ import annotations

from dataclasses import dataclass

from ..config_file import LARGEST_SEED
from ..errors import PortraitError
from ..face.selection import FACE_CHOICES
from ..synthetic.speakers import TEST_SPEAKERS, TRAIN_SPEAKERS
from .format import FPS, MASK_CELL, SHORTEST_FRAMES

LAYOUTS = ("auto", "mead", "hdtf", "folders")
BACKENDS = ("built-in", "insightface", "mediapipe", "classical")
ONE_FACE = "one"  # refuse pieces that show several
FACES = (*FACE_CHOICES, ONE_FACE)
OF_BACKEND, DEEP3D = "backend", "deep3d"  # where expression comes from
MOST_PEOPLE, MOST_CLIPS = 10**6, 10**4  # of a split; of a person: their numbers have to fit into keys
LARGEST_SHARD = 10**6
LARGEST_SIZE, LONGEST_SECONDS = 2048, 60.0  # a clip's pictures are in memory at once


@dataclass(frozen=True)
class OutputOptions:
    """size: pixels per side; seconds: the longest clip; crf: quality of the video; shard_mb (10^6 bytes) and shard_clips (0: any
    number): when a shard is full; audio_encoder: a folder as transformers saves it, "" for no features."""

    size: int = 512
    seconds: float = 10.0
    crf: int = 12
    shard_mb: int = 256
    shard_clips: int = 0
    audio_encoder: str = ""

    def __post_init__(self) -> None:
        if not 64 <= self.size <= LARGEST_SIZE or self.size % 16:
            raise PortraitError(f"--size is {self.size}: it must be a multiple of 16 from 64 to {LARGEST_SIZE}")
        if not SHORTEST_FRAMES / FPS <= self.seconds <= LONGEST_SECONDS:
            raise PortraitError(
                f"--seconds is {self.seconds:g}: it must be from {SHORTEST_FRAMES / FPS} to {LONGEST_SECONDS:g}"
            )
        if not 0 <= self.crf <= 51:
            raise PortraitError(f"--crf is {self.crf}: it must be from 0 (lossless) to 51 (worst)")
        if not (1 <= self.shard_mb <= LARGEST_SHARD and 0 <= self.shard_clips <= LARGEST_SHARD):
            raise PortraitError(
                f"--shard-mb is {self.shard_mb} and --shard-clips {self.shard_clips}: they must be from 1 and 0 to {LARGEST_SHARD}"
            )

    @property
    def frames(self) -> int:
        """Of the longest clip."""
        return round(self.seconds * FPS)

    @property
    def cells(self) -> int:
        """Numbers per side of a mask."""
        return self.size // MASK_CELL


@dataclass(frozen=True)
class FilmOptions:
    """How films are read.

    layout: one of LAYOUTS; views: camera positions of MEAD; test_identities: who belongs to the test split, none: a share
    `test_share` of all, chosen by a hash of their names. backend, expression, smoothing: who finds the face and reads it; face,
    face_index: which of several, see `face.selection`, or `one`. min_face: least size of a face in pixels of the film, 0: a
    quarter of the output's size. margin: side of the crop, in faces (see `face.crop`).
    """

    layout: str = "auto"
    views: tuple[str, ...] = ("front",)
    test_identities: tuple[str, ...] = ()
    test_share: float = 0.1
    backend: str = "built-in"
    expression: str = OF_BACKEND
    smoothing: float = 0.0
    face: str = "stays"
    face_index: int = 0
    min_face: int = 0
    margin: float = 1.7

    def __post_init__(self) -> None:
        for name, value, known in (
            ("layout", self.layout, LAYOUTS),
            ("backend", self.backend, BACKENDS),
            ("expression", self.expression, (OF_BACKEND, DEEP3D)),
            ("face", self.face, FACES),
        ):
            if value not in known:
                raise PortraitError(f"--{name} is {value!r}: it must be one of {', '.join(known)}")
        if not (0 <= self.test_share <= 1 and 0 <= self.smoothing <= 1):
            raise PortraitError(
                f"--test-share is {self.test_share:g} and --smoothing {self.smoothing:g}: both must be from 0 to 1"
            )
        if self.min_face < 0 or self.face_index < 0 or not 1.2 <= self.margin <= 4:
            raise PortraitError(
                f"--min-face is {self.min_face}, --face-index {self.face_index} and --margin {self.margin:g}: the first two "
                "must not be negative, the margin must be from 1.2 to 4"
            )


@dataclass(frozen=True)
class DrawnOptions:
    """Procedural data: train and test people, clips of each, and the seed that draws emotions and sentences.

    takes: how often each clip is performed once more without pictures, by the same person in the same manner with other words:
    what styles are learnt from, at a fraction of the cost of drawing.
    """

    speakers: int = TRAIN_SPEAKERS
    test_speakers: int = TEST_SPEAKERS
    clips_per_speaker: int = 8
    seed: int = 0
    takes: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("speakers", 0, MOST_PEOPLE),
            ("test_speakers", 0, MOST_PEOPLE),
            ("clips_per_speaker", 1, MOST_CLIPS),
            ("takes", 0, MOST_CLIPS),
            ("seed", 0, LARGEST_SEED),
        ):
            if not least <= getattr(self, name) <= most:
                option = name.replace("_", "-")
                raise PortraitError(f"--{option} is {getattr(self, name)}: it must be from {least} to {most}")
        if self.speakers + self.test_speakers == 0:
            raise PortraitError("0 speakers were asked for: --speakers or --test-speakers must be at least 1")


@dataclass(frozen=True)
class Recipe:
    """A preparation: output, and how its films are read or what is drawn (the other is None)."""

    output: OutputOptions
    films: FilmOptions | None = None
    drawn: DrawnOptions | None = None
