"""What a training phase costs before it runs: parameters, memory, schedule, data, and whether data loading keeps up."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from statistics import median

import torch

from ..diffusion.memory import KERNELS, PeakBytes, window_conditions
from ..model import PortraitModel, parameter_group
from ..networks.conditions import ConditionWeights
from ..networks.denoiser import Denoiser
from .config import StagePhase, StylePhase, TrainSettings
from .dataset import SampleIndex, stack, step_loader
from .logger import duration
from .trainer import Phase, trained_parameters

OPTIMIZER_BYTES = {"adam": 8, "adamw": 8, "adamw8bit": 2}  # of a trained number
FLOAT_BYTES = 4
FLOATS_PER_WEIGHT = 5  # of a trained weight: itself, its gradient, Adam's two moments, its moving average
ACTIVATION_FACTOR = 2  # times the denoiser's activations: ReferenceNet, VAE and losses on decoded images come on top
BENCHMARK_STEPS = 5


def describe(phase: Phase, settings: TrainSettings) -> list[str]:
    """Readable lines about what training a phase means."""
    return [*_parameters(phase), *_memory(phase, settings), *_schedule(settings), *_data(phase, settings)]


def _parameters(phase: Phase) -> list[str]:
    trained: Counter[str] = Counter()
    frozen: Counter[str] = Counter()
    for name, parameter in phase.module.named_parameters():
        (trained if parameter.requires_grad else frozen)[group_of(name)] += parameter.numel()
    lines = [f"  trained  {name:<20}{count:>16,}" for name, count in sorted(trained.items())]
    lines += [f"  frozen   {name:<20}{count:>16,}" for name, count in sorted(frozen.items())]
    return [*lines, f"  {sum(trained.values()):,} of {sum((trained + frozen).values()):,} parameters are trained"]


def group_of(name: str) -> str:
    """The group of a parameter of a phase's module: that of the portrait networks, or the module's own part."""
    inside = name.removeprefix("networks.")
    return parameter_group(inside) if inside != name else name.partition(".")[0]


def _memory(phase: Phase, settings: TrainSettings) -> list[str]:
    weights = sum(parameter.numel() for parameter in phase.module.parameters())
    trained = sum(parameter.numel() for parameter in trained_parameters(phase.module))
    bytes_of = {
        "weights": weights * FLOAT_BYTES,
        "gradients": trained * FLOAT_BYTES,
        "optimiser": trained * OPTIMIZER_BYTES[settings.optimizer],
        "moving average": trained * FLOAT_BYTES,
    }
    parts = ", ".join(f"{name} {count / 1e9:.2f}" for name, count in bytes_of.items())
    return [f"  memory {sum(bytes_of.values()) / 1e9:.2f} GB ({parts}), plus the activations of a batch"]


def _schedule(settings: TrainSettings) -> list[str]:
    points = sorted({0, settings.warmup_steps, settings.steps // 2, settings.steps - 1} & set(range(settings.steps)))
    rates = ", ".join(f"{settings.lr_at(step):.2g} at {step}" for step in points)
    return [
        f"  {settings.steps} steps of {settings.batch_size} samples in {settings.grad_accum_steps} passes, "
        f"{settings.optimizer}, learning rate {rates}",
        f"  checkpoint every {settings.checkpoint_steps} steps, the last {settings.keep_checkpoints} stay; precision "
        f"{settings.precision}",
    ]


def _data(phase: Phase, settings: TrainSettings) -> list[str]:
    clips = phase.clips
    frames = sum(info.frames for info in clips.info)
    people = len({info.identity for info in clips.info})
    epochs = settings.steps * settings.batch_size / max(1, len(clips.info))
    pixels = f", {clips.size} x {clips.size} pixels" if clips.size else ""
    return [
        f"  {len(clips.info)} clips of {people} people, {duration(frames / clips.fps)} long{pixels}; "
        f"{epochs:.1f} samples of each clip"
    ]


def training_memory(model: PortraitModel, phase: StagePhase | StylePhase) -> int:
    """Bytes that a phase takes in float32 at the model's size, every weight counted as a trained one."""
    weights = sum(weight.numel() for network in (model.networks, model.vae) for weight in network.parameters())
    needed = weights * FLOATS_PER_WEIGHT * FLOAT_BYTES
    if isinstance(phase, StagePhase):
        samples = -(-phase.settings.batch_size // phase.settings.grad_accum_steps)  # of one pass
        needed += round(samples * ACTIVATION_FACTOR * KERNELS * activations(model, phase.frames))
    return needed


def activations(model: PortraitModel, frames: int) -> int:
    """Bytes that the denoiser's backward pass needs for one sample, measured on tensors without data."""
    config, unet = model.config, model.config.unet
    cells = config.size // config.vae.downscale
    peak = PeakBytes()
    with torch.inference_mode(False), torch.enable_grad(), torch.device("meta"):
        denoiser = Denoiser(unet, style=unet.style_attention)
        conditions = window_conditions(config, frames, (cells, cells), torch.float32)
        latents = torch.empty(1, frames, unet.latent_channels, cells, cells)
        with peak:
            denoiser(latents, torch.zeros(1), conditions, ConditionWeights())
    return peak.peak


def benchmark(phase: Phase, settings: TrainSettings, seed: int) -> str:
    """One line: the time to load a batch against the time to train on it, medians over a few steps. Nothing is trained."""
    batch_size = settings.batch_size
    positions = range(batch_size)
    loader = step_loader(phase, seed, range(1, BENCHMARK_STEPS + 2), positions, batch_size, settings.num_workers)
    batches = iter(loader)
    next(batches)  # fills caches
    device = "cuda" if torch.cuda.is_available() else "cpu"
    module = phase.module.to(device).train()
    batch = stack([phase.sample(SampleIndex(seed, phase.name, 0, position, batch_size)) for position in positions])
    batch = {key: value.to(device) for key, value in batch.items()}
    parameters = trained_parameters(module)

    def train_step() -> None:
        loss, _ = module(batch)
        torch.autograd.grad(loss, parameters, allow_unused=True)
        if device == "cuda":
            torch.cuda.synchronize()

    train_step()
    loading, training = [], []
    for _ in range(BENCHMARK_STEPS):
        loading.append(_seconds(lambda: next(batches)))
        training.append(_seconds(train_step))
    load, train = median(loading), median(training)
    return (
        f"{phase.name}: loading a batch of {batch_size} with {settings.num_workers} workers takes {load:.3f} s, training on it "
        f"{train:.3f} s on {device}: training takes {train / load:.1f} x as long"
    )


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
