"""Runs the phases of a recipe one after the other, each from the model file that the one before has written.

One phase on a model that is loaded already, as a node asks for it: settings of the paper's recipe, run, finished file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from ..checkpoints.model_file import load_model, save_model, style_space_of
from ..checkpoints.safetensors_io import read_metadata
from ..checkpoints.vexpress import load_vexpress
from ..config import PRESETS, config_to_json
from ..data.manifest import FILE as MANIFEST
from ..data.manifest import open_manifest, read_json, write_json
from ..data.prepare import difference, prepare
from ..data.schema import DrawnOptions, OutputOptions
from ..data.schema import Recipe as DataOptions
from ..errors import PortraitError
from ..io.files import locked_folder
from ..io.progress import Progress
from ..model import PortraitModel, build_networks
from ..networks.face_landmarks import FaceAnalyzerNetwork
from ..networks.vae import build_vae
from .checkpoint import write_atomically
from .config import RECIPES, DataRecipe, ModelStart, Recipe, StagePhase, StylePhase, bound, load_recipe, resolved
from .dataset import Clips, Expressions, read_expressions
from .dry_run import describe, reading_against_learning
from .logger import Report
from .sample_video import show_clip
from .train_diffusion import ProjectionsTraining, StageTraining
from .train_landmarks import AnalyzerTraining, export_onnx
from .train_style import StyleTraining
from .train_vae import AutoencoderTraining
from .trainer import Phase, train

MODEL = "model.safetensors"


@dataclass(frozen=True)
class Run:
    """A recipe in a folder. Every phase has its own below it: checkpoints, log, samples and finally `model.safetensors`, from
    which the next one starts. progress: over the steps of one phase, and before over the clips whose expressions are read; it
    may raise to stop between two."""

    recipe: Recipe
    folder: Path
    report: Report = print
    progress: Progress | None = None
    workers: int = 1  # processes that draw data

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While the run works in its folder no other one does; PortraitError says who does already."""
        if not this_process().is_main_process:
            yield
            return
        with locked_folder(self.folder, f"training {self.recipe.name}"):
            yield

    def phase(self, name: str) -> Path:
        """Trains one phase, or goes on with it; returns its model file, which is written last and ends the phase."""
        output = self.output(name)
        if not output.exists():
            model = self.start(name)
            phase, config = self.build(name, model), resolved(self.recipe, name)
            settings = getattr(self.recipe, name).settings
            train(phase, settings, output.parent, self.recipe.seed, config, self.report, self.progress)
            if this_process().is_main_process:
                finish(name, model, phase)
                provenance = {"recipe": self.recipe.name, "seed": str(self.recipe.seed), "training": config}
                step = steps_of(model) + settings.steps
                metadata = {**model.metadata, **provenance, "step": str(step), "data_version": phase.clips.version}
                write_atomically(output, lambda path: save_model(path, model, metadata, torch.float32))
                self.report(f"{name}: {output}")
            this_process().wait_for_everyone()
        return output

    def _chance_to_stop(self) -> None:
        """For each clip that is drawn: a signal may have come, and there is no step to finish."""
        if self.progress is not None:
            self.progress(1, 1)

    def describe(self, name: str) -> list[str]:
        """Lines that tell what training a phase means; the data and the model it starts from have to be there. Nothing is
        written."""
        if not (Path(self.recipe.data.folder) / MANIFEST).exists():
            raise PortraitError(
                f"{self.recipe.data.folder}: there are no prepared data yet, and a dry run makes none: run svp train without "
                "--dry-run, or svp prepare"
            )
        data = replace(self.recipe.data, decoded=False, read_expressions=False)  # which change nothing of what is told
        reading = replace(self, recipe=replace(self.recipe, data=data))
        lines = describe(reading.build(name, self.start(name)), getattr(self.recipe, name).settings)
        return [f"{name} of recipe {self.recipe.name!r}, {self.folder / name}", *lines]

    def benchmark(self, name: str) -> str:
        """One line: how reading keeps up with learning in a phase."""
        phase = self.build(name, self.start(name))
        return reading_against_learning(phase, getattr(self.recipe, name).settings, self.recipe.seed)

    def export(self, model: Path, output: Path) -> None:
        """Writes a model of this run in half precision."""
        if this_process().is_main_process:
            loaded = load_model(model)
            write_atomically(output, lambda path: save_model(path, loaded, loaded.metadata))
            self.report(f"{output}: {output.stat().st_size / 1e6:.1f} MB")

    def draw_data(self) -> None:
        """Draws the recipe's synthetic data where its folder is not finished yet."""
        drawn, folder = self.recipe.data.synthetic, Path(self.recipe.data.folder)
        if drawn is None or (folder / MANIFEST).exists() or not this_process().is_main_process:
            return
        people = DrawnOptions(drawn.speakers, drawn.test_speakers, drawn.clips_per_speaker, drawn.seed, drawn.takes)
        output = OutputOptions(size=drawn.size, seconds=drawn.seconds)
        self.report(f"drawing {drawn.speakers + drawn.test_speakers} people into {folder}")
        prepare(None, folder, DataOptions(output, drawn=people), self.workers, look=self._chance_to_stop)

    def output(self, name: str) -> Path:
        """The model file of a phase."""
        if name not in self.recipe.phases():
            raise PortraitError(
                f"recipe {self.recipe.name!r} has no phase {name!r}; it has {', '.join(self.recipe.phases())}"
            )
        return self.folder / name / MODEL

    def start(self, name: str) -> PortraitModel:
        """The model that a phase begins with: that of the phase before, or the recipe's."""
        self.output(name)
        phases = self.recipe.phases()
        if before := phases[: phases.index(name)]:
            if not self.output(before[-1]).exists():
                raise PortraitError(
                    f"{name} starts from {self.output(before[-1])}, which is not there: train {before[-1]} first"
                )
            return load_model(self.output(before[-1]))
        start = self.recipe.model
        if start.file:
            return load_vexpress(start.file) if Path(start.file).is_dir() else load_model(start.file)
        config = PRESETS[start.preset]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            networks, vae = build_networks(config), build_vae(config.vae)
        return PortraitModel(config, networks, vae, None, style_space_of(networks.style_extractor))

    def build(self, name: str, model: PortraitModel) -> Phase:
        """The phase on a model."""
        config, seed = getattr(self.recipe, name), self.recipe.seed
        clips, settings = self._clips("train", model), config.settings
        watched = settings.validate_steps or settings.sample_steps
        test = self._clips("test", model) if watched else clips  # nobody looks at it
        if name == "autoencoder":
            return AutoencoderTraining(model.vae, clips, test, config, seed)
        if name == "analyzer":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network = FaceAnalyzerNetwork()
            return AnalyzerTraining(network, clips, test, config, seed)
        read, test_read = self._expressions(clips, model), self._expressions(test, model)
        if name == "style":
            return StyleTraining(model.networks.style_extractor, read, test_read, config)
        if name == "projections":
            return ProjectionsTraining(model.networks, read, config, model.config, seed)
        show = partial(show_clip, model, test_read, self.recipe.show, config.style)
        return StageTraining(name, model, read, test_read, config, seed, show)

    def _expressions(self, clips: Clips, model: PortraitModel) -> Expressions:
        """The expressions that styles are read from, as the recipe's data section says."""
        if not self.recipe.data.read_expressions:
            return Expressions(clips)
        if model.face_analyzer is None:
            raise PortraitError("data.read_expressions needs a model with a face analyser: train that phase first")
        return read_expressions(clips, model.face_analyzer, self.folder / "readings", self.report, self.progress)

    def _clips(self, split: str, model: PortraitModel) -> Clips:
        """The clips of a split, as this model hears them."""
        self.draw_data()
        this_process().wait_for_everyone()
        cache = self.folder / "decoded" if self.recipe.data.decoded else None
        with this_process().main_process_first():  # the others find the decoded frames
            return Clips(self.recipe.data.folder, split, model.config.audio, cache)


def this_process() -> PartialState:
    """This process among those that train together; on CPUs where Accelerate is told so by ACCELERATE_USE_CPU."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def steps_of(model: PortraitModel) -> int:
    """The steps that a model has been trained for, as far as its file says."""
    text = model.metadata.get("step", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def finish(name: str, model: PortraitModel, phase: Phase) -> None:
    """Puts what a phase has trained into the model, where it is not trained in place."""
    phase.module.to("cpu")
    if isinstance(phase, AutoencoderTraining):
        phase.finish()
    if isinstance(phase, AnalyzerTraining):
        model.face_analyzer = export_onnx(phase.module.network)


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
