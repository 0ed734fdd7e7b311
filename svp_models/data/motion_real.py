"""Clips for motion generators from prepared videos: their motions in LivePortrait's space, their voices and styles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from ..diffusion.style import extract_style
from ..errors import PortraitError
from ..media.audio import to_mono
from ..media.prosody import prosody
from ..model import PortraitModel
from ..networks.audio_encoder import SAMPLE_RATE, mel_rows
from ..networks.motion_generator import HABITS
from ..types import Audio
from .motion_clips import FPS, INDEX, MotionClipInfo, Rows, mel_track, write_motion_clips
from .schema import AUDIO, LABELS, MOTION, ClipMotion
from .shards import SampleEntry, ShardEntry, decode_audio, decode_labels, decode_motion, open_manifest, read_member


def prepare_real_motion(
    dataset: Path,
    folder: Path,
    model: PortraitModel,
    seconds: float,
    split: str = "train",
    report: Callable[[str], None] = print,
) -> None:
    """Cuts the clips of a data set that was prepared with `--space liveportrait` into pieces of equal length.

    Shorter clips and the rests of longer ones are left out. A finished folder stays as it is.
    """
    if (folder / INDEX).exists():
        return
    manifest, frames = open_manifest(dataset), round(seconds * FPS)
    entries = [(shard, sample) for shard, sample in manifest.samples(split) if sample.frames >= frames]
    count = sum(sample.frames // frames for _, sample in entries)
    if not count:
        raise PortraitError(f"{dataset}: no clip of the {split} split has {frames} frames: make data.seconds shorter")
    if any(MOTION not in sample.members for _, sample in entries):
        raise PortraitError(f"{dataset}: it holds no motions: prepare it with svp prepare --space liveportrait")
    groups: dict[tuple[str, str], int] = {}

    def clips() -> Iterator[tuple[MotionClipInfo, Rows]]:
        for shard, sample in entries:
            motion = decode_motion(read_member(manifest.folder, shard, sample, MOTION))
            audio = decode_audio(read_member(manifest.folder, shard, sample, AUDIO))
            style = clip_style(model, manifest.folder, shard, sample, motion, audio)
            waveform = to_mono(audio, SAMPLE_RATE).numpy()
            voice = mel_rows(waveform, 0, sample.frames, FPS).numpy()
            group = groups.setdefault((sample.identity, sample.emotion or sample.group), len(groups))
            for first in range(0, sample.frames - frames + 1, frames):
                part = slice(first, first + frames)
                spread = motion.angles[part].std(axis=0)
                rows = {
                    "motion": numbers_of_clip(motion)[part],
                    "voice": mel_track(voice[part]).astype(np.float16),
                    "style": style,
                    "portrait": motion.face.reshape(-1),
                    "habits": np.array([np.nan, *spread], np.float32),
                    "prosody": prosody(
                        waveform[round(first * SAMPLE_RATE / FPS) :][: round(frames * SAMPLE_RATE / FPS)]
                    ),
                }
                yield MotionClipInfo(sample.identity, sample.emotion, sample.intensity, group, (), frames), rows

    assert len(HABITS) == 4
    options = {"dataset": manifest.metadata["sources"]["digest"], "seconds": seconds, "split": split}
    write_motion_clips(folder, clips(), count, options, model.style_space, report)


def numbers_of_clip(motion: ClipMotion) -> np.ndarray:
    """A clip's motion as the numbers of a generator in LivePortrait's space: expression, angles, shift, scale, n 3k+6."""
    parts = [motion.expression, motion.angles, motion.shift, motion.scale[:, None]]
    return np.concatenate(parts, axis=1).astype(np.float32)


def clip_style(
    model: PortraitModel, folder: Path, shard: ShardEntry, sample: SampleEntry, motion: ClipMotion, audio: Audio
) -> np.ndarray:
    """Mean and deviation of a clip's style, 2 d: from the coefficients that the model's extractor reads, and the voice."""
    expression = motion.expression
    if model.config.style.expression_size != expression.shape[1]:
        expression = decode_labels(read_member(folder, shard, sample, LABELS)).expression
    known = torch.from_numpy(expression) if np.isfinite(expression).all() else None
    prior = extract_style(model, known, audio, FPS)
    return np.stack([prior.mu.numpy(), prior.sigma.numpy()])
