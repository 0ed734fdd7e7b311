"""A recipe: everything that a training run depends on, from one TOML file and overrides on the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config import config_from_dict
from ..errors import PortraitError
from .settings import TrainSettings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# What may differ between a run and its resumption: it changes what is kept and told, not what is learnt.
FREE = ("workers", "checkpoint_steps", "keep", "log_steps", "validate_steps", "sample_steps", "explosion")
RECIPES = Path(__file__).resolve().parents[2] / "recipes"
PHASES = ("autoencoder", "analyzer", "style", "projections", "stage1", "stage2", "stage3")


@dataclass(frozen=True)
class ModelStart:
    """What training begins with: `file`, a model file or V-Express folder, or else `preset` with fresh networks."""

    preset: str = "demo"
    file: str = ""


@dataclass(frozen=True)
class DrawnData:
    """Drawn people, see `svp prepare synthetic`."""

    size: int
    seconds: float
    speakers: int
    test_speakers: int
    clips_per_speaker: int
    takes: int = 0
    seed: int = 0


@dataclass(frozen=True)
class DataRecipe:
    """folder: written by `svp prepare`. synthetic: what is drawn into it if nothing is there. decoded: keep the frames of all clips decoded in the run's folder, for small pictures.
    read_expressions: styles are read from expressions as the model's face analyser sees them, not from the labels' own."""

    folder: str
    decoded: bool = False
    read_expressions: bool = False
    synthetic: DrawnData | None = None


@dataclass(frozen=True)
class AutoencoderPhase:
    """Portrait VAE. latent_noise: of a standard deviation, so that the decoder forgives what a denoiser leaves."""

    settings: TrainSettings
    latent_noise: float = 0.05


@dataclass(frozen=True)
class AnalyzerPhase:
    """Built-in face analyser. no_face: share of the pictures that show none."""

    settings: TrainSettings
    no_face: float = 0.08
    zoom: float = 0.2
    shift: float = 0.12


@dataclass(frozen=True)
class StylePhase:
    """Style extractor by InfoNCE (eq. 6-7).

    emotions: manners of one identity in a batch, the hard negatives of one another; takes: clips of each, the positives.
    drop_audio, drop_expression: shares of the samples that lose one input, never both. shortest: frames of a segment.
    mix_voices: share of the samples whose sound gets the mean of another clip of that emotion, or also without one (cf.
    MixStyle, Zhou et al. 2021): otherwise voices are learnt by heart, which tell people apart but not moods.
    """

    settings: TrainSettings
    emotions: int = 4
    takes: int = 2
    temperature: float = 0.1
    drop_audio: float = 0.3
    drop_expression: float = 0.2
    mix_voices: float = 0.0
    shortest: int = 20


@dataclass(frozen=True)
class ProjectionsPhase:
    """Warm start of audio and style projection, see projections.py."""

    settings: TrainSettings
    frame_step: int = 5


@dataclass(frozen=True)
class StagePhase:
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
    trains: tuple[str, ...]
    frames: int = 1
    audio: bool = False
    style: bool = False
    temporal: bool = True
    singles: float = 0.0
    margin: int = 30
    cross_emotion: float = 0.0
    deterministic: bool = False
    own_style: float = 1.0
    unconditional: float = 0.1
    no_style: float = 0.0
    noise_offset: float = 0.05
    min_snr: float = 5.0
    high_noise: float = 1.0
    mouth_weight: float = 0.0
    face_weight: float = 0.0
    shake: float = 0.0
    bias: float = 0.0


@dataclass(frozen=True)
class ShowRecipe:
    """The clip that stages show while they train: frames, and how it is sampled."""

    frames: int = 50
    steps: int = 25
    cfg: float = 3.5


@dataclass(frozen=True)
class Recipe:
    """A whole run. Phases that are left out are not run; the others run in the order of PHASES."""

    name: str
    data: DataRecipe
    seed: int = 0
    model: ModelStart = field(default_factory=ModelStart)
    show: ShowRecipe = field(default_factory=ShowRecipe)
    autoencoder: AutoencoderPhase | None = None
    analyzer: AnalyzerPhase | None = None
    style: StylePhase | None = None
    projections: ProjectionsPhase | None = None
    stage1: StagePhase | None = None
    stage2: StagePhase | None = None
    stage3: StagePhase | None = None

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
    except tomllib.TOMLDecodeError as error:
        raise PortraitError(f"{path}: not TOML: {error}") from error
    for each in overrides:
        _override(values, each)
    return recipe_from_dict(values, str(path))


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
    except tomllib.TOMLDecodeError:
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

    def shorter(phase: Any) -> Any:
        if phase is None:
            return None
        return replace(phase, settings=replace(phase.settings, steps=max(2, round(phase.settings.steps * factor))))

    return replace(recipe, **{name: shorter(getattr(recipe, name)) for name in PHASES})
