"""The memory of a running process, as Linux tells it."""

from __future__ import annotations

from pathlib import Path

import pytest

KNOWN = Path("/proc/self/clear_refs").exists()


def memory(pid: int, what: str = "VmRSS") -> int:
    """Bytes in memory now (VmRSS) or at most since `forget_peak` (VmHWM), files that are mapped included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    pytest.fail(f"process {pid} has no {what}")


def forget_peak(pid: int) -> None:
    """The peak is counted from what is in memory now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
