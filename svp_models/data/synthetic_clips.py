"""Synthetic clips in the same format as those of videos, with exact labels from the renderer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..synthetic.clips import Clip, act, make_clip
from ..synthetic.identity import FaceStates
from ..synthetic.performance import EMOTIONS, INTENSITIES
from ..synthetic.speakers import SPLITS, speaker
from .extract import Preprocessors, sample_of
from .labels import coverage, shrink
from .schema import FPS, MASK_CELL, ClipInfo, ClipLabels, PrepareConfig, Sample, SyntheticOptions

WITHOUT_VIDEO = ("landmarks", "head_keypoints")  # labels that a take without video lacks
INTENSITY_PROBS = (0.15, 0.2, 0.65)  # mostly strong: weak emotions are hard to tell apart


@dataclass(frozen=True)
class SyntheticPerson:
    """All clips of one synthetic person. id: 12 characters, like that of a video."""

    id: str
    index: int
    split: str

    @property
    def digest_text(self) -> str:
        """The text that enters a data set's digest, as in version 0.1.0."""
        return f"DrawnPerson(id={self.id!r}, index={self.index!r}, split={self.split!r})"


@dataclass(frozen=True)
class Role:
    """One clip of a person: the performance, and the seed of the clip."""

    emotion: str
    intensity: int
    seed: int


def synthetic_people(options: SyntheticOptions) -> list[SyntheticPerson]:
    counts = dict(zip(SPLITS, (options.speakers, options.test_speakers), strict=True))
    return [
        SyntheticPerson(f"{split}-{index:0{11 - len(split)}}", index, split)
        for split, count in counts.items()
        for index in range(count)
    ]


def roles(person: SyntheticPerson, options: SyntheticOptions) -> list[Role]:
    """The clips of a person: every emotion once, in random order, before any is repeated; mostly strong ones."""
    rng = np.random.default_rng((options.seed, SPLITS.index(person.split), person.index))
    found: list[Role] = []
    while len(found) < options.clips_per_speaker:
        for emotion in rng.permutation(len(EMOTIONS)):
            intensity = int(rng.choice(INTENSITIES, p=INTENSITY_PROBS))
            found.append(Role(EMOTIONS[emotion], intensity, int(rng.integers(2**31))))
    return found[: options.clips_per_speaker]


def synthetic_clips(
    person: SyntheticPerson, config: PrepareConfig, preprocessors: Preprocessors, scratch: Path
) -> Iterator[Sample]:
    """The clips of a person, `config.output.frames` frames each."""
    performer, output = speaker(person.index, person.split), config.output
    options = config.for_synthetic()
    for number, role in enumerate(roles(person, options)):
        seconds = output.frames / FPS
        clip = make_clip(
            performer, role.emotion, role.intensity, role.seed, seconds, float(FPS), output.size, options.version
        )
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
            feature_rows=preprocessors.feature_rows,
        )
        key = f"{person.id}-{number:06}"
        yield sample_of(key, info, clip.images, clip.audio, synthetic_labels(clip), config, preprocessors, scratch)
        for take in range(1, options.takes + 1):
            text, speech, states = act(
                performer, role.emotion, role.intensity, role.seed + take, output.frames, float(FPS)
            )
            source, group = f"{info.source}/take {take}", f"{info.group}-{take}"
            take_info = replace(info, source=source, group=group, text=text, unknown=WITHOUT_VIDEO)
            labels = performed_labels(states, output.size)
            yield sample_of(f"{key}-{take}", take_info, None, speech.waveform, labels, config, preprocessors, scratch)


def performed_labels(states: FaceStates, size: int) -> ClipLabels:
    """Labels of a take without video: expression, pose, lids and gaze as performed; WITHOUT_VIDEO are NaN, the masks 0."""
    count, cells = len(states.expression), size // MASK_CELL
    return ClipLabels(
        landmarks=np.full((count, 68, 2), np.nan, np.float32),
        head_keypoints=np.full((count, 8, 2), np.nan, np.float32),
        expression=np.float32(states.expression),
        pose=np.float32(states.pose[:, :3]),
        mouth_mask=np.zeros((count, cells, cells), np.uint8),
        face_mask=np.zeros((count, cells, cells), np.uint8),
        interpolated=np.zeros(count, bool),
        lids=np.float32(states.blink),
        gaze=np.float32(states.gaze),
    )


def synthetic_labels(clip: Clip) -> ClipLabels:
    """Exact labels of a synthetic clip: the renderer's face mask, and the area inside the lips' outline."""
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
        lids=np.float32(clip.states.blink),
        gaze=np.float32(clip.states.gaze),
    )
