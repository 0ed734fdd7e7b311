"""What a prepared clip holds: constants, its description (`json`) and its labels (`labels.npz`)."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from ..config_file import Checked, limited
from ..errors import PortraitError
from ..synthetic.emotions import EMOTIONS
from ..synthetic.sentences import SPLITS

FORMAT_VERSION = 1
FPS = 25
SAMPLE_RATE = 16000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
SHORTEST_FRAMES = 40  # 1.6 s
MOST_FRAMES = 100_000  # of a clip that is believed to be one
MASK_CELL = 8  # pixels per side that one number of a mask stands for
GOP = 12  # frames from one key frame to the next

VIDEO, AUDIO, LABELS, INFO, FEATURES = "video.mp4", "audio.flac", "labels.npz", "json", "features.npy"


@dataclass(frozen=True)
class ClipInfo(Checked):
    """Description of a clip.

    identity: who, a name that no other person of the data set has; emotion: one of synthetic.emotions.EMOTIONS or "";
    intensity: 1 to 3, 0 where nobody knows; source: path of the film relative to the prepared folder; start_seconds: where the
    clip begins in it; group: clips (and segments) of one group come from one recording, so they are positives of each other
    where no emotion is known; text: what is said, where known; unknown: labels that the face backend does not give, which
    are NaN; feature_rows: rows of `features.npy` per frame, 0 without it.
    """

    identity: str
    emotion: str
    intensity: int = limited(low=0, high=3)
    source: str = field()
    start_seconds: float = limited(low=0, high=1e9)
    frames: int = limited(low=1, high=MOST_FRAMES)
    size: int = limited(low=MASK_CELL, high=8192)
    split: str = field()
    group: str = field()
    fps: int = limited(FPS, 1, 240)
    text: str = ""
    unknown: tuple[str, ...] = ()
    feature_rows: int = limited(0, 0, 1000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split not in SPLITS or self.emotion not in ("", *EMOTIONS) or self.frames < 1 or not self.identity:
            raise PortraitError(
                f"{self.source} at {self.start_seconds:g} s: split {self.split!r}, emotion {self.emotion!r}, identity "
                f"{self.identity!r} and {self.frames} frames are no description of a clip: prepare it again"
            )


@dataclass(frozen=True)
class ClipLabels:
    """What is known of every frame of a clip; positions in pixels of its pictures, continuous, (0, 0) the top left corner.

    landmarks: n 68 2, iBUG order; head_keypoints: n 8 2, see face.keypoints; expression: n 64; pose: n 3, yaw, pitch, roll in
    degrees as face.analyzer.FaceTrack has them; all float32. mouth_mask, face_mask: n size/8 size/8, uint8, how much of each
    cell lies inside the lips' outline and the face's, 255 is all. interpolated: n bool, frames in which no face was found and
    whose numbers lie between their neighbours'. A label that `ClipInfo.unknown` names is NaN.
    """

    landmarks: np.ndarray
    head_keypoints: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    mouth_mask: np.ndarray
    face_mask: np.ndarray
    interpolated: np.ndarray

    def __len__(self) -> int:
        return len(self.interpolated)


def check_labels(labels: ClipLabels, frames: int, size: int, name: str = "labels") -> None:
    """Raises PortraitError unless every array has its shape and type for a clip of `frames` frames of `size` pixels."""
    cells = size // MASK_CELL
    wanted = {
        "landmarks": ((frames, 68, 2), "float32"),
        "head_keypoints": ((frames, 8, 2), "float32"),
        "expression": ((frames, 64), "float32"),
        "pose": ((frames, 3), "float32"),
        "mouth_mask": ((frames, cells, cells), "uint8"),
        "face_mask": ((frames, cells, cells), "uint8"),
        "interpolated": ((frames,), "bool"),
    }
    for each in fields(labels):
        found = getattr(labels, each.name)
        if (found.shape, str(found.dtype)) != wanted[each.name]:
            raise PortraitError(
                f"{name}: {each.name} is {found.dtype} {found.shape}, {wanted[each.name][1]} {wanted[each.name][0]} is "
                f"needed for {frames} frames of {size} pixels: prepare the data again"
            )


@dataclass(frozen=True)
class Sample:
    """A finished clip: its name in the shards, description and the bytes of its members by ending."""

    key: str
    info: ClipInfo
    members: dict[str, bytes]


@dataclass(frozen=True)
class Reject:
    """A stretch of a film that gave no clip. start: seconds; reason: one of REASONS; detail: numbers, for a person."""

    source: str
    start: float
    reason: str
    detail: str = ""


REASONS = (
    "unreadable",
    "outside the layout",
    "no sound",
    "no face",
    "several faces",
    "too short",
    "face too small",
    "face at the edge",
    "frozen",
)
