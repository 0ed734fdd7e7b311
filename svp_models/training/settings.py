"""How long, how fast and in what steps a phase learns."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import PortraitError

PRECISIONS = ("no", "fp16", "bf16")
OPTIMIZERS = ("adam", "adamw", "adamw8bit")


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one phase.

    steps: optimiser steps. batch: samples of a step over all processes. accumulate: passes that a process takes for its part
    of a batch, each with a share of it. learning_rate: peak; it rises for `warmup` steps and falls along a cosine to
    `final_rate` of it. average: decay of the running average (EMA) of the weights, which is what a phase ends with; 0 is none.
    precision: no, fp16 or bf16 (mixed). gradient_checkpointing: less memory, more time, the same numbers. workers: processes
    that read data, for each training process. *_steps: how often; 0 is never. keep: checkpoints on disk. explosion: a loss
    this many times its running mean stops the run.
    """

    steps: int
    batch: int = 1
    accumulate: int = 1
    learning_rate: float = 1e-4
    warmup: int = 50
    final_rate: float = 0.1
    optimizer: str = "adamw"
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    average: float = 0.995
    precision: str = "no"
    gradient_checkpointing: bool = False
    workers: int = 0
    checkpoint_steps: int = 200
    keep: int = 2
    log_steps: int = 25
    validate_steps: int = 0
    sample_steps: int = 0
    explosion: float = 50.0

    def __post_init__(self):
        for name in ("steps", "batch", "accumulate", "checkpoint_steps", "keep", "log_steps"):
            if getattr(self, name) < 1:
                raise PortraitError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if not (0 < self.learning_rate < math.inf):
            raise PortraitError(f"learning_rate is {self.learning_rate}: it must be above 0")
        if not 0 <= self.average < 1:
            raise PortraitError(f"average is {self.average}: it must be 0 (none) to below 1")
        if self.precision not in PRECISIONS:
            raise PortraitError(f"precision is {self.precision!r}: it must be one of {', '.join(PRECISIONS)}")
        if self.optimizer not in OPTIMIZERS:
            raise PortraitError(f"optimizer is {self.optimizer!r}: it must be one of {', '.join(OPTIMIZERS)}")

    def rate(self, step: int) -> float:
        """Learning rate of a step, counted from 0."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        fallen = (1 + math.cos(math.pi * progress)) / 2  # 1 -> 0
        return self.learning_rate * (self.final_rate + (1 - self.final_rate) * fallen)

    def decay(self, step: int) -> float:
        """Of the running average after a step: shorter at the start, when there is little to average."""
        return min(self.average, (step + 1) / (step + 10))
