"""One phase on a model that is loaded already, as a node asks for it: settings of the paper's recipe, run, finished file."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from ..checkpoints.native import PortraitModel, read_metadata, save_model
from ..config import config_to_json
from ..dataset.building import difference
from ..dataset.manifest import open_manifest, read_json, write_json
from ..errors import PortraitError
from ..io.progress import Progress
from .checkpoint import write_atomically
from .recipe import RECIPES, DataRecipe, ModelStart, Recipe, StagePhase, StylePhase, bound, load_recipe
from .run import Run

LOG = logging.getLogger(__name__)
PAPER = RECIPES / "svp.toml"
START, RECORD = "start.safetensors", "run.json"
STARTED_FROM = "started_from"  # metadata of a trained model: `weights_digest` of the one it began as
WARMUP = 0.1  # at most this share of the steps


def style_phase(model: PortraitModel, steps: int, batch: int, learning_rate: float, temperature: float) -> StylePhase:
    """The paper's training of the style extractor with these settings."""
    phase = load_recipe(PAPER).style
    shortest = min(phase.shortest, model.config.style.max_frames // 2)
    settings = _settings(phase, steps=steps, batch=batch, learning_rate=learning_rate)
    return replace(phase, settings=settings, temperature=temperature, shortest=shortest)


def stage_phase(stage: str, frames: int, **settings: Any) -> StagePhase:
    """One of the paper's stages with these settings, see TrainSettings; stage 1 stays with single frames."""
    phase = getattr(load_recipe(PAPER), stage)
    return replace(phase, settings=_settings(phase, **settings), frames=frames if phase.temporal else phase.frames)


def _settings(phase: StylePhase | StagePhase, steps: int, **given: Any) -> Any:
    # A graph shows its own clips; and no processes are started from inside a host, which would have to run twice.
    fixed = {"workers": 0, "sample_steps": 0, "warmup": min(phase.settings.warmup, round(WARMUP * steps))}
    return replace(phase.settings, steps=steps, **fixed, **given)


def train_model(
    model: PortraitModel,
    name: str,
    phase: StylePhase | StagePhase,
    dataset: Path,
    folder: Path,
    output: Path,
    seed: int,
    progress: Progress | None = None,
    cpu: bool = False,
) -> None:
    """Trains phase `name` (as in PHASES) on a copy of the model and writes the result to `output` in half precision.

    folder: of the run; the same call goes on from its newest checkpoint, one with another model, data set or settings raises
    PortraitError, and so does a file at `output` that this run has not written. progress: see Run. cpu: even if there is a
    GPU; the first training of a process decides.
    """
    manifest = open_manifest(dataset)
    watched = phase.settings.checkpoint_steps if manifest.samples("test") else 0
    phase = replace(phase, settings=replace(phase.settings, validate_steps=watched))
    # Labels of drawn people are exact, but a style is extracted from what the model's analyser reads.
    drawn = manifest.card["options"]["drawn"] is not None
    data = DataRecipe(str(dataset), read_expressions=drawn and model.face_analyzer is not None)
    recipe = Recipe(folder.name, data, seed, ModelStart(file=str(folder / START)), **{name: phase})
    values = {"phase": name, "settings": json.loads(config_to_json(phase))}
    record = {"model": weights_digest(model), "seed": seed, "data": manifest.card, **values}
    run = Run(recipe, folder, LOG.info, progress)
    PartialState(cpu=cpu)
    with run.alone():
        begun = _is_begun(folder, record)
        _check_output(output, run.output(name))
        if not begun:
            metadata = {**model.metadata, STARTED_FROM: record["model"]}
            write_atomically(folder / START, lambda path: save_model(path, model, metadata, torch.float32))
            write_json(folder / RECORD, record)
        trained = run.phase(name)
        if not output.exists():
            run.export(trained, output)


def weights_digest(model: PortraitModel) -> str:
    """16 hex digits of the SHA-256 over config, weights in float32 and face analyser."""
    digest = sha256(config_to_json(model.config).encode())
    for part in (model.networks, model.vae):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().flatten().numpy())
    digest.update(model.face_analyzer or b"")
    return digest.hexdigest()[:16]


def _is_begun(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the folder holds a training with this record; one with another, or something else, raises PortraitError."""
    found = read_json(folder / RECORD)
    if found is None:
        if others := [each.name for each in folder.glob("*") if not each.name.startswith((START, "."))]:
            raise PortraitError(f"{folder} holds {others[0]} and no training: choose another name")
        return False
    if bound(found) != bound(record):
        raise PortraitError(
            f"{folder} was begun with another model, data set or settings ({difference(bound(found), bound(record))}): repeat "
            "those to go on, or choose another name"
        )
    return True


def _check_output(output: Path, trained: Path) -> None:
    """Only what was written from the trained model of this run may be there already."""
    if output.exists() and not (trained.exists() and _metadata(output) == read_metadata(trained)):
        raise PortraitError(f"{output} is there already and is not of this training: choose another name")


def _metadata(path: Path) -> dict[str, str] | None:
    """None for a file that is not the pack's."""
    try:
        return read_metadata(path)
    except PortraitError:
        return None
