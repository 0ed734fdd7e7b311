"""Training samples: the clips of a prepared data set in the model's terms, and which of them each step sees.

What a step sees is a pure function of seed, phase, step and position in the batch, whatever the number of processes. The style
extractor is later given expressions from a face analyser, so Expressions can hold an analyser's predictions instead of labels.
"""

from __future__ import annotations

import hashlib
import signal
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import AudioConfig
from ..data.schema import (
    AUDIO,
    FEATURES,
    FPS,
    LABELS,
    MOTION,
    VIDEO,
    ClipLabels,
    ClipMotion,
    check_labels,
    check_motion,
)
from ..data.shards import (
    SampleEntry,
    decode_audio,
    decode_features,
    decode_frames,
    decode_labels,
    decode_motion,
    open_manifest,
    read_member,
)
from ..errors import PortraitError
from ..evaluation.evaluator import PredictionError
from ..face.detectors.built_in import FaceAnalyzer
from ..io.progress import Progress
from ..networks.audio_encoder import mel_features
from ..signals import NUMBERS
from ..types import LIVEPORTRAIT, SVP, Audio
from .checkpoint import write_atomically
from .logger import Report

CACHED_CLIPS = 8192  # whose labels and features stay in memory
REPORT_EVERY = 200  # clips
SHARED = -1  # the position that stands for the whole batch of a step

Sample = dict[str, Tensor]


class Clips:
    """The clips of one split, counted from 0; `info` describes them, `with_video` are those that have a video.

    config: the audio features of the model; mel features are computed, others have to be in the data set. cache: a folder in
    which the decoded frames of all clips are stored, which pays for small frames and many epochs; None decodes every time.
    space: of the expressions, those of the labels or, in LivePortrait's space, those of the motions.
    """

    def __init__(
        self, folder: Path | str, split: str, config: AudioConfig, cache: Path | None = None, space: str = SVP
    ):
        self.manifest, self.split, self.config, self.space = open_manifest(folder), split, config, space
        entries = self.manifest.samples(split)
        if not entries:
            raise PortraitError(f"{folder}: it holds no clips of the {split} split: prepare more people")
        self._shards = [shard for shard, _ in entries]
        self.info: list[SampleEntry] = [sample for _, sample in entries]
        self.size, self.fps = int(self.manifest.metadata["options"]["output"]["size"]), float(FPS)
        self.version = f"{self.manifest.metadata['synthetic']}/{self.manifest.metadata['sources']['digest'][:16]}"
        self.with_video = [number for number, info in enumerate(self.info) if VIDEO in info.members]
        self.labels = lru_cache(CACHED_CLIPS)(self._labels)
        self.motion = lru_cache(CACHED_CLIPS)(self._motion)
        self._cached_features = lru_cache(CACHED_CLIPS)(self._features)
        self._decoded = None if cache is None else self._decode(cache / f"{split}-{self.size}.npy")

    def by_shard(self, numbers: Sequence[int]) -> list[list[int]]:
        """These clips, grouped by the shard that holds them."""
        groups: dict[str, list[int]] = {}
        for number in numbers:
            groups.setdefault(self._shards[number].name, []).append(number)
        return list(groups.values())

    def pixels(self, clip: int, frames: Sequence[int]) -> np.ndarray:
        """Frames of a clip, in rising order: n h w 3, uint8 RGB."""
        if self._decoded is not None:
            return self._decoded[self._first[clip] + np.asarray(frames)]
        first, last = frames[0], frames[-1]
        found = decode_frames(self._member(clip, VIDEO), first, last - first + 1)
        return found[np.asarray(frames) - first]

    def frames(self, clip: int, frames: Sequence[int]) -> Tensor:
        """Frames of a clip: n 3 h w in [-1, 1]."""
        return rearrange(torch.from_numpy(self.pixels(clip, frames)), "n h w c -> n c h w").float() / 127.5 - 1

    def audio(self, clip: int) -> Audio:
        """The audio of a whole clip, 16 kHz."""
        return decode_audio(self._member(clip, AUDIO))

    def features(self, clip: int, rows_per_frame: int = 1) -> Tensor:
        """Audio features of a clip: (frames x rows_per_frame) x F, float32."""
        return self._cached_features(clip, rows_per_frame).float()

    def expression(self, clip: int) -> np.ndarray:
        """Expression coefficients of a clip from its labels or motion: n 64 or 63; PortraitError where they are unknown."""
        if self.space == LIVEPORTRAIT:
            return self.motion(clip).expression
        found = self.labels(clip).expression
        if not np.isfinite(found).all():
            raise PortraitError(
                f"{self.info[clip].key} has no expression coefficients: prepare the data with --expression deep3d"
            )
        return found

    def _member(self, clip: int, ending: str) -> bytes:
        return read_member(self.manifest.folder, self._shards[clip], self.info[clip], ending)

    def _labels(self, clip: int) -> ClipLabels:
        info = self.info[clip]
        labels = decode_labels(self._member(clip, LABELS))
        check_labels(labels, info.frames, self.size, info.key)
        return labels

    def _motion(self, clip: int) -> ClipMotion:
        """The motion of a clip in LivePortrait's space; PortraitError where the data set has none."""
        info = self.info[clip]
        if MOTION not in info.members:
            raise PortraitError(
                f"{info.key} has no motion in LivePortrait's space: prepare the data with --space liveportrait"
            )
        motion = decode_motion(self._member(clip, MOTION))
        check_motion(motion, info.frames, info.key)
        return motion

    def _features(self, clip: int, rows_per_frame: int) -> Tensor:
        rows = self.info[clip].frames * rows_per_frame
        if self.config.features == "mel":
            return mel_features(self.audio(clip), rows, self.fps * rows_per_frame).half()
        found = torch.from_numpy(decode_features(self._member(clip, FEATURES)))
        stored, rest = divmod(len(found), self.info[clip].frames)
        if not stored or rest or stored % rows_per_frame or found.shape[1] != self.config.feature_size:
            raise PortraitError(
                f"{self.info[clip].key} has {stored} rows of {found.shape[1]} audio features per frame, the model reads "
                f"{rows_per_frame} of {self.config.feature_size}: prepare the data with its audio encoder"
            )
        return found.unflatten(0, (rows, -1)).float().mean(1).half()

    def _decode(self, path: Path) -> np.ndarray:
        """All frames of the clips with video, decoded once into `path`: n h w 3, uint8, mapped into memory."""
        counts = [self.info[clip].frames for clip in self.with_video]
        starts = np.concatenate([[0], np.cumsum(counts)])
        self._first = {clip: int(start) for clip, start in zip(self.with_video, starts[:-1], strict=True)}
        shape = (int(starts[-1]), self.size, self.size, 3)
        if not path.exists():
            write_atomically(path, lambda partial: self._write_decoded(partial, shape))
        try:
            found = np.load(path, mmap_mode="r")
        except (ValueError, OSError) as error:
            raise PortraitError(
                f"{path}: not the frames of the data ({error}): remove it, it is written again"
            ) from error
        if found.shape != shape:
            raise PortraitError(f"{path} holds frames {found.shape}, the data {shape}: it is of other data, remove it")
        return found

    def _write_decoded(self, path: Path, shape: tuple[int, ...]) -> None:
        """Written, not mapped: a full disk is then an error and does not kill the process."""
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for clip in self.with_video:
                frames = decode_frames(self._member(clip, VIDEO))
                expected = (self.info[clip].frames, *shape[1:])
                if frames.shape != expected:
                    raise PortraitError(
                        f"{self.info[clip].key} has frames {frames.shape}, the manifest says {expected}: prepare the data again"
                    )
                file.write(np.ascontiguousarray(frames).data)


@dataclass(frozen=True)
class SampleIndex:
    """One sample of one step. position: in the step's batch of `batch_size` samples, over all processes."""

    seed: int
    phase: str
    step: int
    position: int
    batch_size: int

    def rng(self) -> np.random.Generator:
        """The randomness of this sample."""
        return step_rng(self.seed, self.phase, self.step, self.position)

    def shared_rng(self) -> np.random.Generator:
        """The randomness that all samples of the step share."""
        return step_rng(self.seed, self.phase, self.step, SHARED)


def step_rng(seed: int, phase: str, step: int, position: int) -> np.random.Generator:
    """A resumed run gets the same random numbers as an uninterrupted one."""
    return np.random.default_rng([seed, zlib.crc32(phase.encode()), step, position + 1])


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    """A torch generator seeded from a numpy one."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def positions_of(process: int, processes: int, batch_size: int) -> range:
    """The positions in the batch that a process works on: neighbouring ones, the same number in every process."""
    share = batch_size // processes
    return range(process * share, (process + 1) * share)


class SampleSource(Protocol):
    """What samples come from: a training phase."""

    name: str

    def sample(self, index: SampleIndex) -> Sample:
        """The sample at one position of one step's batch; all its randomness comes from the index."""
        ...


class _Samples(Dataset):
    def __init__(self, source: SampleSource):
        self.source = source

    def __getitem__(self, index: SampleIndex) -> Sample:
        return self.source.sample(index)


class _StepSampler(Sampler):
    """The sample indices of one process's part of every step."""

    def __init__(self, seed: int, phase: str, steps: range, positions: range, batch_size: int):
        super().__init__()
        self.seed, self.phase, self.steps, self.positions, self.batch_size = seed, phase, steps, positions, batch_size

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        for step in self.steps:
            yield [SampleIndex(self.seed, self.phase, step, position, self.batch_size) for position in self.positions]

    def __len__(self) -> int:
        return len(self.steps)


def stack(samples: Sequence[Sample]) -> Sample:
    """Samples with the same keys and shapes -> one batch along a new first axis."""
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def step_loader(
    source: SampleSource, seed: int, steps: range, positions: range, batch_size: int, num_workers: int
) -> DataLoader:
    """The batches of the given steps for one process, made in `num_workers` processes."""
    sampler = _StepSampler(seed, source.name, steps, positions, batch_size)
    return DataLoader(
        _Samples(source),
        batch_sampler=sampler,
        collate_fn=stack,
        num_workers=num_workers,
        worker_init_fn=_ignore_signals,
    )


def _ignore_signals(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach all processes of a run. The training process stops with a checkpoint and ends
    its data workers; if these ended first, it would fail instead."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


class ShardSampler:
    """The order in which a phase goes through the samples of shards.

    Every epoch has its own order: shards shuffled, then the samples of each. Position p of P goes through the p-th of P equal
    parts of it, so that it stays in one shard for long and no two positions see the same sample within an epoch.
    """

    def __init__(self, shards: Sequence[Sequence[int]], seed: int, batch_size: int):
        """shards: numbers of the samples in each."""
        self.shards, self.seed, self.batch_size = [list(shard) for shard in shards if shard], seed, batch_size
        self.count = sum(map(len, self.shards))
        if not self.count:
            raise PortraitError("no clip of the data set has video: prepare videos, or synthetic people with clips")
        self.length = max(1, self.count // batch_size)  # turns of a position in one epoch; the rest waits for the next
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def sample(self, turn: int, position: int) -> int:
        """The number of the sample that a position sees at its turn (counted from 0 over all epochs)."""
        epoch, offset = divmod(turn, self.length)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            order = [rng.permutation(self.shards[shard]) for shard in rng.permutation(len(self.shards))]
            self._epoch, self._order = epoch, np.concatenate(order)
        return int(self._order[(position * self.length + offset) % self.count])


class Expressions:
    """The expression coefficients that the style phases learn from: those of the labels, or a face analyser's predictions.

    predictions: clip -> n 64, for the clips with video; the labels of the others get the analyser's usual errors.
    """

    def __init__(self, clips: Clips, predictions: dict[int, np.ndarray] | None = None):
        self.clips, self.predictions = clips, predictions
        if predictions is not None:
            true = [clips.expression(clip) for clip in predictions]
            self.error = PredictionError.between(list(predictions.values()), true)

    def __call__(self, clip: int, rng: np.random.Generator) -> torch.Tensor:
        """n x 64, float32."""
        if self.predictions is None:
            return torch.from_numpy(self.clips.expression(clip))
        found = self.predictions.get(clip)
        return torch.from_numpy(self.error.add_to(self.clips.expression(clip), rng) if found is None else found)


def predict_expressions(
    clips: Clips, analyzer: bytes, folder: Path, report: Report, progress: Progress | None = None
) -> Expressions:
    """Runs the face analyser on all clips with video; the predictions are stored in the folder. progress(clips done, clips)."""
    digest = hashlib.sha256(analyzer + clips.version.encode()).hexdigest()[:16]
    path = folder / f"{clips.split}-{digest}.npz"
    if not path.exists():
        face, found = FaceAnalyzer(analyzer), {}
        for clip in clips.with_video:
            found[str(clip)] = face.analyze(clips.pixels(clip, range(clips.info[clip].frames))).expression
            if progress is not None:
                progress(len(found), len(clips.with_video))
            if len(found) % REPORT_EVERY == 0:
                report(f"expressions of {len(found)} of {len(clips.with_video)} clips predicted")
        write_atomically(path, lambda partial: _save(partial, found))
    with np.load(path, allow_pickle=False) as stored:
        return Expressions(clips, {int(name): stored[name] for name in stored.files})


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with path.open("wb") as file:  # a file and not a name, to which numpy would add an ending
        np.savez(file, **arrays)
