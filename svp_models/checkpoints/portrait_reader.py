"""Files of portrait readers, which `svp train portrait-reader` writes, and those that the pack ships."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import torch

from ..face.detectors.built_in import FaceAnalyzer
from ..face.portrait_reader import CloserAnalyzer, PortraitReader
from ..io.strict_config import config_to_json
from ..networks.face_landmarks import PortraitReaderConfig, PortraitReaderNetwork
from ..networks.layers import shapes_only
from .model_file import FACE_READER, cast_weight
from .safetensors_io import load_strict, read_config, read_safetensors, write_safetensors

KIND = "portrait_reader"
BUILT_IN_READER = FACE_READER.with_name("portrait_reader.safetensors")
# Learnt from other people and another seed: it scores, and drives nothing.
SCORE_READER = FACE_READER.with_name("score_reader.safetensors")
COUNTER = "num_batches_tracked"  # of batch norms: it counts for the training alone


def save_portrait_reader(path: Path | str, network: PortraitReaderNetwork, metadata: Mapping[str, str]) -> None:
    """Writes a reader in half precision. metadata: further entries (seed, step, data_version, ...) of the header."""
    tensors = {
        name: cast_weight(path, name, tensor, torch.float16)
        for name, tensor in network.state_dict().items()
        if not name.endswith(COUNTER)
    }
    write_safetensors(path, KIND, tensors, {**metadata, "config": config_to_json(network.config)})


@lru_cache(maxsize=2)
def load_portrait_reader(path: Path = BUILT_IN_READER) -> PortraitReader:
    """A reader in float32, by default the one that the pack's own models look with; cached."""
    tensors, metadata = read_safetensors(path, KIND)
    with shapes_only():
        network = PortraitReaderNetwork(read_config(path, metadata, PortraitReaderConfig))
    counters = {name: torch.zeros((), dtype=torch.int64) for name in network.state_dict() if name.endswith(COUNTER)}
    load_strict(network, {name: tensor.float() for name, tensor in tensors.items()} | counters, path)
    return PortraitReader(network)


def built_in_scorer() -> CloserAnalyzer:
    """What scores generated frames: a face analyser and a closer look that no training used and nothing is driven by."""
    return CloserAnalyzer(FaceAnalyzer(FACE_READER.read_bytes()), load_portrait_reader(SCORE_READER))
