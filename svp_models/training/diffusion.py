"""The three stages of diffusion training (sec. 3.3) on latents of the corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from einops import rearrange, repeat
from torch import Tensor, nn

from ..config import ModelConfig
from ..face.drawing import draw_head_keypoints
from ..networks.audio_features import feature_windows
from ..networks.conditions import Conditions
from ..networks.portrait_model import PortraitNetworks
from ..networks.vae import PortraitVae
from ..sampling.schedule import add_noise, prediction_target
from .autoencoder import EYES_AND_MOUTH, MOUTH, load_frames
from .corpus import Corpus
from .loop import Schedule, run_phase, torch_generator
from .losses import region_weight


@dataclass(frozen=True)
class Stage:
    """One stage of the paper's schedule.

    trains: parameter groups that learn, everything else is frozen. clips x frames: a batch; consecutive frames come from
    one clip. cross_emotion: share of the clips whose portrait shows another emotion than the target. unconditional: share
    of the clips whose conditions are all zero, for guidance. no_style: share of the steps without any style.
    """

    name: str
    trains: tuple[str, ...]
    clips: int
    frames: int
    audio: bool = False
    style: bool = False
    cross_emotion: float = 0.0
    unconditional: float = 0.05
    no_style: float = 0.1
    high_noise: float = 0.5  # timestep = T u^high_noise: few-step sampling is decided at high noise
    mouth_weight: float = 4.0
    face_weight: float = 1.0


@dataclass(frozen=True)
class DiffusionData:
    """What the stages read. latents: clips x f x c x h x w; mu, sigma: 3 x clips x d_s by input (both, expression, audio)."""

    corpus: Corpus
    latents: Tensor
    mu: Tensor
    sigma: Tensor


def parameter_group(name: str) -> str:
    """The group a parameter of PortraitNetworks belongs to: spatial, temporal, audio, style (parts of the denoiser), or the network's name."""
    network, _, rest = name.partition(".")
    if network != "denoiser":
        return network
    if "motion_modules" in rest:
        return "temporal"
    if "style_" in rest:
        return "style"
    if ".attn2." in rest or "audio_embedding" in rest or (".norm2." in rest and "transformer_blocks" in rest):
        return "audio"
    return "spatial"


def trained_parameters(networks: nn.Module, groups: tuple[str, ...]) -> Iterator[nn.Parameter]:
    """The parameters of `groups`; sets requires_grad of all others to False."""
    for name, parameter in networks.named_parameters():
        chosen = parameter_group(name) in groups
        parameter.requires_grad_(chosen)
        if chosen:
            yield parameter


def encode_corpus(corpus: Corpus, vae: PortraitVae, file: Path, report: Callable[[str], None]) -> Tensor:
    """Latents of every frame, clips x f x c x h x w in float16, kept in `file`."""
    if file.exists():
        return torch.load(file, weights_only=True)

    @torch.no_grad()
    def encode(clip: int) -> Tensor:
        torch.set_num_threads(1)
        return vae.encode(load_frames(corpus, clip, slice(None))).half()

    encoded = []
    with ThreadPoolExecutor() as threads:
        for latents in threads.map(encode, range(corpus.config.clips)):
            encoded.append(latents)
            if len(encoded) % 100 == 0:
                report(f"latents {len(encoded)}/{corpus.config.clips} clips")
    stacked = torch.stack(encoded)
    torch.save(stacked, file)
    return stacked


class StageBatches:
    """Draws the batches of one stage: pairs of portrait and target frames with their conditions."""

    def __init__(self, data: DiffusionData, config: ModelConfig, stage: Stage):
        self.data, self.config, self.stage = data, config, stage
        self.by_speaker: dict[int, list[int]] = {}
        for index, label in enumerate(data.corpus.labels):
            self.by_speaker.setdefault(label.speaker, []).append(index)

    def _portrait_clip(self, clip: int, rng: np.random.Generator) -> int:
        """The clip that lends the portrait: the target's own, or one of the same speaker in another emotion."""
        if rng.random() >= self.stage.cross_emotion:
            return clip
        labels = self.data.corpus.labels
        others = [
            each for each in self.by_speaker[labels[clip].speaker] if labels[each].emotion != labels[clip].emotion
        ]
        return int(rng.choice(others))

    def _style_clip(self, clip: int, rng: np.random.Generator) -> int:
        """The clip that lends the style: mostly the target itself, else one of equal speaker, emotion and intensity."""
        labels = self.data.corpus.labels
        own = labels[clip]
        alike = [
            each
            for each in self.by_speaker[own.speaker]
            if labels[each].emotion == own.emotion and labels[each].intensity == own.intensity
        ]
        return int(rng.choice(alike))

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Target latents b f c h w, portrait latent b c h w, kps images b f 3 H W, audio windows b f w F, style codes b d_s, weight b f 1 h w."""
        corpus, stage = self.data.corpus, self.stage
        size, total = corpus.config.size, corpus.config.frames
        clips = rng.choice(corpus.config.clips, stage.clips, replace=False)
        starts = rng.integers(0, total - stage.frames + 1, stage.clips)
        batch: dict[str, list[Tensor]] = {key: [] for key in ("target", "portrait", "kps", "audio", "style", "weight")}
        for clip, start in zip(clips, starts, strict=True):
            frames = np.arange(start, start + stage.frames)
            latent_size = self.data.latents.shape[-1]
            batch["target"].append(self.data.latents[clip, start : start + stage.frames].float())
            lender = self._portrait_clip(int(clip), rng)
            batch["portrait"].append(self.data.latents[lender, int(rng.integers(total))].float())
            jitter = rng.normal(0, 0.002 * size, (1, 8, 2)) + rng.normal(0, 0.001 * size, (stage.frames, 8, 2))
            drawn = draw_head_keypoints(corpus.head_keypoints[clip, frames] + jitter, size, size, size, size)
            batch["kps"].append(rearrange(torch.from_numpy(drawn), "f h w c -> f c h w").float() / 255)
            features = torch.from_numpy(corpus.mel[clip]).float()
            batch["audio"].append(feature_windows(features, self.config.audio, total)[frames])
            source, kind = self._style_clip(int(clip), rng), int(rng.choice(3, p=(0.7, 0.2, 0.1)))
            noise = torch.from_numpy(rng.standard_normal(self.data.mu.shape[-1])).float()
            batch["style"].append(self.data.mu[kind, source] + self.data.sigma[kind, source] * noise)  # eq. 4
            landmarks = torch.from_numpy(corpus.landmarks[clip, frames]) / size
            mouth = region_weight(landmarks[:, MOUTH], latent_size, stage.mouth_weight, 0.03)
            face = region_weight(landmarks[:, EYES_AND_MOUTH], latent_size, stage.face_weight, 0.03)
            batch["weight"].append(mouth + face - 1)
        return {key: torch.stack(values) for key, values in batch.items()}


def stage_loss(
    networks: PortraitNetworks,
    batch: dict[str, Tensor],
    stage: Stage,
    config: ModelConfig,
    rng: np.random.Generator,
) -> Tensor:
    """Weighted squared error of the network's prediction (eq. 1) for one batch; see StageBatches.draw."""
    generator = torch_generator(rng)
    clips, frames = batch["target"].shape[:2]
    tokens = networks.audio_projection(batch["audio"].flatten(0, 1)).unflatten(0, (clips, frames))  # b f t d
    style = None
    if stage.style and rng.random() >= stage.no_style:
        style = repeat(networks.style_projection(batch["style"]), "b t d -> b f t d", f=frames)
    conditions = Conditions(
        reference=networks.reference(batch["portrait"]),
        reference_latent=batch["portrait"] if networks.denoiser.reference_concat else None,
        audio=tokens if stage.audio else torch.zeros_like(tokens),
        kps=networks.guider(batch["kps"]),
        style=style,
    ).keep(torch.rand(clips, generator=generator) >= stage.unconditional)
    uniform = torch.rand(clips, generator=generator)
    timestep = ((config.scheduler.train_steps - 1) * uniform**stage.high_noise).round().long()
    clean = batch["target"] - batch["portrait"][:, None] if config.residual else batch["target"]
    clean = clean * config.vae.scale
    noise = torch.randn(clean.shape, generator=generator)
    predicted = networks.denoiser(add_noise(clean, noise, timestep, config.scheduler), timestep, conditions)
    error = (predicted - prediction_target(clean, noise, timestep, config.scheduler)).square()
    return (batch["weight"] * error).mean()


def train_stage(
    networks: PortraitNetworks,
    data: DiffusionData,
    config: ModelConfig,
    stage: Stage,
    schedule: Schedule,
    folder: Path,
    seed: int,
    report: Callable[[str], None],
) -> PortraitNetworks:
    """Trains one stage in place; see run_phase for files and resuming."""
    batches = StageBatches(data, config, stage)
    parameters = list(trained_parameters(networks, stage.trains))

    def loss_function(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        return stage_loss(networks, batches.draw(rng), stage, config, rng), {}

    return run_phase(stage.name, networks, parameters, loss_function, schedule, folder, seed, report)
