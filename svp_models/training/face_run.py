"""A training with a budget of time: data, autoencoder, dense motion, denoiser and mask one after the other, and the model file at its end."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor, nn

from ..checkpoints.expression_basis import load_expression_basis
from ..checkpoints.model_file import BUILTIN_MODEL, FACE_ANALYZER, load_model, save_model, style_space_of
from ..config import config_to_json
from ..diffusion.face_inputs import dense_warp
from ..errors import PortraitError
from ..face.detectors.built_in import FaceAnalyzer
from ..io.files import locked_folder
from ..io.progress import Progress
from ..model import PortraitModel, PortraitNetworks, build_networks
from ..networks.style_extractor import StyleExtractor
from ..networks.vae import PortraitVae, build_vae
from ..signals import Interrupted
from ..synthetic.clips import DATA_VERSIONS
from .budget import BudgetPhase, Report, train_for
from .checkpoint import checkpoints, load_checkpoint, write_atomically
from .face_batches import FaceBatches
from .face_config import BudgetSettings, FaceRecipe
from .face_frames import FaceFrames, prepared_frames
from .train_dense_motion import FaceDenseTraining
from .train_face import FaceDenoiserModule, FaceDenoiserTraining
from .train_face_mask import FaceMaskModule, FaceMaskTraining
from .train_face_vae import FaceVaeTraining, balance_channels

MODEL = "model.safetensors"
PHASES = ("vae", "dense_motion", "denoiser", "mask")
LEARNT_FIRST = ("vae", "dense_motion")  # a denoiser learns the latents of the one and the differences to the other
TAKEN = ("style_extractor", "audio_projection", "style_projection")  # networks of the start model
OPTIONAL = ("face_mask", "dense_motion")  # networks that have widths of their own
SHAPES = ("unet", "vae", "guider", "audio", "style")  # sections of the config that decide the weights
STYLE_BATCH = 64
SHEET_ROWS = 6
WRITTEN = (
    "config",
    "style_space",
    "format",
    "format_version",
    "kind",
    "face_analyzer",
)  # metadata that every file gets when it is written
BALANCE_CLIPS = 48


@dataclass(frozen=True)
class FaceRun:
    """A recipe in a folder. data: folder of the rendered people; jobs: processes that render; device: of the training."""

    recipe: FaceRecipe
    folder: Path
    data: Path
    report: Report = print
    progress: Progress | None = None
    jobs: int = 1
    device: torch.device = torch.device("cpu")
    compiled: bool = False

    def train(self, seconds: float, phases: tuple[str, ...] = ()) -> Path:
        """Trains for `seconds`, data not counted, shared by the phases as the recipe says -> the model file, which is written
        after every phase. What the folder already holds goes on from there.

        phases: those that are trained; none: all, but autoencoder and dense motion only as long as no denoiser has learnt with them.
        """
        phases = phases or self.phases()
        with locked_folder(self.folder, f"training {self.recipe.name}"):
            model = self.start()
            batches, test = self.batches(model)
            shares = {name: getattr(self.recipe, name).settings.share for name in phases}
            end = time.monotonic() + seconds
            for number, name in enumerate(phases):
                left = max(0.0, end - time.monotonic())
                share = shares[name] / max(sum(shares[other] for other in phases[number:]), 1e-9)
                self.phase(name, model, batches, test, left * share)
                self.save(model)
            self.write_sheet(model, test)
        return self.folder / MODEL

    def phases(self) -> tuple[str, ...]:
        """The phases of a whole training from here on."""
        learnt = bool(checkpoints(self.folder / "denoiser"))
        dense = self.recipe.model().face_crop.dense_width and self.recipe.dense_motion.settings.share
        left_out = {*(LEARNT_FIRST if learnt else ()), *(() if dense else ("dense_motion",))}
        return tuple(name for name in PHASES if name not in left_out)

    def phase(self, name: str, model: PortraitModel, batches: FaceBatches, test: FaceBatches, seconds: float) -> None:
        """Trains one phase on the model."""
        folder, config = self.folder / name, getattr(self.recipe, name)
        phase = self.build(name, model, batches, test)
        settings: BudgetSettings = config.settings
        sections = {section: asdict(getattr(model.config, section)) for section in SHAPES}
        about = json.dumps({"phase": name, **sections})
        self.report(
            f"{name}: {seconds:.0f} s on {self.device}, {sum(map(count, trained(phase))) / 1e6:.2f} M parameters"
        )
        try:
            train_for(
                phase, settings, seconds, folder, self.recipe.seed, about, self.report, self.progress, self.compiled
            )
        except (Interrupted, KeyboardInterrupt):  # the next phase must not start from an older state
            self._finish(name, model, batches)
            self.save(model)
            raise
        self._finish(name, model, batches)

    def _finish(self, name: str, model: PortraitModel, batches: FaceBatches) -> None:
        """What a phase needs after its training, however that has ended."""
        if name == "vae":
            batch = batches.clips(BALANCE_CLIPS, 1, torch.Generator().manual_seed(0))
            balance_channels(portrait_vae(model), batch["target"].flatten(0, 1), batch["warped"].flatten(0, 1))

    def build(self, name: str, model: PortraitModel, batches: FaceBatches, test: FaceBatches) -> BudgetPhase:
        if name == "vae":
            fresh = not model.metadata.get("recipe")  # a model that training has written has learnt already
            return FaceVaeTraining(portrait_vae(model), batches, test, self.recipe.vae, fresh)
        if name == "dense_motion":
            return FaceDenseTraining(model, batches, test, self.recipe.dense_motion)
        if name == "denoiser":
            return FaceDenoiserTraining(model, batches, test, self.recipe.denoiser)
        if name == "mask":
            denoiser = FaceDenoiserModule(model, self.recipe.denoiser).to(self.device)
            return FaceMaskTraining(model, denoiser, batches, test, self.recipe.mask)
        raise PortraitError(f"there is no phase {name!r}; there are {', '.join(PHASES)}")

    def start(self) -> PortraitModel:
        """The model of the folder, or the recipe's start model if it has this configuration, or a new one with networks of that."""
        saved = self.folder / MODEL
        if saved.exists():
            model = load_model(saved, device=self.device)
            if config_to_json(model.config) != config_to_json(self.recipe.model()):
                raise PortraitError(f"{saved} is of another configuration: choose another folder or remove it")
            return self._placed(model)
        config = self.recipe.model()
        before = load_model(self.recipe.start or BUILTIN_MODEL)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            networks, vae = build_networks(config), build_vae(config.vae)
        learns_on = all(getattr(before.config, name) == getattr(config, name) for name in SHAPES)
        for name, network in before.networks.named_children():
            if name in TAKEN or learns_on:
                _take(networks, name, network)
        if before.config.vae == config.vae:
            vae.load_state_dict(before.vae.state_dict())
        metadata = before.metadata if before.config.vae == config.vae else {}
        space = style_space_of(networks.style_extractor)
        return self._placed(PortraitModel(config, networks, vae, before.face_analyzer, space, metadata))

    def _placed(self, model: PortraitModel) -> PortraitModel:
        """On the device, in the layout in which convolutions are fastest."""
        for part in (model.networks, model.vae):
            nn.utils.convert_conv2d_weight_memory_format(part.to(self.device), torch.channels_last)
        return model

    def batches(self, model: PortraitModel) -> tuple[FaceBatches, FaceBatches]:
        """Batches of training and test people."""
        found, recipe = [], self.recipe
        basis = load_expression_basis() if model.config.face_crop.expression_warp else None
        for split in ("train", "test"):
            began = time.monotonic()
            frames = prepared_frames(recipe.data, model.config.face_crop, split, self.data, self.jobs, self.report)
            size = f"{len(frames) * frames.length} frames, {frames.bytes() / 1e9:.2f} GB"
            self.report(f"{split}: {size} in {time.monotonic() - began:.0f} s")
            frames = frames.to(self.device)
            styles = clip_styles(model.networks.style_extractor, frames)
            changes = recipe.augmentation if split == "train" else replace(recipe.augmentation, color_prob=0.0)
            found.append(FaceBatches(frames, model.config, changes, styles, basis, dense_warp(model)))
        return found[0], found[1]

    def save(self, model: PortraitModel) -> None:
        """Writes the model as it is."""
        metadata = {
            "recipe": self.recipe.name,
            "seed": str(self.recipe.seed),
            "step": str(self.steps()),
            "data_version": DATA_VERSIONS[self.recipe.data.version],
            "training": json.dumps(asdict(self.recipe)),
        }
        model.style_space = style_space_of(model.networks.style_extractor)
        path = self.folder / MODEL
        write_atomically(path, lambda partial: save_model(partial, model, metadata, torch.float32))
        self.report(f"{path}: {path.stat().st_size / 1e6:.1f} MB")

    def steps(self) -> int:
        """Of the denoiser, up to its last checkpoint."""
        saved = checkpoints(self.folder / "denoiser")
        return int(load_checkpoint(saved[-1])["step"]) if saved else 0

    def write_sheet(self, model: PortraitModel, test: FaceBatches) -> Path:
        """A picture of test people, a row for each: portrait, warped portrait, generated crop, composed crop, mask, truth."""
        module = FaceDenoiserModule(model, self.recipe.denoiser).to(self.device).eval()
        batch = test.clips(SHEET_ROWS, 1, torch.Generator().manual_seed(7))
        found = module.sample(batch, model.config.steps, True, torch.Generator().manual_seed(7))
        warped, truth = batch["warped"][:, 0], batch["target"][:, 0]
        columns = [batch["portrait"], warped, found]
        if model.networks.face_mask is not None:
            mask = FaceMaskModule(model.networks.face_mask, self.recipe.mask, model)
            with torch.no_grad():
                composed, weight = mask.compose({"warped": warped, "generated": found})
            columns += [composed, 2 * weight.expand_as(composed) - 1]
        sheet = rearrange(torch.stack([*columns, truth]), "k n c h w -> (n h) (k w) c")
        pixels = ((sheet + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
        path = self.folder / "sheet.png"
        write_atomically(path, lambda partial: Image.fromarray(pixels).save(partial, format="PNG"))
        self.report(f"{path}: portrait, warped, generated, composed, mask, truth")
        return path

    def describe(self) -> list[str]:
        """What a training would be: parameters and the shares of the time; nothing is written."""
        model = self.start()
        parts = [("vae", model.vae), *model.networks.named_children()]
        lines = [f"{name}: {sum(map(count, module.parameters())) / 1e6:.2f} M parameters" for name, module in parts]
        shares = ", ".join(f"{name} {getattr(self.recipe, name).settings.share:g}" for name in self.phases())
        return [*lines, f"shares of the budget: {shares}; on {self.device}"]

    def export(self, model: Path, output: Path) -> None:
        """Writes a model of this run to `output` in half precision, with the recipe's steps and face analyser."""
        loaded, recipe = load_model(model), self.recipe
        if recipe.steps:
            loaded.config = replace(loaded.config, steps=recipe.steps)
        loaded.face_analyzer = Path(recipe.face_analyzer or FACE_ANALYZER).read_bytes()
        FaceAnalyzer(loaded.face_analyzer)  # raises for a file that is none
        trained = json.loads(loaded.metadata.get("training", "{}"))
        version = trained.get("data", {}).get("version", recipe.data.version)
        about = {"data_version": DATA_VERSIONS[version], "step": str(self.steps() or loaded.metadata.get("step", "0"))}
        if trained:  # with the name of the start model, and not where it lay
            about["training"] = json.dumps(trained | {"start": Path(trained.get("start", "")).name})
        metadata = {key: value for key, value in loaded.metadata.items() if key not in WRITTEN} | about
        write_atomically(output, lambda path: save_model(path, loaded, metadata))
        self.report(f"{output}: {output.stat().st_size / 1e6:.1f} MB, {about['step']} steps of the denoiser")


def _take(networks: PortraitNetworks, name: str, network: nn.Module) -> None:
    """Weights of another model's network; where this one has none, or one of another width, nothing."""
    own, weights = getattr(networks, name), network.state_dict()
    if own is None or (name in OPTIONAL and shapes_of(own.state_dict()) != shapes_of(weights)):
        return
    own.load_state_dict(weights)


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


def best_device() -> torch.device:
    """The GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def portrait_vae(model: PortraitModel) -> PortraitVae:
    """The model's VAE, which has to be one of this pack's."""
    if not isinstance(model.vae, PortraitVae):
        raise PortraitError(
            f"the VAE is of the kind {model.config.vae.kind}: only one of the kind portrait is trained here"
        )
    return model.vae


@torch.no_grad()
def clip_styles(extractor: StyleExtractor, frames: FaceFrames) -> Tensor:
    """Mean and standard deviation of the style of every clip: c 2 d."""
    extractor.eval()
    found = []
    length = min(frames.length, extractor.max_frames)
    for start in range(0, len(frames), STYLE_BATCH):
        rows = slice(start, start + STYLE_BATCH)
        audio, expression = frames.audio[rows, :length].float(), frames.controls[rows, :length, :64]
        mask = torch.ones(audio.shape[:2], dtype=torch.bool, device=audio.device)
        found.append(torch.stack(extractor(audio, expression, mask), 1))
    return torch.cat(found)


def trained(phase: BudgetPhase) -> list[nn.Parameter]:
    return [parameter for parameter in phase.module.parameters() if parameter.requires_grad]


def count(parameter: nn.Parameter) -> int:
    return parameter.numel()
