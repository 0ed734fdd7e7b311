"""Diffusion training: the three stages (sec. 3.3) with the denoising loss (eq. 1), and the warm start of the projections."""

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
from ..types import HeadMotion
from .config import ProjectionsPhase, StagePhase
from .dataset import Expressions, Sample, SampleIndex, ShardSampler, stack
from .losses import face_region_weight
from .train_style import sample_codes, seeded_generators, style_input

WriteSample = Callable[[Path, int], object]  # (folder, step)


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
        write_sample: WriteSample,
    ):
        self.name, self.model, self.expressions, self.test, self.config = name, model, expressions, test, config
        self.clips = clips = expressions.clips
        shortest = min((clips.info[clip].frames for clip in clips.with_video), default=config.frames)
        if config.frames > min(shortest, model.config.unet.motion_positions):
            raise PortraitError(
                f"{name}.frames is {config.frames}: the shortest clip of the data has {shortest}, and the temporal layers "
                f"have {model.config.unet.motion_positions} positions"
            )
        freeze_all_but(model.networks, config.trainable)
        self.module = StageModule(model, config)
        self._write_sample = write_sample
        self.sampler = ShardSampler(clips.by_shard(clips.with_video), seed, config.settings.batch_size)
        with_video = set(clips.with_video)
        self.by_identity: dict[str, list[int]] = {}
        self.by_style: dict[tuple[str, str], list[int]] = {}
        for number, info in enumerate(clips.info):
            if number in with_video:
                self.by_identity.setdefault(info.identity, []).append(number)
            self.by_style.setdefault((info.identity, info.emotion or info.group), []).append(number)

    def sample(self, index: SampleIndex) -> Sample:
        """Target, portrait and conditions of c clips of f frames: one clip of `frames` frames, or as many of a single frame.

        target c f 3 H W and portrait c 3 H W in [-1, 1]; kps c f 3 H W in [0, 1]; warped c f 3 H W, for models that take it;
        audio c f w F; style_audio c n A, style_expression c n 64 and style_mask c n, unless the step is without style; weight
        c f 1 h w; seed c.
        """
        config, shared = self.config, index.shared_rng()
        single_frames = shared.random() < config.single_frame_prob
        with_style = config.style and shared.random() >= config.style_drop_prob
        count, length = (config.frames, 1) if single_frames else (1, config.frames)
        rng, turns = index.rng(), config.frames if config.single_frame_prob else 1  # clips that a step may need
        return stack(
            [
                self._clip(self.sampler.sample(index.step * turns + turn, index.position), length, with_style, rng)
                for turn in range(count)
            ]
        )

    def _clip(self, clip: int, length: int, with_style: bool, rng: np.random.Generator) -> Sample:
        total = self.clips.info[clip].frames
        start = int(rng.integers(total - length + 1))
        frames = list(range(start, start + length))
        portrait_clip = self._portrait_clip(clip, rng) if with_style or not self.config.style else clip
        portrait_frame = self._portrait_frame(portrait_clip, clip, frames, rng)
        portrait = self.clips.frames(portrait_clip, [portrait_frame])[0]  # 3 H W
        features = self.clips.features(clip, self.model.config.audio.rows_per_frame)
        sample = {
            "target": self.clips.frames(clip, frames),
            "portrait": portrait,
            "audio": feature_windows(features, self.model.config.audio, total)[frames],
            "weight": self._weight(clip, frames),
            "seed": torch.tensor(int(rng.integers(2**62))),
            **self._motion(self._keypoints(clip, frames, portrait_clip, portrait_frame, rng), portrait),
        }
        return {**sample, **self._style(clip, rng)} if with_style else sample

    def _portrait_clip(self, clip: int, rng: np.random.Generator) -> int:
        """The clip of the portrait: the target's own, or with cross_emotion_prob one of that person in another emotion."""
        if rng.random() >= self.config.cross_emotion_prob:
            return clip
        info = self.clips.info
        others = [other for other in self.by_identity[info[clip].identity] if info[other].emotion != info[clip].emotion]
        return int(rng.choice(others)) if others and info[clip].emotion else clip

    def _portrait_frame(self, portrait_clip: int, clip: int, frames: list[int], rng: np.random.Generator) -> int:
        """The portrait's frame: in the target's own clip `reference_margin` away from the target, or as far as possible."""
        total = self.clips.info[portrait_clip].frames
        if portrait_clip != clip:
            return int(rng.integers(total))
        distance = np.maximum(frames[0] - np.arange(total), np.arange(total) - frames[-1])
        return int(rng.choice(np.flatnonzero(distance >= min(self.config.reference_margin, distance.max()))))

    def _keypoints(
        self, clip: int, frames: list[int], portrait_clip: int, portrait_frame: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Head keypoints of the target f 8 2 and the portrait 8 2 in pixels, with the errors of a tracker."""
        size, config = self.clips.size, self.config
        bias = rng.normal(0, config.keypoint_bias * size, (8, 2))  # a tracker errs alike on all frames of a face
        target = self.clips.labels(clip).head_keypoints[frames] + bias
        target = target + rng.normal(0, config.keypoint_jitter * size, target.shape)
        portrait = self.clips.labels(portrait_clip).head_keypoints[portrait_frame] + bias
        portrait = portrait + rng.normal(0, config.keypoint_jitter * size, portrait.shape)
        return torch.from_numpy(target).float(), torch.from_numpy(portrait).float()

    def _motion(self, keypoints: tuple[Tensor, Tensor], portrait: Tensor) -> Sample:
        """The target's keypoints as images, and the portrait warped to them."""
        size, (target, own) = self.clips.size, keypoints
        motion = HeadMotion(target, size, size, self.clips.fps)
        inputs = {"kps": DRAWINGS[self.model.config.keypoints](motion, range(len(target)), size, size)}
        return {**inputs, "warped": warp_to_keypoints(portrait, own, target)} if self.module.warped else inputs

    def _style(self, clip: int, rng: np.random.Generator) -> Sample:
        """The style input of a clip of the target's person and emotion."""
        info = self.clips.info[clip]
        others = [other for other in self.by_style[info.identity, info.emotion or info.group] if other != clip]
        own = not others or rng.random() < self.config.own_style_prob
        source = clip if own else int(rng.choice(others))
        style_frames, probs = self.model.config.style.max_frames, self.config.style_input_probs
        return style_input(self.expressions, source, style_frames, probs, rng)

    def _weight(self, clip: int, frames: list[int]) -> Tensor:
        """The weight of an error in each latent cell, f 1 h w: largest at the mouth."""
        config, side = self.config, self.clips.size // self.model.config.vae.downscale
        points = torch.from_numpy(self.clips.labels(clip).landmarks[frames]) / self.clips.size  # f 68 2
        if (config.mouth_weight or config.face_weight) and not bool(torch.isfinite(points).all()):
            raise PortraitError(
                f"{self.clips.info[clip].key} has no landmarks, which mouth_weight {config.mouth_weight:g} and face_weight "
                f"{config.face_weight:g} need: set both to 0, or prepare the data with --backend insightface or mediapipe"
            )
        return face_region_weight(points, side, config.face_weight, config.mouth_weight, config.region_margin)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The loss, and the module's other values, on fixed batches of test clips."""
        validation = StageTraining(self.name, self.model, self.test, self.test, self.config, 0, self._write_sample)
        size = min(self.config.settings.batch_size, len(self.test.clips.with_video))
        device = next(self.module.parameters()).device
        found = []
        for step in range(self.config.validation_batches):
            indices = [SampleIndex(0, "validation", step, position, size) for position in range(size)]
            batch = stack([validation.sample(index) for index in indices])
            loss, values = self.module({key: value.to(device) for key, value in batch.items()})
            found.append({"loss": float(loss), **{key: float(value) for key, value in values.items()}})
        return {key: float(np.mean([values[key] for values in found])) for key in found[0]}

    def write_sample(self, folder: Path, step: int) -> None:
        """Writes a video of a test person, generated beside the ground truth."""
        self._write_sample(folder, step)


class StageModule(nn.Module):
    """Batch -> denoising loss. The model's VAE is used but not part of the module: it is neither trained nor saved."""

    def __init__(self, model: PortraitModel, config: StagePhase):
        super().__init__()
        self.model, self.networks, self.stage = model, model.networks, config
        self.warped = model.config.unet.reference_warp
        model.vae.eval().requires_grad_(False)

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        config, networks = self.model.config, self.networks
        batch = {key: value.flatten(0, 1) for key, value in batch.items()}  # clips of all positions
        clips, frames = batch["target"].shape[:2]
        target = self._encode(batch["target"])  # b f c h w
        portrait = self._encode(batch["portrait"][:, None])[:, 0]  # b c h w
        warped = self._encode(batch["warped"]) if self.warped else None
        generators = seeded_generators(batch["seed"])
        conditional = uniform_numbers(generators) >= self.stage.cond_drop_prob
        conditions = self._conditions(batch, portrait, warped, generators, frames).mask(conditional)
        fraction = uniform_numbers(generators) ** self.stage.timestep_power
        timestep = ((config.scheduler.train_steps - 1) * fraction).round().long().to(target.device)
        start = portrait[:, None] if warped is None else warped
        clean = (target - start if config.residual else target) * config.vae.scale
        offset = self.stage.noise_offset
        noise = torch.stack([clip_noise(clean.shape[1:], generator, offset) for generator in generators]).to(clean)
        noisy = add_noise(clean, noise, timestep, config.scheduler)
        # Single frames have no neighbours to learn from: joint training as in Video Diffusion Models (Ho et al. 2022).
        temporal = self.stage.temporal and frames > 1
        prediction = networks.denoiser(noisy, timestep, conditions, temporal=temporal)
        error = (prediction - prediction_target(clean, noise, timestep, config.scheduler)).square()
        weight = (
            batch["weight"] * snr_weight(timestep, config.scheduler, self.stage.snr_gamma)[:, None, None, None, None]
        )
        return (weight * error).mean(), {}

    @torch.no_grad()
    def _encode(self, frames: Tensor) -> Tensor:
        """b f 3 H W -> b f c h w, unscaled"""
        vae = self.model.vae.to(frames.device)  # not part of the module, which is there already
        return vae.encode(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def _conditions(
        self, batch: Sample, portrait: Tensor, warped: Tensor | None, generators: list[torch.Generator], frames: int
    ) -> Conditions:
        """The conditions of the denoiser; those that a stage does not train yet are zero."""
        networks, config = self.networks, self.model.config
        portrait = portrait * config.vae.scale
        audio = networks.audio_projection(batch["audio"].flatten(0, 1)).unflatten(
            0, batch["audio"].shape[:2]
        )  # b f t d
        style = None
        if "style_mask" in batch:
            code = self._style_code(batch, generators)
            style = repeat(networks.style_projection(code), "b t d -> b f t d", f=frames)
        return Conditions(
            reference=networks.reference(portrait),
            reference_latent=portrait if config.unet.reference_concat else None,
            audio=audio if self.stage.audio else torch.zeros_like(audio),
            kps=networks.guider(batch["kps"]),
            style=style,
            reference_warped=None if warped is None else warped * config.vae.scale,
        )

    @torch.no_grad()
    def _style_code(self, batch: Sample, generators: list[torch.Generator]) -> Tensor:
        """A new sample from the prior of every style clip (4), b d_s; the ablation takes the mean."""
        extractor = self.networks.style_extractor
        extractor.eval()  # it is frozen: its dropout too
        mu, sigma = extractor(batch["style_audio"], batch["style_expression"], batch["style_mask"])
        if self.stage.deterministic:
            return mu
        return sample_codes(mu, sigma, generators)


def freeze_all_but(networks: nn.Module, groups: tuple[str, ...]) -> None:
    """Only the parameters of these groups (see parameter_group) learn; an unknown group raises PortraitError."""
    known = {parameter_group(name) for name, _ in networks.named_parameters()}
    if unknown := set(groups) - known:
        raise PortraitError(
            f"trainable: there is no group {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}"
        )
    for name, parameter in networks.named_parameters():
        parameter.requires_grad_(parameter_group(name) in groups)


def uniform_numbers(generators: list[torch.Generator]) -> Tensor:
    """One number in [0, 1) from each generator."""
    return torch.stack([torch.rand((), generator=generator) for generator in generators])


def clip_noise(shape: torch.Size, generator: torch.Generator, offset: float) -> Tensor:
    """Standard normal noise f c h w, plus `offset` times a normal number for each channel of the whole clip."""
    noise = torch.randn(shape, generator=generator)
    return noise + offset * torch.randn((1, shape[1], 1, 1), generator=generator)


def snr_weight(timestep: Tensor, config: SchedulerConfig, gamma: float) -> Tensor:
    """Min-SNR-gamma (Hang et al. 2023) for what the network predicts, one per clip; gamma 0 is 1 everywhere.

    min(SNR, gamma) weights an error of the clean sample; for noise it is divided by SNR, for velocity by SNR + 1. For velocity
    SNR + 1 also replaces SNR in the minimum, as in V-Express: pure noise, whose SNR is 0, would otherwise have weight 0.
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
    """Warm start of audio and style projection; the style extractor stays as it is.

    Under the denoising loss alone, small projections collapse early to tokens without content, because a denoiser that cannot
    draw yet gains nothing from them. Here the first numbers of the mean of a frame's audio tokens learn to be the frame's
    expression coefficients, and those of a clip's style tokens the clip's mean expression, both standardised. There is no
    read-out layer: it could amplify a weak signal, while the denoiser needs tokens of unit size.
    """

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
        by_clip = [clips.expression(clip) for clip in range(len(clips.info))]
        frames, means = np.concatenate(by_clip), np.stack([expression.mean(0) for expression in by_clip])
        self.module = ProjectionsModule(networks, Standardiser(frames), Standardiser(means))
        self.sampler = ShardSampler(clips.by_shard(range(len(clips.info))), seed, config.settings.batch_size)

    def sample(self, index: SampleIndex) -> Sample:
        """Every frame_step-th frame of a clip: audio windows f w F, expression f 64, the clip's mean expression 64, a style
        input (see style_input) and `seed`."""
        rng, step = index.rng(), self.config.frame_step
        clip = self.sampler.sample(index.step, index.position)
        total = self.clips.info[clip].frames
        frames = np.arange(int(rng.integers(step)), total, step)[: total // step]
        features = self.clips.features(clip, self.model.audio.rows_per_frame)
        expression = torch.from_numpy(self.clips.expression(clip))
        style_frames, probs = self.model.style.max_frames, self.config.style_input_probs
        return {
            "audio": feature_windows(features, self.model.audio, total)[frames],
            "expression": expression[frames],
            "mean": expression.mean(0),
            **style_input(self.expressions, clip, style_frames, probs, rng),
            "seed": torch.tensor(int(rng.integers(2**62))),
        }

    def validate(self) -> dict[str, float]:
        """Nothing: what counts is what the stages make of the tokens."""
        return {}

    def write_sample(self, folder: Path, step: int) -> None:
        """Nothing: there is no video to look at."""


class Standardiser(nn.Module):
    """Values ... n -> (values - mean) / standard deviation, both taken from rows m n."""

    mean: Tensor
    std: Tensor

    def __init__(self, rows: np.ndarray):
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(rows.mean(0)), persistent=False)
        self.register_buffer("std", torch.from_numpy(rows.std(0)), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        return (values - self.mean) / self.std


class ProjectionsModule(nn.Module):
    """Batch -> squared errors of the expressions that the tokens carry."""

    def __init__(self, networks: PortraitNetworks, frames: Standardiser, clips: Standardiser):
        super().__init__()
        self.audio_projection, self.style_projection = networks.audio_projection, networks.style_projection
        self.extractor = networks.style_extractor.requires_grad_(False)
        self.standardise_frames, self.standardise_clips = frames, clips

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        count = len(self.standardise_frames.mean)
        audio_tokens = self.audio_projection(batch["audio"].flatten(0, 1)).mean(1)[:, :count]  # (n f) 64
        audio = (audio_tokens - self.standardise_frames(batch["expression"].flatten(0, 1))).square().mean()
        self.extractor.eval()  # it is frozen: its dropout too
        mu, sigma = self.extractor(batch["style_audio"], batch["style_expression"], batch["style_mask"])
        codes = sample_codes(mu, sigma, seeded_generators(batch["seed"]))  # n d_s
        style_tokens = self.style_projection(codes).mean(1)[:, :count]  # n 64
        style = (style_tokens - self.standardise_clips(batch["mean"])).square().mean()
        return audio + style, {"audio": audio, "style": style}
