"""The pipeline: portrait, voice, head motion and style -> latents -> frames, in four stages.

pipeline = PortraitPipeline(model)
inputs = pipeline.prepare(portrait, audio, head_motion, style, frames, fps, size)
conditions = pipeline.encode_conditions(inputs)
latents = pipeline.denoise(inputs, conditions, seed, options)
for frames in pipeline.decode(latents): ...
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.audio_encoder import check_audio_encoder
from ..config import ModelConfig
from ..errors import PortraitError
from ..face.portrait_face import PortraitFace
from ..io.memory_map import IN_MEMORY, FrameArray, MappedFrames, Storage, as_tensor, blocks, broadcast
from ..io.progress import Progress
from ..media.audio import check_audio
from ..model import PortraitModel
from ..networks.conditions import ConditionWeights
from ..networks.vae import encode_images
from ..types import Audio, HeadMotion, Style
from .acceleration import EXACT, Acceleration, check_acceleration
from .checks import check_clip, check_inputs, check_latents, check_size, check_style
from .conditioning import ClipConditions, encode_conditions
from .conditioning_cache import ConditioningCache
from .context_windows import blend_weights, completed_frames
from .face_inputs import check_expression, face_inputs
from .guidance import FASTEST, MemoryPlan
from .inputs import ClipInputs, fit_motion, fit_portrait
from .noise_prediction import NoisePredictor
from .noise_schedule import SamplingSchedule, pred_x0, sampling_schedule
from .processes import add_up, own_windows, process_count
from .samplers import Frames, ddim_step, sampler_named
from .warped_reference import Encode, warped_latents

OnLatents = Callable[[int, int, Tensor], None]  # step, first frame, x_0 of the frames from there on


@dataclass(frozen=True)
class SamplerOptions:
    """How to sample. steps, cfg, window and overlap (frames): None takes the model's; blend: how overlapping windows are joined;
    acceleration: what is left out to save time. audio_cfg, style_cfg: guidance of the voice and all but the style, and of the style;
    None is cfg, and where they differ there are up to three evaluations, see `guided_prediction`.

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
    acceleration: Acceleration = EXACT
    audio_cfg: float | None = None
    style_cfg: float | None = None


@dataclass(frozen=True, kw_only=True)
class ResolvedOptions(SamplerOptions):
    """Options with nothing left open, see `resolve_options`."""

    steps: int
    cfg: float
    window: int
    overlap: int


class PortraitPipeline:
    """model: what samples; encode: frames n 3 h w in [-1, 1] -> unscaled latents n c h/8 w/8, by the model's own VAE unless
    given; storage: where arrays go that grow with the clip; cache: keeps the last clip's inputs and conditions for the next run."""

    def __init__(
        self,
        model: PortraitModel,
        encode: Encode | None = None,
        storage: Storage = IN_MEMORY,
        cache: ConditioningCache | None = None,
    ) -> None:
        self.model = model
        self.encode = encode or partial(encode_images, model.vae)
        self.storage = storage
        self.cache = cache

    def prepare(
        self,
        portrait: Tensor,
        audio: Audio,
        motion: HeadMotion | Tensor,
        style: Style | None,
        frames: int,
        fps: float,
        size: tuple[int, int],
        progress: Progress | None = None,
        expression: Tensor | None = None,
        portrait_face: PortraitFace | None = None,
    ) -> ClipInputs:
        """All inputs cut to one length, frame rate and size, and the portrait encoded.

        portrait: 3 h w in [-1, 1] of any size; motion: of any length, frame rate and size; size: width, height in pixels of the
        frames, of which a model with `face_crop` draws a part. expression: f 68, see `expression_track`, for models that read it;
        portrait_face: in pixels of `size`, for those that warp the portrait to it; None: the model's face analyser looks for it.
        progress(done, total) counts the frames of the warped portrait, for models that use it, and may raise to stop the work.
        """
        check_size(*size, self.model.config.vae.downscale)
        check_clip(frames, fps)
        check_audio(audio)
        check_audio_encoder(self.model.config, self.model.audio_encoder)
        if style is not None:
            check_style(style, self.model)
        check_expression(expression, self.model, frames)
        key = (self.encode, portrait, motion, frames, fps, size, expression, portrait_face)
        cached = None if self.cache is None else self.cache.inputs(key, audio)
        if cached is not None:
            return replace(cached, style=style)
        fitted = fit_motion(motion, frames, fps, *size)
        image = fit_portrait(portrait, *size)
        crop, given = self.model.config.face_crop, (self.model, self.encode, image, fitted)
        warped: FrameArray | None
        if crop.width:
            face = face_inputs(*given, fps, progress, self.storage, expression, portrait_face)
            latent, fitted, warped, size = face.portrait_latent, face.motion, face.warped, (crop.width, crop.height)
        else:
            latent = self.encode(image[None]).float().cpu()
            warped = warped_latents(*given, progress, self.storage)
        inputs = ClipInputs(latent, audio, fitted, style, frames, fps, size, warped, expression)
        if self.cache is not None:
            self.cache.store_inputs(key, inputs)
        return inputs

    def encode_conditions(self, inputs: ClipInputs, progress: Progress | None = None) -> ClipConditions:
        """Runs every condition network that does not depend on the denoising step; progress: see `audio_tokens`."""
        check_inputs(inputs, self.model)
        if self.cache is None:
            return encode_conditions(self.model, inputs, progress, self.storage)
        return self.cache.conditions(self.model, inputs, progress, self.storage)

    def denoise(
        self,
        inputs: ClipInputs,
        conditions: ClipConditions,
        seed: int,
        options: SamplerOptions = SamplerOptions(),
        progress: Progress | None = None,
        on_latents: OnLatents | None = None,
        plan: MemoryPlan = FASTEST,
    ) -> Tensor:
        """Unscaled latents f c h/8 w/8, float32 on the CPU, memory-mapped if they are large.

        progress(done, total) is called after every window of every step; on_latents(step, first, x0) gets the predicted x_0
        of some frames from `first` on, n c h/8 w/8 unscaled, as soon as all their windows are done. Either may raise to stop
        the work. plan: how the denoiser keeps within the memory there is, see `choose_plan`.
        """
        model, config = self.model, self.model.config
        resolved = resolve_options(config, options)
        start = inputs.portrait_latent if inputs.warped is None else inputs.warped
        shape = tuple(inputs.portrait_latent.shape[1:])
        x = clip_noise(inputs.frames, shape, seed, self.storage, config.shared_noise)

        def preview(step: int, first: int, x0: Tensor) -> None:
            if on_latents is not None:
                on_latents(
                    step, first, postprocess_latents(x0, broadcast(start, slice(first, first + len(x0))), config)
                )

        schedule = sampling_schedule(config.scheduler, resolved.steps)
        on_x0 = None if on_latents is None else preview
        denoiser = WindowedDenoiser(model, conditions, resolved, schedule, plan, self.storage, progress, on_x0)
        latents = sampler_named(resolved.scheduler)(denoiser, x, schedule)
        for block in blocks(inputs.frames):
            latents[block] = postprocess_latents(latents[block], broadcast(start, block), config)
            check_latents(
                latents[block], block.start, f"the model {config.name!r} is damaged or overflows in its precision"
            )
        return as_tensor(latents)

    def decode(self, latents: Tensor, chunk: int = 8, progress: Progress | None = None) -> Iterator[Tensor]:
        """Unscaled latents f c h w -> frames n 3 H W in [-1, 1], float32 on the CPU, up to `chunk` at a time, by the model's own
        VAE. progress(frames decoded, frames in all)."""
        if chunk < 1:
            raise PortraitError(f"frames are decoded {chunk} at a time: at least 1 is needed")
        like = next(self.model.vae.parameters())
        done = 0
        for part in latents.split(chunk):
            with torch.no_grad():  # entered anew for every chunk: a generator must not hold it while its caller runs
                frames = self.model.vae.decode(part.to(like)).float().cpu().clamp(-1, 1)  # n 3 H W
            done += len(part)
            if progress is not None:
                progress(done, len(latents))
            yield frames

    def __call__(self, inputs: ClipInputs, seed: int, options: SamplerOptions = SamplerOptions()) -> Tensor:
        """From inputs to frames f 3 H W in [-1, 1], all in memory."""
        latents = self.denoise(inputs, self.encode_conditions(inputs), seed, options)
        return torch.cat(list(self.decode(latents)))


@dataclass
class WindowedDenoiser:
    """The model as samplers call it: (x, step) -> x_0, both f c h w on the CPU, scaled.

    Every step predicts the windows of the clip one after the other or a few at a time, or its share of them (see `processes`), and
    fuses their predictions by `blend_weights`; a frame whose last window is done goes on as x_0. progress(done, total) is called after every window of every step;
    on_x0(step, first, x0) with the frames that a window has completed.
    """

    model: PortraitModel
    conditions: ClipConditions
    options: ResolvedOptions
    schedule: SamplingSchedule
    plan: MemoryPlan = FASTEST
    storage: Storage = IN_MEMORY
    progress: Progress | None = None
    on_x0: OnLatents | None = None

    def __post_init__(self) -> None:
        options, weights = self.options, condition_weights(self.options, self.model.config)
        cfg, style_cfg = guidance_scales(options)
        given = (self.model, self.conditions, options.acceleration, weights, cfg)
        self.predict = NoisePredictor(*given, self.schedule, self.plan, self.storage, style_cfg)
        self.together = options.acceleration.at_once(self.plan.windows)
        self.ahead: dict[int, Frames] = {}  # step -> predictions of the clip that an earlier step has made

    @torch.no_grad()
    def __call__(self, x: Tensor | MappedFrames, step: int) -> Tensor | MappedFrames:
        options, timestep = self.options, self.schedule.timesteps[step]
        windows = options.acceleration.windows(len(x), options.window, options.overlap)
        weights = blend_weights(windows, len(x), options.blend)
        known = self.ahead.pop(step, None)
        fused = self.storage.zeros(x.shape) if known is None else known
        own, alone = own_windows(len(windows)), process_count() == 1
        found: dict[int, Tensor] = {}
        for number, (window, weight) in enumerate(zip(windows, weights, strict=True)):
            if known is None and number in own:
                if number not in found:
                    found = self._predict(windows, own[own.index(number) :][: self.together], x, step)
                fused[window] += weight[:, None, None, None] * found.pop(number)
            if alone:
                self._complete(fused, x, completed_frames(windows, number, len(x)), step, timestep)
            if self.progress is not None:
                self.progress(step * len(windows) + number + 1, len(self.schedule) * len(windows))
        if not alone:
            if known is None:
                add_up(fused)
            for block in blocks(len(x)):
                self._complete(fused, x, block, step, timestep)
        self.predict.finish()
        later = options.acceleration.together(step, len(self.schedule))
        for _, steps in groupby(later, self.predict.cfg):
            self._predict_ahead(x, fused, step, list(steps), list(zip(windows, weights, strict=True)))
        return fused

    def _predict(self, windows: list[list[int]], numbers: Sequence[int], x: Frames, step: int) -> dict[int, Tensor]:
        """The predictions of some windows, all of one length, in one batch."""
        chosen = [windows[number] for number in numbers]
        predictions = self.predict(numbers, chosen, [x[window] for window in chosen], [step])
        return dict(zip(numbers, predictions, strict=True))

    def _complete(self, fused: Frames, x: Frames, ready: slice, step: int, timestep: Tensor) -> None:
        """Turns predictions that all windows have been added to into x_0, in place."""
        fused[ready] = pred_x0(fused[ready], x[ready], timestep, self.model.config.scheduler)
        if self.on_x0 is not None and ready.start < ready.stop:
            self.on_x0(step, ready.start, fused[ready])

    def _predict_ahead(
        self, x: Frames, x0: Frames, step: int, later: list[int], windows: list[tuple[list[int], Tensor]]
    ) -> None:
        """Predicts later steps in one batch, on the latents to which x and x_0 of this step lead at once."""
        levels = self.schedule.alphas
        estimates, predictions = ([self.storage.zeros(x.shape) for _ in later] for _ in range(2))
        for estimate, other in zip(estimates, later, strict=True):
            for block in blocks(len(x)):
                estimate[block] = ddim_step(x[block], x0[block], levels[step], levels[other])
        for number in own_windows(len(windows)):
            window, weight = windows[number]
            found = self.predict([number], [window], [estimate[window] for estimate in estimates], later)
            for fused, noise_pred in zip(predictions, found, strict=True):
                fused[window] += weight[:, None, None, None] * noise_pred
        if process_count() > 1:
            for fused in predictions:
                add_up(fused)
        self.ahead |= dict(zip(later, predictions, strict=True))


def postprocess_latents(latents: Tensor, start: Tensor, config: ModelConfig) -> Tensor:
    """Scaled latents f c h w of the denoiser -> latents of the VAE; a residual model's are added to `start`, the portrait's as
    it is or warped (1 or f c h w)."""
    unscaled = latents / config.vae.scale
    return unscaled + start.float().cpu() if config.residual else unscaled


def clip_noise(
    frames: int, shape: tuple[int, ...], seed: int, storage: Storage = IN_MEMORY, common: float = 0.0
) -> Tensor | MappedFrames:
    """Standard normal noise of a clip: frames x shape, float32 on the CPU. common: share of the variance that is the same in all
    frames, so that what stands still is drawn alike.

    Drawn frame after frame from one generator, so that a longer clip of the same seed begins with the same noise.
    """
    generator = torch.Generator().manual_seed(seed)
    noise = storage.zeros((frames, *shape))
    same = torch.randn(shape, generator=generator) if common else None
    for block in blocks(frames):
        drawn = torch.stack([torch.randn(shape, generator=generator) for _ in range(block.start, block.stop)])
        noise[block] = drawn if same is None else common**0.5 * same + (1 - common) ** 0.5 * drawn
    return noise


def condition_weights(options: SamplerOptions, config: ModelConfig) -> ConditionWeights:
    """The factors for the denoiser: the options' times the model's own."""
    reference = options.reference_weight * config.reference_weight
    skipped = options.acceleration.without_reference(config.unet)
    return ConditionWeights(reference, options.audio_weight * config.audio_weight, options.style_weight, skipped)


def guidance_scales(options: ResolvedOptions) -> tuple[float, float]:
    """Guidance of all conditions but the style, and of the style."""
    audio, style = (options.cfg if scale is None else scale for scale in (options.audio_cfg, options.style_cfg))
    return audio, style


def resolve_options(config: ModelConfig, options: SamplerOptions) -> ResolvedOptions:
    """The options with nothing left open: steps, cfg, window and overlap are the model's where they are None. PortraitError
    names the first that cannot be."""
    window, overlap = resolve_windows(config, options)
    steps = config.steps if options.steps is None else options.steps
    cfg = config.cfg if options.cfg is None else options.cfg
    values: dict[str, Any] = {**vars(options), "steps": steps, "cfg": cfg, "window": window, "overlap": overlap}
    resolved = ResolvedOptions(**values)
    check_acceleration(resolved.acceleration, config.unet)
    for name in ("cfg", "reference_weight", "audio_weight", "style_weight"):
        value = getattr(resolved, name)
        if not (math.isfinite(value) and value >= 0):
            raise PortraitError(f"{name} is {value}: it must be 0 or more")
    audio_cfg, style_cfg = guidance_scales(resolved)
    for name, value in (("audio_cfg", audio_cfg), ("style_cfg", style_cfg)):
        if not (math.isfinite(value) and value >= 0):
            raise PortraitError(f"{name} is {value}: it must be 0 or more")
    if audio_cfg != style_cfg:
        for name in ("cache_every", "foreground_every"):
            if (value := getattr(resolved.acceleration, name)) > 1:
                raise PortraitError(
                    f"audio_cfg is {audio_cfg:g} and style_cfg {style_cfg:g}, and {name} {value}: features of "
                    f"other steps are kept for one guidance alone: set {name} to 1 in Accelerate, or give both the same guidance"
                )
    return resolved


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
