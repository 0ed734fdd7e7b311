"""The three stages of diffusion training (sec. 3.3): what a batch shows, what learns from it, and the loss (eq. 1).

Warm start of the two projections: their tokens first learn to tell the expression that the denoiser is to draw.

Left to the denoising loss alone, small projections collapse early to tokens that say nothing, because a denoiser that cannot
draw yet gains nothing from them. Here the first numbers of the mean of a frame's audio tokens become the frame's expression
coefficients, and those of a clip's style tokens the clip's mean expression, both standardised: a read-out of its own could
blow up a whisper, tokens of unit size cannot be overheard.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from einops import repeat
from torch import Tensor, nn

from ..config import ModelConfig, SchedulerConfig
from ..diffusion.conditioning import DRAWINGS
from ..diffusion.noise_schedule import add_noise, alphas_cumprod, prediction_target
from ..errors import PortraitError
from ..face.warp import warp_to_keypoints
from ..model import PortraitModel, PortraitNetworks, parameter_group
from ..networks.audio_encoder import feature_windows
from ..networks.conditions import Conditions
from ..networks.style_extractor import sample_code
from ..types import HeadMotion
from .config import ProjectionsPhase, StagePhase
from .dataset import Expressions, Order, Sample, Spot, stack
from .losses import EYES_AND_MOUTH, MOUTH, region_weight
from .train_style import style_input

REGION_MARGIN = 0.03  # of the picture's width
VALIDATION_STEPS = 8
Show = Callable[[Path, int], object]


class StageTraining:
    """One stage. It trains the parameter groups that the config names, in the model's own networks."""

    def __init__(
        self,
        name: str,
        model: PortraitModel,
        expressions: Expressions,
        test: Expressions,
        config: StagePhase,
        seed: int,
        show: Show,
    ):
        self.name, self.model, self.expressions, self.test, self.config = name, model, expressions, test, config
        self.clips = clips = expressions.clips
        shortest = min((clips.info[clip].frames for clip in clips.pictured), default=config.frames)
        if config.frames > min(shortest, model.config.unet.motion_positions):
            raise PortraitError(
                f"{name}.frames is {config.frames}: the shortest clip of the data has {shortest}, and the temporal layers know "
                f"{model.config.unet.motion_positions} positions"
            )
        freeze_all_but(model.networks, config.trains)
        self.module = StageModule(model, config)
        self._show = show
        self.order = Order(clips.by_shard(clips.pictured), seed, config.settings.batch)
        pictured = set(clips.pictured)
        self.by_identity: dict[str, list[int]] = {}
        self.by_style: dict[tuple[str, str], list[int]] = {}
        for number, info in enumerate(clips.info):
            if number in pictured:
                self.by_identity.setdefault(info.identity, []).append(number)
            self.by_style.setdefault((info.identity, info.emotion or info.group), []).append(number)

    def draw(self, spot: Spot) -> Sample:
        """Pictures of the target and the portrait with everything that leads from one to the other, for c clips of f frames:
        one of `frames`, or as many of one.

        target c f 3 H W and portrait c 3 H W in [-1, 1]; kps c f 3 H W in [0, 1]; bent c f 3 H W, for models that take it; audio
        c f w F; style_audio c n A, style_expression c n 64 and style_mask c n, unless the step goes without style; weight c f 1
        h w; seed c.
        """
        config, shared = self.config, spot.shared_rng()
        singles, styled = shared.random() < config.singles, config.style and shared.random() >= config.no_style
        count, length = (config.frames, 1) if singles else (1, config.frames)
        rng, turns = spot.rng(), config.frames if config.singles else 1  # clips that a step may need
        parts = [
            self._clip(self.order.sample(spot.step * turns + index, spot.place), length, styled, rng)
            for index in range(count)
        ]
        return {key: torch.stack([part[key] for part in parts]) for key in parts[0]}

    def _clip(self, clip: int, length: int, styled: bool, rng: np.random.Generator) -> Sample:
        total = self.clips.info[clip].frames
        start = int(rng.integers(total - length + 1))
        frames = list(range(start, start + length))
        lender = self._lender(clip, rng) if styled or not self.config.style else clip
        still = self._still(lender, clip, frames, rng)
        portrait = self.clips.frames(lender, [still])[0]  # 3 H W
        features = self.clips.features(clip, self.model.config.audio.rows_per_frame)
        sample = {
            "target": self.clips.frames(clip, frames),
            "portrait": portrait,
            "audio": feature_windows(features, self.model.config.audio, total)[frames],
            "weight": self._weight(clip, frames),
            "seed": torch.tensor(int(rng.integers(2**62))),
            **self._motion(clip, frames, lender, still, portrait, rng),
        }
        return {**sample, **self._style(clip, rng)} if styled else sample

    def _lender(self, clip: int, rng: np.random.Generator) -> int:
        """The clip that lends the portrait: the target's own, or with the chance of cross_emotion that person's in another."""
        if rng.random() >= self.config.cross_emotion:
            return clip
        info = self.clips.info
        others = [each for each in self.by_identity[info[clip].identity] if info[each].emotion != info[clip].emotion]
        return int(rng.choice(others)) if others and info[clip].emotion else clip

    def _still(self, lender: int, clip: int, frames: list[int], rng: np.random.Generator) -> int:
        """The portrait's frame: of the target's own clip one that is `margin` away from it, or as far as it can be."""
        total = self.clips.info[lender].frames
        if lender != clip:
            return int(rng.integers(total))
        apart = np.maximum(frames[0] - np.arange(total), np.arange(total) - frames[-1])
        return int(rng.choice(np.flatnonzero(apart >= min(self.config.margin, apart.max()))))

    def _motion(
        self, clip: int, frames: list[int], lender: int, still: int, portrait: Tensor, rng: np.random.Generator
    ) -> Sample:
        """Head keypoints of the target as pictures, and the portrait bent to them, as inexact as points found in pictures."""
        size, config = self.clips.size, self.config
        bias = rng.normal(0, config.bias * size, (8, 2))  # a tracker errs alike on all pictures of a face
        found = self.clips.labels(clip).head_keypoints[frames] + bias
        found = torch.from_numpy(found + rng.normal(0, config.shake * size, found.shape)).float()  # f 8 2
        own = self.clips.labels(lender).head_keypoints[still] + bias
        own = torch.from_numpy(own + rng.normal(0, config.shake * size, own.shape)).float()  # 8 2
        motion = HeadMotion(found, size, size, self.clips.fps)
        drawn = {"kps": DRAWINGS[self.model.config.keypoints](motion, range(len(frames)), size, size)}
        return {**drawn, "bent": warp_to_keypoints(portrait, own, found)} if self.module.warped else drawn

    def _style(self, clip: int, rng: np.random.Generator) -> Sample:
        """The style input of a clip of the target's person and emotion."""
        info = self.clips.info[clip]
        others = [each for each in self.by_style[info.identity, info.emotion or info.group] if each != clip]
        own = not others or rng.random() < self.config.own_style
        source = clip if own else int(rng.choice(others))
        return style_input(self.expressions, source, self.model.config.style.max_frames, rng)

    def _weight(self, clip: int, frames: list[int]) -> Tensor:
        """How much an error counts, f 1 h w in cells of the latent: most at the mouth."""
        config, side = self.config, self.clips.size // self.model.config.vae.downscale
        points = torch.from_numpy(self.clips.labels(clip).landmarks[frames]) / self.clips.size  # f 68 2
        if (config.mouth_weight or config.face_weight) and not bool(torch.isfinite(points).all()):
            raise PortraitError(
                f"{self.clips.info[clip].key} has no landmarks, which mouth_weight {config.mouth_weight:g} and face_weight "
                f"{config.face_weight:g} need: set both to 0, or prepare the data with --backend insightface or mediapipe"
            )
        mouth = region_weight(points[:, MOUTH], side, config.mouth_weight, REGION_MARGIN)
        return mouth + region_weight(points[:, EYES_AND_MOUTH], side, config.face_weight, REGION_MARGIN) - 1

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The loss on fixed batches of test clips."""
        held = StageTraining(self.name, self.model, self.test, self.test, self.config, 0, self._show)
        places = min(self.config.settings.batch, len(self.test.clips.pictured))
        device = next(self.module.parameters()).device
        losses = []
        for step in range(VALIDATION_STEPS):
            batch = stack([held.draw(Spot(0, "validation", step, place, places)) for place in range(places)])
            losses.append(float(self.module({key: value.to(device) for key, value in batch.items()})[0]))
        return {"loss": float(np.mean(losses))}

    def show(self, folder: Path, step: int) -> None:
        self._show(folder, step)


class StageModule(nn.Module):
    """Batch -> loss. The VAE and the frozen networks work along but are not trained."""

    def __init__(self, model: PortraitModel, config: StagePhase):
        super().__init__()
        self.networks, self.stage, self.model_config = model.networks, config, model.config
        self._vae = (model.vae.eval().requires_grad_(False),)  # a tuple: no part of what is trained and kept
        self.warped = model.config.unet.reference_warp

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        config, networks = self.model_config, self.networks
        batch = {key: value.flatten(0, 1) for key, value in batch.items()}  # clips of all places
        clips, frames = batch["target"].shape[:2]
        target = self._encode(batch["target"])  # b f c h w
        portrait = self._encode(batch["portrait"][:, None])[:, 0]  # b c h w
        bent = self._encode(batch["bent"]) if self.warped else None
        noises = [torch.Generator().manual_seed(int(seed)) for seed in batch["seed"]]
        kept = torch.stack([torch.rand((), generator=each) for each in noises]) >= self.stage.unconditional
        conditions = self._conditions(batch, portrait, bent, noises, frames).mask(kept)
        uniform = torch.stack([torch.rand((), generator=each) for each in noises])
        timestep = (
            ((config.scheduler.train_steps - 1) * uniform**self.stage.high_noise).round().long().to(target.device)
        )
        start = bent if self.warped else portrait[:, None]
        clean = (target - start if config.residual else target) * config.vae.scale
        noise = torch.stack([clip_noise(clean.shape[1:], each, self.stage.noise_offset) for each in noises]).to(clean)
        noisy = add_noise(clean, noise, timestep, config.scheduler)
        # Single frames have no neighbours to learn from: joint training as in Video Diffusion Models (Ho et al. 2022).
        temporal = self.stage.temporal and frames > 1
        predicted = networks.denoiser(noisy, timestep, conditions, temporal=temporal)
        error = (predicted - prediction_target(clean, noise, timestep, config.scheduler)).square()
        weight = batch["weight"] * snr_weight(timestep, config.scheduler, self.stage.min_snr)[:, None, None, None, None]
        return (weight * error).mean(), {}

    @torch.no_grad()
    def _encode(self, frames: Tensor) -> Tensor:
        """b f 3 H W -> b f c h w, unscaled"""
        vae = self._vae[0].to(frames.device)  # no part of the module, which has been moved there
        return vae.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def _conditions(
        self, batch: Sample, portrait: Tensor, bent: Tensor | None, noises: list[torch.Generator], frames: int
    ) -> Conditions:
        """Everything that steers the denoiser; what a stage does not train yet is zero."""
        networks, config = self.networks, self.model_config
        portrait = portrait * config.vae.scale
        audio = networks.audio_projection(batch["audio"].flatten(0, 1)).unflatten(
            0, batch["audio"].shape[:2]
        )  # b f t d
        style = None
        if "style_mask" in batch:
            code = self._style_code(batch, noises)
            style = repeat(networks.style_projection(code), "b t d -> b f t d", f=frames)
        return Conditions(
            reference=networks.reference(portrait),
            reference_latent=portrait if config.unet.reference_concat else None,
            audio=audio if self.stage.audio else torch.zeros_like(audio),
            kps=networks.guider(batch["kps"]),
            style=style,
            reference_warped=None if bent is None else bent * config.vae.scale,
        )

    @torch.no_grad()
    def _style_code(self, batch: Sample, noises: list[torch.Generator]) -> Tensor:
        """A fresh draw from the prior of every style clip (4), b d_s; the ablation takes its mean."""
        extractor = self.networks.style_extractor
        extractor.eval()  # it is frozen: its dropout too
        mu, sigma = extractor(batch["style_audio"], batch["style_expression"], batch["style_mask"])
        if self.stage.deterministic:
            return mu
        return torch.stack([sample_code(*each) for each in zip(mu, sigma, noises, strict=True)])


def freeze_all_but(networks: nn.Module, groups: tuple[str, ...]) -> None:
    """Only the parameters of these groups (see parameter_group) learn; an unknown group raises PortraitError."""
    known = {parameter_group(name) for name, _ in networks.named_parameters()}
    if unknown := set(groups) - known:
        raise PortraitError(
            f"trains: there is no group {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}"
        )
    for name, parameter in networks.named_parameters():
        parameter.requires_grad_(parameter_group(name) in groups)


def clip_noise(shape: torch.Size, generator: torch.Generator, offset: float) -> Tensor:
    """Standard normal noise f c h w, plus `offset` times a normal number for each channel of the whole clip."""
    noise = torch.randn(shape, generator=generator)
    return noise + offset * torch.randn((1, shape[1], 1, 1), generator=generator)


def snr_weight(timestep: Tensor, config: SchedulerConfig, gamma: float) -> Tensor:
    """Min-SNR-gamma (Hang et al. 2023) for what the network predicts, one per clip; gamma 0 is 1 everywhere.

    min(SNR, gamma) is the weight of an error of the clean sample; that of noise is divided by SNR, that of velocity by SNR + 1.
    For velocities both are taken one higher, as V-Express does: pure noise, whose SNR is 0, would otherwise teach nothing.
    """
    if not gamma:
        return torch.ones_like(timestep, dtype=torch.float32)
    alpha = alphas_cumprod(config)[timestep.cpu()].to(timestep.device).float()
    snr = alpha / (1 - alpha)
    if config.prediction == "sample":
        return snr.clamp(max=gamma)
    if config.prediction == "v_prediction":
        snr = snr + 1
    return snr.clamp(max=gamma) / snr


class ProjectionsTraining:
    """The phase of audio and style projection; the style extractor is taken as it is."""

    name = "projections"

    def __init__(
        self,
        networks: PortraitNetworks,
        expressions: Expressions,
        config: ProjectionsPhase,
        model: ModelConfig,
        seed: int,
    ):
        self.clips = clips = expressions.clips
        self.expressions, self.config, self.model = expressions, config, model
        shown = [clips.expression(number) for number in range(len(clips.info))]
        rows, means = np.concatenate(shown), np.stack([each.mean(0) for each in shown])
        self.module = _ReadOut(
            networks, *map(torch.from_numpy, (rows.mean(0), rows.std(0), means.mean(0), means.std(0)))
        )
        self.order = Order(clips.by_shard(range(len(clips.info))), seed, config.settings.batch)

    def draw(self, spot: Spot) -> Sample:
        """Every frame_step-th frame of a clip: audio windows f w F, expression f 64, the clip's mean expression 64, a style
        input (see style_input) and `seed`."""
        rng, step = spot.rng(), self.config.frame_step
        clip = self.order.sample(spot.step, spot.place)
        total = self.clips.info[clip].frames
        frames = np.arange(int(rng.integers(step)), total, step)[: total // step]
        features = self.clips.features(clip, self.model.audio.rows_per_frame)
        expression = torch.from_numpy(self.clips.expression(clip))
        return {
            "audio": feature_windows(features, self.model.audio, total)[frames],
            "expression": expression[frames],
            "mean": expression.mean(0),
            **style_input(self.expressions, clip, self.model.style.max_frames, rng),
            "seed": torch.tensor(int(rng.integers(2**62))),
        }

    def validate(self) -> dict[str, float]:
        """Nothing: what counts is what the stages make of the tokens."""
        return {}

    def show(self, folder: Path, step: int) -> None:
        """There is nothing to look at."""


class _ReadOut(nn.Module):
    def __init__(
        self, networks: PortraitNetworks, middle: Tensor, spread: Tensor, clip_middle: Tensor, clip_spread: Tensor
    ):
        super().__init__()
        self.audio_projection, self.style_projection = networks.audio_projection, networks.style_projection
        self._extractor = (networks.style_extractor.eval(),)  # a tuple: not trained and not kept
        for name, value in (("middle", middle), ("spread", spread)):
            self.register_buffer(name, value, persistent=False)
        self.register_buffer("clip_middle", clip_middle, persistent=False)
        self.register_buffer("clip_spread", clip_spread, persistent=False)

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        count = len(self.middle)
        spoken = self.audio_projection(batch["audio"].flatten(0, 1)).mean(1)[:, :count]  # (n f) 64
        audio = (spoken - (batch["expression"].flatten(0, 1) - self.middle) / self.spread).square().mean()
        with torch.no_grad():
            moments = self._extractor[0](batch["style_audio"], batch["style_expression"], batch["style_mask"])
        generators = [torch.Generator().manual_seed(int(seed)) for seed in batch["seed"]]
        codes = torch.stack([sample_code(*each) for each in zip(*moments, generators, strict=True)])  # n d_s
        felt = self.style_projection(codes).mean(1)[:, :count]  # n 64
        style = (felt - (batch["mean"] - self.clip_middle) / self.clip_spread).square().mean()
        return audio + style, {"audio": audio, "style": style}
