"""The portrait readers that the pack ships; `svp train portrait-reader` writes them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from ..face.detectors.built_in import FaceAnalyzer
from ..face.portrait_reader import CloserAnalyzer, PortraitReader
from .model_file import FACE_READER

BUILT_IN_READER = FACE_READER.with_name("portrait_reader.onnx")
SCORE_READER = FACE_READER.with_name(
    "score_reader.onnx"
)  # from other people and another seed: it scores, and drives nothing


@lru_cache(maxsize=2)
def load_portrait_reader(path: Path = BUILT_IN_READER) -> PortraitReader:
    """A portrait reader, by default the one that the pack's own models look with; kept, as every portrait needs it."""
    return PortraitReader(path.read_bytes())


def built_in_scorer() -> CloserAnalyzer:
    """What scores generated frames: a face analyser and a closer look that no training used and nothing is driven by."""
    return CloserAnalyzer(FaceAnalyzer(FACE_READER.read_bytes()), load_portrait_reader(SCORE_READER))
