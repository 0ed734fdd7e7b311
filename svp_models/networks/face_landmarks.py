"""The built-in networks that read faces: the face analyser, for whole portraits, and the portrait reader, for a square close around one.

They are trained on synthetic faces, and do for them what a 3DMM regressor and a landmark detector do for photographs. The face
analyser runs as ONNX (`face.detectors.built_in`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from torch import Tensor, nn
from torch.nn import functional

from ..io.strict_config import Checked, limited

ANALYZER_SIZE = 128  # pixels per side of their inputs
OUTPUTS = {"landmarks": (68, 2), "head_keypoints": (8, 2), "expression": (64,), "pose": (3,), "present": ()}
# Of the portrait reader. eyes: left and right lid, 0 open to 1 closed, gaze right and down.
READER_OUTPUTS = {"landmarks": (68, 2), "head_keypoints": (8, 2), "expression": (64,), "eyes": (4,)}
# Regression targets are divided by these, so that all outputs have about unit size during training.
POSE_UNITS = (15.0, 10.0, 10.0)  # degrees: yaw, pitch, roll


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        return functional.silu(hidden + self.body(hidden))


def _shrink(narrow: int, wide: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(narrow, wide, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wide), nn.SiLU())


class _Regressor(nn.Module):
    """A convolutional trunk and a linear head for every output: n 3 128 128 in [0, 1] -> name: n k, in training units."""

    def __init__(self, widths: tuple[int, ...], hidden: int, outputs: Mapping[str, tuple[int, ...]]):
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(4), nn.Conv2d(48, widths[0], 3, padding=1), nn.SiLU()]
        layers.append(_Residual(widths[0]))
        for narrow, wide in pairwise(widths):
            layers += [_shrink(narrow, wide), _Residual(wide)]
        side = ANALYZER_SIZE // 4 // 2 ** (len(widths) - 1)
        self.trunk = nn.Sequential(*layers, nn.Conv2d(widths[-1], 32, 1), nn.SiLU(), nn.Flatten())
        self.mix = nn.Sequential(nn.Linear(32 * side * side, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, prod(shape)) for name, shape in outputs.items()})

    def raw(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs in training units: points as fractions from the image centre, pose / POSE_UNITS, presence as a logit."""
        mixed = self.mix(self.trunk(images * 2 - 1))
        return {name: head(mixed) for name, head in self.heads.items()}


class FaceAnalyzerNetwork(_Regressor):
    """Convolutional regressor. Input: n x 3 x 128 x 128 RGB in [0, 1].

    Outputs (a tuple in the order of OUTPUTS): landmarks n x 68 x 2 and head keypoints n x 8 x 2 as fractions of the side,
    expression n x 64, pose n x 3 (yaw, pitch, roll in degrees), presence n in [0, 1].
    """

    def __init__(self, widths: tuple[int, ...] = (48, 80, 128), hidden: int = 384):
        super().__init__(widths, hidden, OUTPUTS)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        raw = self.raw(images)
        pose = raw["pose"] * raw["pose"].new_tensor(POSE_UNITS)
        return (
            raw["landmarks"].unflatten(1, (68, 2)) + 0.5,
            raw["head_keypoints"].unflatten(1, (8, 2)) + 0.5,
            raw["expression"],
            pose,
            raw["present"].sigmoid().flatten(),
        )


@dataclass(frozen=True)
class PortraitReaderConfig(Checked):
    """widths: channels of the levels of the trunk; hidden: of the two layers behind it."""

    widths: tuple[int, ...] = limited((48, 96, 160), 8, 1024, least=2, most=4)
    hidden: int = limited(384, 8, 8192)


class PortraitReaderNetwork(_Regressor):
    """Convolutional regressor of a square around a face (`face.portrait_reader.face_squares`): n x 3 x 128 x 128 RGB in [0, 1].

    Outputs (a tuple in the order of READER_OUTPUTS): landmarks n x 68 x 2 and head keypoints n x 8 x 2 as fractions of the side,
    expression n x 64, eyes n x 4.
    """

    def __init__(self, config: PortraitReaderConfig = PortraitReaderConfig()):
        super().__init__(config.widths, config.hidden, READER_OUTPUTS)
        self.config = config

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        raw = self.raw(images)
        points = (raw[name].unflatten(1, (-1, 2)) + 0.5 for name in ("landmarks", "head_keypoints"))
        return *points, raw["expression"], raw["eyes"]
