"""Files of the public motion generators in models folders: which are there, what belongs to them, and how they are opened."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.built_in_motion import BUILT_IN_MOTION
from ..checkpoints.model_zoo import missing_file_error
from ..checkpoints.motion_generators import (
    load_joyvasa,
    load_joyvasa_scale,
    load_kdtalker,
    load_kdtalker_scale,
    load_wav2lip,
)
from ..checkpoints.third_party import SUFFIXES, weights_in
from .built_in_generator import open_built_in
from .generators import MotionGenerator
from .joyvasa import JoyVASA
from .kdtalker import KDTalker

# Folders beside or above a weight file in which the published layouts have what belongs to it.
BESIDE = ("", "ckpts", "dataset_process", "motion_template", "motion_generator")
NORM, TEMPLATE = "norm.npz", "motion_template.pkl"
HUBERT_FOLDERS = ("chinese-hubert-base", "TencentGameMate:chinese-hubert-base")
HUBERT_STEMS = ("model", "pytorch_model")


@dataclass(frozen=True)
class GeneratorKind:
    """A public generator. entry: its name in the model zoo, which is that of its folder too; stem: what the names of its own
    weight file look like, without ending; open: that file -> generator."""

    entry: str
    stem: re.Pattern[str]
    open: Callable[[Path], MotionGenerator]

    def is_own(self, name: str) -> bool:
        """Whether a file of this name, without folders, holds the generator."""
        path = Path(name)
        return path.suffix in SUFFIXES and self.stem.fullmatch(path.stem) is not None


def open_kdtalker(path: Path) -> KDTalker:
    """KDTalker's file with `wav2lip` and `norm.npz` beside it."""
    encoder = next((file for folder in _near(path) if (file := weights_in(folder, "wav2lip"))), None)
    norm = next((folder / NORM for folder in _near(path) if (folder / NORM).is_file()), None)
    if encoder is None or norm is None:
        missing = ["wav2lip.pth"] * (encoder is None) + [NORM] * (norm is None)
        raise missing_file_error("kdtalker", [path.parent], missing, _models_folder(path, "kdtalker"))
    return KDTalker(load_kdtalker(path), load_wav2lip(encoder), load_kdtalker_scale(norm))


def open_joyvasa(path: Path) -> JoyVASA:
    """JoyVASA's file with `motion_template.pkl` beside it, and with a HuBERT folder where it has no audio encoder."""
    template = next((folder / TEMPLATE for folder in _near(path) if (folder / TEMPLATE).is_file()), None)
    if template is None:
        raise missing_file_error("joyvasa", [path.parent], [TEMPLATE], _models_folder(path, "joyvasa"))
    folders = (folder / name for folder in _near(path) for name in HUBERT_FOLDERS)
    hubert = next((folder for folder in folders if any(weights_in(folder, stem) for stem in HUBERT_STEMS)), None)
    return JoyVASA(load_joyvasa(path, hubert_folder=hubert), load_joyvasa_scale(template))


KINDS = (
    GeneratorKind("kdtalker", re.compile(r"(?i)kdtalker.*"), open_kdtalker),
    GeneratorKind("joyvasa", re.compile(r"(?i)(motion_generator|iter_\d+|joyvasa).*"), open_joyvasa),
)

BUILT_IN = GeneratorKind(
    "built-in", re.compile(BUILT_IN_MOTION.stem), open_built_in
)  # comes with the pack, in no models folder


def _near(path: Path) -> Iterator[Path]:
    """Folders in which something that belongs to a file may lie, the nearest first."""
    for base in (path.parent, path.parent.parent):
        for name in BESIDE:
            yield base / name


def _models_folder(path: Path, kind: str) -> Path | None:
    """The models folder above a file in models/<kind>."""
    return next((parent.parent for parent in path.parents if parent.name == kind), None)
