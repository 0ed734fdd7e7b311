"""One line, at the end of a run, for all tests that needed a real host and had none; and signals as a terminal has them."""

from __future__ import annotations

import os
import signal

from .host.hosts import NOT_SET

if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: the processes share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

ASKED_FOR = {"SIGHUP": signal.SIG_DFL, "SIGINT": signal.default_int_handler}


def pytest_configure() -> None:
    """Under `nohup` or in the background signals are ignored, and so they would be in every process that a test starts and
    stops: the command line leaves an ignored signal ignored."""
    for name, handler in ASKED_FOR.items():
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_terminal_summary(terminalreporter) -> None:
    skipped = [item for item in terminalreporter.stats.get("skipped", []) if NOT_SET in str(item.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests skipped: {NOT_SET}")
