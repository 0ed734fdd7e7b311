"""The sampling loop: noise of a whole clip -> latents, window by window and step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.native import PortraitModel
from ..config import ModelConfig
from ..errors import PortraitError
from ..networks.conditions import ConditionWeights
from .conditions import ClipConditions, clip_conditions
from .guidance import FASTEST, MemoryPlan, guided_prediction
from .progress import Progress, shared
from .request import ClipRequest
from .schedule import make_scheduler, predicted_clean, velocity_of_clean
from .windows import blend_weights, frame_windows


@dataclass(frozen=True)
class SamplerOptions:
    """How to sample. window, overlap: frames, None takes the model's; blend: how overlapping windows are joined.

    The weights are factors on the model's own: 1 is 0.95 (reference) and 3 (audio) for V-Express, 1 for the others.
    """

    steps: int = 25
    cfg: float = 3.5
    scheduler: str = "euler"
    reference_weight: float = 1.0
    audio_weight: float = 1.0
    style_weight: float = 1.0
    window: int | None = None
    overlap: int | None = None
    blend: str = "average"


def sample_portrait(
    model: PortraitModel,
    request: ClipRequest,
    seed: int,
    options: SamplerOptions = SamplerOptions(),
    progress: Progress | None = None,
    on_latents: Callable[[int, Tensor], None] | None = None,
    plan: MemoryPlan = FASTEST,
    before_denoising: Callable[[], None] | None = None,
) -> Tensor:
    """A talking portrait: f c h/8 w/8 unscaled latents, float32 on the CPU.

    progress(done, total) is called for every piece of sound that is heard, then after every window of every step;
    on_latents(step, clean) gets the predicted clean latents (f c h/8 w/8, unscaled) of every step. Either may raise to stop
    the work. before_denoising() is called once portrait, sound and style are encoded, when only denoiser and guider are
    still needed; plan: how the denoising keeps within the memory there is, see `choose_plan`.
    """
    config = model.config
    window, overlap = resolve_windows(config, options)
    check_options(options)
    request.check(model)
    scheduler = make_scheduler(options.scheduler, config.scheduler, options.steps)
    noise = clip_noise(request.frames, tuple(request.portrait_latent.shape[1:]), seed)
    hearing, denoising = shared(progress, 1, options.steps)  # hearing takes about as long as one step over the clip
    conditions = clip_conditions(model, request, hearing)
    start = request.portrait_latent if request.warped is None else request.warped
    windows = frame_windows(request.frames, window, overlap)
    if before_denoising is not None:
        before_denoising()

    def preview(step: int, clean: Tensor) -> None:
        on_latents(step, finished(clean, start, config))

    watch = None if on_latents is None else preview
    latents = denoise(model, noise, conditions, scheduler, windows, weighted(options, config), denoising, watch, plan)
    return finished(latents, start, config)


def weighted(options: SamplerOptions, config: ModelConfig) -> SamplerOptions:
    """The options with the strengths that the denoiser is given: each weight times the model's own."""
    return replace(
        options,
        reference_weight=options.reference_weight * config.reference_weight,
        audio_weight=options.audio_weight * config.audio_weight,
    )


def finished(latents: Tensor, start: Tensor, config: ModelConfig) -> Tensor:
    """What the denoiser works on, f c h w -> latents as the VAE has them; a residual model's are added to `start`, the
    portrait's as it is or bent (1 or f c h w)."""
    unscaled = latents / config.vae.scale
    return unscaled + start.float().cpu() if config.residual else unscaled


@torch.no_grad()
def denoise(
    model: PortraitModel,
    noise: Tensor,
    conditions: ClipConditions,
    scheduler: Any,
    windows: list[list[int]],
    options: SamplerOptions,
    progress: Progress | None = None,
    on_latents: Callable[[int, Tensor], None] | None = None,
    plan: MemoryPlan = FASTEST,
) -> Tensor:
    """Noise f c h w -> scaled latents f c h w, both float32 on the CPU; each frame is stepped once per step.

    The weights of the options are taken as they are (see `weighted`). progress(done, total) is called after every window of
    every step, total = steps x windows. on_latents gets the step and the predicted clean latents, scaled.
    """
    config = model.config
    denoiser = model.networks.denoiser
    like = next(denoiser.parameters())
    weights = ConditionWeights(options.reference_weight, options.audio_weight, options.style_weight)
    shares = blend_weights(windows, len(noise), options.blend)
    total = len(scheduler.timesteps) * len(windows)
    done = 0
    latents = noise * scheduler.init_noise_sigma
    for step, timestep in enumerate(scheduler.timesteps):
        noisy = scheduler.scale_model_input(latents, timestep)  # f c h w, unit variance
        prediction = torch.zeros_like(noisy)
        for index, share in zip(windows, shares, strict=True):
            part = guided_prediction(
                denoiser,
                noisy[index][None].to(like),  # 1 f c h w
                timestep.long().reshape(1).to(like.device),
                conditions.window(index, like),
                weights,
                options.cfg,
                plan,
            )
            prediction[index] += share[:, None, None, None] * part[0].float().cpu()
            done += 1
            if progress is not None:
                progress(done, total)
        if on_latents is not None:
            on_latents(step, predicted_clean(prediction, noisy, timestep, config.scheduler))
        if config.scheduler.prediction == "sample":
            prediction = velocity_of_clean(prediction, noisy, timestep, config.scheduler)
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents


def clip_noise(frames: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal noise of a clip: frames x shape, float32 on the CPU.

    Drawn frame after frame from one generator, so that a longer clip of the same seed begins with the same noise.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.stack([torch.randn(shape, generator=generator) for _ in range(frames)])


def resolve_windows(config: ModelConfig, options: SamplerOptions) -> tuple[int, int]:
    """Window and overlap in frames; what the options leave open comes from the model."""
    longest = config.unet.motion_positions
    window = config.window if options.window is None else options.window
    if not 1 <= window <= longest:
        raise PortraitError(f"window is {window} frames: this model's temporal layers reach 1 to {longest}")
    overlap = min(config.overlap, window // 2) if options.overlap is None else options.overlap
    if not 0 <= overlap < window:
        raise PortraitError(f"overlap is {overlap} frames and window {window}: overlap must be 0 to {window - 1}")
    return window, overlap


def check_options(options: SamplerOptions) -> None:
    """cfg and the condition weights are numbers; steps and scheduler are checked where the schedule is made."""
    for name in ("cfg", "reference_weight", "audio_weight", "style_weight"):
        value = getattr(options, name)
        if not (math.isfinite(value) and value >= 0):
            raise PortraitError(f"{name} is {value}: it must be 0 or more")
