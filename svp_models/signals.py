"""Ctrl-C, SIGTERM and SIGHUP: one kind of ending for all of them, and one place that decides what they do.

    with ending_at_once(): ...     # nothing has been written yet: while modules are imported, say
    with cancelling(): ...         # work: raises Interrupted in the main thread, so that every `finally` runs
    with postponed(): ...          # amid work: an import that an exception may not stop
    leave_to_parent()              # first thing in a worker process: its parent decides what a signal means

They nest; outside the main thread they change nothing. A signal that the process was started to ignore (`nohup`) stays ignored.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
ENDED_BY_SIGNAL = 128  # the shell's code of a program that a signal ended is this and the signal's number
MESSAGE = "svp: interrupted, nothing half-written was left"
CLEANING = 2.0  # seconds after a signal in which further ones do not disturb the cleaning up


class Interrupted(KeyboardInterrupt):
    """Raised where a signal asks the process to end. number: which signal."""

    def __init__(self, number: int = signal.SIGINT):
        super().__init__(f"signal {int(number)}")
        self.number = int(number)


def exit_code(error: BaseException) -> int:
    """The exit code of a process that this exception ends; one that is no Interrupted counts as Ctrl-C."""
    return ENDED_BY_SIGNAL + getattr(error, "number", int(signal.SIGINT))


@contextmanager
def ending_at_once() -> Iterator[None]:
    """A signal ends the process then and there. For code that has nothing to clean up and that an exception may not stop:
    the import of a compiled module turns it into another one, or does not survive it."""

    def end(number: int, frame: FrameType | None) -> None:
        os.write(2, f"{MESSAGE}\n".encode())
        os._exit(ENDED_BY_SIGNAL + number)

    with handled_by(end):
        yield


@contextmanager
def cancelling() -> Iterator[Callable[[], None]]:
    """A signal raises Interrupted, once. What comes out is a function to call between two steps: it raises it again, should
    code that lets no exception through have swallowed the first."""
    first: list[tuple[int, float]] = []

    def cancel(number: int, frame: FrameType | None) -> None:
        if first and time.monotonic() - first[0][1] < CLEANING:
            return
        first[:] = [(number, time.monotonic())]
        raise Interrupted(number)

    def check() -> None:
        if first:
            raise Interrupted(first[0][0])

    with handled_by(cancel):
        yield check


@contextmanager
def postponed() -> Iterator[None]:
    """A signal that arrives in the block is handled at its end, as it would have been before. For imports of compiled modules
    amid work, which no exception may stop either."""
    arrived: list[int] = []
    try:
        with handled_by(lambda number, frame: arrived.append(number)):
            yield
    finally:
        for number in arrived[:1]:
            signal.raise_signal(number)


def leave_to_parent() -> None:
    """For worker processes: a Ctrl-C or a closed terminal reaches them and their parent, who ends them in an orderly way."""
    for number in NUMBERS:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """The three signals go to `handler` while the block lasts, but for those that the process was started to ignore."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in NUMBERS}
    chosen = {number: old for number, old in before.items() if old not in (signal.SIG_IGN, None)}
    try:
        for number in chosen:
            signal.signal(number, handler)
        yield
    finally:
        for number, old in chosen.items():
            signal.signal(number, old)
