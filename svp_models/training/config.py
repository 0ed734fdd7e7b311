"""A recipe: everything that a training run depends on, from one TOML file and overrides on the command line.

How long, how fast and in what steps a phase learns.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from ..config import PRESETS
from ..data.schema import FPS, LARGEST_SIZE, LONGEST_SECONDS, MOST_CLIPS, MOST_PEOPLE, SHORTEST_FRAMES
from ..errors import PortraitError
from ..io.strict_config import LARGEST_SEED, Checked, config_from_dict, limited, one_of, required, shown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What may differ between a run and its resumption: it changes what is kept and told, not what is learnt.
FREE = ("workers", "checkpoint_steps", "keep", "log_steps", "validate_steps", "sample_steps", "explosion")
MANY = 10**6  # frames, clips, steps between two of something
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
PHASES = ("autoencoder", "analyzer", "style", "projections", "stage1", "stage2", "stage3")


@dataclass(frozen=True)
class ModelStart(Checked):
    """What training begins with: `file`, a model file or V-Express folder, or else `preset` with fresh networks."""

    preset: str = one_of("demo", *PRESETS)
    file: str = ""


@dataclass(frozen=True)
class DrawnData(Checked):
    """Drawn people, see `svp prepare synthetic`."""

    size: int = limited(low=64, high=LARGEST_SIZE)
    seconds: float = limited(low=SHORTEST_FRAMES / FPS, high=LONGEST_SECONDS)
    speakers: int = limited(low=0, high=MOST_PEOPLE)
    test_speakers: int = limited(low=0, high=MOST_PEOPLE)
    clips_per_speaker: int = limited(low=1, high=MOST_CLIPS)
    takes: int = limited(0, 0, MOST_CLIPS)
    seed: int = limited(0, 0, LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % 16:
            raise PortraitError(f"size is {self.size}: a multiple of 16 is needed")
        if not self.speakers + self.test_speakers:
            raise PortraitError("speakers is 0, and so is test_speakers: one of them must be at least 1")


@dataclass(frozen=True)
class DataRecipe(Checked):
    """folder: written by `svp prepare`. synthetic: what is drawn into it if nothing is there. decoded: keep the frames of all clips decoded in the run's folder, for small pictures.
    read_expressions: styles are read from expressions as the model's face analyser sees them, not from the labels' own."""

    folder: str = limited(least=1, most=4096)
    decoded: bool = False
    read_expressions: bool = False
    synthetic: DrawnData | None = None


@dataclass(frozen=True)
class AutoencoderPhase(Checked):
    """Portrait VAE. latent_noise: of a standard deviation, so that the decoder forgives what a denoiser leaves."""

    settings: TrainSettings
    latent_noise: float = limited(0.05, 0, 10)


@dataclass(frozen=True)
class AnalyzerPhase(Checked):
    """Built-in face analyser. no_face: share of the pictures that show none."""

    settings: TrainSettings
    no_face: float = limited(0.08, 0, 1)
    zoom: float = limited(0.2, 0, 4)
    shift: float = limited(0.12, 0, 1)


@dataclass(frozen=True)
class StylePhase(Checked):
    """Style extractor by InfoNCE (eq. 6-7).

    emotions: manners of one identity in a batch, the hard negatives of one another; takes: clips of each, the positives.
    drop_audio, drop_expression: shares of the samples that lose one input, never both. shortest: frames of a segment.
    mix_voices: share of the samples whose sound gets the mean of another clip of that emotion, or also without one (cf.
    MixStyle, Zhou et al. 2021): otherwise voices are learnt by heart, which tell people apart but not moods.
    """

    settings: TrainSettings
    emotions: int = limited(4, 1, MANY)
    takes: int = limited(2, 2, MANY)
    temperature: float = limited(0.1, 1e-4, 100)
    drop_audio: float = limited(0.3, 0, 1)
    drop_expression: float = limited(0.2, 0, 1)
    mix_voices: float = limited(0.0, 0, 1)
    shortest: int = limited(20, 1, MANY)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.drop_audio + self.drop_expression > 1:
            raise PortraitError(
                f"drop_audio is {self.drop_audio:g}: with drop_expression {self.drop_expression:g} at most 1 is allowed"
            )


@dataclass(frozen=True)
class ProjectionsPhase(Checked):
    """Warm start of audio and style projection, see projections.py."""

    settings: TrainSettings
    frame_step: int = limited(5, 1, MANY)


@dataclass(frozen=True)
class StagePhase(Checked):
    """One stage of the paper's schedule (sec. 3.3); a sample of the batch is `frames` consecutive frames of one clip.

    trains: parameter groups that learn, everything else is frozen. singles: share of the steps whose samples are as many
    frames of as many clips instead. margin: frames that portrait and target are apart, where the clip is long enough.
    cross_emotion: share of the samples whose portrait shows the person in another emotion than the target. deterministic: s
    = mu instead of a draw from the prior (the paper's ablation). own_style: share of the style codes that are of the target
    clip itself; the others are of another clip of that person and emotion. unconditional: share of the samples whose
    conditions are all zero, for guidance. no_style: share of the steps without any style. high_noise: timestep = T u^this.
    min_snr: gamma of the loss weight (Hang et al. 2023), 0 is none. mouth_weight, face_weight: added to the 1 of every cell
    there. shake, bias: standard deviations of a keypoint's error, of the picture's width.
    """

    settings: TrainSettings
    trains: tuple[str, ...] = limited(least=1, most=20)
    frames: int = limited(1, 1, MANY)
    audio: bool = False
    style: bool = False
    temporal: bool = True
    singles: float = limited(0.0, 0, 1)
    margin: int = limited(30, 0, MANY)
    cross_emotion: float = limited(0.0, 0, 1)
    deterministic: bool = False
    own_style: float = limited(1.0, 0, 1)
    unconditional: float = limited(0.1, 0, 1)
    no_style: float = limited(0.0, 0, 1)
    noise_offset: float = limited(0.05, 0, 10)
    min_snr: float = limited(5.0, 0, 1e6)
    high_noise: float = limited(1.0, 0, 100)
    mouth_weight: float = limited(0.0, 0, 1e6)
    face_weight: float = limited(0.0, 0, 1e6)
    shake: float = limited(0.0, 0, 1)
    bias: float = limited(0.0, 0, 1)


@dataclass(frozen=True)
class ShowRecipe(Checked):
    """The clip that stages show while they train: frames, and how it is sampled."""

    frames: int = limited(50, 1, MANY)
    steps: int = limited(25, 1, 100_000)
    cfg: float = limited(3.5, 0, 100)


@dataclass(frozen=True)
class Recipe(Checked):
    """A whole run. Phases that are left out are not run; the others run in the order of PHASES."""

    name: str = limited(least=1, most=200)
    data: DataRecipe = required()
    seed: int = limited(0, 0, LARGEST_SEED)
    model: ModelStart = field(default_factory=ModelStart)
    show: ShowRecipe = field(default_factory=ShowRecipe)
    autoencoder: AutoencoderPhase | None = None
    analyzer: AnalyzerPhase | None = None
    style: StylePhase | None = None
    projections: ProjectionsPhase | None = None
    stage1: StagePhase | None = None
    stage2: StagePhase | None = None
    stage3: StagePhase | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.name in (".", "..") or not self.name.isprintable() or set(self.name) & set("/\\"):
            raise PortraitError(
                f"name is {shown(self.name)}: a folder is called so, with no slashes and nothing unprintable in its name"
            )

    def phases(self) -> list[str]:
        """The names of the phases there are, in their order."""
        return [name for name in PHASES if getattr(self, name) is not None]


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe file with `name.name=value` overrides; an unknown key raises PortraitError that lists the known ones."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PortraitError(f"{path}: no such recipe ({error.strerror}); the bundled ones are in recipes/") from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of thousands of digits
        raise PortraitError(f"{path}: not TOML: {error}") from error
    for each in overrides:
        _override(values, each)
    return recipe_from_dict(values, f"{path}:")


def recipe_from_dict(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from plain values."""
    return config_from_dict(Recipe, values, where)


def _override(values: dict[str, Any], text: str) -> None:
    """Sets one value; a value that is not TOML by itself is taken as text."""
    name, sign, given = text.partition("=")
    if not sign or not name:
        raise PortraitError(f"{text!r} is no override: write section.key=value, for example stage1.settings.steps=100")
    try:
        value = tomllib.loads(f"value = {given}")["value"]
    except (ValueError, RecursionError):
        value = given
    *sections, key = name.strip().split(".")
    place = values
    for section in sections:
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise PortraitError(f"{text!r}: {section} is a value, not a section")
    place[key] = value


def resolved(recipe: Recipe, phase: str) -> str:
    """JSON of all that a phase depends on, as its checkpoints carry it."""
    return json.dumps(
        {"recipe": recipe.name, "model": asdict(recipe.model), "data": asdict(recipe.data)}
        | {"phase": asdict(getattr(recipe, phase))}
    )


def same_run(first: str, second: str) -> bool:
    """Whether two resolved configs make the same run: they may differ in FREE."""
    return bound(json.loads(first)) == bound(json.loads(second))


def bound(values: Any) -> Any:
    """Plain values without what a run may change on the way, FREE."""
    if not isinstance(values, dict):
        return values
    return {key: bound(value) for key, value in values.items() if key not in FREE}


def scaled(recipe: Recipe, factor: float) -> Recipe:
    """The recipe with `factor` times the steps (at least 2), to see that it runs."""

    if not (0 < factor < math.inf):
        raise PortraitError(f"--scale is {factor}: it must be above 0, 0.01 for a hundredth of the steps")

    def shorter(phase: Any) -> Any:
        if phase is None:
            return None
        return replace(phase, settings=replace(phase.settings, steps=max(2, round(phase.settings.steps * factor))))

    return replace(recipe, **{name: shorter(getattr(recipe, name)) for name in PHASES})


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


def open_training(name: str) -> ModuleType:
    """A module of this package; PortraitError says which package it lacks and how to get that."""
    try:
        return import_module(f".{name}", __package__)
    except ImportError as error:
        raise PortraitError(
            f"training needs the package {error.name}: pip install 'svp-portrait[train]', from a clone -e '.[train]'"
        ) from error
