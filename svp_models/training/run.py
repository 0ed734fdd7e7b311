"""Runs the phases of a recipe one after the other, each from the model file that the one before has written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

from ..checkpoints.native import PortraitModel, load_model, save_model, style_space_of
from ..checkpoints.vexpress import load_vexpress
from ..config import PRESETS
from ..dataset.building import prepare
from ..dataset.manifest import FILE as MANIFEST
from ..dataset.options import DrawnOptions, OutputOptions
from ..dataset.options import Recipe as DataOptions
from ..errors import PortraitError
from ..io.files import locked_folder
from ..io.progress import Progress
from ..networks.face_analyzer import FaceAnalyzerNetwork
from ..networks.portrait_model import build_networks
from ..networks.vae import build_vae
from .analyzer import AnalyzerTraining, export_onnx
from .autoencoder import AutoencoderTraining
from .benchmark import reading_against_learning
from .checkpoint import write_atomically
from .clips import Clips
from .engine import Phase, train
from .follow import Report
from .plan import describe
from .projections import ProjectionsTraining
from .readings import Expressions, read_expressions
from .recipe import Recipe, resolved
from .show import show_clip
from .stages import StageTraining
from .style import StyleTraining

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
