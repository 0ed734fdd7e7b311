"""Clips for motion generators: motions with their voices, styles and named movements, without images.

A folder holds `clips.json` (options and what is known of every clip) and arrays with a row per clip: `motion.npy` N n c, float32;
`voice.npy` N r 80, float16, the rows of a log-mel spectrogram around the clip (`mel_windows`); `style.npy` N 2 d, mean and
deviation of the clip's style; `portrait.npy` N p, the resting face of its person; `habits.npy` N 4; `prosody.npy` N k, of its voice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..diffusion.style import extract_style
from ..errors import PortraitError
from ..io.files import whole_file
from ..io.strict_config import LARGEST_SEED, Checked, limited
from ..media.prosody import prosody
from ..model import PortraitModel
from ..motion.words import TimedPhrase
from ..networks.audio_encoder import HOP, MEL_BANDS, MEL_ROWS, SAMPLE_RATE, mel_rows
from ..networks.motion_generator import HABITS
from ..synthetic.clips import act
from ..synthetic.identity import FaceStates
from ..synthetic.movements import VERSION, VOCABULARY, Movement, caption, sample_movements
from ..synthetic.performance import EMOTIONS, INTENSITIES, INTENSITY_SCALE, MOTION_STYLES, blend
from ..synthetic.speakers import SPLITS, Speaker, speaker
from ..types import Audio

FPS = 25.0
INDEX = "clips.json"
ARRAYS = ("motion", "voice", "style", "portrait", "habits", "prosody")
Rows = dict[str, np.ndarray]
INTENSITY_PROBS = (0.2, 0.3, 0.5)
REPORT_EVERY = 200


@dataclass(frozen=True)
class MotionDataOptions(Checked):
    """Synthetic clips. speakers: of the split; groups: emotions of one speaker with their intensities; takes: clips of
    each, which are examples of one another's style; seconds: of a clip; moved: share of the clips with named movements."""

    speakers: int = limited(256, 1, 100_000)
    groups: int = limited(4, 1, 24)
    takes: int = limited(3, 2, 100)
    seconds: float = limited(8.0, 2, 60)
    moved: float = limited(0.6, 0, 1)
    seed: int = limited(0, 0, LARGEST_SEED)

    @property
    def frames(self) -> int:
        return round(self.seconds * FPS)


@dataclass(frozen=True)
class MotionClipInfo:
    """What is known of a clip beside its arrays. group: clips of one group show one style of one person."""

    identity: str
    emotion: str
    intensity: int
    group: int
    phrases: tuple[TimedPhrase, ...] = ()
    frames: int = 0


@dataclass
class MotionClips:
    """The clips of a folder; arrays are memory-mapped."""

    folder: Path
    options: dict[str, Any]
    style_space: str
    info: list[MotionClipInfo]
    arrays: dict[str, np.ndarray]
    fps: float = FPS
    size: int = 0  # pixels: there are none
    groups: dict[int, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.groups = {}
        for number, info in enumerate(self.info):
            self.groups.setdefault(info.group, []).append(number)

    @property
    def version(self) -> str:
        return f"motion {json.dumps(self.options, sort_keys=True)}"

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The words that phrases of these clips may contain."""
        return VOCABULARY if any(info.phrases for info in self.info) else ()

    def motion(self, clip: int, frames: slice) -> Tensor:
        """n c"""
        return torch.from_numpy(np.array(self.arrays["motion"][clip, frames]))

    def voice(self, clip: int, first: int, frames: int) -> Tensor:
        """Audio features of frames from `first` on, frames x 1920, as `mel_features` gives them."""
        return torch.from_numpy(mel_windows(self.arrays["voice"][clip], first, frames))

    def row(self, name: str, clip: int) -> Tensor:
        """A clip's row of another array, float32."""
        return torch.from_numpy(np.array(self.arrays[name][clip], np.float32))


def mel_windows(rows: np.ndarray, first: int, frames: int, step: int = round(SAMPLE_RATE / FPS / HOP)) -> np.ndarray:
    """Rows r 80 from a clip's beginning -> the windows of its frames, frames x (24 x 80), float32."""
    index = (first + np.arange(frames))[:, None] * step + np.arange(MEL_ROWS)
    return rows[index].reshape(frames, MEL_ROWS * MEL_BANDS).astype(np.float32)


def mel_track(windows: np.ndarray, step: int = round(SAMPLE_RATE / FPS / HOP)) -> np.ndarray:
    """The inverse: windows of all frames n x (24 x 80) -> rows (n - 1) step + 24, 80."""
    rows = windows.reshape(len(windows), MEL_ROWS, MEL_BANDS)
    return np.concatenate([*rows[:-1, :step], rows[-1]])


def motion_numbers(states: FaceStates) -> np.ndarray:
    """A performance as the generator's numbers: expression 64, lids 2, gaze 2, yaw, pitch, roll, shift 2, scale, n 74."""
    return np.concatenate([states.expression, states.blink, states.gaze, states.pose], axis=1).astype(np.float32)


def states_of_numbers(numbers: np.ndarray) -> FaceStates:
    """And back, clipped to what a face can do."""
    expression, blink, gaze, pose = np.split(numbers.astype(np.float32), [64, 66, 68], axis=1)
    return FaceStates(expression, pose, np.clip(blink, 0, 1), np.clip(gaze, -1, 1))


def blink_rate(who: Speaker, emotion: str, intensity: int) -> float:
    """Blinks a second that a performance is asked for."""
    return who.habits.blink_rate * blend(MOTION_STYLES[emotion].blink, INTENSITY_SCALE[intensity])


def habits_of(who: Speaker, emotion: str, intensity: int, plain: FaceStates) -> np.ndarray:
    """HABITS of a performance; `plain`: the same without named movements."""
    values = np.array([blink_rate(who, emotion, intensity), *plain.pose[:, :3].std(axis=0)], np.float32)
    assert len(values) == len(HABITS)
    return values


@dataclass(frozen=True)
class Performance:
    """A performed clip before its style is known."""

    info: MotionClipInfo
    waveform: np.ndarray
    states: FaceStates
    portrait: np.ndarray
    habits: np.ndarray


def performances(options: MotionDataOptions, split: str = "train") -> list[tuple[Speaker, str, int, int, int]]:
    """(speaker, emotion, intensity, seed, group) of every clip, in order."""
    rng = np.random.default_rng((options.seed, SPLITS.index(split)))
    found = []
    for number in range(options.speakers):
        who = speaker(number, split)
        emotions = np.concatenate([rng.permutation(len(EMOTIONS)) for _ in range(-(-options.groups // len(EMOTIONS)))])
        for turn in range(options.groups):
            intensity = int(rng.choice(INTENSITIES, p=INTENSITY_PROBS))
            for _ in range(options.takes):
                group = number * options.groups + turn
                found.append((who, EMOTIONS[emotions[turn]], intensity, int(rng.integers(2**31)), group))
    return found


def perform_clip(
    who: Speaker, emotion: str, intensity: int, seed: int, group: int, seconds: float, moved: float
) -> Performance:
    """One clip; with the chance `moved` it has named movements. The seed decides everything."""
    rng, frames = np.random.default_rng((seed, 7)), round(seconds * FPS)
    movements: tuple[Movement, ...] = sample_movements(rng, seconds) if rng.random() < moved else ()
    _, speech, states = act(who, emotion, intensity, seed, frames, FPS, movements)
    plain = act(who, emotion, intensity, seed, frames, FPS)[2] if movements else states
    phrases = tuple(TimedPhrase(caption(movement, rng), movement.start, movement.end) for movement in movements)
    info = MotionClipInfo(f"{who.split}-{who.index:05}", emotion, intensity, group, phrases, frames)
    habits = habits_of(who, emotion, intensity, plain)
    return Performance(info, speech.waveform, states, who.habits.rest.astype(np.float32), habits)


def style_rows(model: PortraitModel, performance: Performance) -> np.ndarray:
    """Mean and deviation of a performance's style, as the model's extractor reads it from expression and voice: 2 d."""
    audio = Audio(torch.from_numpy(performance.waveform)[None], SAMPLE_RATE)
    prior = extract_style(model, torch.from_numpy(performance.states.expression), audio, FPS)
    return np.stack([prior.mu.numpy(), prior.sigma.numpy()])


def prepare_synthetic_motion(
    folder: Path,
    options: MotionDataOptions,
    model: PortraitModel,
    split: str = "train",
    report: Callable[[str], None] = print,
    check_stop: Callable[[], None] | None = None,
) -> None:
    """Performs all clips into the folder, whose index is written last; a finished folder stays as it is."""
    if (folder / INDEX).exists():
        return
    cast = performances(options, split)

    def clips() -> Iterator[tuple[MotionClipInfo, Rows]]:
        for who, emotion, intensity, seed, group in cast:
            done = perform_clip(who, emotion, intensity, seed, group, options.seconds, options.moved)
            rows = {
                "motion": motion_numbers(done.states),
                "voice": mel_track(mel_rows(done.waveform, 0, options.frames, FPS).numpy()).astype(np.float16),
                "style": style_rows(model, done),
                "portrait": done.portrait,
                "habits": done.habits,
                "prosody": prosody(done.waveform),
            }
            yield done.info, rows
            if check_stop is not None:
                check_stop()

    write_motion_clips(folder, clips(), len(cast), {**asdict(options), "version": VERSION}, model.style_space, report)


def write_motion_clips(
    folder: Path,
    clips: Iterator[tuple[MotionClipInfo, Rows]],
    count: int,
    options: dict[str, Any],
    style_space: str,
    report: Callable[[str], None] = print,
) -> None:
    """Writes `count` clips with their rows (names as ARRAYS) and then the index."""
    folder.mkdir(parents=True, exist_ok=True)
    info: list[MotionClipInfo] = []
    maps: dict[str, np.memmap] = {}
    for number, (clip, rows) in enumerate(clips):
        info.append(clip)
        for name, row in rows.items():
            if name not in maps:
                shape = (count, *row.shape)
                maps[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", row.dtype, shape)
            maps[name][number] = row
        if len(info) % REPORT_EVERY == 0:
            report(f"{len(info)} of {count} clips")
    for array in maps.values():
        array.flush()
    values = {"options": options, "style_space": style_space, "clips": [asdict(item) for item in info]}
    with whole_file(folder / INDEX) as temporary:
        temporary.write_text(json.dumps(values), encoding="utf-8")


def open_motion_clips(folder: Path) -> MotionClips:
    """The clips of a folder; PortraitError where it holds none."""
    try:
        values = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        info = [
            MotionClipInfo(**{**clip, "phrases": tuple(TimedPhrase(**phrase) for phrase in clip["phrases"])})
            for clip in values["clips"]
        ]
        return MotionClips(folder, values["options"], values["style_space"], info, arrays)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PortraitError(f"{folder}: no prepared motion clips ({error}): remove it, it is made again") from error
