"""KDTalker's network, trained on the same clips as the pack's generator, on the same test cases."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ..checkpoints.safetensors_io import load_strict, read_safetensors
from ..data.motion_clips import FPS
from ..errors import PortraitError
from ..io.strict_config import json_value
from ..motion.kdtalker import OVERLAP, generate_kdtalker
from ..networks.layers import shapes_only
from ..networks.motion_generators.kdtalker import KDTalkerConfig, KDTalkerNetwork
from .motion import Figures, between_seeds, lip_figures, motion_figures, prefixed, spread_of
from .motion_cases import POSE, MotionCase

KIND = "motion_baseline"
SEEDS = 2


class KDTalkerBaseline:
    """The network with the scale of its numbers."""

    def __init__(self, path: Path) -> None:
        tensors, metadata = read_safetensors(path, KIND)
        values = json_value(metadata.get("network", ""), f"{path}: network")
        if not isinstance(values, dict):
            raise PortraitError(f"{path}: it does not say the network's sizes: train it again")
        self.mean, self.spread = tensors.pop("mean").float(), tensors.pop("spread").float()
        with shapes_only():
            self.network = KDTalkerNetwork(KDTalkerConfig(**values))
        load_strict(self.network, {name.removeprefix("network."): t.float() for name, t in tensors.items()}, path)
        self.network.eval()

    def generate(self, features: Tensor, portrait: Tensor, seed: int) -> Tensor:
        """Numbers n c from a voice n A and a resting face."""
        channels, known = len(self.mean), len(portrait)
        rest = torch.zeros(channels)
        rest[:known], rest[-1] = portrait, 1.0
        scaled = ((rest - self.mean) / self.spread)[None]
        face = functional.pad(scaled[:, :known], (0, channels - known))
        generator = torch.Generator().manual_seed(seed)
        return (
            generate_kdtalker(self.network, features, face, scaled, generator, overlap=OVERLAP) * self.spread
            + self.mean
        )


def kdtalker_figures(path: Path, cases: Sequence[MotionCase]) -> Figures:
    """The figures of whole clips of `evaluation.motion`, with kdtalker_ before their names."""
    baseline = KDTalkerBaseline(path)
    began = time.perf_counter()
    made = [baseline.generate(case.features, case.portrait, case.seed) for case in cases]
    taken = time.perf_counter() - began
    other = [baseline.generate(case.features, case.portrait, case.seed + 1) for case in cases[:16]]
    swapped = [baseline.generate(case.other_features, case.portrait, case.seed) for case in cases]
    truth = [case.numbers for case in cases]
    figures = {
        **motion_figures(cases, made),
        "lip_corr_swapped": lip_figures(cases, swapped)["lip_corr"],
        "seed_diversity": between_seeds([made[:16], other], slice(POSE.start, POSE.start + 3)) / spread_of(truth),
        "realtime_factor": sum(map(len, truth)) / FPS / taken,
    }
    return prefixed("kdtalker_", figures)
