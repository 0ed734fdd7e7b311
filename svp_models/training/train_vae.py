"""Training of the portrait VAE on the frames of a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.vae import PortraitVae
from .config import AutoencoderPhase
from .dataset import Clips, Order, Sample, Spot, stack
from .losses import EYES_AND_MOUTH, MOUTH, picture_loss, region_weight

FIRST_LOOK = 200  # frames that the principal components are taken from
GAIN_STEP = 0.3  # of a standard deviation
TEST_FRAMES = 64


class AutoencoderTraining:
    """The phase of the VAE. It starts from the principal components of what it is shown first."""

    name = "autoencoder"

    def __init__(self, vae: PortraitVae, clips: Clips, test: Clips, config: AutoencoderPhase, seed: int):
        self.module, self.clips, self.test, self.seed = _Reconstruction(vae, config.latent_noise), clips, test, seed
        self.order = Order(clips.by_shard(clips.pictured), seed, config.settings.batch)
        vae.init_from_pca(self._look(clips, FIRST_LOOK)["image"])

    def draw(self, spot: Spot) -> Sample:
        """A frame `image` 3 h w in [-1, 1], its `landmarks` 68 2 as fractions of the picture and `seed`."""
        return self._frame(self.clips, self.order.sample(spot.step, spot.place), spot.rng())

    def _frame(self, clips: Clips, clip: int, rng: np.random.Generator) -> Sample:
        frame = int(rng.integers(clips.info[clip].frames))
        landmarks = torch.from_numpy(clips.labels(clip).landmarks[frame] / clips.size)
        seed = torch.tensor(int(rng.integers(2**62)))
        return {"image": clips.frames(clip, [frame])[0], "landmarks": landmarks, "seed": seed}

    def _look(self, clips: Clips, count: int) -> Sample:
        """Frames of as many clips as there are, the same at every call."""
        rng = np.random.default_rng(self.seed)
        return stack([self._frame(clips, int(each), rng) for each in rng.choice(clips.pictured, size=count)])

    def validate(self) -> dict[str, float]:
        """PSNR of unseen frames through the VAE, dB."""
        images = self._look(self.test, TEST_FRAMES)["image"].to(next(self.module.parameters()).device)
        vae = self.module.vae
        return {"psnr": float(signal_to_noise(vae.decode(vae.encode(images)), images))}

    def show(self, folder: Path, step: int) -> None:
        """There is nothing that `validate` does not say."""

    def finish(self) -> None:
        """Balances the channels, see channel_factors."""
        rng = np.random.default_rng(self.seed)
        first, second = [], []
        for clip in rng.choice(self.clips.pictured, size=FIRST_LOOK):
            for shown in (first, second):
                frame = int(rng.integers(self.clips.info[clip].frames))
                shown.append(self.clips.frames(int(clip), [frame])[0])
        vae = self.module.vae
        device = next(vae.parameters()).device
        vae.rescale(channel_factors(vae, torch.stack(first).to(device), torch.stack(second).to(device)))


class _Reconstruction(nn.Module):
    def __init__(self, vae: PortraitVae, latent_noise: float):
        super().__init__()
        self.vae, self.latent_noise = vae, latent_noise

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        images = batch["image"]
        latents = self.vae.encode(images)
        noise = [torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(int(s))) for s in batch["seed"]]
        decoded = self.vae.decode(latents + self.latent_noise * torch.stack(noise).to(latents))
        loss = picture_loss(decoded, images, face_weight(batch["landmarks"], images.shape[-1]))
        return loss, {"psnr": signal_to_noise(decoded.detach(), images)}


def signal_to_noise(decoded: Tensor, images: Tensor) -> Tensor:
    """PSNR in dB of pictures in [-1, 1]."""
    return -10 * torch.log10((decoded.clamp(-1, 1) - images).square().mean() / 4)


def face_weight(landmarks: Tensor, size: int) -> Tensor:
    """Where errors count more: eyes, brows and mouth. Landmarks n x 68 x 2 as fractions -> n x 1 x size x size."""
    return (
        region_weight(landmarks[:, EYES_AND_MOUTH], size, 2.0, 0.02)
        + region_weight(landmarks[:, MOUTH], size, 2.0, 0.02)
        - 1
    )


@torch.no_grad()
def channel_factors(vae: PortraitVae, first: Tensor, second: Tensor) -> Tensor:
    """Factors (c) after which an error counts alike in all channels, and the difference of two pictures of one clip is 1 on
    average.

    A channel's gain is how far the picture moves when it does; it becomes the channel's weight. Otherwise the many channels
    of fine detail would take most of what the denoiser learns, and noise would show in the few that carry the shapes.
    first, second: n x 3 x h x w in [-1, 1].
    """
    latents = vae.encode(first)
    plain = vae.decode(latents[:8])
    gains = []
    for channel in range(latents.shape[1]):
        moved = latents[:8].clone()
        moved[:, channel] += GAIN_STEP
        gains.append((vae.decode(moved) - plain).square().mean().sqrt())
    loud = torch.stack(gains)
    difference = (latents - vae.encode(second)) * loud[:, None, None]
    return loud / difference.square().mean().sqrt()
