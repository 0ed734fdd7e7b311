"""Whether reading keeps up: seconds that a step's batch takes to read against those that it takes to learn from."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from .draw import Spot, stack, step_loader
from .engine import Phase
from .settings import TrainSettings

STEPS = 5


def reading_against_learning(phase: Phase, settings: TrainSettings, seed: int) -> str:
    """One line: medians over a few steps, both measured side by side. Nothing is trained."""
    part = range(settings.batch)
    draw = (phase.draw, seed, phase.name)
    loader = step_loader(*draw, range(1, STEPS + 2), part, settings.batch, settings.workers)
    batches = iter(loader)
    next(batches)  # workers and caches are warm
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = phase.module.to(device).train()
    batch = stack([phase.draw(Spot(seed, phase.name, 0, place, settings.batch)) for place in part])
    held = {key: value.to(device) for key, value in batch.items()}
    learning_parameters = [each for each in module.parameters() if each.requires_grad]

    def learn() -> None:
        loss, _ = module(held)
        torch.autograd.grad(loss, learning_parameters, allow_unused=True)
        if device == "cuda":
            torch.cuda.synchronize()

    learn()
    reading, learning = [], []
    for _ in range(STEPS):
        reading.append(_seconds(lambda: next(batches)))
        learning.append(_seconds(learn))
    read, learnt = median(reading), median(learning)
    return (
        f"{phase.name}: reading a batch of {settings.batch} with {settings.workers} workers {read:.3f} s, learning from it "
        f"{learnt:.3f} s on {device}: learning takes {learnt / read:.1f} x as long"
    )


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
