"""Training of the built-in face analyser within a budget of time, on pictures of both versions, and its export to ONNX."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoints.model_file import BUILTIN_MODEL, load_model
from ..errors import PortraitError
from ..io.files import locked_folder, whole_file
from ..io.progress import Progress
from ..io.strict_config import LARGEST_SEED, Checked, limited, required
from ..networks.face_landmarks import ANALYZER_SIZE, POSE_UNITS, FaceAnalyzerNetwork
from ..optional_deps import cv2, kornia_filters
from .analyzer_faces import AnalyzerFaces, AnalyzerFacesConfig, prepared_faces
from .budget import BudgetPhase, Report, train_for
from .config import AnalyzerLoss, check_name
from .face_config import BudgetSettings
from .recipe import load_toml
from .train_landmarks import analyzer_loss, export_onnx, load_onnx_weights

Batch = dict[str, Tensor]
NEW = "new"  # a network from random weights
CHUNK = 64
REGIONS = {"points": slice(0, 68), "mouth": slice(48, 68), "eyes": slice(36, 48), "brows": slice(17, 27)}


@dataclass(frozen=True)
class AnalyzerChanges(Checked):
    """What happens to a picture before the analyser sees it. zoom: largest logarithm; shift: largest, of the width; roll: largest, degrees;
    light: strength of a slope of brightness; brightness: spread of what is added, saturation: spread of the factor on colours; color: spread
    of logarithms of gains and gamma; blur: largest standard deviation,
    pixels of 128; noise: largest standard deviation, of 255; jpeg: share of pictures that are compressed, down to the quality
    `jpeg_quality`; gray: share without colour; no_face: share in which there is no face."""

    zoom: float = limited(0.2, 0, 4)
    shift: float = limited(0.12, 0, 1)
    roll: float = limited(8.0, 0, 90)
    light: float = limited(0.4, 0, 1)
    brightness: float = limited(0.06, 0, 1)
    saturation: float = limited(0.3, 0, 2)
    color: float = limited(0.18, 0, 2)
    blur: float = limited(1.4, 0, 20)
    noise: float = limited(8.0, 0, 128)
    jpeg: float = limited(0.2, 0, 1)
    jpeg_quality: int = limited(25, 1, 100)
    gray: float = limited(0.06, 0, 1)
    no_face: float = limited(0.08, 0, 1)


@dataclass(frozen=True)
class FaceNetworkRecipe(Checked):
    """What trainings of networks that read faces have in common."""

    name: str = limited(least=1, most=200)
    settings: BudgetSettings = required()
    faces: AnalyzerFacesConfig = field(default_factory=AnalyzerFacesConfig)
    seed: int = limited(0, 0, LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)


@dataclass(frozen=True)
class AnalyzerRecipe(FaceNetworkRecipe):
    """A training of the face analyser. start: a model file whose analyser learns on, "" the built-in model's, `new` random weights;
    widths, hidden: of a new one, see FaceAnalyzerNetwork."""

    changes: AnalyzerChanges = field(default_factory=AnalyzerChanges)
    loss: AnalyzerLoss = field(default_factory=AnalyzerLoss)
    start: str = ""
    widths: tuple[int, ...] = limited((48, 80, 128), 8, 1024, least=2, most=4)
    hidden: int = limited(384, 8, 8192)


def load_reading_recipe(path: Path | str, overrides: tuple[str, ...] = ()) -> AnalyzerRecipe:
    """A recipe file with `section.key=value` overrides."""
    return load_toml(path, AnalyzerRecipe, overrides)


Recipe = TypeVar("Recipe", bound=FaceNetworkRecipe)


@dataclass(frozen=True)
class FaceNetworkRun(ABC, Generic[Recipe]):
    """A recipe in a folder. data: folder of the rendered pictures; jobs: processes that render."""

    recipe: Recipe
    folder: Path
    data: Path
    report: Report = print
    progress: Progress | None = None
    jobs: int = 1
    device: torch.device = torch.device("cpu")

    def train(self, seconds: float, output: Path) -> Path:
        """Trains for `seconds`, rendering not counted, going on from what the folder holds, and writes the network."""
        recipe = self.recipe
        with locked_folder(self.folder, f"training {recipe.name}"):
            train, test = prepared_faces(recipe.faces, self.data, self.jobs, self.report)
            self.report(f"{len(train)} pictures to learn from, {len(test)} to test, {train.images.nbytes / 1e9:.2f} GB")
            phase, shape = self.phase(train, test)
            about = json.dumps({"phase": phase.name, **shape})
            phase.module.eval()
            with torch.no_grad():
                self.report("before: " + shown(phase.validate()))
            step = train_for(
                phase, recipe.settings, seconds, self.folder, recipe.seed, about, self.report, self.progress
            )
            self.write(phase, step, output)
        self.report(f"{output}: {output.stat().st_size / 1e6:.1f} MB")
        return output

    @abstractmethod
    def phase(self, train: AnalyzerFaces, test: AnalyzerFaces) -> tuple[BudgetPhase, dict[str, object]]:
        """What learns, on the device, and what decides the shapes of its weights."""

    @abstractmethod
    def write(self, phase: BudgetPhase, step: int, output: Path) -> None:
        """The network after `step` steps as a file."""


class ReadingRun(FaceNetworkRun[AnalyzerRecipe]):
    """A training of the face analyser, which ends as an ONNX file."""

    def phase(self, train: AnalyzerFaces, test: AnalyzerFaces) -> tuple[BudgetPhase, dict[str, object]]:
        network = self.start().to(self.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        shape: dict[str, object] = {"widths": self.recipe.widths, "hidden": self.recipe.hidden}
        return AnalyzerBudget(network, train, test, self.recipe, self.device), shape

    def write(self, phase: BudgetPhase, step: int, output: Path) -> None:
        assert isinstance(phase, AnalyzerBudget)
        with whole_file(output) as temporary:
            temporary.write_bytes(export_onnx(phase.module.network.cpu().eval()))

    def start(self) -> FaceAnalyzerNetwork:
        recipe = self.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = FaceAnalyzerNetwork(recipe.widths, recipe.hidden)
        if recipe.start == NEW:
            return network
        path = recipe.start or BUILTIN_MODEL
        onnx = load_model(path).face_analyzer
        if onnx is None:
            raise PortraitError(f"{path} has no face analyser to go on from: set start to {NEW!r}")
        load_onnx_weights(network, onnx)
        return network


class AnalyzerBudget:
    """The phase of the face analyser; pictures are changed on the device that learns."""

    name = "face_analyzer"

    def __init__(
        self, network: FaceAnalyzerNetwork, train: AnalyzerFaces, test: AnalyzerFaces, recipe: AnalyzerRecipe,
        device: torch.device,
    ):  # fmt: skip
        self.train, self.test, self.recipe, self.device = train, test, recipe, device
        self.module = AnalyzerLearner(network, recipe.loss, fixed_norms=recipe.start != NEW)

    def batch(self, generator: torch.Generator, done: float) -> Batch:
        """`settings.batch_size` changed pictures and their targets in FaceAnalyzerNetwork.raw's units."""
        count = self.recipe.settings.batch_size
        chosen = torch.randint(len(self.train), (count,), generator=generator)
        batch = changed_faces(self.train.rows(chosen), self.recipe.changes, generator)
        batch["images"] = batch["images"].contiguous(memory_format=torch.channels_last)
        return {name: value.to(self.device) for name, value in batch.items()}

    def validate(self) -> dict[str, float]:
        """Errors on unseen people, see `analyzer_errors`, by version of the pictures."""
        network = self.module.network
        found: dict[str, float] = {}
        for version in (1, 2):
            faces = self.test.rows((self.test.version == version).nonzero()[:, 0])
            parts = [network(part.to(self.device)) for part in analyzer_images(faces.images).split(CHUNK)]
            points, keypoints, expression, pose, _ = (
                torch.cat(values).float().cpu() for values in zip(*parts, strict=True)
            )
            errors = analyzer_errors(points, keypoints, expression, pose, faces)
            found |= {f"v{version}_{name}": value for name, value in errors.items()}
        return found


class AnalyzerLearner(nn.Module):
    """Batch -> loss and its parts. fixed_norms: batch norms stay as they are, which were folded into the convolutions."""

    def __init__(self, network: FaceAnalyzerNetwork, weights: AnalyzerLoss, fixed_norms: bool):
        super().__init__()
        self.network, self.weights, self.fixed_norms = network, weights, fixed_norms

    def train(self, mode: bool = True) -> AnalyzerLearner:
        super().train(mode)
        if self.fixed_norms:
            for module in self.network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        raw = {name: value.float() for name, value in self.network.raw(batch["images"]).items()}
        with torch.autocast(batch["images"].device.type, enabled=False):
            return analyzer_loss(raw, batch, self.weights)


def analyzer_images(images: Tensor) -> Tensor:
    """Pictures n S S 3, uint8 -> n 3 128 128 in [0, 1]."""
    planes = rearrange(images, "n h w c -> n c h w").float() / 255
    return functional.interpolate(planes, (ANALYZER_SIZE, ANALYZER_SIZE), mode="bilinear", antialias=True)


def analyzer_errors(
    landmarks: Tensor, keypoints: Tensor, expression: Tensor, pose: Tensor, faces: AnalyzerFaces
) -> dict[str, float]:
    """Mean errors of predictions, positions as fractions of the side: landmarks by region and head keypoints in pixels of 256, root mean
    squares of the expression's coefficients and of the angles in degrees."""
    side = faces.images.shape[1]
    apart = 256 * (landmarks - faces.landmarks / side).norm(dim=-1)
    found = {name: float(apart[:, rows].mean()) for name, rows in REGIONS.items()}
    found["keypoints"] = float(256 * (keypoints - faces.head_keypoints / side).norm(dim=-1).mean())
    found["expression"] = float((expression - faces.expression).square().mean().sqrt())
    found["pose"] = float((pose - faces.pose).square().mean().sqrt())
    return found


def shown(figures: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.3g}" for name, value in figures.items())


def changed_faces(faces: AnalyzerFaces, changes: AnalyzerChanges, generator: torch.Generator) -> Batch:
    """Pictures as cameras, light and codecs change them, 128 x 128 in [0, 1], and targets in FaceAnalyzerNetwork.raw's units."""
    count, side = len(faces), faces.images.shape[1]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    images = rearrange(faces.images, "n h w c -> n c h w").float() / 255
    present = uniform(0, 1, 1) >= changes.no_face
    empty = (~present[:, 0]).nonzero()[:, 0]
    if len(empty):
        images[empty] = _without_face(images[empty], generator)
    zoom, angle = uniform(-changes.zoom, changes.zoom).exp(), uniform(-changes.roll, changes.roll)
    shift = uniform(-changes.shift, changes.shift, 2)
    turn = angle * math.pi / 180  # clockwise
    cos, sin = zoom * turn.cos(), zoom * turn.sin()
    linear = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)  # of positions from the middle
    inverse = torch.linalg.inv(linear)
    corner = -(inverse @ (2 * shift[:, :, None]))
    grid = functional.affine_grid(
        torch.cat([inverse, corner], 2), [count, 3, ANALYZER_SIZE, ANALYZER_SIZE], align_corners=False
    )
    images = functional.grid_sample(images, grid, padding_mode="border", align_corners=False)

    def moved(points: Tensor) -> Tensor:
        return ((points / side - 0.5) @ linear.transpose(1, 2) + shift[:, None]).flatten(1)

    pose = torch.cat([faces.pose[:, :2], faces.pose[:, 2:] + angle[:, None]], 1)
    return {
        "images": as_cameras(images, changes, generator),
        "landmarks": moved(faces.landmarks),
        "head_keypoints": moved(faces.head_keypoints),
        "expression": faces.expression,
        "pose": pose / pose.new_tensor(POSE_UNITS),
        "present": present.float(),
    }


def _without_face(images: Tensor, generator: torch.Generator) -> Tensor:
    """An enlarged corner of every picture, coarse noise, or one colour."""
    count, side = len(images), images.shape[-1]
    corner = functional.interpolate(
        images[:, :, : side // 5, : side // 5], (side, side), mode="bicubic", align_corners=False
    )
    noise = functional.interpolate(torch.rand(count, 3, 12, 12, generator=generator), (side, side), mode="bilinear")
    plain = torch.rand(count, 3, 1, 1, generator=generator).expand_as(images)
    kind = torch.randint(3, (count, 1, 1, 1), generator=generator)
    return torch.where(kind == 0, corner.clamp(0, 1), torch.where(kind == 1, noise, plain))


def as_cameras(images: Tensor, changes: AnalyzerChanges, generator: torch.Generator) -> Tensor:
    """Light, colours, blur, noise and compression at random: n 3 h w in [0, 1]."""
    count, side = len(images), images.shape[-1]

    def normal(*shape: int) -> Tensor:
        return torch.randn(count, *shape, generator=generator)

    def chance(share: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, generator=generator) < share).float()

    line = torch.linspace(-1, 1, side)
    way = 2 * math.pi * torch.rand(count, generator=generator)
    slope = way.cos()[:, None, None] * line + way.sin()[:, None, None] * line[:, None]  # n h w
    strength = changes.light * torch.rand(count, 1, 1, generator=generator)
    images = images * (1 + strength * slope)[:, None].clamp(0.1, 2)
    gray = images.mean(1, keepdim=True)
    saturation = (1 + changes.saturation * normal(1, 1, 1)).clamp(0.2, 1.8) * (1 - chance(changes.gray))
    images = (gray + saturation * (images - gray)).clamp(1e-4, 1)
    gamma, gains = ((changes.color * normal(channels, 1, 1)).exp() for channels in (1, 3))
    images = images.pow(gamma) * gains + changes.brightness * normal(1, 1, 1) * chance(0.5)
    chosen = torch.randperm(count, generator=generator)[: count // 2]
    images[chosen] = _blurred(images[chosen], changes.blur * torch.rand(len(chosen), generator=generator))
    deviation = changes.noise / 255 * torch.rand(count, 1, 1, 1, generator=generator)
    images = (images + deviation * normal(3, side, side)).clamp(0, 1)
    for row in torch.nonzero(chance(changes.jpeg).flatten()).flatten().tolist():
        quality = int(torch.randint(changes.jpeg_quality, 96, (), generator=generator))
        images[row] = _compressed(images[row], quality)
    return images


def _blurred(images: Tensor, deviations: Tensor) -> Tensor:
    """Gaussian blur with a deviation in pixels for every image."""
    side = 2 * max(1, math.ceil(2.5 * float(deviations.max()))) + 1
    sigma = deviations.clamp(min=1e-2)[:, None].expand(-1, 2)
    return kornia_filters.gaussian_blur2d(images, side, sigma, border_type="replicate")


def _compressed(image: Tensor, quality: int) -> Tensor:
    """An image 3 h w in [0, 1] with the traces of JPEG."""
    pixels = (image.movedim(0, 2) * 255).round().byte().numpy()
    done, code = cv2.imencode(".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return torch.from_numpy(cv2.imdecode(code, cv2.IMREAD_COLOR)).movedim(2, 0).float() / 255
