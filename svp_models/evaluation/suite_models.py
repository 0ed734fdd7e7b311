"""Clips of prepared shards as models make them: the protocols `reconstruction` and `style_transfer` of a suite."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.model_file import PORTRAIT_MODEL, load_model
from ..data.manifest import Manifest, open_manifest
from ..data.schema import AUDIO, INFO, LABELS, VIDEO, ClipInfo, ClipLabels
from ..data.shards import decode_audio, decode_frames, decode_info, decode_labels, read_member
from ..diffusion.context_windows import frame_windows
from ..diffusion.pipeline import PortraitPipeline, SamplerOptions, resolve_options
from ..diffusion.style import extract_style, sample_style
from ..errors import PortraitError
from ..face.detection import FaceTrack, boxes_around, given
from ..face.detectors.built_in import FaceAnalyzer
from ..face.keypoints import five_points_from_68
from ..media.audio import fit_audio
from ..model import PortraitModel
from ..optional_deps import cv2
from ..synthetic.performance import classify_emotion
from ..types import Audio, HeadMotion, Style, StylePrior
from .baselines import still_portrait, to_planes, vae_alone, warped_portrait
from .evaluator import draw_frames, generator_for
from .metrics.style import cosine
from .suite import NEAREST_CLIP, ClipJob, SuiteConfig, SystemConfig
from .suite_videos import ClipInputs, Made, face_tracker

LARGEST = 2**31  # seeds are below
NEAREST_SIDE = 64  # pixels at which portraits of people are compared


@dataclass(frozen=True)
class ShardClip:
    """A clip of a shard: frames n h w 3 uint8 at `size`, its labels in their pixels."""

    info: ClipInfo
    frames: np.ndarray
    audio: Audio
    labels: ClipLabels

    @property
    def size(self) -> int:
        return self.frames.shape[1]


@lru_cache(maxsize=4)
def _model(path: str) -> PortraitModel:
    """Loaded once in each process."""
    return load_model(Path(path) if path else PORTRAIT_MODEL)


@lru_cache(maxsize=2)
def _manifest(folder: str) -> Manifest:
    return open_manifest(folder)


def read_clip(config: SuiteConfig, key: str, size: int) -> ShardClip:
    """A clip by its key, at `size` pixels a side, at most config.frames of it."""
    manifest = _manifest(config.dataset)
    shard, entry = next((shard, entry) for shard, entry in manifest.samples() if entry.key == key)

    def member(ending: str) -> bytes:
        return read_member(manifest.folder, shard, entry, ending)

    info, labels = decode_info(member(INFO)), decode_labels(member(LABELS))
    count = min(entry.frames, config.frames or entry.frames)
    frames, factor = decode_frames(member(VIDEO), 0, count), size / info.size
    if factor != 1:
        method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        frames = np.stack([cv2.resize(frame, (size, size), interpolation=method) for frame in frames])
    scaled = {name: getattr(labels, name)[:count] * np.float32(factor) for name in ("landmarks", "head_keypoints")}
    kept = {name: value[:count] for name, value in vars(labels).items() if value is not None and name not in scaled}
    audio = fit_audio(decode_audio(member(AUDIO)), count / info.fps)
    return ShardClip(info, frames, audio, ClipLabels(**scaled, **kept))


@lru_cache(maxsize=2)
def _training_portraits(folder: str, size: int) -> tuple[tuple[str, ...], np.ndarray]:
    """The people of the training split and the first frame of the first clip of each: m size size 3, uint8."""
    manifest = _manifest(folder)
    first: dict[str, np.ndarray] = {}
    for shard, entry in manifest.samples("train"):
        if entry.identity not in first:
            frame = decode_frames(read_member(manifest.folder, shard, entry, VIDEO), 0, 1)[0]
            first[entry.identity] = cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
    return tuple(first), np.stack(list(first.values())) if first else np.zeros((0, size, size, 3), np.uint8)


def nearest_training_clip(config: SuiteConfig, clip: ShardClip) -> str:
    """The key of a clip of the training split: of the person, other than the clip's own, whose portrait differs least from the
    clip's first frame, with the emotion and intensity of the clip where there is one."""
    people, portraits = _training_portraits(config.dataset, NEAREST_SIDE)
    wanted = cv2.resize(clip.frames[0], (NEAREST_SIDE, NEAREST_SIDE), interpolation=cv2.INTER_AREA).astype(np.float32)
    errors = [
        np.inf if person == clip.info.identity else float(np.square(portrait - wanted).mean())
        for person, portrait in zip(people, portraits, strict=True)
    ]
    if not np.isfinite(errors).any():
        raise PortraitError(
            f"{config.dataset}: the split 'train' has 0 other people: leave {NEAREST_CLIP!r} out of baselines, or prepare a training split"
        )
    person = people[int(np.argmin(errors))]
    entries = [entry for _, entry in _manifest(config.dataset).samples("train") if entry.identity == person]
    alike = [entry for entry in entries if entry.emotion == clip.info.emotion] or entries
    return min(alike, key=lambda entry: (entry.intensity != clip.info.intensity, entry.key)).key


def played(frames: np.ndarray, count: int) -> np.ndarray:
    """`count` frames of a clip n h w 3, to and fro where it is shorter."""
    return frames[np.pad(np.arange(len(frames)), (0, max(count - len(frames), 0)), mode="reflect")[:count]]


def true_track(clip: ShardClip) -> FaceTrack:
    """The labels as a track; what the labels do not know is None."""
    labels, unknown = clip.labels, clip.info.unknown
    points = labels.landmarks
    known = "landmarks" not in unknown
    return FaceTrack(
        boxes=boxes_around(labels.head_keypoints),
        landmarks=points if known else None,
        head_keypoints=labels.head_keypoints,
        expression=None if "expression" in unknown else labels.expression,
        pose=None if "pose" in unknown else labels.pose,
        present=~labels.interpolated,
        width=clip.size,
        height=clip.size,
        five_points=five_points_from_68(points) if known else np.zeros((len(points), 5, 2), np.float32),
    )


def model_inputs(config: SuiteConfig, job: ClipJob, roots: tuple[Path, ...]) -> ClipInputs:
    """The clip of a job as every system and baseline makes it, in memory."""
    models = {system.name: _model(system.model) for system in config.systems}
    generators = {name: generator_for(model) for name, model in models.items()}
    first = models[config.systems[0].name]
    size = config.size or first.config.size
    clip, portrait_clip, style_clip, other_clip = (read_clip(config, key, size) for key in job.keys)
    portrait, own = portrait_clip.frames[0], portrait_clip.labels.head_keypoints[0]
    count, fps = len(clip.frames), float(clip.info.fps)
    seed = int.from_bytes(blake2b(f"{config.seed} {job.id}".encode(), digest_size=4).digest(), "little") % LARGEST
    tracker = face_tracker(config.face_analyzer, roots)
    drawn = "synthetic" in (_manifest(config.dataset).metadata.get("options") or {})

    def made(frames: np.ndarray, model: PortraitModel | None = None, joins: tuple[int, ...] = ()) -> Made:
        frames = np.ascontiguousarray(frames)
        track = None if tracker is None else tracker.analyze(frames, fps=fps)
        extra = {} if model is None else _style_figures(model, frames, clip, drawn)
        return Made(frames, clip.audio, track, joins, extra)

    def generated(system: SystemConfig, audio: Audio, style: Style | None) -> Made:
        model, options = models[system.name], SamplerOptions(steps=system.steps, cfg=system.cfg)
        motion = HeadMotion(
            torch.from_numpy(clip.labels.head_keypoints), size, size, fps, portrait=torch.from_numpy(own)
        )
        resolved = resolve_options(model.config, options)
        joins = tuple(window[0] for window in frame_windows(count, resolved.window, resolved.overlap)[1:])
        given = to_planes(portrait[None])[0], audio, motion, style, count, fps, size, seed, options
        return made(draw_frames(PortraitPipeline(model), generators[system.name], *given), model, joins)

    results: dict[str, Made] = {}
    for name in config.baselines:
        if name == "still portrait":
            results[name] = made(still_portrait(portrait, count), first)
        elif name == "warped portrait":
            results[name] = made(warped_portrait(portrait, own, clip.labels.head_keypoints), first)
        elif name == "VAE alone":
            results[name] = made(vae_alone(first, clip.frames, clip.labels.head_keypoints), first)
        elif name == NEAREST_CLIP:
            key = nearest_training_clip(config, portrait_clip)
            results[name] = made(played(read_clip(config, key, size).frames, count), first)
        else:
            silence = Audio(torch.zeros_like(clip.audio.waveform), clip.audio.sample_rate)
            style = _style(first, "sampled", style_clip, other_clip, seed)
            results[name] = generated(config.systems[0], silence, style)
    for system in config.systems:
        style = _style(models[system.name], system.style, style_clip, other_clip, seed)
        results[system.name] = generated(system, clip.audio, style)
    return ClipInputs(clip.frames, true_track(clip), clip.audio, fps, results, portrait, clip.info.emotion)


def _style(model: PortraitModel, kind: str, style_clip: ShardClip, other_clip: ShardClip, seed: int) -> Style | None:
    if kind == "none":
        return None
    source = other_clip if kind == "other emotion" else style_clip
    prior = _prior(model, source, face=kind != "voice", voice=kind != "face")
    return sample_style(prior, seed, 0.0 if kind == "mean" else 1.0)


def _prior(model: PortraitModel, clip: ShardClip, face: bool, voice: bool) -> StylePrior:
    """The style as a user gets it: expressions from pixels where the model has an analyser, else those of the labels."""
    hears = model.config.style.audio_size == model.config.audio.feature_size
    if not face and not hears:
        raise PortraitError(
            f"the model {model.config.name!r} reads no styles from voices: choose another style than 'voice'"
        )
    expression = torch.from_numpy(_expression(model, clip.frames, clip)) if face else None
    return extract_style(model, expression, clip.audio if voice and hears else None, float(clip.info.fps))


def _expression(model: PortraitModel, frames: np.ndarray, clip: ShardClip | None) -> np.ndarray:
    if model.face_analyzer is not None:
        return given(FaceAnalyzer(model.face_analyzer).analyze(frames).expression, "expression")
    if clip is None or "expression" in clip.info.unknown:
        raise PortraitError(
            f"the model {model.config.name!r} has no face analyser, and the clip's expressions are not known: prepare the data with "
            "--expression deep3d"
        )
    return clip.labels.expression


def _style_figures(model: PortraitModel, made: np.ndarray, clip: ShardClip, drawn: bool) -> dict[str, float]:
    """StyleSim, and for drawn people whether the clip's emotion is recognised; nothing for models without a face analyser."""
    if model.face_analyzer is None:
        return {}
    shown, wanted = (_expression(model, frames, None) for frames in (made, clip.frames))
    codes = [
        extract_style(model, torch.from_numpy(rows), None, float(clip.info.fps)).mu.numpy() for rows in (shown, wanted)
    ]
    figures = {"stylesim": cosine(*codes)}
    if drawn and clip.info.emotion:
        figures["emotion_acc"] = float(classify_emotion(shown)[0] == clip.info.emotion)
    return figures
