"""The sampler: portrait, voice, head motion and style -> latents of the clip."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from einops import rearrange
from torch import Tensor

from ..svp_models.sampling.clip import LENGTHS, clip_frames, prepare_clip
from ..svp_models.sampling.pipeline import SamplerOptions, resolve_windows, sample_portrait
from ..svp_models.sampling.progress import shared
from ..svp_models.sampling.schedule import SCHEDULERS
from ..svp_models.values import HeadMotion
from . import host
from .host import io
from .sockets import HeadMotionSocket, StyleSocket, SvpModel, audio_from, frames_from, images_from, rgb_from


def weight(name: str, what: str) -> io.Float.Input:
    """A widget for the strength of a condition."""
    return io.Float.Input(
        f"{name}_weight", default=1.0, min=0.0, max=5.0, step=0.05, tooltip=f"Strength of {what}; 1 as trained, 0 off."
    )


def kps_pictures(head_motion: Tensor | HeadMotion) -> Tensor | HeadMotion:
    """IMAGE -> f 3 h w in [0, 1]; a head motion stays."""
    if isinstance(head_motion, HeadMotion):
        return head_motion
    return rearrange(rgb_from(head_motion).cpu().float(), "f h w c -> f c h w")


def model_window(window: int, overlap: int) -> tuple[int | None, int | None]:
    """The two widgets as SamplerOptions has them: None, the model's own, for a window of 0 and an overlap of -1."""
    return window or None, overlap if overlap >= 0 else None


def encoder(vae: Any) -> Callable[[Tensor], Tensor]:
    """The host's VAE on frames n 3 h w in [-1, 1]."""
    return lambda frames: vae.encode(images_from(frames))


class SVPSampler(io.ComfyNode):
    """Everything that drives the portrait -> LATENT and frame rate."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = {"default": 0, "min": 0, "max": 2048, "step": 8}
        return io.Schema(
            node_id="SVPSampler",
            display_name="Portrait Sampler (SVP)",
            category="SVP Portrait",
            description="Makes the portrait speak: as many frames as the voice lasts, moving and feeling as told.",
            inputs=[
                SvpModel.Input("model", tooltip="From Load Portrait Model."),
                io.Vae.Input("vae", tooltip="The VAE that encodes the portrait; the one of the model."),
                io.Image.Input(
                    "portrait", tooltip="Who speaks. Other shapes are cut around the centre to width x height."
                ),
                io.Audio.Input("audio", tooltip="What is said; it sets the length of the clip."),
                io.MultiType.Input(
                    "head_motion",
                    types=[io.Image, HeadMotionSocket],
                    tooltip="How the head moves: a head motion in the portrait's picture, or drawn pictures at fps. A single "
                    "frame is held still; a motion shorter than the voice goes back and forth.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**53 - 1,
                    control_after_generate=True,
                    tooltip="The same seed gives the same clip.",
                ),
                io.Int.Input(
                    "steps", default=25, min=1, max=200, step=1, tooltip="Denoising steps: more is finer and slower."
                ),
                io.Float.Input(
                    "cfg",
                    default=3.5,
                    min=0.0,
                    max=20.0,
                    step=0.1,
                    tooltip="Guidance towards the conditions; 1 is none (fastest).",
                ),
                io.Combo.Input(
                    "scheduler", options=list(SCHEDULERS), default="euler", tooltip="How the steps are taken."
                ),
                weight("reference", "the portrait's looks"),
                weight("audio", "the voice"),
                weight("style", "the speaking style"),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Frames per second of the clip; 25 as trained.",
                ),
                io.Int.Input(
                    "window",
                    default=0,
                    min=0,
                    max=512,
                    step=1,
                    tooltip="Frames denoised together; 0 takes the model's own.",
                ),
                io.Int.Input(
                    "overlap",
                    default=-1,
                    min=-1,
                    max=511,
                    step=1,
                    tooltip="Frames that neighbouring windows share; -1 takes the model's own.",
                ),
                io.Int.Input("width", tooltip="Pixels; 0 takes the model's size.", **side),
                io.Int.Input("height", tooltip="Pixels; 0 takes the model's size.", **side),
                io.Combo.Input(
                    "length",
                    options=list(LENGTHS),
                    default="audio",
                    tooltip="audio: as long as the voice. shortest: no longer than the head motion either.",
                ),
                StyleSocket.Input(
                    "style", optional=True, tooltip="How it is said; without, the model's neutral manner."
                ),
            ],
            outputs=[
                io.Latent.Output("latent", tooltip="One latent per frame, for VAE Decode or Combine Video."),
                io.Float.Output("fps", tooltip="Frames per second."),
            ],
        )

    @classmethod
    def execute(
        cls, model, vae: Any, portrait: Tensor, audio: dict[str, Any], head_motion: Tensor | HeadMotion, seed: int, steps: int,
        cfg: float, scheduler: str, reference_weight: float, audio_weight: float, style_weight: float, fps: float, window: int,
        overlap: int, width: int, height: int, length: str, style=None,
    ) -> io.NodeOutput:  # fmt: skip
        config = model.portrait.config
        options = SamplerOptions(
            steps, cfg, scheduler, reference_weight, audio_weight, style_weight, *model_window(window, overlap)
        )
        size = (width or config.size, height or config.size)
        sound, motion, face = audio_from(audio), kps_pictures(head_motion), frames_from(portrait[:1])[0]
        frames = clip_frames(sound.seconds, motion, fps, length)
        longest = min(frames, resolve_windows(config, options)[0])
        preparing, sampling = shared(host.progress(), 1, steps + 1)  # in steps over the whole clip
        request = prepare_clip(model.portrait, encoder(vae), face, sound, motion, style, frames, fps, size, preparing)
        plan, memory = model.plan(cfg, longest, size)
        ready, then = model.ready(memory), partial(model.ready_to_denoise, memory)
        samples = sample_portrait(
            ready, request, seed, options, sampling, plan=plan, before_denoising=then
        )  # f c h/8 w/8
        return io.NodeOutput({"samples": samples}, fps)
