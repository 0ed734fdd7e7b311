"""Training of the autoencoder on upright crops of faces, within a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..networks.vae import PortraitVae
from ..optional_deps import kornia_metrics
from .face_batches import Batch, FaceBatches, region_weight
from .face_config import FaceVaePhase
from .train_vae import GAIN_FRAMES, GAIN_STEP, psnr

INIT_FRAMES = 256  # of the principal components and of the balance of the channels


class FaceVaeTraining:
    """The phase of the VAE. It starts from the principal components of some crops where `fresh`."""

    name = "vae"

    def __init__(self, vae: PortraitVae, batches: FaceBatches, test: FaceBatches, config: FaceVaePhase, fresh: bool):
        self.module, self.batches, self.test, self.config = FaceVaeModule(vae, config), batches, test, config
        if fresh:
            vae.init_from_pca(batches.images(INIT_FRAMES, torch.Generator().manual_seed(0))["target"])

    def batch(self, generator: torch.Generator, done: float) -> Batch:
        """Crops, or parts of them at first (see FaceVaePhase)."""
        batch = self.batches.images(self.config.settings.batch_size, generator)
        patch, target = self.config.patch, batch["target"]
        crop = self.batches.model.face_crop
        region = region_weight(batch["landmarks"], crop.width, crop.height, 1, self.config.regions)
        if patch and done < self.config.patch_share:
            high, wide = (int(torch.randint(count - patch + 1, (), generator=generator)) for count in target.shape[2:])
            target, region = (value[..., high : high + patch, wide : wide + patch] for value in (target, region))
        return {"target": target.contiguous(memory_format=torch.channels_last), "weight": region}

    def validate(self) -> dict[str, float]:
        """PSNR in dB and sharpness (variance of the Laplacian over the truth's) of unseen crops: whole, mouth, eyes with brows."""
        batch = self.test.images(self.config.validation_frames, torch.Generator().manual_seed(0))
        images, vae = batch["target"], self.module.vae
        decoded = torch.cat([vae.decode(vae.encode(part)) for part in images.split(8)]).float().clamp(-1, 1)
        return region_figures(decoded, images, batch["landmarks"])


class FaceVaeModule(nn.Module):
    """Batch -> loss and PSNR of the reconstruction from noisy latents."""

    def __init__(self, vae: PortraitVae, config: FaceVaePhase):
        super().__init__()
        self.vae, self.config = vae, config

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        config, images, weight = self.config, batch["target"], batch["weight"]
        latents = self.vae.encode(images)
        decoded = self.vae.decode(latents + config.latent_noise * torch.randn_like(latents)).float()
        loss = crop_loss(decoded, images, weight, config.gradient_weight, config.ssim_weight)
        return loss, {"psnr": psnr(decoded.detach(), images)}


def crop_loss(decoded: Tensor, images: Tensor, weight: Tensor, gradient: float, structure: float) -> Tensor:
    """Weighted L1 of pixels, plus `gradient` x that of their differences and `structure` x (1 - SSIM), all weighted alike.
    Images n 3 h w in [-1, 1], weight n 1 h w; the mean weight does not matter."""
    weight = weight / weight.mean()
    error = decoded - images
    pixels = (weight * error.abs()).mean()
    across = (weight[..., 1:] * error.diff(dim=-1).abs()).mean()
    down = (weight[..., 1:, :] * error.diff(dim=-2).abs()).mean()
    with torch.autocast(images.device.type, enabled=False):  # its variances are small differences of large numbers
        similar = kornia_metrics.ssim((decoded.float() + 1) / 2, (images.float() + 1) / 2, 7)
    return pixels + gradient * (across + down) + structure * (weight * (1 - similar)).mean()


def region_figures(found: Tensor, truth: Tensor, landmarks: Tensor) -> dict[str, float]:
    """PSNR and sharpness by region: images n 3 h w in [-1, 1], landmarks n 68 2 in their pixels."""
    figures: dict[str, float] = {"psnr": float(psnr(found, truth))}
    edges, true_edges = laplacian(found), laplacian(truth)
    for name, points in (("mouth", slice(48, 68)), ("eyes", slice(36, 48)), ("brows", slice(17, 27))):
        inside = box(landmarks[:, points], truth.shape[-1], truth.shape[-2]).expand_as(truth)
        error = (found.clamp(-1, 1) - truth)[inside].square().mean()
        figures[f"{name}_psnr"] = float(-10 * torch.log10(error / 4))
        figures[f"{name}_sharpness"] = float(edges[inside].square().mean() / true_edges[inside].square().mean())
    return figures


def box(points: Tensor, width: int, height: int, margin: float = 3.0) -> Tensor:
    """Whether pixels lie in the box of the points: n k 2 -> n 1 height width, bool."""
    low, high = points.amin(1) - margin, points.amax(1) + margin  # n 2
    across, down = (torch.arange(count, device=points.device) + 0.5 for count in (width, height))
    columns = (across >= low[:, :1]) & (across <= high[:, :1])
    rows = (down >= low[:, 1:]) & (down <= high[:, 1:])
    return (rows[:, :, None] & columns[:, None])[:, None]


def laplacian(images: Tensor) -> Tensor:
    """Four times a pixel less its neighbours, edges repeated: n c h w -> n c h w."""
    padded = functional.pad(images, (1, 1, 1, 1), mode="replicate")
    around = padded[..., 1:-1, 2:] + padded[..., 1:-1, :-2] + padded[..., 2:, 1:-1] + padded[..., :-2, 1:-1]
    return 4 * images - around


@torch.no_grad()
def balance_channels(vae: PortraitVae, target: Tensor, warped: Tensor) -> None:
    """Scales the latent channels so that an error has the same effect in all of them, and the differences that the denoiser
    learns are 1 on average. target, warped: n 3 h w in [-1, 1], frames and the portraits warped to them."""
    latents = vae.encode(target)
    some = latents[:GAIN_FRAMES]
    decoded, gains = vae.decode(some), []
    for channel in range(latents.shape[1]):
        moved = some.clone()
        moved[:, channel] += GAIN_STEP
        gains.append((vae.decode(moved) - decoded).square().mean().sqrt())
    gain = torch.stack(gains)
    difference = (latents - vae.encode(warped)) * gain[:, None, None]
    vae.rescale(gain / difference.square().mean().sqrt())
