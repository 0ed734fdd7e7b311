"""Long work: in chunks, in a second thread while the next piece is made, and several stages behind one progress bar."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from threading import Event
from typing import TypeVar

from torch import Tensor

from ..errors import PortraitError
from .memory_map import IN_MEMORY, MappedFrames, Storage, blocks

Progress = Callable[[int, int], None]
Item = TypeVar("Item")

BAR = 10_000  # steps of a bar for several stages


def shared(progress: Progress | None, *shares: float) -> list[Progress | None]:
    """A callback (done, total) for each of several pieces of work that follow one another.

    shares: the duration of each stage, in any unit. `progress` sees a single work of BAR steps that never goes back and ends
    with the last stage; it may raise to stop the work. Without it there is nothing to call: None each.
    """
    if progress is None:
        return [None] * len(shares)
    ends = list(accumulate(shares))

    def stage(start: float, share: float) -> Progress:
        return lambda done, total: progress(round(BAR * (start + share * done / total) / ends[-1]), BAR)

    return [stage(end - share, share) for end, share in zip(ends, shares, strict=True)]


def in_chunks(
    work: Callable[[Tensor], Tensor],
    rows: Tensor | MappedFrames,
    size: int,
    progress: Progress | None = None,
    storage: Storage = IN_MEMORY,
) -> Tensor | MappedFrames:
    """What `work` makes of `size` rows at a time, one for each on the CPU, joined in `storage`; progress(rows done, rows in
    all) after each chunk."""
    results = None
    for chunk in blocks(len(rows), size):
        made = work(rows[chunk])
        if results is None:
            results = storage.zeros((len(rows), *made.shape[1:]), made.dtype)
        results[chunk] = made
        if progress is not None:
            progress(chunk.stop, len(rows))
    if results is None:
        raise PortraitError("there are 0 rows: at least 1 is needed")
    return results


@contextmanager
def in_background(work: Callable[[Item], object], waiting: int = 1) -> Iterator[Callable[[Item], None]]:
    """Gives a function that hands an item over: `work` runs on the items in a thread of its own, one at a time and in their order.

    waiting: items that may wait while `work` is busy; with more, handing over waits as well, so that memory is bounded. The block
    ends when everything is done. What `work` raises is raised by the next handing over or at the end of the block, and nothing that
    waits is worked on any more; the same if the block raises.
    """
    stopped, pending = Event(), deque[Future[None]]()

    def run(item: Item) -> None:
        if stopped.is_set():
            return
        try:
            work(item)
        except BaseException:  # the future passes it on
            stopped.set()
            raise

    with ThreadPoolExecutor(1, "svp-background") as pool:

        def hand_over(item: Item) -> None:
            while pending and (len(pending) > waiting or pending[0].done()):
                pending.popleft().result()
            pending.append(pool.submit(run, item))

        try:
            yield hand_over
            while pending:
                pending.popleft().result()
        finally:
            stopped.set()
