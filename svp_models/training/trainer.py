"""The training loop of every phase: deterministic by step, on one process or many, resumable to the bit."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..errors import PortraitError
from ..io.progress import Progress
from ..networks.unet import UNet
from .checkpoint import checkpoints, load_checkpoint, save_checkpoint
from .config import TrainSettings
from .dataset import Sample, SampleIndex, positions_of, step_loader, step_rng
from .logger import Report, RunLogger, RunningMeans, status_line
from .recipe import same_run

FULL = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
# A checkpoint holds neither frozen weights nor the optimiser's state of parameters that no loss has reached.
PARTIAL = StateDictOptions(full_state_dict=True, strict=False)


class ClipSet(Protocol):
    """What a run reports of its training clips. info: for each its `frames` and `identity`; size: pixels a side, 0 without images."""

    size: int
    fps: float

    @property
    def info(self) -> Sequence[Any]: ...

    @property
    def version(self) -> str: ...


class Phase(Protocol):
    """Something to train. `name` is part of its randomness; `module` maps a batch to its loss and further values to report,
    all scalars; what requires a gradient in it is trained, everything else is frozen."""

    name: str

    @property
    def module(self) -> nn.Module: ...

    @property
    def clips(self) -> ClipSet: ...

    def sample(self, index: SampleIndex) -> Sample:
        """The sample at one position of one step's batch; all its randomness comes from the index."""
        ...

    def validate(self) -> dict[str, float]:
        """Figures on the test split, with the module as it is."""
        ...

    def write_sample(self, folder: Path, step: int) -> None:
        """Writes something to look at into the folder."""
        ...


class EMA:
    """Exponential moving average of the trained weights and of the floating-point buffers, such as batch norm statistics.

    diffusers' EMAModel averages no buffers, forgets the initial weights at its first step and takes seconds to import; the
    formula is torch's own: ema = decay * ema + (1 - decay) * value.
    """

    def __init__(self, module: nn.Module):
        self.live = [
            *trained_parameters(module),
            *(buffer for buffer in module.buffers() if buffer.is_floating_point()),
        ]
        self.shadow = [value.detach().clone() for value in self.live]

    def update(self, decay: float) -> None:
        """One step towards the module's present values."""
        get_ema_multi_avg_fn(decay)(self.shadow, [value.detach() for value in self.live], None)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the module's values and the averaged ones."""
        for live, shadow in zip(self.live, self.shadow, strict=True):
            saved = live.detach().clone()
            live.copy_(shadow)
            shadow.copy_(saved)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the module has the averaged values."""
        self.swap()
        try:
            yield
        finally:
            self.swap()


def train(
    phase: Phase,
    settings: TrainSettings,
    folder: Path,
    seed: int,
    config: str,
    report: Report = print,
    progress: Progress | None = None,
) -> None:
    """Trains the phase's module in place and leaves the moving average of the weights in it.

    Checkpoints, log and samples are in `folder`. The same call resumes from the newest checkpoint there, and ends with the same
    bits as an uninterrupted run (one process, CPU). config: JSON that is stored with every checkpoint; a checkpoint of another
    config raises PortraitError. progress(steps done, steps) may raise to stop: a checkpoint is written first. A loss that is
    not finite or explodes raises PortraitError and leaves the last checkpoint as it was.
    """
    run = _Run(phase, settings, folder, seed, config, report)
    try:
        run.loop(progress)
    finally:
        run.close()


class _Run:
    """One call of `train`."""

    def __init__(self, phase: Phase, settings: TrainSettings, folder: Path, seed: int, config: str, report: Report):
        self.phase, self.settings, self.folder, self.seed, self.config = phase, settings, folder, seed, config
        self.accelerator = make_accelerator()
        self.autocast_dtype = autocast_dtype(settings.precision, self.accelerator.device)
        self.scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=self.autocast_dtype == torch.float16)
        processes = self.accelerator.num_processes
        if settings.batch_size % (processes * settings.grad_accum_steps):
            raise PortraitError(
                f"{phase.name}: a batch of {settings.batch_size} cannot be shared by {processes} processes with "
                f"{settings.grad_accum_steps} passes each: make batch_size a multiple of {processes * settings.grad_accum_steps}"
            )
        self.report = report if self.accelerator.is_main_process else _silent
        optimizer = make_optimizer(trained_parameters(phase.module), settings)
        self.module, self.optimizer = self.accelerator.prepare(phase.module, optimizer)
        self.ema = EMA(self.module)
        self.means = RunningMeans(settings.log_smoothing)
        self.done = self._resume()

    def close(self) -> None:
        set_gradient_checkpointing(self.phase.module, False)
        self.accelerator.free_memory()

    def loop(self, progress: Progress | None) -> None:
        settings, accelerator = self.settings, self.accelerator
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(RunLogger(self.folder, self.done)) if accelerator.is_main_process else None
            set_gradient_checkpointing(self.phase.module, settings.gradient_checkpointing)
            self.module.train()
            for step, batch in enumerate(self._batches(), self.done):
                self.means.update(self._step(step, batch))
                self.done = step + 1
                self._report(log)
                if self.done % settings.checkpoint_steps == 0 or self.done == settings.steps:
                    self.save()
                if progress is not None:
                    self._report_progress(progress)
        self.ema.swap()
        self.phase.module.eval()

    def _report_progress(self, progress: Progress) -> None:
        """Calls `progress`, which may raise to stop the run between two steps."""
        try:
            progress(self.done, self.settings.steps)
        except BaseException:
            if self.done % self.settings.checkpoint_steps and self.done < self.settings.steps:
                self.save()
            raise

    def _batches(self) -> Iterator[Sample]:
        settings, accelerator = self.settings, self.accelerator
        positions = positions_of(accelerator.process_index, accelerator.num_processes, settings.batch_size)
        steps = range(self.done, settings.steps)
        return iter(step_loader(self.phase, self.seed, steps, positions, settings.batch_size, settings.num_workers))

    def _step(self, step: int, batch: Sample) -> dict[str, float]:
        """One optimiser step -> loss and the phase's values, means over the whole batch of all processes."""
        settings, accelerator = self.settings, self.accelerator
        began = time.monotonic()
        torch.manual_seed(int(step_rng(self.seed, self.phase.name, step, accelerator.process_index).integers(2**62)))
        for group in self.optimizer.param_groups:
            group["lr"] = settings.lr_at(step)
        count = len(next(iter(batch.values()))) // settings.grad_accum_steps
        totals: dict[str, Tensor] = {}
        for turn in range(settings.grad_accum_steps):
            rows = slice(turn * count, (turn + 1) * count)
            micro_batch = {key: value[rows].to(accelerator.device) for key, value in batch.items()}
            last = turn + 1 == settings.grad_accum_steps
            with contextlib.nullcontext() if last else accelerator.no_sync(self.module):
                with self._autocast():
                    loss, values = self.module(micro_batch)
                accelerator.backward(self.scaler.scale(loss.float() / settings.grad_accum_steps))
            for key, value in {"loss": loss, **values}.items():
                totals[key] = totals.get(key, 0) + value.detach().float() / settings.grad_accum_steps
        self.scaler.unscale_(self.optimizer.optimizer)
        norm = accelerator.clip_grad_norm_(trained_parameters(self.module), settings.clip_norm)
        names = list(totals)
        reduced = accelerator.reduce(torch.stack([totals[name] for name in names]), "mean").tolist()
        values = dict(zip(names, reduced, strict=True))
        # A gradient too large for fp16 is no error: the scaler skips this step and uses a smaller scale from then on.
        if math.isfinite(norm) or not self.scaler.is_enabled():
            values["gradient"] = float(norm)
        self._check(step, values)
        self.scaler.step(self.optimizer.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.ema.update(settings.ema_decay_at(step))
        return {**values, "seconds": time.monotonic() - began}

    def _autocast(self) -> torch.autocast:
        enabled = self.autocast_dtype is not None
        return torch.autocast(self.accelerator.device.type, dtype=self.autocast_dtype, enabled=enabled)

    def _check(self, step: int, values: dict[str, float]) -> None:
        settings, usual = self.settings, self.means.values.get("loss", math.inf)
        bad = [name for name, value in values.items() if not math.isfinite(value)]
        exploded = step >= settings.loss_check_after and values["loss"] > settings.max_loss_ratio * abs(usual)
        if not bad and not exploded:
            return
        what = (
            f"{bad[0]} became {values[bad[0]]}" if bad else f"the loss jumped from {usual:.4g} to {values['loss']:.4g}"
        )
        saved = checkpoints(self.folder)
        state = f"the last good checkpoint is {saved[-1]}" if saved else "there is no checkpoint yet"
        raise PortraitError(
            f"{self.phase.name}: {what} at step {step + 1}; {state}: lower learning_rate or clip_norm and run again"
        )

    def _report(self, log: RunLogger | None) -> None:
        """Log line, validation and samples where they are due after a step."""
        settings, done = self.settings, self.done
        last = done == settings.steps
        if done % settings.log_steps == 0 or last:
            values = {**self.means.values, "learning_rate": settings.lr_at(done - 1)}
            seconds = values.pop("seconds")
            self.report(status_line(self.phase.name, done, settings.steps, values, seconds))
            if log is not None:
                log.write(done, {**values, "seconds": seconds})
        validate = settings.validate_steps and (done % settings.validate_steps == 0 or last)
        write_sample = settings.sample_steps and (done % settings.sample_steps == 0 or last)
        if not (validate or write_sample):
            return
        with self.ema.applied(), torch.no_grad():
            self.phase.module.eval()
            if validate and log is not None:
                with self._autocast():
                    figures = self.phase.validate()
                self.report(
                    f"{self.phase.name} {done}: " + " ".join(f"{key} {value:.4g}" for key, value in figures.items())
                )
                log.write(done, {f"validation/{key}": value for key, value in figures.items()})
            if write_sample and log is not None:
                self.phase.write_sample(self.folder / "samples", done)
            self.phase.module.train()
        self.accelerator.wait_for_everyone()

    def save(self) -> None:
        """Writes a checkpoint of everything that the rest of the run depends on."""
        with self.ema.applied():
            tensors: dict[str, Any] = get_model_state_dict(self.module, options=FULL)
            averaged = {key: value.clone() for key, value in tensors.items()}
        state = {
            "phase": self.phase.name,
            "seed": self.seed,
            "config": self.config,
            "module": get_model_state_dict(self.module, options=FULL),
            "ema": averaged,
            "optimizer": get_optimizer_state_dict(self.module, self.optimizer.optimizer, options=FULL),
            "values": self.means.values,
        }
        if self.accelerator.is_main_process:
            path = save_checkpoint(self.folder, self.done, state, self.settings.keep_checkpoints)
            self.report(f"{self.phase.name}: {path}")
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        """Loads the newest checkpoint, if there is one -> the number of steps done."""
        saved = checkpoints(self.folder)
        if not saved:
            return 0
        state = load_checkpoint(saved[-1])
        for key, value in (("phase", self.phase.name), ("seed", self.seed), ("config", self.config)):
            same = same_run(state[key], str(value)) if key == "config" else state[key] == value
            if not same:
                raise PortraitError(
                    f"{saved[-1]} is of another {key} ({state[key]}) than this run ({value}): choose another folder or remove it"
                )
        self._load(state["ema"], saved[-1])
        self.ema.update(0.0)
        self._load(state["module"], saved[-1])
        self._load_optimizer(state["optimizer"])
        self.means = RunningMeans(self.settings.log_smoothing, state["values"])
        self.report(f"{self.phase.name}: resumes at step {state['step']} of {self.settings.steps}")
        return state["step"]

    def _load(self, tensors: dict[str, Any], path: Path) -> None:
        """Loads trained weights and buffers into the module; frozen weights are not in a checkpoint."""
        expected = set(get_model_state_dict(self.module, options=FULL))
        if expected != set(tensors):
            differing = sorted(expected ^ set(tensors))
            raise PortraitError(
                f"{path}: {len(differing)} tensors ({differing[0]}, ...) are trained there or here but not in both: choose another "
                "folder"
            )
        set_model_state_dict(self.module, tensors, options=PARTIAL)

    def _load_optimizer(self, saved: dict) -> None:
        """Loads the optimiser's state; a parameter that no loss has reached yet has none in the checkpoint and here."""
        set_optimizer_state_dict(self.module, self.optimizer.optimizer, saved, options=PARTIAL)
        unreached = {name for group in saved["param_groups"] for name in group["params"]} - set(saved["state"])
        for name, parameter in self.phase.module.named_parameters():
            if name in unreached:
                self.optimizer.state.pop(parameter, None)


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def make_optimizer(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """The optimiser of the settings; the 8-bit one needs the optional package bitsandbytes."""
    if not parameters:
        raise PortraitError("there is nothing to train: every parameter is frozen")
    shared: dict[str, Any] = {
        "lr": settings.learning_rate,
        "betas": settings.betas,
        "weight_decay": settings.weight_decay,
    }
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, **shared)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **shared)
    try:
        from bitsandbytes.optim import AdamW8bit  # optional
    except ImportError as error:
        raise PortraitError(
            "optimizer is 'adamw8bit', which needs the package bitsandbytes: install it or choose 'adamw'"
        ) from error
    return AdamW8bit(parameters, **shared)


def _silent(line: str) -> None:
    """Only the first process reports."""


def set_gradient_checkpointing(module: nn.Module, on: bool) -> None:
    """Switches gradient checkpointing of all UNets in a module on or off."""
    for network in module.modules():
        if isinstance(network, UNet):
            network.set_gradient_checkpointing(on)


def make_accelerator() -> Accelerator:
    """Devices and processes only: the precision is a phase's own, and Accelerate allows a process no more than one."""
    try:
        return Accelerator(
            mixed_precision="no", kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)]
        )
    except ValueError as error:
        raise PortraitError(
            f"accelerate is in use in this process with other settings ({error}): restart it"
        ) from error


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The type of mixed precision on a device, None for float32; fp16 has no use on a CPU."""
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise PortraitError(
            f"precision is 'bf16', which {torch.cuda.get_device_name(device)} cannot compute: choose 'fp16'"
        )
    return {"bf16": torch.bfloat16, "fp16": None if device.type == "cpu" else torch.float16}.get(precision)
