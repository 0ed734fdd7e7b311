"""The log of a training run: status lines, log.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from ..io.files import whole_file

Report = Callable[[str], None]


class RunningMeans:
    """Exponential running means of the values of each step; a new name starts with its first value."""

    def __init__(self, smoothing: float, values: Mapping[str, float] | None = None):
        self.smoothing, self.values = smoothing, dict(values or {})

    def update(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            before = self.values.get(name, value)
            self.values[name] = self.smoothing * before + (1 - self.smoothing) * value


class RunLogger:
    """Writes log.jsonl, one line for each report, and TensorBoard events where TensorBoard is installed.

    A resumed run removes the lines of steps after the one it resumes at, and appends to the rest.
    """

    def __init__(self, folder: Path, start: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "log.jsonl"
        if self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            before = [line for line in lines if line.endswith("\n") and _step_of(line) <= start]
            with whole_file(self.path) as temporary:
                temporary.write_text("".join(before), encoding="utf-8")
        self.board = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter  # optional, and slow to import

            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.board is not None:
            self.board.close()

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """One line of numbers; step: how many steps are done."""
        with self.path.open("a") as file:
            file.write(json.dumps({"step": step, "time": round(time.time(), 1), **values}) + "\n")
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(name, value, step)
            self.board.flush()


def _step_of(line: str) -> float:
    """The step of a line of the log; infinity for a line that a crash has cut off."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return math.inf


def status_line(name: str, step: int, steps: int, values: Mapping[str, float], seconds: float) -> str:
    """Name, step, values, seconds per step and the time that is left."""
    left = (steps - step) * seconds
    numbers = " ".join(f"{key} {value:.4g}" for key, value in values.items())
    return f"{name} {step}/{steps} {numbers} {seconds:.2f} s/step, {duration(left)} left"


def duration(seconds: float) -> str:
    """3723 -> 1:02:03"""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
