"""A video -> its labelled clips. The video is decoded twice side by side, so that only one clip of it is in memory.

The first pass finds shots and faces; the second, one segment behind, crops the segments. Frame i is what is on the screen at
(i + 0.5) / 25 s after the video's first frame, whatever its own frame rate; the audio begins at that frame, too.

Modules that few preparations need are imported inside functions: every process would pay for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.model_zoo import locate, missing_file_error
from ..errors import PortraitError
from ..face.crop import Square, crop_square, square_around
from ..face.detection import FaceBackend, face_boxes
from ..face.detectors.built_in import BuiltInBackend
from ..face.detectors.insightface import FILES, InsightFaceBackend
from ..face.detectors.mediapipe import MediaPipeBackend
from ..face.detectors.opencv import ClassicalBackend
from ..face.expression import predict_expression
from ..media.audio import audio_chunks, audio_rate
from ..media.video import iter_frames, rate_and_origin
from ..motion.face_square import clip_square
from ..motion.liveportrait import INPUT_SIDE
from ..networks.audio_encoder import AudioEncoder
from ..networks.deep3d import Deep3DNetwork
from ..networks.liveportrait.motion_extractor import MotionExtractor
from ..optional_deps import cv2, soxr
from ..types import LIVEPORTRAIT, Audio
from .labels import in_square, labels_of
from .liveportrait_motion import clip_motion, load_extractor
from .schema import (
    AUDIO,
    DEEP3D,
    FEATURES,
    FPS,
    INFO,
    LABELS,
    MOTION,
    SAMPLE_RATE,
    SAMPLES_PER_FRAME,
    VIDEO,
    ClipInfo,
    ClipLabels,
    ClipMotion,
    PrepareConfig,
    Sample,
    Skipped,
    check_labels,
    check_motion,
)
from .segments import Segment, UnreadableVideo, iter_shots, segments_of
from .shards import encode_audio, encode_features, encode_info, encode_labels, encode_motion, encode_video
from .sources import Source, outside_share

FEATURE_ROWS = {"whisper": 1, "wav2vec2": 2}  # per frame, as in the presets' AudioConfig
CHANGE_SIDE = 64  # pixels a side at which the change between frames is measured


def video_clips(
    root: Path, source: Source, config: PrepareConfig, preprocessors: Preprocessors, scratch: Path
) -> Iterator[Sample | Skipped]:
    """The clips of a video and what was skipped, in the order of time. scratch: a folder for temporary files."""
    limits, position = config.for_videos().limits, 0
    try:
        audio = open_audio(root, source)
        if audio is None:
            yield Skipped(source.title, 0.0, "no sound", "neither in the video nor beside it")
            return
        frames, second_pass = _frames_of(root / source.path), _frames_of(root / source.path)
        reached = 0  # by the second pass
        for shot in iter_shots(frames, preprocessors.face_backend(), config.output.frames, limits):
            position = shot.start
            for segment in segments_of(shot, source.title, config):
                if isinstance(segment, Skipped):
                    yield segment
                    continue
                square = square_around(
                    face_boxes(segment.track), shot.width, shot.height, margin=config.for_videos().margin
                )
                outside = outside_share(square, shot.width, shot.height)
                if outside > limits.max_outside:
                    yield Skipped(
                        source.title, segment.start / FPS, "face at the edge", f"{outside:.0%} of the crop is outside"
                    )
                    continue
                squares = [(square, config.output.size)]
                if preprocessors.motion is not None:
                    squares.append((clip_square(segment.track).at(0), INPUT_SIDE))
                cropped, *faces = crop_frames(
                    islice(second_pass, segment.start - reached, None), squares, len(segment.track)
                )
                reached = segment.start + len(segment.track)
                clip = ClipFrames(square, cropped, faces[0] if faces else None)
                yield build_clip(segment, clip, audio, source, config, preprocessors, scratch)
            position = shot.start + len(shot.faces)
    except UnreadableVideo as error:
        yield Skipped(source.title, position / FPS, "unreadable", str(error))


def open_audio(root: Path, source: Source) -> AudioReader | None:
    """The video's own audio, or the audio file beside it; None without either."""
    video = root / source.path
    try:
        if audio_rate(video) is not None:
            return AudioReader(video, rate_and_origin(video)[1])
        if source.audio_file and audio_rate(root / source.audio_file) is not None:
            return AudioReader(root / source.audio_file, None)
    except PortraitError as error:
        raise UnreadableVideo(str(error)) from error
    return None


@dataclass(frozen=True)
class ClipFrames:
    """The frames of a clip, n size size 3, uint8; the square of the video that they show; and, for the motion, the faces as
    LivePortrait sees them, n 256 256 3."""

    square: Square
    frames: np.ndarray
    faces: np.ndarray | None = None


def crop_frames(frames: Iterator[np.ndarray], squares: Sequence[tuple[Square, int]], count: int) -> list[np.ndarray]:
    """The next `count` frames of a video, cropped to squares of `size` pixels, one array for each: n size size 3, uint8."""
    cropped = [np.empty((count, size, size, 3), np.uint8) for _, size in squares]
    for index in range(count):
        frame = next(frames)
        for array, (square, size) in zip(cropped, squares, strict=True):
            array[index] = crop_square(frame, square, size)
    return cropped


def build_clip(
    segment: Segment,
    clip: ClipFrames,
    audio: AudioReader,
    source: Source,
    config: PrepareConfig,
    preprocessors: Preprocessors,
    scratch: Path,
) -> Sample | Skipped:
    """The finished clip of a segment."""
    start, frames = segment.start / FPS, clip.frames
    count, size = len(frames), config.output.size
    change = median_change(frames)
    limits = config.for_videos().limits
    if change < limits.min_change:
        return Skipped(source.title, start, "frozen", f"frames differ by {change:.3f} of 255")
    expected = count * SAMPLES_PER_FRAME
    try:
        samples = audio.read(segment.start * SAMPLES_PER_FRAME, expected)
    except PortraitError as error:
        raise UnreadableVideo(str(error)) from error
    if len(samples) < (1 - limits.max_missing_audio) * expected or np.abs(samples).max() < limits.min_audio_level:
        return Skipped(source.title, start, "no sound", f"{len(samples) / SAMPLE_RATE:.2f} of {count / FPS:g} s")
    samples = np.pad(samples, (0, expected - len(samples)))
    track = in_square(segment.track, clip.square, size)
    if preprocessors.deep3d is not None:
        expression, pose = predict_expression(preprocessors.deep3d, frames, track)
        track = replace(track, expression=expression, pose=pose if track.pose is None else track.pose)
    labels, unknown = labels_of(track, segment.interpolated, size)
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
        feature_rows=preprocessors.feature_rows,
    )
    name = f"{key_name(source.identity)}-{source.id}-{segment.start:06}"
    motion = None
    if preprocessors.motion is not None and clip.faces is not None:
        motion = clip_motion(preprocessors.motion, clip.faces, segment.interpolated)
    return sample_of(name, info, frames, samples, labels, config, preprocessors, scratch, motion)


def sample_of(
    key: str,
    info: ClipInfo,
    frames: np.ndarray | None,
    samples: np.ndarray,
    labels: ClipLabels,
    config: PrepareConfig,
    preprocessors: Preprocessors,
    scratch: Path,
    motion: ClipMotion | None = None,
) -> Sample:
    """A clip with its members encoded. frames n size size 3 uint8, or None for a clip without video; samples: mono, 16 kHz."""
    check_labels(labels, info.frames, info.size, key)
    members = {} if frames is None else {VIDEO: encode_video(frames, config.output.crf, scratch)}
    members |= {AUDIO: encode_audio(samples), LABELS: encode_labels(labels), INFO: encode_info(info)}
    if motion is not None:
        check_motion(motion, info.frames, key)
        members[MOTION] = encode_motion(motion)
    if preprocessors.encoder is not None:
        audio = Audio(torch.from_numpy(samples)[None], SAMPLE_RATE)
        rows = preprocessors.encoder.features(audio, info.frames, FPS, preprocessors.feature_rows)
        members[FEATURES] = encode_features(rows.numpy())
    return Sample(key, info, members)


def median_change(frames: np.ndarray) -> float:
    """Median over a clip (n h w 3, uint8) of the mean change from frame to frame, of 255."""
    side = (CHANGE_SIDE, CHANGE_SIDE)
    small = [cv2.resize(frame, side, interpolation=cv2.INTER_AREA).astype(np.float32) for frame in frames]
    return float(np.median([np.abs(after - before).mean() for before, after in pairwise(small)]))


def key_name(name: str) -> str:
    """A name in the form allowed in a key: letters, digits, dashes and underscores, at most 40."""
    return "".join(mark if mark.isascii() and (mark.isalnum() or mark == "_") else "-" for mark in name)[:40]


def _frames_of(path: Path) -> Iterator[np.ndarray]:
    try:
        yield from iter_frames(path, FPS)
    except PortraitError as error:
        raise UnreadableVideo(str(error)) from error


class AudioReader:
    """The audio of a file of any length as 16 kHz mono, read in order, with only a moment of it in memory.

    Each read begins where the one before began, or later. origin: the time stamp in seconds of sample 0, None for the beginning
    of the audio. end: number of all samples, known once they have been read.
    """

    def __init__(self, path: Path, origin: float | None) -> None:
        self._chunks = _resampled(path, origin)
        self._buffer = np.zeros(0, np.float32)
        self._first = 0  # sample that `_buffer` begins with
        self.end: int | None = None

    def read(self, first: int, count: int) -> np.ndarray:
        """`count` samples from sample `first`, or as many as there are: float32."""
        if first < self._first:
            raise ValueError(f"samples from {first} were requested, those before {self._first} are gone")
        while self.end is None and self._first + len(self._buffer) < first + count:
            chunk = next(self._chunks, None)
            if chunk is None:
                self.end = self._first + len(self._buffer)
                break
            self._buffer = np.concatenate([self._buffer, chunk])
            self._drop_before(first)
        self._drop_before(first)
        return self._buffer[:count].copy()

    def _drop_before(self, first: int) -> None:
        count = min(first - self._first, len(self._buffer))
        self._buffer, self._first = self._buffer[count:], self._first + count


def _resampled(path: Path, origin: float | None) -> Iterator[np.ndarray]:
    stream = None
    for chunk, rate in audio_chunks(path, origin):
        mono = chunk.mean(axis=0, dtype=np.float32)
        if rate == SAMPLE_RATE:
            yield mono
            continue
        stream = stream or soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        yield stream.resample_chunk(mono)
    if stream is not None:
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


@dataclass(frozen=True)
class Preprocessors:
    """Networks and detectors that label videos. backend: None for synthetic clips; deep3d, encoder, motion (LivePortrait's motion
    extractor): None where not wanted."""

    backend: FaceBackend | None = None
    deep3d: Deep3DNetwork | None = None
    encoder: AudioEncoder | None = None
    motion: MotionExtractor | None = None

    def face_backend(self) -> FaceBackend:
        """PortraitError where there is none, as for synthetic clips."""
        if self.backend is None:
            raise PortraitError("there is no face detector: videos need one")
        return self.backend

    @property
    def feature_rows(self) -> int:
        """Rows of audio features per frame, 0 without an encoder."""
        return FEATURE_ROWS[self.encoder.kind] if self.encoder is not None else 0


def load_preprocessors(config: PrepareConfig, models: Sequence[Path]) -> Preprocessors:
    """models: folders with published weights, laid out as `svp download` writes them."""
    encoder = deep3d = None
    if config.output.audio_encoder:
        from ..checkpoints.audio_encoder import load_audio_encoder

        encoder = load_audio_encoder(config.output.audio_encoder)
    if config.videos is None:
        return Preprocessors(encoder=encoder)
    if config.videos.expression == DEEP3D:
        from ..checkpoints.third_party import load_deep3d

        deep3d, _ = load_deep3d(_located(DEEP3D, models))
    motion = load_extractor(models) if config.videos.space == LIVEPORTRAIT else None
    return Preprocessors(load_face_backend(config.videos.backend, models), deep3d, encoder, motion)


def load_face_backend(name: str, models: Sequence[Path]) -> FaceBackend:
    """One of schema.BACKENDS. models: folders with published weights."""
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
    return InsightFaceBackend(*(folder / name for name in FILES))


def _located(name: str, models: Sequence[Path]) -> Path:
    place = locate(name, models)
    if place is None:
        raise missing_file_error(name, models)
    return place
