"""The sampling loop: noise of a whole clip -> latents, window by window and step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..config import ModelConfig
from ..errors import PortraitError
from ..io.memory_map import BLOCK, IN_MEMORY, FileRows, Rows, Storage, blocks, held, whole
from ..io.progress import Progress, shared
from ..model import PortraitModel
from ..networks.conditions import ConditionWeights
from .conditioning import ClipConditions, clip_conditions
from .context_windows import blend_weights, frame_windows, windows_to_come
from .guidance import FASTEST, MemoryPlan, guided_prediction
from .inputs import ClipRequest
from .latents import check_latents
from .noise_schedule import make_scheduler, predicted_clean, velocity_of_clean
from .samplers import BlockSteps

Conditioned = Callable[[PortraitModel, ClipRequest, Progress | None, Storage], ClipConditions]
OnLatents = Callable[[int, int, Tensor], None]  # step, first frame, clean latents of the frames from there on


@dataclass(frozen=True)
class SamplerOptions:
    """How to sample. steps, cfg, window and overlap (frames): None takes the model's; blend: how overlapping windows are joined.

    The weights are factors on the model's own: 1 is 0.95 (reference) and 3 (audio) for V-Express, 1 for the others.
    """

    steps: int | None = None
    cfg: float | None = None
    scheduler: str = "euler"
    reference_weight: float = 1.0
    audio_weight: float = 1.0
    style_weight: float = 1.0
    window: int | None = None
    overlap: int | None = None
    blend: str = "average"


@torch.no_grad()
def sample_portrait(
    model: PortraitModel,
    request: ClipRequest,
    seed: int,
    options: SamplerOptions = SamplerOptions(),
    progress: Progress | None = None,
    on_latents: OnLatents | None = None,
    plan: MemoryPlan = FASTEST,
    before_denoising: Callable[[], None] | None = None,
    storage: Storage = IN_MEMORY,
    conditioned: Conditioned = clip_conditions,
) -> Tensor:
    """A talking portrait: f c h/8 w/8 unscaled latents, float32 on the CPU.

    progress(done, total) is called for every piece of sound that is heard, then after every window of every step;
    on_latents(step, first, clean) gets the predicted clean latents (n c h/8 w/8, unscaled) of a few frames from `first` on,
    as soon as they have taken a step. Either may raise to stop the work. before_denoising() is called once portrait, sound
    and style are encoded, when only denoiser and guider are still needed; plan: how the denoising keeps within the memory
    there is, see `choose_plan`; storage: where all that grows with the clip is kept, the result included (see
    `FileRows.tensor`); conditioned: `clip_conditions`, or what keeps its result, see `KeptClip`.
    """
    config = model.config
    options = resolve_options(config, options)
    check_options(options)
    request.check(model)
    scheduler = make_scheduler(options.scheduler, config.scheduler, options.steps)
    noise = clip_noise(request.frames, tuple(request.portrait_latent.shape[1:]), seed, storage)
    hearing, denoising = shared(progress, 1, options.steps)  # hearing takes about as long as one step over the clip
    conditions = conditioned(model, request, hearing, storage)
    start = request.portrait_latent if request.warped is None else request.warped
    windows = frame_windows(request.frames, options.window, options.overlap)
    if before_denoising is not None:
        before_denoising()

    def preview(step: int, first: int, clean: Tensor) -> None:
        on_latents(step, first, finished(clean, held(start, slice(first, first + len(clean))), config))

    watch = None if on_latents is None else preview
    strengths = weighted(options, config)
    latents = denoise(model, noise, conditions, scheduler, windows, strengths, denoising, watch, plan, storage)
    for part in blocks(request.frames):
        latents[part] = finished(latents[part], held(start, part), config)
        check_latents(latents[part], part.start, f"the model {config.name!r} is damaged or overflows in its precision")
    return whole(latents)


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
    noise: Rows,
    conditions: ClipConditions,
    scheduler: Any,
    windows: list[list[int]],
    options: SamplerOptions,
    progress: Progress | None = None,
    on_latents: OnLatents | None = None,
    plan: MemoryPlan = FASTEST,
    storage: Storage = IN_MEMORY,
    block: int = BLOCK,
) -> Rows:
    """Noise f c h w -> scaled latents f c h w, both float32 on the CPU; each frame is stepped once per step.

    cfg and the weights of the options are taken as they are (see `resolve_options` and `weighted`). progress(done, total)
    is called after every window of every step, total = steps x windows. `block` frames are stepped together, as soon as all
    windows that hold one of them are done: beside the latents only the predictions of a few frames are kept. on_latents gets
    the step, the first frame of a block and its predicted clean latents, scaled. Noise that lies in a file is overwritten.
    """
    config = model.config
    denoiser = model.networks.denoiser
    like = model.like(denoiser)
    weights = ConditionWeights(options.reference_weight, options.audio_weight, options.style_weight)
    shares = blend_weights(windows, len(noise), options.blend)
    untouched = windows_to_come(windows, len(noise))
    total = len(scheduler.timesteps) * len(windows)
    done = 0
    parts = blocks(len(noise), block)
    latents = noise if isinstance(noise, FileRows) else storage.rows(noise.shape)
    for part in parts:
        latents[part] = noise[part] * scheduler.init_noise_sigma
    steps = BlockSteps(scheduler, noise.shape, storage)

    def stepped(step: int, timestep: Tensor, part: slice, prediction: Tensor) -> Tensor:
        """The latents of a block after a step; prediction: n c h w, of all windows."""
        noisy = scheduler.scale_model_input(latents[part], timestep)
        if on_latents is not None:
            on_latents(step, part.start, predicted_clean(prediction, noisy, timestep, config.scheduler))
        if config.scheduler.prediction == "sample":
            prediction = velocity_of_clean(prediction, noisy, timestep, config.scheduler)
        return steps.take(prediction, timestep, latents[part], part)

    for step, timestep in enumerate(scheduler.timesteps):
        predictions: dict[int, Tensor] = {}  # block -> n c h w, the sum of its windows so far
        ready = 0
        for index, share, reached in zip(windows, shares, untouched, strict=True):
            noisy = scheduler.scale_model_input(latents[index], timestep)  # window c h w, unit variance
            told = guided_prediction(
                denoiser,
                noisy[None].to(like),  # 1 f c h w
                timestep.long().reshape(1).to(like.device),
                conditions.window(index, like),
                weights,
                options.cfg,
                plan,
            )
            told = share[:, None, None, None] * told[0].float().cpu()
            for frame, prediction in zip(index, told, strict=True):
                if frame // block not in predictions:
                    predictions[frame // block] = torch.zeros(block, *noise.shape[1:])
                predictions[frame // block][frame % block] += prediction
            done += 1
            if progress is not None:
                progress(done, total)
            while ready < len(parts) and parts[ready].stop <= reached:
                part = parts[ready]
                latents[part] = stepped(step, timestep, part, predictions.pop(ready)[: part.stop - part.start])
                ready += 1
    return latents


def clip_noise(frames: int, shape: tuple[int, ...], seed: int, storage: Storage = IN_MEMORY) -> Rows:
    """Standard normal noise of a clip: frames x shape, float32 on the CPU.

    Drawn frame after frame from one generator, so that a longer clip of the same seed begins with the same noise.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = storage.rows((frames, *shape))
    for part in blocks(frames):
        drawn = [torch.randn(shape, generator=generator) for _ in range(part.start, part.stop)]
        noise[part] = torch.stack(drawn)
    return noise


def resolve_options(config: ModelConfig, options: SamplerOptions) -> SamplerOptions:
    """The options with nothing left open: steps, cfg, window and overlap are the model's where they are None."""
    window, overlap = resolve_windows(config, options)
    steps = config.steps if options.steps is None else options.steps
    cfg = config.cfg if options.cfg is None else options.cfg
    return replace(options, steps=steps, cfg=cfg, window=window, overlap=overlap)


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
