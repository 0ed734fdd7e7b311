"""Videos written while a stage trains: a test person, generated beside the ground truth, with audio."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from einops import rearrange

from ..diffusion.pipeline import PortraitPipeline, SamplerOptions
from ..diffusion.style import extract_style, sample_style
from ..media.writer import VideoWriter
from ..model import PortraitModel
from ..types import Audio, HeadMotion
from .config import SampleVideoRecipe
from .dataset import Expressions


@torch.no_grad()
def write_sample_video(
    model: PortraitModel,
    expressions: Expressions,
    options: SampleVideoRecipe,
    with_style: bool,
    folder: Path,
    step: int,
) -> Path:
    """Writes `folder/step-<step>.mp4`: the first clip on the left, and generated from its first frame on the right."""
    clips = expressions.clips
    clip = clips.with_video[0]
    frames = min(options.frames, clips.info[clip].frames)
    target = clips.frames(clip, range(frames))  # f 3 h w
    whole, size = clips.audio(clip), (clips.size, clips.size)
    audio = Audio(whole.waveform[:, : round(frames / clips.fps * whole.sample_rate)], whole.sample_rate)
    points = torch.from_numpy(clips.labels(clip).head_keypoints[:frames])
    motion = HeadMotion(points, *size, clips.fps, portrait=points[0])
    style = None
    if with_style:
        prior = extract_style(model, expressions(clip, np.random.default_rng(0))[:frames], audio, clips.fps)
        style = sample_style(prior, 0)
    pipeline = PortraitPipeline(model)
    inputs = pipeline.prepare(target[0], audio, motion, style, frames, clips.fps, size)
    generated = pipeline(inputs, 0, SamplerOptions(steps=options.steps, cfg=options.cfg))
    pixels = ((torch.cat([target, generated], dim=3) + 1) * 127.5).round().clamp(0, 255).byte()
    path = folder / f"step-{step:07}.mp4"
    folder.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, 2 * clips.size, clips.size, clips.fps, audio) as writer:
        writer.write(np.ascontiguousarray(rearrange(pixels, "f c h w -> f h w c").numpy()))
    return path
