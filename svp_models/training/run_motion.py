"""Runs the phases of a motion recipe: data, training, and the file of the finished generator."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.built_in_motion import BUILDERS, MotionModel, load_motion_model, save_motion_model
from ..checkpoints.model_file import BUILTIN_MODEL, load_model
from ..checkpoints.safetensors_io import write_safetensors
from ..data.motion_clips import INDEX, MotionClips, open_motion_clips, prepare_synthetic_motion
from ..data.motion_real import prepare_real_motion
from ..errors import PortraitError
from ..motion.coefficients import EXPRESSION_INDEX
from ..networks.motion_experts import LipExpert, LipExpertConfig, MovementDetector
from ..networks.motion_generator import MotionGeneratorConfig, MotionGeneratorNetwork
from ..networks.motion_generators.kdtalker import KDTalkerConfig, KDTalkerNetwork
from ..networks.style_predictor import StylePredictor
from ..synthetic.movements import CLASSES
from ..synthetic.speakers import SPLITS
from ..synthetic.visemes import VISEME_NAMES
from .checkpoint import write_atomically
from .dry_run import benchmark, describe
from .motion_recipe import KDTalkerPhase, MotionRecipe
from .run import RecipeRun, this_process
from .train_motion import GeneratorTraining, WordsTraining
from .train_motion_parts import KDTalkerTraining, LipExpertTraining, MovementDetectorTraining, StylePredictorTraining
from .trainer import Phase, train

PART_OF = {"words": "generator"}  # parts of the finished file that a phase makes, where they have another name


@dataclass(frozen=True)
class MotionRun(RecipeRun):
    """The phases of a motion generator learn apart from each other, from the same clips."""

    recipe: MotionRecipe

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
                metadata = {**self._provenance(phase), "training": config, "step": str(settings.steps)}
                write_atomically(output, lambda path: self._write(phase, path, metadata))
                self.report(f"{name}: {output}")
            this_process().wait_for_everyone()
        return output

    def run_config(self, name: str) -> str:
        """JSON of everything that a phase depends on."""
        values = {"recipe": self.recipe.name, "network": asdict(self.recipe.network), "data": asdict(self.recipe.data)}
        return json.dumps({**values, "phase_name": name, "phase": asdict(getattr(self.recipe, name))})

    def build(self, name: str) -> Phase:
        """The phase with a fresh network."""
        clips, test = self.clips("train"), self.clips("test")
        config = getattr(self.recipe, name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            sizes = replace(self.recipe.network, vocabulary=clips.vocabulary)
            if name == "words":
                start = config.start or str(self.output("generator"))
                return WordsTraining(started_from(start, sizes), clips, test, config)
            if name == "generator":
                bare = replace(sizes, pose_layers=0)
                network = started_from(config.start, bare) if config.start else MotionGeneratorNetwork(bare)
                return GeneratorTraining(network, clips, test, config, self._lip_expert())
            if name == "style_predictor":
                return StylePredictorTraining(StylePredictor(config.network), clips, test, config)
            if name == "lip_expert":
                lips = tuple(EXPRESSION_INDEX[coefficient] for coefficient in VISEME_NAMES)
                expert = LipExpert(LipExpertConfig(lips=lips, width=config.width, layers=config.layers))
                return LipExpertTraining(expert, clips, test, config)
            if name == "movement_detector":
                return MovementDetectorTraining(MovementDetector(len(CLASSES)), clips, test, config)
            return KDTalkerTraining(kdtalker_network(self.recipe.network, config), clips, test, config)

    def _lip_expert(self) -> LipExpert | None:
        """The lip expert of this run, where the recipe's generator learns from one."""
        if self.recipe.generator is None or not self.recipe.generator.lip_expert_weight:
            return None
        return load_motion_model(self.output("lip_expert")).lip_expert

    def clips(self, split: str) -> MotionClips:
        """The prepared clips of a split."""
        return open_motion_clips(Path(self.recipe.data.folder) / split)

    def prepare_data(self) -> None:
        """Fills the recipe's folder with clips where it is not finished yet."""
        data = self.recipe.data
        missing = [split for split in SPLITS if not (Path(data.folder) / split / INDEX).exists()]
        if not missing or not (data.synthetic or data.dataset) or not this_process().is_main_process:
            return
        model = load_model(data.model or BUILTIN_MODEL)
        for split in missing:
            target = Path(data.folder) / split
            self.report(f"clips of the {split} split into {target}")
            if data.dataset:
                prepare_real_motion(Path(data.dataset), target, model, data.seconds, split, self.report)
            elif data.synthetic is not None:
                speakers = data.synthetic.speakers if split == "train" else data.test_speakers
                options = replace(data.synthetic, speakers=speakers)
                prepare_synthetic_motion(target, options, model, split, self.report, self._check_stop)

    def describe(self, name: str) -> list[str]:
        """Lines about what training a phase means. The data has to exist; nothing is written."""
        self.output(name)
        lines = describe(self.build(name), getattr(self.recipe, name).settings)
        return [f"{name} of recipe {self.recipe.name!r}, {self.folder / name}", *lines]

    def benchmark(self, name: str) -> str:
        """One line: whether data loading keeps up with a phase."""
        return benchmark(self.build(name), getattr(self.recipe, name).settings, self.recipe.seed)

    def export(self, model: Path, output: Path) -> None:
        """Writes all parts that this run has trained into one file, in half precision."""
        if this_process().is_main_process:
            whole = self.assembled()
            write_atomically(output, lambda path: save_motion_model(path, whole, whole.metadata))
            self.report(f"{output}: {output.stat().st_size / 1e6:.1f} MB")

    def assembled(self) -> MotionModel:
        """The parts that are finished; metadata: the generator's, or else the first one's."""
        found: dict[str, Any] = {}
        metadata: dict[str, str] = {}
        for name in self.recipe.phases():
            attribute = PART_OF.get(name, name)
            if attribute in BUILDERS and self.output(name).exists():
                part = load_motion_model(self.output(name))
                found |= {attribute: getattr(part, attribute), "style_space": part.style_space}
                metadata = part.metadata if name == "generator" or not metadata else metadata
                if name == "words":
                    metadata = metadata | {f"words_{key}": part.metadata[key] for key in ("seed", "step", "training")}
        if not found:
            raise PortraitError(
                f"{self.folder}: no part of a motion generator is trained yet: run svp train motion first"
            )
        return MotionModel(metadata=metadata, **found)

    def _write(self, phase: Phase, output: Path, metadata: dict[str, str]) -> None:
        if isinstance(phase, KDTalkerTraining):
            sizes = json.dumps(asdict(phase.network.config))
            write_safetensors(output, "motion_baseline", phase.module.state_dict(), {**metadata, "network": sizes})
            return
        parts: dict[str, Any] = {PART_OF.get(phase.name, phase.name): phase.module.network}
        space = self.clips("train").style_space
        save_motion_model(output, MotionModel(style_space=space, **parts), metadata, torch.float32)

    def _provenance(self, phase: Phase) -> dict[str, str]:
        return {"recipe": self.recipe.name, "seed": str(self.recipe.seed), "data_version": phase.clips.version}

    def _check_stop(self) -> None:
        """Called after each clip: a signal may have come, and there is no step to finish."""
        if self.progress is not None:
            self.progress(1, 1)


def kdtalker_network(network: MotionGeneratorConfig, config: KDTalkerPhase) -> KDTalkerNetwork:
    """KDTalker's network at the size of a phase, for the numbers of this generator."""
    head_dim = config.dim // config.heads
    sizes = KDTalkerConfig(
        channels=network.channels,
        dim=config.dim,
        layers=config.layers,
        heads=config.heads,
        head_dim=head_dim,
        audio_dim=network.audio_size,
        rotary=min(KDTalkerConfig.rotary, head_dim // 2),
    )
    return KDTalkerNetwork(sizes)


def started_from(path: str, config: MotionGeneratorConfig) -> MotionGeneratorNetwork:
    """The generator of a file; PortraitError where its sizes are not those of the recipe. It may lack the layers of words, which
    begin afresh then."""
    network = load_motion_model(path).network
    old = network.config
    bare = replace(config, pose_layers=old.pose_layers, pose_width=old.pose_width, pose_memory=old.pose_memory)
    if old == bare != config and not old.pose_layers:
        grown = MotionGeneratorNetwork(config)
        grown.load_state_dict({**grown.state_dict(), **network.state_dict()})
        return grown.train()
    if old != config:
        raise PortraitError(
            f"{path}: its generator has other sizes or words than the recipe: use the recipe that it was made with"
        )
    return network.train()
