"""Training of the portrait VAE on the frames of a dataset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.vae import PortraitVae
from .config import AutoencoderPhase
from .dataset import Clips, Sample, SampleIndex, ShardSampler, stack
from .losses import face_region_weight, image_loss

INIT_FRAMES = 200  # frames of the principal components, and of the channels' gains
GAIN_STEP = 0.3  # of a standard deviation
GAIN_FRAMES = 8
TEST_FRAMES = 64


class AutoencoderTraining:
    """The phase of the VAE. It starts from the principal components of some frames of the data set."""

    name = "autoencoder"

    def __init__(self, vae: PortraitVae, clips: Clips, test: Clips, config: AutoencoderPhase, seed: int):
        self.module, self.clips, self.test, self.seed = AutoencoderModule(vae, config), clips, test, seed
        self.sampler = ShardSampler(clips.by_shard(clips.with_video), seed, config.settings.batch_size)
        vae.init_from_pca(self._random_frames(clips, INIT_FRAMES)["image"])

    def sample(self, index: SampleIndex) -> Sample:
        """A frame `image` 3 h w in [-1, 1], its `landmarks` 68 2 as fractions of the frame, and `seed`."""
        return self._frame(self.clips, self.sampler.sample(index.step, index.position), index.rng())

    def _frame(self, clips: Clips, clip: int, rng: np.random.Generator) -> Sample:
        frame = int(rng.integers(clips.info[clip].frames))
        landmarks = torch.from_numpy(clips.labels(clip).landmarks[frame] / clips.size)
        seed = torch.tensor(int(rng.integers(2**62)))
        return {"image": clips.frames(clip, [frame])[0], "landmarks": landmarks, "seed": seed}

    def _random_frames(self, clips: Clips, count: int) -> Sample:
        """Frames of random clips, the same at every call."""
        rng = np.random.default_rng(self.seed)
        return stack([self._frame(clips, int(clip), rng) for clip in rng.choice(clips.with_video, size=count)])

    def validate(self) -> dict[str, float]:
        """PSNR of unseen frames through the VAE, dB."""
        images = self._random_frames(self.test, TEST_FRAMES)["image"].to(next(self.module.parameters()).device)
        vae = self.module.vae
        return {"psnr": float(psnr(vae.decode(vae.encode(images)), images))}

    def write_sample(self, folder: Path, step: int) -> None:
        """Nothing: `validate` says it all."""

    def finish(self) -> None:
        """Balances the latent channels, see channel_factors."""
        rng = np.random.default_rng(self.seed)
        first: list[Tensor] = []
        second: list[Tensor] = []
        for clip in rng.choice(self.clips.with_video, size=INIT_FRAMES):
            for images in (first, second):
                frame = int(rng.integers(self.clips.info[clip].frames))
                images.append(self.clips.frames(int(clip), [frame])[0])
        vae = self.module.vae
        device = next(vae.parameters()).device
        vae.rescale(channel_factors(vae, torch.stack(first).to(device), torch.stack(second).to(device)))


class AutoencoderModule(nn.Module):
    """Batch -> loss and PSNR of the reconstruction from noisy latents."""

    def __init__(self, vae: PortraitVae, config: AutoencoderPhase):
        super().__init__()
        self.vae, self.config = vae, config

    def forward(self, batch: Sample) -> tuple[Tensor, dict[str, Tensor]]:
        config, images = self.config, batch["image"]
        latents = self.vae.encode(images)
        generators = [torch.Generator().manual_seed(int(seed)) for seed in batch["seed"]]
        noise = torch.stack([torch.randn(latents.shape[1:], generator=generator) for generator in generators])
        decoded = self.vae.decode(latents + config.latent_noise * noise.to(latents))
        regions = (config.face_weight, config.mouth_weight, config.region_margin)
        weight = face_region_weight(batch["landmarks"], images.shape[-1], *regions)
        return image_loss(decoded, images, weight, config.ssim_weight), {"psnr": psnr(decoded.detach(), images)}


def psnr(decoded: Tensor, images: Tensor) -> Tensor:
    """PSNR in dB of images in [-1, 1]."""
    return -10 * torch.log10((decoded.clamp(-1, 1) - images).square().mean() / 4)


@torch.no_grad()
def channel_factors(vae: PortraitVae, first: Tensor, second: Tensor) -> Tensor:
    """Factors (c) that give an error the same effect in all channels, and two frames of one clip a difference of 1 on average.

    A channel's gain is how much the image changes with it; the gain becomes the channel's weight. Otherwise the many channels
    of fine detail would dominate the denoiser's loss, and noise would show in the few channels that carry the shapes.
    first, second: frames of the same clips, n x 3 x h x w in [-1, 1].
    """
    latents = vae.encode(first)
    decoded = vae.decode(latents[:GAIN_FRAMES])
    gains = []
    for channel in range(latents.shape[1]):
        moved = latents[:GAIN_FRAMES].clone()
        moved[:, channel] += GAIN_STEP
        gains.append((vae.decode(moved) - decoded).square().mean().sqrt())
    gain = torch.stack(gains)
    difference = (latents - vae.encode(second)) * gain[:, None, None]
    return gain / difference.square().mean().sqrt()
