"""The format of a prepared clip (description and labels), and the options of a preparation, which decide what shards hold."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ..errors import PortraitError
from ..face.detection import FACE_CHOICES
from ..io.strict_config import LARGEST_SEED, Checked, limited, required
from ..synthetic.identity import VERSIONS
from ..synthetic.performance import EMOTIONS
from ..synthetic.speakers import SPLITS, TEST_SPEAKERS, TRAIN_SPEAKERS
from ..types import LIVEPORTRAIT, SVP

FORMAT_VERSION = 1
FPS = 25
SAMPLE_RATE = 16000
SAMPLES_PER_FRAME = SAMPLE_RATE // FPS
MIN_FRAMES = 40  # 1.6 s
MAX_FRAMES = 100_000  # of a valid clip
MASK_CELL = 8  # pixels per side of one cell of a mask
GOP = 12  # frames from one key frame to the next

VIDEO, AUDIO, LABELS, INFO, FEATURES = "video.mp4", "audio.flac", "labels.npz", "json", "features.npy"
MOTION = "motion.npz"


@dataclass(frozen=True)
class ClipInfo(Checked):
    """Description of a clip.

    identity: the person, a unique name in the data set; emotion: one of synthetic.emotions.EMOTIONS or "";
    intensity: 1 to 3, 0 where unknown; source: path of the video relative to the prepared folder; start_seconds: where the
    clip begins in it; group: clips (and segments) of one group come from one recording, so they are positives of each other
    where no emotion is known; text: the spoken words, where known; unknown: labels that the face backend does not give, which
    are NaN; feature_rows: rows of `features.npy` per frame, 0 without it.
    """

    identity: str
    emotion: str
    intensity: int = limited(low=0, high=3)
    source: str = required()
    start_seconds: float = limited(low=0, high=1e9)
    frames: int = limited(low=1, high=MAX_FRAMES)
    size: int = limited(low=MASK_CELL, high=8192)
    split: str = required()
    group: str = required()
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
    """The labels of every frame of a clip; positions in pixels of its frames, continuous, (0, 0) the top left corner.

    landmarks: n 68 2, iBUG order; head_keypoints: n 8 2, see face.keypoints; expression: n 64; pose: n 3, yaw, pitch, roll in
    degrees as face.detection.FaceTrack has them; all float32. mouth_mask, face_mask: n size/8 size/8, uint8, how much of each
    cell lies inside the lips' outline and the face's, 255 is all. interpolated: n bool, frames in which no face was found and
    whose labels are interpolated. A label that `ClipInfo.unknown` names is NaN. lids: n 2, the image's left and right lid,
    0 open .. 1 closed, and gaze: n 2, right and down, -1 .. 1, float32; both of synthetic people only, None in clips of videos
    and in data sets of versions that did not store them.
    """

    landmarks: np.ndarray
    head_keypoints: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    mouth_mask: np.ndarray
    face_mask: np.ndarray
    interpolated: np.ndarray
    lids: np.ndarray | None = None
    gaze: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.interpolated)


OPTIONAL_LABELS = ("lids", "gaze")


def check_labels(labels: ClipLabels, frames: int, size: int, name: str = "labels") -> None:
    """Raises PortraitError unless every array has its shape and type for a clip of `frames` frames of `size` pixels."""
    cells = size // MASK_CELL
    expected = {
        "landmarks": ((frames, 68, 2), "float32"),
        "head_keypoints": ((frames, 8, 2), "float32"),
        "expression": ((frames, 64), "float32"),
        "pose": ((frames, 3), "float32"),
        "mouth_mask": ((frames, cells, cells), "uint8"),
        "face_mask": ((frames, cells, cells), "uint8"),
        "interpolated": ((frames,), "bool"),
        "lids": ((frames, 2), "float32"),
        "gaze": ((frames, 2), "float32"),
    }
    for item in fields(labels):
        found = getattr(labels, item.name)
        if found is None and item.name in OPTIONAL_LABELS:
            continue
        if (found.shape, str(found.dtype)) != expected[item.name]:
            raise PortraitError(
                f"{name}: {item.name} is {found.dtype} {found.shape}, {expected[item.name][1]} {expected[item.name][0]} is "
                f"needed for {frames} frames of {size} pixels: prepare the data again"
            )


@dataclass(frozen=True)
class ClipMotion:
    """A clip's motion in LivePortrait's space, beside its labels: all float32, angles, shift and so on as in `types.Motion`.

    angles: n 3; shift: n 2; scale: n; expression: n 3k, 63 with the published networks; face: k 3, the points at rest.
    """

    angles: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    expression: np.ndarray
    face: np.ndarray

    def __len__(self) -> int:
        return len(self.scale)


def check_motion(motion: ClipMotion, frames: int, name: str = "motion") -> None:
    """Raises PortraitError unless every array has its shape and type for a clip of `frames` frames and is finite."""
    points = motion.face.shape[0] if motion.face.ndim else 0
    expected = {
        "angles": (frames, 3),
        "shift": (frames, 2),
        "scale": (frames,),
        "expression": (frames, 3 * points),
        "face": (points, 3),
    }
    for item in fields(motion):
        found = getattr(motion, item.name)
        if (found.shape, str(found.dtype)) != (expected[item.name], "float32") or not np.isfinite(found).all():
            raise PortraitError(
                f"{name}: {item.name} is {found.dtype} {found.shape}, finite float32 {expected[item.name]} is needed for "
                f"{frames} frames: prepare the data again"
            )


@dataclass(frozen=True)
class Sample:
    """A finished clip: its name in the shards, description and the bytes of its members by ending."""

    key: str
    info: ClipInfo
    members: dict[str, bytes]


@dataclass(frozen=True)
class Skipped:
    """A part of a video that gave no clip. start: seconds; reason: one of REASONS; detail: the numbers behind it."""

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


LAYOUTS = ("auto", "mead", "hdtf", "folders")
BACKENDS = ("built-in", "insightface", "mediapipe", "classical")
ONE_FACE = "one"  # skip segments that show several
FACES = (*FACE_CHOICES, ONE_FACE)
SPACES = (SVP, LIVEPORTRAIT)
OF_BACKEND, DEEP3D = "backend", "deep3d"  # the source of the expression coefficients
MAX_PEOPLE, MAX_CLIPS = 10**6, 10**4  # of a split; of a person: their numbers have to fit into keys
MAX_SHARD = 10**6
MAX_SIZE, MAX_SECONDS = 2048, 60.0  # all frames of a clip are in memory at once


@dataclass(frozen=True)
class OutputOptions:
    """size: pixels per side; seconds: of the longest clip; crf: quality of the video; shard_mb (10^6 bytes) and shard_clips (0: any
    number): when a shard is full; audio_encoder: a folder in the format of transformers, "" for no features."""

    size: int = 512
    seconds: float = 10.0
    crf: int = 12
    shard_mb: int = 256
    shard_clips: int = 0
    audio_encoder: str = ""

    def __post_init__(self) -> None:
        if not 64 <= self.size <= MAX_SIZE or self.size % 16:
            raise PortraitError(f"--size is {self.size}: it must be a multiple of 16 from 64 to {MAX_SIZE}")
        if not MIN_FRAMES / FPS <= self.seconds <= MAX_SECONDS:
            raise PortraitError(f"--seconds is {self.seconds:g}: it must be from {MIN_FRAMES / FPS} to {MAX_SECONDS:g}")
        if not 0 <= self.crf <= 51:
            raise PortraitError(f"--crf is {self.crf}: it must be from 0 (lossless) to 51 (worst)")
        if not (1 <= self.shard_mb <= MAX_SHARD and 0 <= self.shard_clips <= MAX_SHARD):
            raise PortraitError(
                f"--shard-mb is {self.shard_mb} and --shard-clips {self.shard_clips}: they must be from 1 and 0 to {MAX_SHARD}"
            )

    @property
    def frames(self) -> int:
        """Frames of the longest clip."""
        return round(self.seconds * FPS)

    @property
    def cells(self) -> int:
        """Cells per side of a mask."""
        return self.size // MASK_CELL


@dataclass(frozen=True)
class ClipLimits(Checked):
    """Thresholds that decide which parts of a video become clips.

    shot_min_change, shot_ratio: see segments.detect_shots. max_gap: frames without the face that are bridged; a longer gap ends
    a segment. second_face_area: of the chosen face's area, a smaller face is in the background; max_second_face: share of the
    frames that may show a second face, since detectors err. max_outside: share of the crop outside the frame.
    min_audio_level: of the loudest sample. max_missing_audio: share of a clip that may lack audio at its end. min_change:
    median change from frame to frame, of 255, below which a clip is a still.
    """

    shot_min_change: float = limited(6.0, 0, 255)
    shot_ratio: float = limited(4.0, 0, 1e6)  # heads that turn fast reach 3.3
    max_gap: int = limited(12, 0, MAX_FRAMES)
    second_face_area: float = limited(0.25, 0, 1e6)
    max_second_face: float = limited(0.1, 0, 1)
    max_outside: float = limited(1 / 3, 0, 1)
    min_audio_level: float = limited(1e-4, 0, 1)
    max_missing_audio: float = limited(0.1, 0, 1)
    min_change: float = limited(0.05, 0, 255)


@dataclass(frozen=True)
class VideoOptions:
    """How videos are processed.

    layout: one of LAYOUTS; views: camera positions of MEAD; test_identities: people of the test split, none: a share
    `test_share` of all, chosen by a hash of their names. backend, expression, smoothing: how faces are found and measured; face,
    face_index: which of several faces, one of FACES. min_face: least size of a face in pixels of the video, 0: a quarter of the
    output's size. margin: side of the crop, in faces (see `face.crop`). space: `liveportrait` also stores each clip's motion in
    LivePortrait's space.
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
    limits: ClipLimits = ClipLimits()
    space: str = SVP

    def __post_init__(self) -> None:
        for name, value, known in (
            ("layout", self.layout, LAYOUTS),
            ("backend", self.backend, BACKENDS),
            ("expression", self.expression, (OF_BACKEND, DEEP3D)),
            ("face", self.face, FACES),
            ("space", self.space, SPACES),
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
class SyntheticOptions:
    """Synthetic data: train and test people, clips of each, and the seed that chooses emotions and sentences.

    takes: further performances of each clip without video, by the same person in the same style with other words. Styles are
    learnt from them at a fraction of the cost of rendering. version: of the pictures, 1 drawings, 2 looks like photographs.
    """

    speakers: int = TRAIN_SPEAKERS
    test_speakers: int = TEST_SPEAKERS
    clips_per_speaker: int = 8
    seed: int = 0
    takes: int = 0
    version: int = 1

    def __post_init__(self) -> None:
        for name, least, most in (
            ("speakers", 0, MAX_PEOPLE),
            ("test_speakers", 0, MAX_PEOPLE),
            ("clips_per_speaker", 1, MAX_CLIPS),
            ("takes", 0, MAX_CLIPS),
            ("seed", 0, LARGEST_SEED),
        ):
            if not least <= getattr(self, name) <= most:
                option = name.replace("_", "-")
                raise PortraitError(f"--{option} is {getattr(self, name)}: it must be from {least} to {most}")
        if self.version not in VERSIONS:
            raise PortraitError(
                f"--synthetic-version is {self.version}: it must be one of {', '.join(map(str, VERSIONS))}"
            )
        if self.speakers + self.test_speakers == 0:
            raise PortraitError("0 speakers were requested: --speakers or --test-speakers must be at least 1")


@dataclass(frozen=True)
class PrepareConfig:
    """A preparation: the output, and either videos or synthetic people (the other is None)."""

    output: OutputOptions
    videos: VideoOptions | None = None
    synthetic: SyntheticOptions | None = None

    def for_videos(self) -> VideoOptions:
        """The options for videos; PortraitError where there are none."""
        if self.videos is None:
            raise PortraitError("this data set is of synthetic people: it has no options for videos")
        return self.videos

    def for_synthetic(self) -> SyntheticOptions:
        """The options for synthetic people; PortraitError where there are none."""
        if self.synthetic is None:
            raise PortraitError("this data set is of videos: it has no options for synthetic people")
        return self.synthetic
