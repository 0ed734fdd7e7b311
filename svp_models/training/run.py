"""Runs the phases of a recipe, each from the model file that the one before has written; and one phase on a loaded model."""

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

from ..checkpoints.model_file import BUILTIN_MODEL, load_model, save_model, style_space_of
from ..checkpoints.safetensors_io import read_metadata
from ..checkpoints.vexpress import load_vexpress
from ..config import config_to_json
from ..data.manifest import FILE as MANIFEST
from ..data.manifest import current_metadata, open_manifest, read_json, write_json
from ..data.prepare import difference, prepare
from ..data.schema import OutputOptions, PrepareConfig, SyntheticOptions
from ..errors import PortraitError
from ..io.files import locked_folder
from ..io.progress import Progress
from ..model import PortraitModel, build_networks
from ..networks.face_landmarks import FaceAnalyzerNetwork
from ..networks.vae import PortraitVae, build_vae
from ..presets import PRESETS
from ..types import LIVEPORTRAIT, SVP
from .checkpoint import write_atomically
from .config import BUILT_IN, DataRecipe, Recipe, StagePhase, StartModel, StylePhase, TrainSettings
from .dataset import Clips, Expressions, predict_expressions
from .dry_run import benchmark, describe
from .logger import Report
from .recipe import RECIPES, completed_phase, load_recipe, run_config, without_changeable
from .sample_video import write_sample_video
from .train_diffusion import ProjectionsTraining, StageTraining
from .train_distill import DistillTraining
from .train_landmarks import AnalyzerTraining, export_onnx
from .train_style import StyleTraining
from .train_vae import AutoencoderTraining
from .trainer import Phase, train

LOG = logging.getLogger(__name__)
MODEL = "model.safetensors"
PAPER = RECIPES / "svp.toml"
START, RECORD = "start.safetensors", "run.json"
STARTED_FROM = "started_from"  # metadata of a trained model: `weights_digest` of the one it began as
MAX_WARMUP = 0.1  # share of the steps


@dataclass(frozen=True)
class RecipeRun:
    """A recipe in a folder, in which each phase has a folder of its own with checkpoints, log, samples and finally MODEL.

    progress: over the steps of one phase; it may raise to stop between two. jobs: processes that make synthetic data.
    """

    recipe: Any
    folder: Path
    report: Report = print
    progress: Progress | None = None
    jobs: int = 1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out of the folder; PortraitError names the process that works there already."""
        if not this_process().is_main_process:
            yield
            return
        with locked_folder(self.folder, f"training {self.recipe.name}"):
            yield

    def output(self, name: str) -> Path:
        """The model file of a phase."""
        if name not in self.recipe.phases():
            raise PortraitError(
                f"recipe {self.recipe.name!r} has no phase {name!r}; it has {', '.join(self.recipe.phases())}"
            )
        return self.folder / name / MODEL


@dataclass(frozen=True)
class Run(RecipeRun):
    """Each phase starts from the model file of the one before. progress: also over the clips whose expressions are predicted."""

    recipe: Recipe

    def phase(self, name: str) -> Path:
        """Trains or resumes one phase; returns its model file, which is written last and ends the phase."""
        output = self.output(name)
        if not output.exists():
            model = self.start(name)
            phase, config = self.build(name, model), run_config(self.recipe, name)
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

    def _check_stop(self) -> None:
        """Called after each synthetic clip: a signal may have come, and there is no step to finish."""
        if self.progress is not None:
            self.progress(1, 1)

    def describe(self, name: str) -> list[str]:
        """Lines about what training a phase means. The data and the model it starts from have to exist; nothing is written."""
        if not (Path(self.recipe.data.folder) / MANIFEST).exists():
            raise PortraitError(
                f"{self.recipe.data.folder}: there is no prepared data yet, and a dry run makes none: run svp train without "
                "--dry-run, or svp prepare"
            )
        data = replace(self.recipe.data, cache_frames=False, predict_expressions=False)  # they would write files
        run = replace(self, recipe=replace(self.recipe, data=data))
        lines = describe(run.build(name, self.start(name)), getattr(self.recipe, name).settings)
        return [f"{name} of recipe {self.recipe.name!r}, {self.folder / name}", *lines]

    def benchmark(self, name: str) -> str:
        """One line: whether data loading keeps up with a phase."""
        phase = self.build(name, self.start(name))
        return benchmark(phase, getattr(self.recipe, name).settings, self.recipe.seed)

    def export(self, model: Path, output: Path) -> None:
        """Writes a model of this run to `output` in half precision."""
        if this_process().is_main_process:
            loaded = load_model(model)
            write_atomically(output, lambda path: save_model(path, loaded, loaded.metadata))
            self.report(f"{output}: {output.stat().st_size / 1e6:.1f} MB")

    def render_data(self) -> None:
        """Renders the recipe's synthetic data where its folder is not finished yet."""
        data, folder = self.recipe.data.synthetic, Path(self.recipe.data.folder)
        if data is None or (folder / MANIFEST).exists() or not this_process().is_main_process:
            return
        people = SyntheticOptions(
            data.speakers, data.test_speakers, data.clips_per_speaker, data.seed, data.takes, data.version
        )
        output = OutputOptions(size=data.size, seconds=data.seconds)
        self.report(f"rendering {data.speakers + data.test_speakers} synthetic people into {folder}")
        prepare(None, folder, PrepareConfig(output, synthetic=people), self.jobs, check_stop=self._check_stop)

    def start(self, name: str) -> PortraitModel:
        """The model that a phase begins with: that of the phase before, or the recipe's."""
        self.output(name)
        phases = self.recipe.phases()
        if before := phases[: phases.index(name)]:
            if not self.output(before[-1]).exists():
                raise PortraitError(
                    f"{name} starts from {self.output(before[-1])}, which does not exist: train {before[-1]} first"
                )
            return load_model(self.output(before[-1]))
        return self.first_model()

    def first_model(self) -> PortraitModel:
        """The model that the recipe starts from."""
        model, start = self._stored_model(), self.recipe.model
        model.config = replace(model.config, scheduler=start.schedule(model.config.scheduler))
        return model

    def _stored_model(self) -> PortraitModel:
        start = self.recipe.model
        if start.file == BUILT_IN:
            return load_model(BUILTIN_MODEL)
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
        clips, settings = self.clips("train", model), config.settings
        with_test = settings.validate_steps or settings.sample_steps
        test = self.clips("test", model) if with_test else clips  # otherwise it is not used
        if name == "autoencoder":
            if not isinstance(model.vae, PortraitVae):
                raise PortraitError(
                    f"phase 'autoencoder' trains the pack's small VAE, and {model.config.name!r} has the VAE of Stable Diffusion: "
                    "remove that phase from the recipe"
                )
            return AutoencoderTraining(model.vae, clips, test, config, seed)
        if name == "analyzer":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                network = FaceAnalyzerNetwork()
            return AnalyzerTraining(network, clips, test, config, seed)
        expressions, test_expressions = self.expressions(clips, model), self.expressions(test, model)
        if name == "style":
            return StyleTraining(model.networks.style_extractor, expressions, test_expressions, config)
        if name == "projections":
            return ProjectionsTraining(model.networks, expressions, config, model.config, seed)
        write_sample = partial(write_sample_video, model, test_expressions, self.recipe.sample_video, config.style)
        if name == "distill":
            return DistillTraining(name, model, expressions, test_expressions, config, seed, write_sample)
        return StageTraining(name, model, expressions, test_expressions, config, seed, write_sample)

    def expressions(self, clips: Clips, model: PortraitModel) -> Expressions:
        """The expressions that styles are learnt from, as the recipe's data section says."""
        sizes = model.config.style.expression_size, clips.expression(0).shape[1]
        if sizes[0] != sizes[1]:
            raise PortraitError(
                f"style.expression_size is {sizes[0]}, expressions in the space {clips.space} have {sizes[1]} numbers: change it "
                "in the model's config, or data.space"
            )
        if not self.recipe.data.predict_expressions:
            return Expressions(clips)
        if clips.space == LIVEPORTRAIT:
            raise PortraitError(
                f"data.predict_expressions is for the space {SVP}: turn it off, motions in LivePortrait's space are predictions"
            )
        if model.face_analyzer is None:
            raise PortraitError("data.predict_expressions needs a model with a face analyser: train that phase first")
        folder = self.folder / "predictions"
        return predict_expressions(clips, model.face_analyzer, folder, self.report, self.progress)

    def clips(self, split: str, model: PortraitModel) -> Clips:
        """The clips of a split, with the audio features of this model."""
        self.render_data()
        this_process().wait_for_everyone()
        cache = self.folder / "decoded" if self.recipe.data.cache_frames else None
        with this_process().main_process_first():  # the others find the decoded frames
            return Clips(self.recipe.data.folder, split, model.config.audio, cache, self.recipe.data.space)


def this_process() -> PartialState:
    """This process among those that train together; on the CPU if the variable ACCELERATE_USE_CPU says so."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))


def steps_of(model: PortraitModel) -> int:
    """The steps that a model has been trained for according to its file, 0 if it does not say."""
    text = model.metadata.get("step", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def finish(name: str, model: PortraitModel, phase: Phase) -> None:
    """Copies what a phase has trained into the model, where it is not trained in place."""
    phase.module.to("cpu")
    if isinstance(phase, AutoencoderTraining):
        phase.finish()
    if isinstance(phase, DistillTraining):
        phase.finish()
    if isinstance(phase, AnalyzerTraining):
        model.face_analyzer = export_onnx(phase.module.network)


def style_phase(
    model: PortraitModel, steps: int, batch_size: int, learning_rate: float, temperature: float
) -> StylePhase:
    """The paper's training of the style extractor with these settings."""
    phase = load_recipe(PAPER).style
    if phase is None:
        raise PortraitError(f"{PAPER} has no phase 'style': restore the file")
    min_frames = min(phase.min_frames, model.config.style.max_frames // 2)
    settings = _settings(phase, steps=steps, batch_size=batch_size, learning_rate=learning_rate)
    return replace(phase, settings=settings, temperature=temperature, min_frames=min_frames)


def stage_phase(stage: str, frames: int, **settings: Any) -> StagePhase:
    """One of the paper's stages with these settings, see TrainSettings; stage 1 always learns from single frames."""
    phase = getattr(load_recipe(PAPER), stage)
    return replace(phase, settings=_settings(phase, **settings), frames=frames if phase.temporal else phase.frames)


def _settings(phase: StylePhase | StagePhase, steps: int, **given: Any) -> TrainSettings:
    """num_workers is 0 because worker processes would import the host again; the graph itself samples videos."""
    warmup_steps = min(phase.settings.warmup_steps, round(MAX_WARMUP * steps))
    return replace(phase.settings, steps=steps, num_workers=0, sample_steps=0, warmup_steps=warmup_steps, **given)


@dataclass(frozen=True)
class PhaseRequest:
    """One phase to train on a loaded model. name: as in PHASES; folder: of the run; output: the model file to write."""

    name: str
    phase: StylePhase | StagePhase
    dataset: Path
    folder: Path
    output: Path
    seed: int


def train_phase(
    model: PortraitModel, request: PhaseRequest, progress: Progress | None = None, cpu: bool = False
) -> None:
    """Trains one phase on a copy of the model and writes the result to `request.output` in half precision.

    The same call resumes from the newest checkpoint in the folder. A folder with another model, data set or settings raises
    PortraitError, and so does an output file that this run has not written. progress: see Run. cpu: even if there is a GPU;
    the first training of a process decides.
    """
    name, folder, manifest = request.name, request.folder, open_manifest(request.dataset)
    validate_steps = request.phase.settings.checkpoint_steps if manifest.samples("test") else 0
    phase = replace(request.phase, settings=replace(request.phase.settings, validate_steps=validate_steps))
    # Labels of synthetic people are exact, but a style is later extracted from the predictions of the model's analyser.
    synthetic = manifest.metadata["options"]["synthetic"] is not None
    data = DataRecipe(str(request.dataset), predict_expressions=synthetic and model.face_analyzer is not None)
    phases: dict[str, Any] = {name: phase}
    recipe = Recipe(folder.name, data, request.seed, StartModel(file=str(folder / START)), **phases)
    values = {"phase": name, "settings": json.loads(config_to_json(phase))}
    record = {"model": weights_digest(model), "seed": request.seed, "data": manifest.metadata, **values}
    run = Run(recipe, folder, LOG.info, progress)
    PartialState(cpu=cpu)
    with run.locked():
        started = _is_started(folder, record)
        _check_output(request.output, run.output(name))
        if not started:
            metadata = {**model.metadata, STARTED_FROM: record["model"]}
            write_atomically(folder / START, lambda path: save_model(path, model, metadata, torch.float32))
            write_json(folder / RECORD, record)
        trained = run.phase(name)
        if not request.output.exists():
            run.export(trained, request.output)


def weights_digest(model: PortraitModel) -> str:
    """16 hex digits of the SHA-256 over config, weights in float32 and face analyser."""
    digest = sha256(config_to_json(model.config).encode())
    for part in (model.networks, model.vae):
        for name, tensor in sorted(part.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().float().flatten().numpy())
    digest.update(model.face_analyzer or b"")
    return digest.hexdigest()[:16]


def _is_started(folder: Path, record: dict[str, Any]) -> bool:
    """Whether the folder holds a training with this record; a training with another one, or other files, raise PortraitError."""
    found = read_json(folder / RECORD)
    if found is None:
        if others := [path.name for path in folder.glob("*") if not path.name.startswith((START, "."))]:
            raise PortraitError(f"{folder} holds {others[0]} and no training: choose another name")
        return False
    found["data"] = current_metadata(found.get("data", {}))
    if found.get("phase") == record["phase"]:
        found["settings"] = completed_phase(record["phase"], found.get("settings"))
    found, wanted = without_changeable(found), without_changeable(record)
    if found != wanted:
        raise PortraitError(
            f"{folder} was begun with another model, data set or settings ({difference(found, wanted)}): use the same ones to "
            "resume, or choose another name"
        )
    return True


def _check_output(output: Path, trained: Path) -> None:
    """Raises PortraitError for an output file that exists and is not this run's."""
    if output.exists() and not (trained.exists() and _metadata(output) == read_metadata(trained)):
        raise PortraitError(f"{output} exists and is not of this training: choose another name")


def _metadata(path: Path) -> dict[str, str] | None:
    """The metadata of a model file, None for any other file."""
    try:
        return read_metadata(path)
    except PortraitError:
        return None
