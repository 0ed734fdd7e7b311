"""Which samples a step sees: a pure function of seed, phase, step and place, whatever the number of processes or workers."""

from __future__ import annotations

import signal
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import PortraitError
from ..io.signals import NUMBERS

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
