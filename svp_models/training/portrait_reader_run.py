"""Training of the portrait reader within a budget of time, on squares around synthetic faces."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from ..checkpoints.portrait_reader import save_portrait_reader
from ..face.portrait_reader import EYES, MOUTH, face_squares
from ..networks.face_landmarks import ANALYZER_SIZE, READER_OUTPUTS, PortraitReaderConfig, PortraitReaderNetwork
from ..synthetic.clips import DATA_VERSIONS
from .analyzer_faces import AnalyzerFaces
from .analyzer_run import CHUNK, REGIONS, AnalyzerChanges, Batch, FaceNetworkRecipe, FaceNetworkRun, as_cameras
from .budget import BudgetPhase
from .config import PortraitReaderLoss
from .recipe import load_toml

NEAR = AnalyzerChanges(zoom=0.12, shift=0.05, roll=8.0, no_face=0.0)  # squares are where a first look saw the face


@dataclass(frozen=True)
class PortraitReaderRecipe(FaceNetworkRecipe):
    """A training of the portrait reader; changes.no_face has no meaning here."""

    changes: AnalyzerChanges = NEAR
    loss: PortraitReaderLoss = field(default_factory=PortraitReaderLoss)
    network: PortraitReaderConfig = field(default_factory=PortraitReaderConfig)


def load_reading_recipe(path: Path | str, overrides: tuple[str, ...] = ()) -> PortraitReaderRecipe:
    """A recipe file with `section.key=value` overrides."""
    return load_toml(path, PortraitReaderRecipe, overrides)


class ReadingRun(FaceNetworkRun[PortraitReaderRecipe]):
    """A training of the portrait reader, which ends as a safetensors file."""

    def phase(self, train: AnalyzerFaces, test: AnalyzerFaces) -> tuple[BudgetPhase, dict[str, object]]:
        recipe = self.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            network = PortraitReaderNetwork(recipe.network)
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        return PortraitReaderPhase(network, train, test, recipe, self.device), asdict(recipe.network)

    def write(self, phase: BudgetPhase, step: int, output: Path) -> None:
        assert isinstance(phase, PortraitReaderPhase)
        recipe = self.recipe
        metadata = {
            "recipe": recipe.name,
            "seed": str(recipe.seed),
            "step": str(step),
            "data_version": f"{DATA_VERSIONS[1]}, {DATA_VERSIONS[2]}",
            "training": json.dumps(asdict(recipe)),
        }
        save_portrait_reader(output, phase.module.network.cpu(), metadata)


class PortraitReaderPhase:
    """The phase of the portrait reader."""

    name = "portrait_reader"

    def __init__(
        self, network: PortraitReaderNetwork, train: AnalyzerFaces, test: AnalyzerFaces, recipe: PortraitReaderRecipe,
        device: torch.device,
    ):  # fmt: skip
        self.train, self.test, self.recipe, self.device = train, test, recipe, device
        self.module = PortraitReaderLearner(network, recipe.loss)

    def batch(self, generator: torch.Generator, done: float) -> Batch:
        """`settings.batch_size` squares as cameras, light and codecs change them, and their targets."""
        chosen = torch.randint(len(self.train), (self.recipe.settings.batch_size,), generator=generator)
        batch = changed_squares(self.train.rows(chosen), self.recipe.changes, generator)
        batch["images"] = batch["images"].contiguous(memory_format=torch.channels_last)
        return {name: value.to(self.device) for name, value in batch.items()}

    def validate(self) -> dict[str, float]:
        """Errors on unseen people, see `reader_errors`, by version of the pictures; the squares are those of the true landmarks."""
        found: dict[str, float] = {}
        for version in (1, 2):
            faces = self.test.rows((self.test.version == version).nonzero()[:, 0])
            matrices = face_squares(faces.landmarks).float()
            squares = sampled_squares(faces.images, matrices)
            parts = [self.module.network(part.to(self.device)) for part in squares.split(CHUNK)]
            values = [torch.cat(value).float().cpu() for value in zip(*parts, strict=True)]
            errors = reader_errors(dict(zip(READER_OUTPUTS, values, strict=True)), faces, matrices)
            found |= {f"v{version}_{name}": value for name, value in errors.items()}
        return found


class PortraitReaderLearner(nn.Module):
    """Batch -> loss and its parts."""

    def __init__(self, network: PortraitReaderNetwork, weights: PortraitReaderLoss):
        super().__init__()
        self.network, self.weights = network, weights

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        raw = {name: value.float() for name, value in self.network.raw(batch["images"]).items()}
        weights = self.weights
        points = torch.ones(68, 2, device=batch["images"].device)
        points[MOUTH] = weights.mouth_weight
        for eye in EYES:
            points[eye] = weights.eye_weight
        errors = {
            "landmarks": (points.flatten() * (raw["landmarks"] - batch["landmarks"]).abs()).mean(),
            "head_keypoints": (raw["head_keypoints"] - batch["head_keypoints"]).abs().mean(),
            "expression": (raw["expression"] - batch["expression"]).square().mean(),
            "eyes": (raw["eyes"] - batch["eyes"]).square().mean(),
        }
        loss = (
            weights.landmark_weight * errors["landmarks"]
            + weights.keypoint_weight * errors["head_keypoints"]
            + weights.expression_weight * errors["expression"]
            + weights.eyes_weight * errors["eyes"]
        )
        return loss, errors


def sampled_squares(images: Tensor, matrices: Tensor) -> Tensor:
    """Pictures n S S 3 (uint8) through maps n 2 3 of pixels onto the square from 0 to 1 -> n 3 128 128 in [0, 1]."""
    side = images.shape[1]
    inverse = torch.linalg.inv(matrices[:, :, :2])
    corner = 2 / side * inverse @ (0.5 - matrices[:, :, 2:]) - 1
    grid = functional.affine_grid(
        torch.cat([inverse / side, corner], 2), [len(images), 3, ANALYZER_SIZE, ANALYZER_SIZE], align_corners=False
    )
    planes = rearrange(images, "n h w c -> n c h w").float() / 255
    return functional.grid_sample(planes, grid, padding_mode="zeros", align_corners=False)


def in_squares(points: Tensor, matrices: Tensor) -> Tensor:
    """Points n k 2 through maps n 2 3."""
    return points @ matrices[:, :, :2].mT + matrices[:, None, :, 2]


def changed_squares(faces: AnalyzerFaces, changes: AnalyzerChanges, generator: torch.Generator) -> Batch:
    """Squares near the faces as cameras, light and codecs change them, 128 x 128 in [0, 1]; targets in PortraitReaderNetwork.raw's
    units."""
    count = len(faces)

    def uniform(most: float, *shape: int) -> Tensor:
        return most * (2 * torch.rand(count, *shape, generator=generator) - 1)

    zoom, turn = uniform(changes.zoom).exp(), uniform(changes.roll) * math.pi / 180
    cos, sin = zoom * turn.cos(), zoom * turn.sin()
    linear = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)  # of positions from the middle of the square
    squares = face_squares(faces.landmarks).float()
    centred = squares[:, :, 2:] - 0.5
    matrices = torch.cat([linear @ squares[:, :, :2], linear @ centred + uniform(changes.shift, 2, 1) + 0.5], 2)
    return {
        "images": as_cameras(sampled_squares(faces.images, matrices), changes, generator),
        "landmarks": (in_squares(faces.landmarks, matrices) - 0.5).flatten(1),
        "head_keypoints": (in_squares(faces.head_keypoints, matrices) - 0.5).flatten(1),
        "expression": faces.expression,
        "eyes": faces.eyes,
    }


def reader_errors(found: dict[str, Tensor], faces: AnalyzerFaces, matrices: Tensor) -> dict[str, float]:
    """Mean errors of predictions from squares: landmarks by region and head keypoints in pixels of pictures of 256, root mean squares of
    the expression's coefficients, of lids and of gaze."""
    unit = 256 / faces.images.shape[1] / torch.linalg.det(matrices[:, :, :2]).sqrt()[:, None]  # pixels in a side

    def apart(name: str, truth: Tensor) -> Tensor:
        return unit * (found[name] - in_squares(truth, matrices)).norm(dim=2)

    points = apart("landmarks", faces.landmarks)
    errors = {name: float(points[:, rows].mean()) for name, rows in REGIONS.items()}
    errors["keypoints"] = float(apart("head_keypoints", faces.head_keypoints).mean())
    errors["expression"] = float((found["expression"] - faces.expression).square().mean().sqrt())
    eyes = (found["eyes"] - faces.eyes).square()
    return errors | {"lids": float(eyes[:, :2].mean().sqrt()), "gaze": float(eyes[:, 2:].mean().sqrt())}
