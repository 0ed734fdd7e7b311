"""What a phase would do, without doing it: parameters by group, memory, schedule, data."""

from __future__ import annotations

from collections import Counter

from ..networks.portrait_model import parameter_group
from .engine import Phase
from .follow import duration
from .settings import TrainSettings

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
