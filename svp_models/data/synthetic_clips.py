"""Procedural clips in the same format: labels are what the faces were drawn from, nothing is tracked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..synthetic.clips import Clip, act, make_clip
from ..synthetic.identity import FaceStates
from ..synthetic.performance import EMOTIONS, INTENSITIES
from ..synthetic.speakers import SPLITS, speaker
from .extract import Instruments, sample_of
from .labels import coverage, shrink
from .schema import FPS, MASK_CELL, ClipInfo, ClipLabels, DrawnOptions, Recipe, Sample

NOT_PERFORMED = ("landmarks", "head_keypoints")  # labels that a take without pictures lacks
STRONG = (0.15, 0.2, 0.65)  # chances of the intensities: weak emotions alone would leave the style space undecided


@dataclass(frozen=True)
class DrawnPerson:
    """All clips of one synthetic person. id: 12 characters, as a film's."""

    id: str
    index: int
    split: str


@dataclass(frozen=True)
class Role:
    """One clip of a person: what is performed, and the seed that make_clip takes."""

    emotion: str
    intensity: int
    seed: int


def drawn_people(options: DrawnOptions) -> list[DrawnPerson]:
    counts = dict(zip(SPLITS, (options.speakers, options.test_speakers), strict=True))
    return [
        DrawnPerson(f"{split}-{index:0{11 - len(split)}}", index, split)
        for split, count in counts.items()
        for index in range(count)
    ]


def roles(person: DrawnPerson, options: DrawnOptions) -> list[Role]:
    """The clips of a person: every emotion once, in random order, before any is shown again; mostly strong ones."""
    rng = np.random.default_rng((options.seed, SPLITS.index(person.split), person.index))
    shown: list[Role] = []
    while len(shown) < options.clips_per_speaker:
        for emotion in rng.permutation(len(EMOTIONS)):
            intensity = int(rng.choice(INTENSITIES, p=STRONG))
            shown.append(Role(EMOTIONS[emotion], intensity, int(rng.integers(2**31))))
    return shown[: options.clips_per_speaker]


def drawn_clips(person: DrawnPerson, recipe: Recipe, instruments: Instruments, scratch: Path) -> Iterator[Sample]:
    """The clips of a person, `recipe.output.frames` frames each."""
    who, output = speaker(person.index, person.split), recipe.output
    for number, role in enumerate(roles(person, recipe.drawn)):
        seconds = output.frames / FPS
        clip = make_clip(who, role.emotion, role.intensity, role.seed, seconds, float(FPS), output.size)
        info = ClipInfo(
            identity=f"{person.split}-{person.index:05}",
            emotion=role.emotion,
            intensity=role.intensity,
            source=f"synthetic/{person.split}/{person.index}/{number}",
            start_seconds=0.0,
            frames=output.frames,
            size=output.size,
            split=person.split,
            group=f"{person.id}-{number}",
            text=clip.text,
            feature_rows=instruments.feature_rows,
        )
        key = f"{person.id}-{number:06}"
        yield sample_of(key, info, clip.images, clip.audio, drawn_labels(clip), recipe, instruments, scratch)
        for take in range(1, recipe.drawn.takes + 1):
            text, speech, states = act(who, role.emotion, role.intensity, role.seed + take, output.frames, float(FPS))
            source, group = f"{info.source}/take {take}", f"{info.group}-{take}"
            told = replace(info, source=source, group=group, text=text, unknown=NOT_PERFORMED)
            labels = performed_labels(states, output.size)
            yield sample_of(f"{key}-{take}", told, None, speech.waveform, labels, recipe, instruments, scratch)


def performed_labels(states: FaceStates, size: int) -> ClipLabels:
    """Labels of a take without pictures: expression and pose as performed; NOT_PERFORMED are NaN, the masks 0."""
    count, cells = len(states.expression), size // MASK_CELL
    return ClipLabels(
        landmarks=np.full((count, 68, 2), np.nan, np.float32),
        head_keypoints=np.full((count, 8, 2), np.nan, np.float32),
        expression=np.float32(states.expression),
        pose=np.float32(states.pose[:, :3]),
        mouth_mask=np.zeros((count, cells, cells), np.uint8),
        face_mask=np.zeros((count, cells, cells), np.uint8),
        interpolated=np.zeros(count, bool),
    )


def drawn_labels(clip: Clip) -> ClipLabels:
    """Labels of a drawn clip, exact: the face's mask is the one it was drawn with, the mouth's is the lips' outline."""
    size = clip.images.shape[1]
    lips = [coverage(points[48:60], size) for points in clip.landmarks]
    return ClipLabels(
        landmarks=np.float32(clip.landmarks),
        head_keypoints=np.float32(clip.head_keypoints),
        expression=np.float32(clip.states.expression),
        pose=np.float32(clip.states.pose[:, :3]),
        mouth_mask=np.stack(lips),
        face_mask=np.stack([shrink(mask, size // 8) for mask in clip.masks]),
        interpolated=np.zeros(len(clip.images), bool),
    )
