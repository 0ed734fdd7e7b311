"""What the phases read of a prepared dataset: pictures, labels and audio features of any clip, in the model's terms.

Which samples a step sees: a pure function of seed, phase, step and place, whatever the number of processes or workers.

Expression coefficients as a face analyser reads them: what the style extractor will be given when it is used.
"""

from __future__ import annotations

import hashlib
import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import AudioConfig
from ..data.schema import AUDIO, FEATURES, FPS, LABELS, VIDEO, ClipLabels, check_labels
from ..data.shards import (
    SampleEntry,
    decode_audio,
    decode_features,
    decode_frames,
    decode_labels,
    open_manifest,
    read_member,
)
from ..errors import PortraitError
from ..evaluation.evaluator import PredictionError
from ..face.detectors.built_in import FaceAnalyzer
from ..io.progress import Progress
from ..io.signals import NUMBERS
from ..networks.audio_encoder import mel_features
from ..types import Audio
from .checkpoint import write_atomically
from .logger import Report

RECENT = 8192  # clips whose labels and features stay in memory


class Clips:
    """The clips of one split, counted from 0; `info` describes them, `pictured` are those that have pictures.

    config: how the model hears: mel features are computed, others have to be in the dataset. cache: a folder in which the
    decoded frames of all clips are kept, which pays for small pictures and many epochs; None decodes at every reading.
    """

    def __init__(self, folder: Path | str, split: str, config: AudioConfig, cache: Path | None = None):
        self.manifest, self.split, self.config = open_manifest(folder), split, config
        entries = self.manifest.samples(split)
        if not entries:
            raise PortraitError(f"{folder}: it holds no clips of the {split} split: prepare more people")
        self._shards = [shard for shard, _ in entries]
        self.info: list[SampleEntry] = [sample for _, sample in entries]
        self.size, self.fps = int(self.manifest.card["options"]["output"]["size"]), float(FPS)
        self.version = f"{self.manifest.card['synthetic']}/{self.manifest.card['sources']['digest'][:16]}"
        self.pictured = [number for number, info in enumerate(self.info) if VIDEO in info.members]
        self.labels = lru_cache(RECENT)(self._labels)
        self._heard = lru_cache(RECENT)(self._features)
        self._decoded = None if cache is None else self._decode(cache / f"{split}-{self.size}.npy")

    def by_shard(self, numbers: Sequence[int]) -> list[list[int]]:
        """These clips, grouped by the shard they lie in."""
        groups: dict[str, list[int]] = {}
        for number in numbers:
            groups.setdefault(self._shards[number].name, []).append(number)
        return list(groups.values())

    def pixels(self, clip: int, frames: Sequence[int]) -> np.ndarray:
        """Frames of a clip, rising: n h w 3, uint8 RGB."""
        if self._decoded is not None:
            return self._decoded[self._first[clip] + np.asarray(frames)]
        first, last = frames[0], frames[-1]
        found = decode_frames(self._member(clip, VIDEO), first, last - first + 1)
        return found[np.asarray(frames) - first]

    def frames(self, clip: int, frames: Sequence[int]) -> Tensor:
        """Frames of a clip: n 3 h w in [-1, 1]."""
        return rearrange(torch.from_numpy(self.pixels(clip, frames)), "n h w c -> n c h w").float() / 127.5 - 1

    def sound(self, clip: int) -> Audio:
        """The sound of a whole clip, 16 kHz."""
        return decode_audio(self._member(clip, AUDIO))

    def features(self, clip: int, rows_per_frame: int = 1) -> Tensor:
        """Audio features of a clip: (frames x rows_per_frame) x F, float32."""
        return self._heard(clip, rows_per_frame).float()

    def expression(self, clip: int) -> np.ndarray:
        """Expression coefficients of a clip as its labels have them: n 64; PortraitError where nobody knows them."""
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

    def _features(self, clip: int, rows_per_frame: int) -> Tensor:
        rows = self.info[clip].frames * rows_per_frame
        if self.config.features == "mel":
            return mel_features(self.sound(clip), rows, self.fps * rows_per_frame).half()
        found = torch.from_numpy(decode_features(self._member(clip, FEATURES)))
        stored, rest = divmod(len(found), self.info[clip].frames)
        if not stored or rest or stored % rows_per_frame or found.shape[1] != self.config.feature_size:
            raise PortraitError(
                f"{self.info[clip].key} has {stored} rows of {found.shape[1]} audio features a frame, the model reads "
                f"{rows_per_frame} of {self.config.feature_size}: prepare the data with its audio encoder"
            )
        return found.unflatten(0, (rows, -1)).float().mean(1).half()

    def _decode(self, path: Path) -> np.ndarray:
        """All frames of the pictured clips, decoded once into `path`: n h w 3, uint8, mapped into memory."""
        counts = [self.info[clip].frames for clip in self.pictured]
        starts = np.concatenate([[0], np.cumsum(counts)])
        self._first = {clip: int(start) for clip, start in zip(self.pictured, starts[:-1], strict=True)}
        shape = (int(starts[-1]), self.size, self.size, 3)
        if not path.exists():
            write_atomically(path, lambda partial: self._write_decoded(partial, shape))
        try:
            found = np.load(path, mmap_mode="r")
        except (ValueError, OSError) as error:
            raise PortraitError(f"{path}: not the frames of the data ({error}): remove it, it is made again") from error
        if found.shape != shape:
            raise PortraitError(f"{path} holds frames {found.shape}, the data {shape}: it is of other data, remove it")
        return found

    def _write_decoded(self, path: Path, shape: tuple[int, ...]) -> None:
        """Written and not mapped: a disk that is full is then an error, and not the end of the process."""
        header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
        with path.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for clip in self.pictured:
                frames = decode_frames(self._member(clip, VIDEO))
                wanted = (self.info[clip].frames, *shape[1:])
                if frames.shape != wanted:
                    raise PortraitError(
                        f"{self.info[clip].key} has pictures {frames.shape}, the manifest says {wanted}: prepare the data again"
                    )
                file.write(frames)


Sample = dict[str, Tensor]
SHARED = -1  # the place of what all places of a step decide alike


@dataclass(frozen=True)
class Spot:
    """One place of one step's batch. places: how many there are, over all processes."""

    seed: int
    phase: str
    step: int
    place: int
    places: int

    def rng(self) -> np.random.Generator:
        """The randomness of this place."""
        return generator(self.seed, self.phase, self.step, self.place)

    def shared_rng(self) -> np.random.Generator:
        """The randomness that all places of the step share."""
        return generator(self.seed, self.phase, self.step, SHARED)


def generator(seed: int, phase: str, step: int, place: int) -> np.random.Generator:
    """A resumed run draws what the uninterrupted one would have drawn."""
    return np.random.default_rng([seed, zlib.crc32(phase.encode()), step, place + 1])


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    """A torch generator seeded from a numpy one."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def places_of(process: int, processes: int, places: int) -> range:
    """The places that a process works on: neighbouring ones, the same number in every process."""
    each = places // processes
    return range(process * each, (process + 1) * each)


class _Spots(Dataset):
    def __init__(self, draw: Callable[[Spot], Sample]):
        self.draw = draw

    def __getitem__(self, spot: Spot) -> Sample:
        return self.draw(spot)


class _Steps(Sampler):
    """The spots of one process's part of every step."""

    def __init__(self, seed: int, phase: str, steps: range, part: range, places: int):
        super().__init__()
        self.seed, self.phase, self.steps, self.part, self.places = seed, phase, steps, part, places

    def __iter__(self) -> Iterator[list[Spot]]:
        for step in self.steps:
            yield [Spot(self.seed, self.phase, step, place, self.places) for place in self.part]

    def __len__(self) -> int:
        return len(self.steps)


def stack(samples: Sequence[Sample]) -> Sample:
    """Samples with the same keys and shapes -> one batch, place first."""
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def step_loader(
    draw: Callable[[Spot], Sample], seed: int, phase: str, steps: range, part: range, places: int, workers: int
) -> DataLoader:
    """The batches of the given steps for one process: `draw` makes the sample of a spot, in `workers` processes of its own."""
    sampler = _Steps(seed, phase, steps, part, places)
    return DataLoader(
        _Spots(draw), batch_sampler=sampler, collate_fn=stack, num_workers=workers, worker_init_fn=_leave_signals
    )


def _leave_signals(worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach all processes of a run: the training one stops, with a checkpoint, and its readers
    with it; if they went first, it would fail instead."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)


class Order:
    """The order in which a phase goes through samples that lie in shards.

    Every epoch has its own: shards shuffled, then the samples of each. Place p of P goes through the p-th of P equal
    pieces of it, so that it stays in one shard for long and no two places see the same sample within an epoch.
    """

    def __init__(self, shards: Sequence[Sequence[int]], seed: int, places: int):
        """shards: numbers of the samples in each."""
        self.shards, self.seed, self.places = [list(each) for each in shards if each], seed, places
        self.count = sum(map(len, self.shards))
        if not self.count:
            raise PortraitError("no clip of the data has pictures: prepare films, or drawn people with clips")
        self.length = max(1, self.count // places)  # turns of a place in one epoch; a rest waits for the next
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def sample(self, turn: int, place: int) -> int:
        """The number of the sample that a place sees at its turn (counted from 0 over all epochs)."""
        epoch, offset = divmod(turn, self.length)
        if epoch != self._epoch:
            rng = np.random.default_rng([self.seed, epoch])
            order = [rng.permutation(self.shards[each]) for each in rng.permutation(len(self.shards))]
            self._epoch, self._order = epoch, np.concatenate(order)
        return int(self._order[(place * self.length + offset) % self.count])


REPORT_EVERY = 200  # clips


class Expressions:
    """The expression coefficients that the style phases read: the labels' own, or an analyser's readings of them.

    readings: of the pictured clips, by clip; the others, which have no pictures to read, get the analyser's usual errors.
    """

    def __init__(self, clips: Clips, readings: dict[int, np.ndarray] | None = None):
        self.clips, self.readings = clips, readings
        if readings is not None:
            true = [clips.expression(clip) for clip in readings]
            self.error = PredictionError.between(list(readings.values()), true)

    def __call__(self, clip: int, rng: np.random.Generator) -> torch.Tensor:
        """n x 64, float32."""
        if self.readings is None:
            return torch.from_numpy(self.clips.expression(clip))
        found = self.readings.get(clip)
        return torch.from_numpy(self.error.add_to(self.clips.expression(clip), rng) if found is None else found)


def read_expressions(
    clips: Clips, analyzer: bytes, folder: Path, report: Report, progress: Progress | None = None
) -> Expressions:
    """Has the analyser read all pictured clips; the readings are kept in the folder. progress(clips done, clips)."""
    digest = hashlib.sha256(analyzer + clips.version.encode()).hexdigest()[:16]
    path = folder / f"{clips.split}-{digest}.npz"
    if not path.exists():
        face, found = FaceAnalyzer(analyzer), {}
        for clip in clips.pictured:
            found[str(clip)] = face.analyze(clips.pixels(clip, range(clips.info[clip].frames))).expression
            if progress is not None:
                progress(len(found), len(clips.pictured))
            if len(found) % REPORT_EVERY == 0:
                report(f"expressions read in {len(found)} of {len(clips.pictured)} clips")
        write_atomically(path, lambda partial: _save(partial, found))
    with np.load(path, allow_pickle=False) as stored:
        return Expressions(clips, {int(name): stored[name] for name in stored.files})


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:  # a file and not a name, to which numpy would add an ending
        np.savez(file, **arrays)
