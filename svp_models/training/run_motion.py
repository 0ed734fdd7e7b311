"""Runs the phases of a motion recipe: data, training, and the file of the finished generator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from ..checkpoints.built_in_motion import MotionGeneratorModel, load_motion_generator, save_motion_generator
from ..checkpoints.model_file import BUILTIN_MODEL, load_model
from ..data.motion_clips import INDEX, MotionClips, open_motion_clips, prepare_synthetic_motion
from ..errors import PortraitError
from ..io.files import locked_folder
from ..io.progress import Progress
from ..networks.motion_generator import MotionGeneratorNetwork
from ..synthetic.speakers import SPLITS
from .checkpoint import write_atomically
from .dry_run import benchmark, describe
from .logger import Report
from .motion_recipe import MotionRecipe
from .run import MODEL, this_process
from .train_motion import GeneratorTraining
from .trainer import Phase, train


@dataclass
class MotionRun:
    """A motion recipe in a folder; each phase has a folder of its own in it. progress: see run.Run."""

    recipe: MotionRecipe
    folder: Path
    report: Report = print
    progress: Progress | None = None
    jobs: int = 1

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps other runs out of the folder."""
        if not this_process().is_main_process:
            yield
            return
        with locked_folder(self.folder, f"training {self.recipe.name}"):
            yield

    def phase(self, name: str) -> Path:
        """Trains or resumes one phase; returns the model file, which is written last and ends the phase."""
        output = self.output(name)
        if not output.exists():
            self.prepare_data()
            this_process().wait_for_everyone()
            phase, config = self.build(name), self.run_config(name)
            settings = getattr(self.recipe, name).settings
            train(phase, settings, output.parent, self.recipe.seed, config, self.report, self.progress)
            if this_process().is_main_process:
                phase.module.to("cpu")
                self._write(phase, output, {**self._provenance(phase), "training": config, "step": str(settings.steps)})
                self.report(f"{name}: {output}")
            this_process().wait_for_everyone()
        return output

    def output(self, name: str) -> Path:
        """The model file of a phase."""
        if name not in self.recipe.phases():
            raise PortraitError(
                f"recipe {self.recipe.name!r} has no phase {name!r}; it has {', '.join(self.recipe.phases())}"
            )
        return self.folder / name / MODEL

    def run_config(self, name: str) -> str:
        """JSON of everything that a phase depends on."""
        values = {"recipe": self.recipe.name, "network": asdict(self.recipe.network), "data": asdict(self.recipe.data)}
        return json.dumps({**values, "phase_name": name, "phase": asdict(getattr(self.recipe, name))})

    def build(self, name: str) -> Phase:
        """The phase with a fresh network."""
        clips, test = self.clips("train"), self.clips("test")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            network = MotionGeneratorNetwork(replace(self.recipe.network, vocabulary=clips.vocabulary))
            if self.recipe.generator is None:
                raise PortraitError(f"recipe {self.recipe.name!r} has no phase 'generator'")
            return GeneratorTraining(network, clips, test, self.recipe.generator)

    def clips(self, split: str) -> MotionClips:
        """The prepared clips of a split."""
        return open_motion_clips(Path(self.recipe.data.folder) / split)

    def prepare_data(self) -> None:
        """Performs the recipe's synthetic clips where its folder is not finished yet."""
        data = self.recipe.data
        if data.synthetic is None or not this_process().is_main_process:
            return
        options = {"train": data.synthetic, "test": replace(data.synthetic, speakers=data.test_speakers)}
        missing = [split for split in SPLITS if not (Path(data.folder) / split / INDEX).exists()]
        if not missing:
            return
        model = load_model(data.model or BUILTIN_MODEL)
        for split in missing:
            self.report(
                f"performing {options[split].speakers} synthetic people of the {split} split into {data.folder}"
            )
            prepare_synthetic_motion(
                Path(data.folder) / split, options[split], model, split, self.report, self._check_stop
            )

    def describe(self, name: str) -> list[str]:
        """Lines about what training a phase means. The data has to exist; nothing is written."""
        self.output(name)
        lines = describe(self.build(name), getattr(self.recipe, name).settings)
        return [f"{name} of recipe {self.recipe.name!r}, {self.folder / name}", *lines]

    def benchmark(self, name: str) -> str:
        """One line: whether data loading keeps up with a phase."""
        return benchmark(self.build(name), getattr(self.recipe, name).settings, self.recipe.seed)

    def export(self, model: Path, output: Path) -> None:
        """Writes a model of this run to `output` in half precision."""
        if this_process().is_main_process:
            loaded = load_motion_generator(model)
            write_atomically(output, lambda path: save_motion_generator(path, loaded, loaded.metadata))
            self.report(f"{output}: {output.stat().st_size / 1e6:.1f} MB")

    def _write(self, phase: Phase, output: Path, metadata: dict[str, str]) -> None:
        if not isinstance(phase, GeneratorTraining):
            raise PortraitError(f"phase {phase.name!r} writes no model")
        model = MotionGeneratorModel(phase.module.network, phase.clips.style_space)
        write_atomically(output, lambda path: save_motion_generator(path, model, metadata, torch.float32))

    def _provenance(self, phase: Phase) -> dict[str, str]:
        return {"recipe": self.recipe.name, "seed": str(self.recipe.seed), "data_version": phase.clips.version}

    def _check_stop(self) -> None:
        """Called after each clip: a signal may have come, and there is no step to finish."""
        if self.progress is not None:
            self.progress(1, 1)
