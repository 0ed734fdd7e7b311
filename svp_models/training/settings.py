"""How long, how fast and in what steps a phase learns."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..config_file import Checked, limited, one_of

PRECISIONS = ("no", "fp16", "bf16")
OPTIMIZERS = ("adam", "adamw", "adamw8bit")


@dataclass(frozen=True)
class TrainSettings(Checked):
    """Settings of one phase.

    steps: optimiser steps. batch: samples of a step over all processes. accumulate: passes that a process takes for its part
    of a batch, each with a share of it. learning_rate: peak; it rises for `warmup` steps and falls along a cosine to
    `final_rate` of it. average: decay of the running average (EMA) of the weights, which is what a phase ends with; 0 is none.
    precision: no, fp16 or bf16 (mixed). gradient_checkpointing: less memory, more time, the same numbers. workers: processes
    that read data, for each training process. *_steps: how often; 0 is never. keep: checkpoints on disk. explosion: a loss
    this many times its running mean stops the run.
    """

    steps: int = limited(low=1, high=10**9)
    batch: int = limited(1, 1, 10**6)
    accumulate: int = limited(1, 1, 10**6)
    learning_rate: float = limited(1e-4, 1e-12, 100)
    warmup: int = limited(50, 0, 10**9)
    final_rate: float = limited(0.1, 0, 1)
    optimizer: str = one_of("adamw", *OPTIMIZERS)
    betas: tuple[float, float] = limited((0.9, 0.98), 0, 1, below=True)
    weight_decay: float = limited(0.01, 0, 100)
    clip_norm: float = limited(1.0, 1e-12, 1e12)
    average: float = limited(0.995, 0, 1, below=True)
    precision: str = one_of("no", *PRECISIONS)
    gradient_checkpointing: bool = False
    workers: int = limited(0, 0, 1024)
    checkpoint_steps: int = limited(200, 1, 10**9)
    keep: int = limited(2, 1, 10**6)
    log_steps: int = limited(25, 1, 10**9)
    validate_steps: int = limited(0, 0, 10**9)
    sample_steps: int = limited(0, 0, 10**9)
    explosion: float = limited(50.0, 1, 1e12)

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
