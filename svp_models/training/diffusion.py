"""The three stages of diffusion training (sec. 3.3) on latents of the corpus."""

from __future__ import annotations

from collections import defaultdict
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
from ..face.warp import warp_to_keypoints
from ..networks.audio_features import feature_windows
from ..networks.conditions import Conditions
from ..networks.portrait_model import PortraitNetworks, parameter_group
from ..networks.vae import PortraitVae
from ..sampling.schedule import add_noise, prediction_target
from .autoencoder import EYES_AND_MOUTH, MOUTH, load_frames
from .corpus import Corpus
from .loop import Schedule, run_phase, torch_generator
from .losses import region_weight

SHAKE, BIAS = 0.0015, 0.004  # standard deviations of a keypoint's error, of the picture's width


@dataclass(frozen=True)
class Stage:
    """One stage of the paper's schedule.

    trains: parameter groups that learn, everything else is frozen. clips x frames: a batch; consecutive frames come from
    one clip. singles: share of the steps whose batch is as many frames of as many clips instead, which shows more people and
    styles at once. cross_emotion: share of the clips whose portrait shows another emotion than the target, which only a style can
    tell. unconditional: share of the clips whose conditions are all zero, for guidance. no_style: share of the steps without
    any style, whose portraits show the target's emotion.
    """

    name: str
    trains: tuple[str, ...]
    clips: int
    frames: int
    singles: float = 0.0
    audio: bool = False
    style: bool = False
    cross_emotion: float = 0.0
    unconditional: float = 0.05
    no_style: float = 0.1
    high_noise: float = 0.5  # timestep = T u^high_noise: few-step sampling is decided at high noise
    mouth_weight: float = 6.0  # added to the 1 of every cell
    face_weight: float = 2.0


@dataclass(frozen=True)
class DiffusionData:
    """What the stages read. latents: clips x f x c x h x w, made by `vae`; mu, sigma: see corpus_priors."""

    corpus: Corpus
    latents: Tensor
    vae: PortraitVae
    mu: Tensor
    sigma: Tensor


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

    def _portrait_clip(self, clip: int, rng: np.random.Generator, cross: float) -> int:
        """The clip that lends the portrait: the target's own, or with chance `cross` the speaker's in another emotion."""
        if rng.random() >= cross:
            return clip
        labels = self.data.corpus.labels
        others = [
            each for each in self.by_speaker[labels[clip].speaker] if labels[each].emotion != labels[clip].emotion
        ]
        return int(rng.choice(others))

    def draw(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Target latents b f c h w, portrait latent b c h w and its bent ones b f c h w, kps images b f 3 H W, audio windows
        b f w F, loss weight b f 1 h w, and, unless this step goes without, style codes b d_s."""
        corpus, stage = self.data.corpus, self.stage
        total = corpus.config.frames
        count, length = stage.clips, stage.frames
        if rng.random() < stage.singles:
            count, length = count * length, 1
        clips = rng.choice(corpus.config.clips, count, replace=False)
        starts = rng.integers(0, total - length + 1, count)
        styled = stage.style and rng.random() >= stage.no_style
        batch: dict[str, list[Tensor]] = defaultdict(list)
        for clip, start in zip(clips, starts, strict=True):
            frames = np.arange(start, start + length)
            batch["target"].append(self.data.latents[clip, start : start + length].float())
            lender = self._portrait_clip(int(clip), rng, stage.cross_emotion if styled or not stage.style else 0.0)
            still = int(rng.integers(total))
            batch["portrait"].append(self.data.latents[lender, still].float())
            for key, value in self._motion(int(clip), frames, lender, still, rng).items():
                batch[key].append(value)
            features = torch.from_numpy(corpus.mel[clip]).float()
            batch["audio"].append(feature_windows(features, self.config.audio, total)[frames])
            if styled:
                batch["style"].append(self._style_code(int(clip), rng))
            batch["weight"].append(self._weight(int(clip), frames))
        stacked = {key: torch.stack(values) for key, values in batch.items()}
        with torch.no_grad():
            bent = self.data.vae.encode(stacked.pop("bent").flatten(0, 1))
        return {**stacked, "bent": bent.unflatten(0, (count, length))}

    def _motion(
        self, clip: int, frames: np.ndarray, lender: int, still: int, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        """Kps images of the target frames f 3 H W and the portrait bent to them f 3 H W, as inexact as points found in pictures are."""
        corpus, size = self.data.corpus, self.data.corpus.config.size
        found = corpus.head_keypoints[clip, frames] + rng.normal(0, SHAKE * size, (len(frames), 8, 2))
        own = corpus.head_keypoints[lender, still] + rng.normal(0, SHAKE * size, (8, 2))
        bias = rng.normal(0, BIAS * size, (8, 2))  # an analyser errs alike on all pictures of a face
        targets, source = (np.float32(each + bias) for each in (found, own))
        drawn = draw_head_keypoints(targets, size, size, size, size)
        picture = load_frames(corpus, lender, slice(still, still + 1))[0]  # 3 H W
        return {
            "kps": rearrange(torch.from_numpy(drawn), "f h w c -> f c h w").float() / 255,
            "bent": warp_to_keypoints(picture, torch.from_numpy(source), torch.from_numpy(targets)),
        }

    def _style_code(self, clip: int, rng: np.random.Generator) -> Tensor:
        """A draw from a style prior (eq. 4), mostly of another take than the target and mostly of frames and sound: d_s.

        The paper takes the target's own; a user's style clip, too, says something else than the voice.
        """
        take, kind = int(rng.integers(self.data.mu.shape[1])), int(rng.choice(3, p=(0.7, 0.2, 0.1)))
        noise = torch.from_numpy(rng.standard_normal(self.data.mu.shape[-1])).float()
        return self.data.mu[kind, take, clip] + self.data.sigma[kind, take, clip] * noise

    def _weight(self, clip: int, frames: np.ndarray) -> Tensor:
        """How much an error counts, f 1 h w: most at the mouth."""
        size, stage = self.data.latents.shape[-1], self.stage
        landmarks = torch.from_numpy(self.data.corpus.landmarks[clip, frames]) / self.data.corpus.config.size
        mouth = region_weight(landmarks[:, MOUTH], size, stage.mouth_weight, 0.03)
        return mouth + region_weight(landmarks[:, EYES_AND_MOUTH], size, stage.face_weight, 0.03) - 1


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
    if "style" in batch:
        style = repeat(networks.style_projection(batch["style"]), "b t d -> b f t d", f=frames)
    start = batch["bent"] if networks.denoiser.reference_warp else batch["portrait"][:, None]  # b f|1 c h w
    conditions = Conditions(
        reference=networks.reference(batch["portrait"]),
        reference_latent=batch["portrait"] if networks.denoiser.reference_concat else None,
        audio=tokens if stage.audio else torch.zeros_like(tokens),
        kps=networks.guider(batch["kps"]),
        style=style,
        reference_warped=batch["bent"] if networks.denoiser.reference_warp else None,
    ).keep(torch.rand(clips, generator=generator) >= stage.unconditional)
    uniform = torch.rand(clips, generator=generator)
    timestep = ((config.scheduler.train_steps - 1) * uniform**stage.high_noise).round().long()
    clean = batch["target"] - start if config.residual else batch["target"]
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
