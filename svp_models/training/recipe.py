"""Recipe files: TOML with overrides -> Recipe, and whether two saved configurations make the same run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from ..errors import PortraitError
from ..io.strict_config import config_from_dict, config_to_json, with_current_names
from .config import PHASE_TYPES, DataRecipe, Recipe, StartModel

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

RECIPES = Path(__file__).resolve().parents[2] / "recipes"

# Keys of earlier versions, in recipe files, overrides, checkpoints, model files and the runs of the training nodes.
ALIASES = {
    "show": "sample_video",
    "decoded": "cache_frames",
    "read_expressions": "predict_expressions",
    "batch": "batch_size",
    "accumulate": "grad_accum_steps",
    "warmup": "warmup_steps",
    "final_rate": "final_lr_ratio",
    "average": "ema_decay",
    "workers": "num_workers",
    "keep": "keep_checkpoints",
    "explosion": "max_loss_ratio",
    "no_face": "no_face_prob",
    "drop_audio": "audio_drop_prob",
    "drop_expression": "expression_drop_prob",
    "mix_voices": "voice_mix_prob",
    "shortest": "min_frames",
    "trains": "trainable",
    "singles": "single_frame_prob",
    "margin": "reference_margin",
    "cross_emotion": "cross_emotion_prob",
    "own_style": "own_style_prob",
    "unconditional": "cond_drop_prob",
    "no_style": "style_drop_prob",
    "min_snr": "snr_gamma",
    "high_noise": "timestep_power",
    "shake": "keypoint_jitter",
    "bias": "keypoint_bias",
}

# What may differ between a run and its resumption: it changes what is stored and reported, not what is learnt.
MAY_CHANGE = (
    *("num_workers", "checkpoint_steps", "keep_checkpoints", "log_steps", "log_smoothing", "validate_steps"),
    *("sample_steps", "validation_batches", "max_loss_ratio", "loss_check_after"),
)


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe file with `section.key=value` overrides; an unknown key raises PortraitError that lists the known ones."""
    return recipe_from_dict(recipe_values(path, overrides), f"{path}:")


def load_toml(path: Path | str, kind: type, overrides: Sequence[str] = ()) -> Any:
    """A config of that kind from a TOML file with `section.key=value` overrides; it has no names of earlier versions."""
    return config_from_dict(kind, recipe_values(path, overrides, {}), f"{path}:")


def recipe_values(
    path: Path | str, overrides: Sequence[str] = (), aliases: Mapping[str, str] = MappingProxyType(ALIASES)
) -> dict[str, Any]:
    """The plain values of a recipe file with its overrides, under their present names."""
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PortraitError(f"{path}: no such recipe ({error.strerror}); the bundled ones are in recipes/") from error
    except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number of thousands of digits
        raise PortraitError(f"{path}: not TOML: {error}") from error
    values = with_current_names(values, aliases, f"{path}:")
    for override in overrides:
        _apply_override(values, override, aliases)
    return values


def recipe_from_dict(values: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """A recipe from plain values; keys of earlier versions are read too, see ALIASES."""
    return config_from_dict(Recipe, with_current_names(values, ALIASES, where), where)


def _apply_override(values: dict[str, Any], text: str, aliases: Mapping[str, str]) -> None:
    """Sets one value; a value that is not TOML by itself is taken as text."""
    name, sign, given = text.partition("=")
    if not sign or not name:
        raise PortraitError(f"{text!r} is no override: write section.key=value, for example stage1.settings.steps=100")
    try:
        value = tomllib.loads(f"value = {given}")["value"]
    except (ValueError, RecursionError):
        value = given
    *sections, key = (aliases.get(part, part) for part in name.strip().split("."))
    target = values
    for section in sections:
        target = target.setdefault(section, {})
        if not isinstance(target, dict):
            raise PortraitError(f"{text!r}: {section} is a value, not a section")
    target[key] = value


def run_config(recipe: Recipe, phase: str) -> str:
    """JSON of everything that a phase depends on, as its checkpoints and model file carry it."""
    values = {"recipe": recipe.name, "model": asdict(recipe.model), "data": asdict(recipe.data)}
    return json.dumps({**values, "phase_name": phase, "phase": asdict(getattr(recipe, phase))})


def same_run(saved: str, current: str) -> bool:
    """Whether two results of `run_config` make the same run; they may differ in MAY_CHANGE. `saved` may be of an earlier
    version: its keys are renamed, and keys it lacks count as having their defaults."""
    values = json.loads(current)
    phase_name = values.get("phase_name")
    before = {**with_current_names(json.loads(saved), ALIASES, "config"), "phase_name": phase_name}
    if phase_name in PHASE_TYPES:
        before["phase"] = completed_phase(phase_name, before.get("phase"))
    for name, kind in (("data", DataRecipe), ("model", StartModel)):
        if name in before:
            before[name] = completed(kind, before[name], name)
    if phase_name is None:
        del before["phase_name"]
    return without_changeable(before) == without_changeable(values)


def completed_phase(name: str, values: Any) -> Any:
    """`completed` for the phase of that name; values of no known phase are returned as they are."""
    return completed(PHASE_TYPES[name], values, name) if name in PHASE_TYPES else values


def completed(kind: type, values: Any, name: str) -> Any:
    """Plain values of a part of a recipe as an earlier version has saved them -> with the present names and all keys; values
    that are of no such part are returned as they are."""
    try:
        config = config_from_dict(kind, with_current_names(values, ALIASES, name), name)
    except PortraitError:
        return values
    return json.loads(config_to_json(config))


def without_changeable(values: Any) -> Any:
    """Plain values without the keys of MAY_CHANGE, at every depth."""
    if not isinstance(values, dict):
        return values
    return {key: without_changeable(value) for key, value in values.items() if key not in MAY_CHANGE}


def scaled(recipe: Any, factor: float) -> Any:
    """The recipe with `factor` times the steps (at least 2), to see that it runs."""
    if not (0 < factor < math.inf):
        raise PortraitError(f"--scale is {factor}: it must be above 0, 0.01 for a hundredth of the steps")

    def shortened(phase: Any) -> Any:
        if phase is None:
            return None
        return replace(phase, settings=replace(phase.settings, steps=max(2, round(phase.settings.steps * factor))))

    return replace(recipe, **{name: shortened(getattr(recipe, name)) for name in recipe.phases()})


def open_training(name: str) -> ModuleType:
    """A module of this package; PortraitError names the optional package that is missing and how to install it."""
    try:
        return import_module(f".{name}", __package__)
    except ImportError as error:
        raise PortraitError(
            f"training needs the package {error.name}: pip install 'svp-portrait[train]', from a clone -e '.[train]'"
        ) from error
