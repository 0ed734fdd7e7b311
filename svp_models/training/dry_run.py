"""What a phase would do, without doing it: parameters by group, memory, schedule, data.

Memory that a training takes, so that whoever owns the device can make room for it.

Whether reading keeps up: seconds that a step's batch takes to read against those that it takes to learn from.

Opens the parts of this package that need what training alone needs: the packages of the extra `train`.
"""

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
from .dataset import Spot, stack, step_loader
from .logger import duration
from .trainer import Phase

OPTIMIZER_BYTES = {"adam": 8, "adamw": 8, "adamw8bit": 2}  # of a trained number
FLOAT = 4


def describe(phase: Phase, settings: TrainSettings) -> list[str]:
    """Lines for a person."""
    return [*_parameters(phase), *_memory(phase, settings), *_schedule(settings), *_data(phase, settings)]


def _parameters(phase: Phase) -> list[str]:
    trained: Counter[str] = Counter()
    frozen: Counter[str] = Counter()
    for name, parameter in phase.module.named_parameters():
        (trained if parameter.requires_grad else frozen)[group_of(name)] += parameter.numel()
    lines = [f"  trained  {name:<20}{count:>16,}" for name, count in sorted(trained.items())]
    lines += [f"  frozen   {name:<20}{count:>16,}" for name, count in sorted(frozen.items())]
    return [*lines, f"  {sum(trained.values()):,} of {sum((trained + frozen).values()):,} parameters learn"]


def group_of(name: str) -> str:
    """The group of a parameter of a phase's module: that of the portrait networks, or the module's own part."""
    inside = name.removeprefix("networks.")
    return parameter_group(inside) if inside != name else name.partition(".")[0]


def _memory(phase: Phase, settings: TrainSettings) -> list[str]:
    weights = sum(each.numel() for each in phase.module.parameters())
    learning = sum(each.numel() for each in phase.module.parameters() if each.requires_grad)
    bytes_of = {
        "weights": weights * FLOAT,
        "gradients": learning * FLOAT,
        "optimiser": learning * OPTIMIZER_BYTES[settings.optimizer],
        "average": learning * FLOAT,
    }
    parts = ", ".join(f"{name} {count / 1e9:.2f}" for name, count in bytes_of.items())
    return [f"  memory {sum(bytes_of.values()) / 1e9:.2f} GB ({parts}) and what a batch needs on its way through"]


def _schedule(settings: TrainSettings) -> list[str]:
    points = sorted({0, settings.warmup, settings.steps // 2, settings.steps - 1} & set(range(settings.steps)))
    rates = ", ".join(f"{settings.rate(step):.2g} at {step}" for step in points)
    return [
        f"  {settings.steps} steps of {settings.batch} samples in {settings.accumulate} passes, {settings.optimizer}, rate {rates}",
        f"  checkpoint every {settings.checkpoint_steps} steps, {settings.keep} kept; precision {settings.precision}",
    ]


def _data(phase: Phase, settings: TrainSettings) -> list[str]:
    clips = phase.clips
    frames = sum(each.frames for each in clips.info)
    people = len({each.identity for each in clips.info})
    epochs = settings.steps * settings.batch / max(1, len(clips.info))
    return [
        f"  {len(clips.info)} clips of {people} people, {duration(frames / clips.fps)} long, {clips.size} x {clips.size} pixels; "
        f"{epochs:.1f} samples of each clip"
    ]


FLOAT = 4  # bytes
STATE = 5  # floats for a weight that learns: itself, its gradient, Adam's two moments, its moving average
OTHERS = 2  # times the denoiser's activations: ReferenceNet, VAE and losses on decoded pictures come on top


def training_memory(model: PortraitModel, phase: StagePhase | StylePhase) -> int:
    """Bytes that a phase takes in float32 at the model's size, every weight counted as one that learns."""
    weights = sum(weight.numel() for network in (model.networks, model.vae) for weight in network.parameters())
    needed = weights * STATE * FLOAT
    if isinstance(phase, StagePhase):
        samples = -(-phase.settings.batch // phase.settings.accumulate)  # that pass through at once
        needed += round(samples * OTHERS * KERNELS * activations(model, phase.frames))
    return needed


def activations(model: PortraitModel, frames: int) -> int:
    """Bytes of what the denoiser's backward pass needs of one sample, measured on tensors without data."""
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
