"""A film -> its clips, with every label; read twice side by side, so that only a clip of it is in memory.

The first reading finds shots and faces, the second, a piece behind, cuts the pieces out. Frame i of the film is what is on the
screen at (i + 0.5) / 25 s after its first frame, whatever its own rate; the sound begins at that frame, too.

What films are read with: a face backend, and the networks that read expression and sound; loaded once per process.

What few preparations need is imported where it is needed: every worker process pays for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..checkpoints.model_zoo import locate, missing_file_error
from ..errors import PortraitError
from ..face.crop import Square, crop_square, square_around, to_square
from ..face.detection import FaceBackend, FaceTrack, face_boxes
from ..face.detectors.built_in import BuiltInBackend
from ..face.detectors.insightface import FILES, InsightFaceBackend
from ..face.detectors.mediapipe import MediaPipeBackend
from ..face.detectors.opencv import ClassicalBackend
from ..face.expression import predict_expression
from ..media.audio import audio_rate
from ..media.video import iter_frames, rate_and_origin
from ..optional_deps import cv2
from ..types import Audio
from .labels import SoundReader, coverage, face_outline, mouth_outline
from .schema import (
    AUDIO,
    DEEP3D,
    FEATURES,
    FPS,
    INFO,
    LABELS,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    VIDEO,
    ClipInfo,
    ClipLabels,
    Recipe,
    Reject,
    Sample,
    check_labels,
)
from .segments import Piece, Unreadable, pieces_of, stretches
from .shards import encode_audio, encode_features, encode_info, encode_labels, encode_video
from .sources import MOST_OUTSIDE, Source, outside_share

if TYPE_CHECKING:
    from ..networks.audio_encoder import AudioEncoder
    from ..networks.deep3d import Deep3DNetwork

SILENCE = 1e-4  # a clip whose sound stays below has none
MOST_SILENT_END = 0.1  # share of a clip that the sound may lack at its end
FROZEN = 0.05  # median change from frame to frame, of 255, below which a clip stands still
FROZEN_SIDE = 64  # pixels a side at which that is measured


def film_clips(
    root: Path, source: Source, recipe: Recipe, instruments: Instruments, scratch: Path
) -> Iterator[Sample | Reject]:
    """The clips of a film and the stretches that gave none, in the order of time. scratch: a folder for passing files."""
    at = 0
    try:
        sound = open_sound(root, source)
        if sound is None:
            yield Reject(source.title, 0.0, "no sound", "neither in the film nor beside it")
            return
        behind, reached = _readable(root / source.path), 0
        for stretch in stretches(_readable(root / source.path), instruments.backend, recipe.output.frames):
            at = stretch.start
            for piece in pieces_of(stretch, source.title, recipe):
                if isinstance(piece, Reject):
                    yield piece
                    continue
                square = square_around(
                    face_boxes(piece.track), stretch.width, stretch.height, margin=recipe.films.margin
                )
                outside = outside_share(square, stretch.width, stretch.height)
                if outside > MOST_OUTSIDE:
                    yield Reject(
                        source.title, piece.start / FPS, "face at the edge", f"{outside:.0%} of the crop is outside"
                    )
                    continue
                frames = cut_frames(islice(behind, piece.start - reached, None), square, len(piece.track), recipe)
                reached = piece.start + len(piece.track)
                yield clip_of(piece, square, frames, sound, source, recipe, instruments, scratch)
            at = stretch.start + len(stretch.found)
    except Unreadable as error:
        yield Reject(source.title, at / FPS, "unreadable", str(error))


def open_sound(root: Path, source: Source) -> SoundReader | None:
    """The film's own sound, or the sound file beside it; None without either."""
    film = root / source.path
    try:
        if audio_rate(film) is not None:
            return SoundReader(film, rate_and_origin(film)[1])
        if source.sound and audio_rate(root / source.sound) is not None:
            return SoundReader(root / source.sound, None)
    except PortraitError as error:
        raise Unreadable(str(error)) from error
    return None


def cut_frames(frames: Iterator[np.ndarray], square: Square, count: int, recipe: Recipe) -> np.ndarray:
    """The next `count` frames of a film through a square: n size size 3, uint8."""
    size = recipe.output.size
    cut = np.empty((count, size, size, 3), np.uint8)
    for index in range(count):
        cut[index] = crop_square(next(frames), square, size)
    return cut


def clip_of(
    piece: Piece,
    square: Square,
    frames: np.ndarray,
    sound: SoundReader,
    source: Source,
    recipe: Recipe,
    instruments: Instruments,
    scratch: Path,
) -> Sample | Reject:
    """The finished clip of a piece whose cut frames are n size size 3."""
    start = piece.start / FPS
    count, size = len(frames), recipe.output.size
    change = stillness(frames)
    if change < FROZEN:
        return Reject(source.title, start, "frozen", f"frames differ by {change:.3f} of 255")
    wanted = count * SAMPLES_PER_FRAME
    try:
        samples = sound.read(piece.start * SAMPLES_PER_FRAME, wanted)
    except PortraitError as error:
        raise Unreadable(str(error)) from error
    if len(samples) < (1 - MOST_SILENT_END) * wanted or np.abs(samples).max() < SILENCE:
        return Reject(source.title, start, "no sound", f"{len(samples) / SAMPLE_RATE:.2f} of {count / FPS:g} s")
    samples = np.pad(samples, (0, wanted - len(samples)))
    track = in_square(piece.track, square, size)
    if instruments.recon is not None:
        expression, pose = predict_expression(instruments.recon, frames, track)
        track = replace(track, expression=expression, pose=pose if track.pose is None else track.pose)
    labels, unknown = labels_of(track, piece.interpolated, size)
    info = ClipInfo(
        identity=source.identity,
        emotion=source.emotion,
        intensity=source.intensity,
        source=source.title,
        start_seconds=start,
        frames=count,
        size=size,
        split=source.split,
        group=source.group,
        unknown=unknown,
        feature_rows=instruments.feature_rows,
    )
    name = f"{plain(source.identity)}-{source.id}-{piece.start:06}"
    return sample_of(name, info, frames, samples, labels, recipe, instruments, scratch)


def sample_of(
    key: str,
    info: ClipInfo,
    frames: np.ndarray | None,
    samples: np.ndarray,
    labels: ClipLabels,
    recipe: Recipe,
    instruments: Instruments,
    scratch: Path,
) -> Sample:
    """A clip with its members encoded. frames n size size 3 uint8, or None for one without pictures; samples: mono, 16 kHz."""
    check_labels(labels, info.frames, info.size, key)
    members = {} if frames is None else {VIDEO: encode_video(frames, recipe.output.crf, scratch)}
    members |= {AUDIO: encode_audio(samples), LABELS: encode_labels(labels), INFO: encode_info(info)}
    if instruments.encoder is not None:
        sound = Audio(torch.from_numpy(samples)[None], SAMPLE_RATE)
        rows = instruments.encoder.features(sound, info.frames, FPS, instruments.feature_rows)
        members[FEATURES] = encode_features(rows.numpy())
    return Sample(key, info, members)


def in_square(track: FaceTrack, square: Square, size: int) -> FaceTrack:
    """The track in the pixels of the cut pictures."""

    def moved(points: np.ndarray | None) -> np.ndarray | None:
        return None if points is None else to_square(points, square, size)

    return replace(
        track,
        boxes=moved(track.boxes.reshape(-1, 2, 2)).reshape(-1, 4),
        landmarks=moved(track.landmarks),
        head_keypoints=moved(track.head_keypoints),
        five_points=moved(track.five_points),
        width=size,
        height=size,
    )


def labels_of(track: FaceTrack, interpolated: np.ndarray, size: int) -> tuple[ClipLabels, tuple[str, ...]]:
    """The labels of a track in pictures of `size` pixels, and the names of those it does not know, which are NaN."""
    count = len(track)
    known = {
        "landmarks": track.landmarks,
        "expression": track.expression,
        "pose": None if track.pose is None else track.pose[:, :3],
    }
    unknown = {"landmarks": (68, 2), "expression": (64,), "pose": (3,)}
    arrays = {
        name: np.full((count, *unknown[name]), np.nan, np.float32) if value is None else np.float32(value)
        for name, value in known.items()
    }
    labels = ClipLabels(
        head_keypoints=np.float32(track.head_keypoints),
        mouth_mask=np.stack([coverage(mouth_outline(track, row), size) for row in range(count)]),
        face_mask=np.stack([coverage(face_outline(track, row), size) for row in range(count)]),
        interpolated=np.asarray(interpolated, bool),
        **arrays,
    )
    return labels, tuple(name for name, value in known.items() if value is None)


def stillness(frames: np.ndarray) -> float:
    """Median over a clip (n h w 3, uint8) of the mean change from frame to frame, of 255."""
    side = (FROZEN_SIDE, FROZEN_SIDE)
    small = [cv2.resize(each, side, interpolation=cv2.INTER_AREA).astype(np.float32) for each in frames]
    return float(np.median([np.abs(after - before).mean() for before, after in pairwise(small)]))


def plain(name: str) -> str:
    """A name as it may stand in a key: letters, digits, dashes and underscores, at most 40."""
    return "".join(each if each.isascii() and (each.isalnum() or each == "_") else "-" for each in name)[:40]


def _readable(path: Path) -> Iterator[np.ndarray]:
    try:
        yield from iter_frames(path, FPS)
    except PortraitError as error:
        raise Unreadable(str(error)) from error


FEATURE_ROWS = {"whisper": 1, "wav2vec2": 2}  # per frame, as the presets' AudioConfig has them


@dataclass(frozen=True)
class Instruments:
    """backend: None where nothing is looked for (drawn clips); recon, encoder: None where they are not asked for."""

    backend: FaceBackend | None = None
    recon: Deep3DNetwork | None = None
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
        from ..checkpoints.third_party import load_deep3d

        recon, _ = load_deep3d(_located(DEEP3D, models))
    return Instruments(_backend(recipe.films.backend, models), recon, encoder)


def _backend(name: str, models: Sequence[Path]) -> FaceBackend:
    if name == BuiltInBackend.name:
        from ..checkpoints.model_file import BUILTIN_MODEL, load_model

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
