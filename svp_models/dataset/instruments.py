"""What films are read with: a face backend, and the networks that read expression and sound; loaded once per process.

What few preparations need is imported where it is needed: every worker process pays for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoints.catalog import locate, missing_file_error
from ..errors import PortraitError
from ..face.backends.built_in import BuiltInBackend
from ..face.backends.classical import ClassicalBackend
from ..face.backends.insightface import FILES, InsightFaceBackend
from ..face.backends.mediapipe import MediaPipeBackend
from ..face.detection import FaceBackend
from .options import DEEP3D, Recipe

if TYPE_CHECKING:
    from ..networks.audio_encoder import AudioEncoder
    from ..networks.face_recon import FaceReconNetwork

FEATURE_ROWS = {"whisper": 1, "wav2vec2": 2}  # per frame, as the presets' AudioConfig has them


@dataclass(frozen=True)
class Instruments:
    """backend: None where nothing is looked for (drawn clips); recon, encoder: None where they are not asked for."""

    backend: FaceBackend | None = None
    recon: FaceReconNetwork | None = None
    encoder: AudioEncoder | None = None

    @property
    def feature_rows(self) -> int:
        """Rows of audio features per frame, 0 without an encoder."""
        return FEATURE_ROWS[self.encoder.kind] if self.encoder is not None else 0


def load_instruments(recipe: Recipe, models: Sequence[Path]) -> Instruments:
    """models: folders in which published weights are looked for, laid out as `svp download` leaves them."""
    encoder = recon = None
    if recipe.output.audio_encoder:
        from ..checkpoints.audio_encoder import load_audio_encoder

        encoder = load_audio_encoder(recipe.output.audio_encoder)
    if recipe.films is None:
        return Instruments(encoder=encoder)
    if recipe.films.expression == DEEP3D:
        from ..checkpoints.deep3d import load_deep3d

        recon, _ = load_deep3d(_located(DEEP3D, models))
    return Instruments(_backend(recipe.films.backend, models), recon, encoder)


def _backend(name: str, models: Sequence[Path]) -> FaceBackend:
    if name == BuiltInBackend.name:
        from ..checkpoints.native import BUILTIN_MODEL, load_model

        analyzer = load_model(BUILTIN_MODEL).face_analyzer
        if analyzer is None:
            raise PortraitError(f"{BUILTIN_MODEL}: it holds no face analyser: get the original file")
        return BuiltInBackend(analyzer)
    if name == ClassicalBackend.name:
        return ClassicalBackend()
    if name == MediaPipeBackend.name:
        return MediaPipeBackend(_located("mediapipe", models))
    folder = _located("buffalo_l", models)
    return InsightFaceBackend(*(folder / each for each in FILES))


def _located(name: str, models: Sequence[Path]) -> Path:
    place = locate(name, models)
    if place is None:
        raise missing_file_error(name, models)
    return place
