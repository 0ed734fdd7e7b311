"""Training of the portrait VAE on drawn frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..config import VaeConfig
from ..networks.vae import PortraitVae
from .corpus import Corpus
from .loop import Schedule, run_phase, torch_generator
from .losses import picture_loss, region_weight

BATCH = 16
FIRST_LOOK = 200  # frames that the principal components are taken from
LATENT_NOISE = 0.05  # of a standard deviation: the decoder must forgive what a denoiser leaves
EYES_AND_MOUTH = list(range(17, 27)) + list(range(36, 68))
MOUTH = list(range(48, 68))
GAIN_STEP = 0.3  # of a standard deviation


def face_weight(landmarks: Tensor, size: int) -> Tensor:
    """Where errors count more: eyes, brows and mouth. Landmarks n x 68 x 2 as fractions -> n x 1 x size x size."""
    return (
        region_weight(landmarks[:, EYES_AND_MOUTH], size, 2.0, 0.02)
        + region_weight(landmarks[:, MOUTH], size, 2.0, 0.02)
        - 1
    )


def draw_frames(corpus: Corpus, rng: np.random.Generator, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Clip and frame numbers of a random batch, every frame of another clip where there are enough."""
    clips = corpus.finished()
    chosen = rng.choice(clips, batch, replace=len(clips) < batch)
    return chosen, rng.integers(corpus.config.frames, size=batch)


def load_frames(corpus: Corpus, clips: np.ndarray | int, frames: np.ndarray | slice) -> Tensor:
    """Pictures of the corpus by clip and frame: n x 3 x h x w in [-1, 1]."""
    return rearrange(torch.from_numpy(np.array(corpus.images[clips, frames])), "n h w c -> n c h w").float() / 127.5 - 1


def train_autoencoder(
    corpus: Corpus, config: VaeConfig, schedule: Schedule, folder: Path, seed: int, report: Callable[[str], None]
) -> PortraitVae:
    """Trains the VAE of `config` and balances its channels; see run_phase for files and resuming."""
    torch.manual_seed(seed)
    vae = PortraitVae(config)
    clips, frames = draw_frames(corpus, np.random.default_rng(seed), FIRST_LOOK)
    vae.start_from_components(load_frames(corpus, clips, frames))

    def loss_function(step: int, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        clips, frames = draw_frames(corpus, rng, BATCH)
        images = load_frames(corpus, clips, frames)
        landmarks = torch.from_numpy(corpus.landmarks[clips, frames]) / corpus.config.size
        latents = vae.encode(images)
        noise = torch.randn(latents.shape, generator=torch_generator(rng))
        decoded = vae.decode(latents + LATENT_NOISE * noise)
        loss = picture_loss(decoded, images, face_weight(landmarks, corpus.config.size))
        error = (decoded.detach().clamp(-1, 1) - images).square().mean() / 4
        return loss, {"psnr": float(-10 * torch.log10(error))}

    run_phase("autoencoder", vae, vae.parameters(), loss_function, schedule, folder, seed, report)
    pairs = np.random.default_rng(seed).integers(corpus.config.frames, size=(2, FIRST_LOOK))
    vae.rescale(channel_factors(vae, load_frames(corpus, clips, pairs[0]), load_frames(corpus, clips, pairs[1])))
    return vae


@torch.no_grad()
def channel_factors(vae: PortraitVae, first: Tensor, second: Tensor) -> Tensor:
    """Factors (c) that make loud channels louder, and the difference of two pictures of one clip 1 on average.

    A channel's gain is how far the picture moves when it does. Channels are weighed by the root of it: noise of one size in
    all of them then shows evenly enough, and faint detail is still learnt. first, second: n x 3 x h x w in [-1, 1].
    """
    latents = vae.encode(first)
    plain = vae.decode(latents[:8])
    gains = []
    for channel in range(latents.shape[1]):
        moved = latents[:8].clone()
        moved[:, channel] += GAIN_STEP
        gains.append((vae.decode(moved) - plain).square().mean().sqrt())
    loud = torch.stack(gains).sqrt()
    difference = (latents - vae.encode(second)) * loud[:, None, None]
    return loud / difference.square().mean().sqrt()
