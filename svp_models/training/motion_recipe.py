"""Recipes of motion generators: what `svp train motion` reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.motion_clips import MotionDataOptions
from ..errors import PortraitError
from ..io.strict_config import LARGEST_SEED, Checked, config_from_dict, limited, one_of, required
from ..networks.motion_generator import MotionGeneratorConfig
from ..networks.style_predictor import StylePredictorConfig
from .config import MAX_COUNT, TrainSettings, check_name, check_probs
from .recipe import recipe_values

MOTION_PHASES = ("lip_expert", "generator", "words", "style_predictor", "movement_detector", "kdtalker")


@dataclass(frozen=True)
class GeneratorPhase(Checked):
    """The motion generator by flow matching.

    frames: of a sample. level_mean, level_deviation: of the noise level's logit. level_probs: shares of the samples whose frames
    have one level, a level each, given frames before them, given frames around a gap. causal_prob: share of the steps in which
    no frame sees later ones. history_noise: largest noise on given frames before a sample. known_prob: share of the samples of
    which some groups of numbers are given. phrase_prob: share of the samples around a phrase of a clip with words, the others are
    anywhere. *_drop_prob: shares without a condition. style_noise: standard deviation of a
    style's error in units of its own. portrait_noise: of the portrait's numbers. mouth_weight, pose_weight, lids_weight:
    weights of their numbers in the loss beside 1. lip_expert_weight: of the expert's opinion on the clean motion. start: a file of
    a motion generator that this one goes on from; it may lack the layers of words. '' starts afresh, and the phase of
    words from the generator of the same run.
    """

    settings: TrainSettings
    start: str = limited("", least=0, most=4096)
    frames: int = limited(96, 4, MAX_COUNT)
    level_mean: float = limited(0.0, -10, 10)
    level_deviation: float = limited(1.0, 1e-3, 10)
    level_probs: tuple[float, float, float, float] = limited((0.5, 0.15, 0.25, 0.1), 0, 1)
    causal_prob: float = limited(0.3, 0, 1)
    history_noise: float = limited(0.1, 0, 1)
    known_prob: float = limited(0.3, 0, 1)
    phrase_prob: float = limited(0.0, 0, 1)
    voice_drop_prob: float = limited(0.1, 0, 1)
    style_drop_prob: float = limited(0.15, 0, 1)
    portrait_drop_prob: float = limited(0.2, 0, 1)
    habits_drop_prob: float = limited(0.4, 0, 1)
    words_drop_prob: float = limited(0.15, 0, 1)
    style_noise: float = limited(0.5, 0, 10)
    portrait_noise: float = limited(0.03, 0, 10)
    mouth_weight: float = limited(3.0, 0, 1e6)
    pose_weight: float = limited(2.0, 0, 1e6)
    lids_weight: float = limited(2.0, 0, 1e6)
    lip_expert_weight: float = limited(0.0, 0, 1e6)
    validation_clips: int = limited(24, 1, MAX_COUNT)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probs("level_probs", self.level_probs)


@dataclass(frozen=True)
class StylePredictorPhase(Checked):
    """The diffusion of a style given a voice. prosody_noise: standard deviation of what is added to a voice's prosody, in units of
    its spread; portrait_noise: to the portrait's numbers; portrait_drop_prob: share without a portrait."""

    settings: TrainSettings
    network: StylePredictorConfig = field(default_factory=StylePredictorConfig)
    prosody_noise: float = limited(0.15, 0, 10)
    portrait_noise: float = limited(0.1, 0, 10)
    portrait_drop_prob: float = limited(0.3, 0, 1)
    level_mean: float = limited(-2.2, -10, 10)
    level_deviation: float = limited(1.2, 1e-3, 10)


@dataclass(frozen=True)
class LipExpertPhase(Checked):
    """The style-aware lip expert. frames: of a sample; most_lag: frames by which lips out of step are moved at most, at least
    `least_lag`; other_clip_prob: share of the lips out of step that are of another clip."""

    settings: TrainSettings
    frames: int = limited(25, 4, MAX_COUNT)
    least_lag: int = limited(4, 1, MAX_COUNT)
    most_lag: int = limited(40, 1, MAX_COUNT)
    other_clip_prob: float = limited(0.3, 0, 1)
    width: int = limited(96, 1, 8192)
    layers: int = limited(3, 1, 64)


@dataclass(frozen=True)
class MovementDetectorPhase(Checked):
    """The detector of named movements in poses. frames: of a sample."""

    settings: TrainSettings
    frames: int = limited(140, 4, MAX_COUNT)


@dataclass(frozen=True)
class KDTalkerPhase(Checked):
    """KDTalker's network at this size on the same data, for comparison."""

    settings: TrainSettings
    frames: int = limited(64, 4, MAX_COUNT)
    dim: int = limited(192, 8, 8192)
    layers: int = limited(4, 1, 64)
    heads: int = limited(6, 1, 256)


@dataclass(frozen=True)
class MotionData(Checked):
    """The clips. folder: their place, filled where it is empty: with `synthetic` people, or from `dataset`, a folder of svp prepare
    --space liveportrait whose clips are cut into pieces of `seconds`. model: the portrait model whose style extractor reads their
    styles, '' for the built-in one; test_speakers: of the synthetic test split, for validation."""

    folder: str = limited(least=1, most=4096)
    model: str = limited("", least=0, most=4096)
    synthetic: MotionDataOptions | None = None
    dataset: str = limited("", least=0, most=4096)
    seconds: float = limited(3.0, 0.2, 60)
    test_speakers: int = limited(24, 1, 100_000)


@dataclass(frozen=True)
class MotionRecipe(Checked):
    """A training of a motion generator. words: of networks.motion_generator.PhrasePose, in a finished generator. Phases that are left out are not run; the others run in the order of MOTION_PHASES."""

    name: str = limited(least=1, most=200)
    data: MotionData = required()
    seed: int = limited(0, 0, LARGEST_SEED)
    network: MotionGeneratorConfig = field(default_factory=MotionGeneratorConfig)
    lip_expert: LipExpertPhase | None = None
    generator: GeneratorPhase | None = None
    words: GeneratorPhase | None = None
    style_predictor: StylePredictorPhase | None = None
    movement_detector: MovementDetectorPhase | None = None
    kdtalker: KDTalkerPhase | None = None
    kind: str = one_of("motion", "motion")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)

    def phases(self) -> list[str]:
        """The names of the phases of this recipe, in their order."""
        return [name for name in MOTION_PHASES if getattr(self, name) is not None]


def load_motion_recipe(path: Path | str, overrides: Sequence[str] = ()) -> MotionRecipe:
    """A recipe file of a motion generator with `section.key=value` overrides."""
    values: dict[str, Any] = recipe_values(path, overrides)
    if values.get("kind") != "motion":
        raise PortraitError(
            f'{path}: no recipe of a motion generator (kind = "motion" is missing): use recipes/motion_drawn.toml'
        )
    return config_from_dict(MotionRecipe, values, f"{path}:")
