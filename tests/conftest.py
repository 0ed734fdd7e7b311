"""One line, at the end of a run, for all tests that needed a real host and had none."""

from __future__ import annotations

from .host.hosts import NOT_SET


def pytest_terminal_summary(terminalreporter) -> None:
    skipped = [each for each in terminalreporter.stats.get("skipped", []) if NOT_SET in str(each.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests skipped: {NOT_SET}")
