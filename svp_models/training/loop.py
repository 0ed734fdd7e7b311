"""One resumable training loop for every phase: deterministic by step, checkpointed atomically, averaged (EMA)."""

from __future__ import annotations

import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import PortraitError

LossFunction = Callable[[int, np.random.Generator], tuple[Tensor, dict[str, float]]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a phase learns. steps: optimiser steps; learning_rate: peak, warmed up, then cosine to a tenth."""

    steps: int
    learning_rate: float
    warmup: int = 50
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    average: float = 0.995
    shards: int = 1  # parts of a batch, worked on side by side; each draws its own randomness
    checkpoint_seconds: float = 120.0

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1.0, progress))))


def step_generator(seed: int, phase: str, step: int, shard: int = 0) -> np.random.Generator:
    """The randomness of one step; a resumed run draws what the uninterrupted one would have drawn."""
    return np.random.default_rng([seed, zlib.crc32(phase.encode()), step, shard])


def torch_generator(rng: np.random.Generator) -> torch.Generator:
    """A torch generator seeded from a numpy one."""
    return torch.Generator().manual_seed(int(rng.integers(2**62)))


def run_phase(
    name: str,
    module: nn.Module,
    parameters: Iterable[nn.Parameter],
    loss_function: LossFunction,
    schedule: Schedule,
    folder: Path,
    seed: int,
    report: Callable[[str], None],
) -> nn.Module:
    """Trains `parameters` of `module` and leaves the running average of them and of its statistics in it; returns the module.

    `folder/<name>.safetensors` is written at the end and makes a later call return at once; until then
    `folder/<name>.resume.pt` lets a killed run go on from its last checkpoint. A loss that is not finite raises
    PortraitError with the last checkpoint kept.
    """
    finished, resume = folder / f"{name}.safetensors", folder / f"{name}.resume.pt"
    if finished.exists():
        module.load_state_dict(load_file(finished))
        return module.eval()
    folder.mkdir(parents=True, exist_ok=True)
    chosen = list(parameters)
    optimizer = torch.optim.AdamW(
        chosen, lr=schedule.learning_rate, weight_decay=schedule.weight_decay, betas=(0.9, 0.98)
    )
    # Running statistics belong to the weights they were taken with, so they are averaged alike.
    averaged = [*chosen, *(buffer for buffer in module.buffers() if buffer.is_floating_point())]
    average = [value.detach().clone() for value in averaged]
    start = 0
    if resume.exists():
        state = torch.load(resume, weights_only=True)
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        average, start = state["average"], state["step"]
        report(f"{name}: resumed at step {start}")

    cores = max(1, torch.get_num_threads() // schedule.shards)

    def shard_gradients(step: int, shard: int) -> tuple[Tensor, tuple[Tensor | None, ...], dict[str, float]]:
        torch.set_num_threads(cores)
        loss, metrics = loss_function(step, step_generator(seed, name, step, shard))
        return loss.detach(), torch.autograd.grad(loss, chosen, allow_unused=True), metrics

    module.train()
    saved = time.monotonic()
    threads = ThreadPoolExecutor(schedule.shards)
    smooth: dict[str, float] = {}
    for step in range(start, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        began = time.monotonic()
        shards = list(threads.map(shard_gradients, [step] * schedule.shards, range(schedule.shards)))
        loss, metrics = torch.stack([each[0] for each in shards]).mean(), shards[0][2]
        if not torch.isfinite(loss):
            raise PortraitError(
                f"{name}: the loss became {loss.item()} at step {step}; the last checkpoint is {resume}"
            )
        for parameter, *parts in zip(chosen, *(each[1] for each in shards), strict=True):
            present = [part for part in parts if part is not None]
            parameter.grad = sum(present) / schedule.shards if present else None
        torch.nn.utils.clip_grad_norm_(chosen, schedule.clip_norm)
        optimizer.step()
        decay = min(schedule.average, (step + 1) / (step + 10))
        with torch.no_grad():
            torch._foreach_lerp_(average, [value.detach() for value in averaged], 1 - decay)
        for key, value in {"loss": loss.item(), "seconds": time.monotonic() - began, **metrics}.items():
            smooth[key] = value if key not in smooth else 0.95 * smooth[key] + 0.05 * value
        if step % 25 == 24 or step + 1 == schedule.steps:
            report(
                f"{name} {step + 1}/{schedule.steps} " + " ".join(f"{key} {value:.4f}" for key, value in smooth.items())
            )
            with open(folder / "log.jsonl", "a") as log:
                log.write(json.dumps({"phase": name, "step": step + 1, **smooth}) + "\n")
        if time.monotonic() - saved > schedule.checkpoint_seconds:
            state = {
                "module": module.state_dict(),
                "optimizer": optimizer.state_dict(),
                "average": average,
                "step": step + 1,
            }
            _replace(resume, lambda path, state=state: torch.save(state, path))
            saved = time.monotonic()

    threads.shutdown()
    with torch.no_grad():
        for value, mean in zip(averaged, average, strict=True):
            value.copy_(mean)
    _replace(
        finished, lambda path: save_file({key: value.contiguous() for key, value in module.state_dict().items()}, path)
    )
    resume.unlink(missing_ok=True)
    return module.eval()


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
