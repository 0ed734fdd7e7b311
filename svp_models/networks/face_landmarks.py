"""The built-in face analyser: one image -> landmarks, head keypoints, expression coefficients and pose.

It is trained on synthetic faces, does for them what a 3DMM regressor and a landmark detector do for photographs, and runs as
ONNX (`face.detectors.built_in`).
"""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

ANALYZER_SIZE = 128  # pixels per side of its input
OUTPUTS = {"landmarks": (68, 2), "head_keypoints": (8, 2), "expression": (64,), "pose": (3,), "present": ()}
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


class FaceAnalyzerNetwork(nn.Module):
    """Convolutional regressor. Input: n x 3 x 128 x 128 RGB in [0, 1].

    Outputs (a tuple in the order of OUTPUTS): landmarks n x 68 x 2 and head keypoints n x 8 x 2 as fractions of the side,
    expression n x 64, pose n x 3 (yaw, pitch, roll in degrees), presence n in [0, 1].
    """

    def __init__(self, widths: tuple[int, ...] = (48, 80, 128), hidden: int = 384):
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(4), nn.Conv2d(48, widths[0], 3, padding=1), nn.SiLU()]
        layers.append(_Residual(widths[0]))
        for narrow, wide in pairwise(widths):
            layers += [_shrink(narrow, wide), _Residual(wide)]
        side = ANALYZER_SIZE // 4 // 2 ** (len(widths) - 1)
        self.trunk = nn.Sequential(*layers, nn.Conv2d(widths[-1], 32, 1), nn.SiLU(), nn.Flatten())
        self.mix = nn.Sequential(nn.Linear(32 * side * side, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.heads = nn.ModuleDict(
            {
                "landmarks": nn.Linear(hidden, 136),
                "head_keypoints": nn.Linear(hidden, 16),
                "expression": nn.Linear(hidden, 64),
                "pose": nn.Linear(hidden, 3),
                "present": nn.Linear(hidden, 1),
            }
        )

    def raw(self, images: Tensor) -> dict[str, Tensor]:
        """Outputs in training units: points as fractions from the image centre, pose / POSE_UNITS, presence as a logit."""
        mixed = self.mix(self.trunk(images * 2 - 1))
        return {name: head(mixed) for name, head in self.heads.items()}

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
