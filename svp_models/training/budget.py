"""A training loop that ends with its time: the learning rate follows the clock, and at any moment there is a model to ship.

Another budget goes on from the last checkpoint. Batches are made on the device; the processor is never waited for but when
something is reported.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import PortraitError
from ..io.progress import Progress
from .checkpoint import checkpoints, load_checkpoint, save_checkpoint
from .face_config import BudgetSettings
from .logger import RunLogger
from .trainer import EMA, trained_parameters

Report = Callable[[str], None]
KEPT = 2  # checkpoints
COMPILE_ERRORS = (RuntimeError, ImportError, OSError)  # of torch.compile where a compiler or a driver is missing


class BudgetPhase(Protocol):
    """Something to train within a time. module: batch -> loss and further values, all scalars; what requires a gradient in it is
    trained."""

    name: str

    @property
    def module(self) -> nn.Module: ...

    def batch(self, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        """The batch of a step, on the device. done: share of the phase's time that has passed."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures on test people, with the averaged weights."""
        ...


def learning_rate(settings: BudgetSettings, done: float) -> float:
    """The learning rate where a share `done` of the time has passed."""
    if done < settings.warmup:
        return settings.learning_rate * max(done, 1e-3 * settings.warmup) / settings.warmup
    fallen = (1 + math.cos(math.pi * min(1.0, (done - settings.warmup) / (1 - settings.warmup + 1e-9)))) / 2
    return settings.learning_rate * (settings.final_lr_ratio + (1 - settings.final_lr_ratio) * fallen)


def train_for(
    phase: BudgetPhase,
    settings: BudgetSettings,
    seconds: float,
    folder: Path,
    seed: int,
    config: str,
    report: Report = print,
    progress: Progress | None = None,
    compiled: bool = False,
) -> int:
    """Trains the phase's module in place for `seconds` and leaves the average of the weights in it -> steps done in all.

    The folder holds its checkpoints and its log; with a checkpoint there the training goes on from it, with a new cosine.
    config: JSON of the model; a checkpoint of another one raises PortraitError. progress(milliseconds passed, of all) may raise to
    stop the run: a checkpoint is written first, and the average is left in the module. compiled: by torch.compile, where it works.
    """
    run = _Run(phase, settings, folder, seed, config, report, compiled)
    return run.loop(seconds, progress)


class _Run:
    def __init__(
        self, phase: BudgetPhase, settings: BudgetSettings, folder: Path, seed: int, config: str, report: Report,
        compiled: bool,
    ):  # fmt: skip
        self.phase, self.settings, self.folder, self.config, self.report = phase, settings, folder, config, report
        self.parameters = trained_parameters(phase.module)
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            settings.learning_rate,
            settings.betas,
            weight_decay=settings.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.ema = EMA(phase.module)
        self.step = self._resume()
        self.generator = torch.Generator().manual_seed(seed * 1_000_003 + self.step)
        torch.manual_seed(seed * 1_000_003 + self.step)  # of noise on the device
        self.forward = torch.compile(phase.module, dynamic=False) if compiled else phase.module
        self.usual = math.nan

    def loop(self, seconds: float, progress: Progress | None) -> int:
        steps, preparing, loss = 0, 0.0, torch.zeros(())
        values: dict[str, Tensor] = {}
        self.phase.module.train()
        with RunLogger(self.folder, self.step) as log:
            began = logged = saved = time.monotonic()
            while (now := time.monotonic()) < began + seconds:
                done = (now - began) / seconds
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(self.settings, done)
                batch = self.phase.batch(self.generator, done)
                preparing += time.monotonic() - now
                loss, values = self._step(batch)
                steps += 1
                now = time.monotonic()
                if now - logged >= self.settings.log_seconds:
                    figures = self._figures(loss, values, steps, now - logged, preparing)
                    self.report(self._line(figures, now - began, seconds))
                    log.write(self.step, figures)
                    logged, steps, preparing = time.monotonic(), 0, 0.0
                if now - saved >= self.settings.checkpoint_seconds:
                    self.save()
                    self._validate(log)
                    saved = time.monotonic()
                if progress is not None:
                    try:
                        progress(min(round(1000 * (now - began)), round(1000 * seconds)), round(1000 * seconds))
                    except BaseException:
                        self.save()
                        self.ema.swap()
                        raise
            self.save()
            self._validate(log)
        self.ema.swap()
        self.phase.module.eval()
        return self.step

    def _step(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        settings = self.settings
        enabled = "bf16" == (settings.cpu_precision if self.device.type == "cpu" else settings.precision)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            loss, values = self._forward(batch)
        loss.float().backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.ema.update(min(self.settings.ema_decay, (self.step + 1) / (self.step + 10)))
        return loss.detach(), {**{key: value.detach() for key, value in values.items()}, "gradient": norm.detach()}

    def _forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        try:
            return self.forward(batch)
        except COMPILE_ERRORS as error:
            if self.forward is self.phase.module:
                raise
            self.report(f"{self.phase.name}: torch.compile does not work here, training goes on without it ({error})")
            self.forward = self.phase.module
            return self.forward(batch)

    def _figures(
        self, loss: Tensor, values: dict[str, Tensor], steps: int, seconds: float, preparing: float
    ) -> dict[str, float]:
        """What is reported: this waits for the device."""
        waiting = time.monotonic()
        figures = {"loss": float(loss), **{key: float(value) for key, value in values.items()}}
        waiting = time.monotonic() - waiting
        bad = [name for name, value in figures.items() if not math.isfinite(value)]
        if bad or figures["loss"] > self.settings.max_loss_ratio * self.usual:
            raise PortraitError(
                f"{self.phase.name}: {bad[0] if bad else 'loss'} is {figures[bad[0] if bad else 'loss']:g} at step {self.step}: "
                "lower learning_rate and run again, it goes on from the last checkpoint"
            )
        self.usual = figures["loss"] if math.isnan(self.usual) else 0.9 * self.usual + 0.1 * figures["loss"]
        total = seconds + waiting
        samples = steps * self.settings.batch_size / total
        times = {"batch_ms": 1000 * preparing / steps, "step_ms": 1000 * (total - preparing) / steps}
        return {**figures, "samples_per_second": samples, **times, "waited_ms": 1000 * waiting}

    def _line(self, figures: dict[str, float], passed: float, seconds: float) -> str:
        numbers = " ".join(f"{name} {value:.4g}" for name, value in figures.items())
        return f"{self.phase.name} {passed:.0f} of {seconds:.0f} s, step {self.step}: {numbers}"

    def _validate(self, log: RunLogger) -> None:
        self.ema.swap()
        self.phase.module.eval()
        with torch.no_grad():
            figures = self.phase.validate()
        self.phase.module.train()
        self.ema.swap()
        if figures:
            self.report(f"{self.phase.name} {self.step}: " + " ".join(f"{k} {v:.4g}" for k, v in figures.items()))
            log.write(self.step, {f"validation/{key}": value for key, value in figures.items()})

    def save(self) -> None:
        """Writes a checkpoint: weights, their average and the optimiser's state."""
        self.ema.swap()
        averaged = {key: value.cpu().clone() for key, value in self.phase.module.state_dict().items()}
        self.ema.swap()
        state: dict[str, Any] = {
            "phase": self.phase.name,
            "seed": 0,
            "config": self.config,
            "module": {key: value.cpu() for key, value in self.phase.module.state_dict().items()},
            "ema": averaged,
            "optimizer": self.optimizer.state_dict(),
            "values": {},
        }
        save_checkpoint(self.folder, self.step, state, KEPT)

    def _resume(self) -> int:
        saved = checkpoints(self.folder)
        if not saved:
            return 0
        state = load_checkpoint(saved[-1])
        if state["config"] != self.config:
            raise PortraitError(f"{saved[-1]} is of another model or phase: choose another folder or remove it")
        self.phase.module.load_state_dict(state["ema"])
        self.ema.update(0.0)
        self.phase.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.report(f"{self.phase.name}: goes on after step {state['step']}")
        return state["step"]
