"""Training of the mask that joins generated faces and warped portraits, on faces as the denoiser predicts them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..diffusion.noise_schedule import add_noise, pred_x0
from ..errors import PortraitError
from ..face.compose import border_mask
from ..model import PortraitModel
from ..networks.face_mask import FaceMask
from .face_batches import Batch, FaceBatches, region_weight
from .face_config import FaceMaskPhase
from .train_face import FEATHER, FaceDenoiserModule
from .train_face_vae import psnr, region_figures

FRAMES = 2  # of a clip
VALIDATION_CLIPS = 8


class FaceMaskTraining:
    """The phase of the mask; everything else stays as it is."""

    name = "mask"

    def __init__(
        self, model: PortraitModel, denoiser: FaceDenoiserModule, batches: FaceBatches, test: FaceBatches,
        config: FaceMaskPhase,
    ):  # fmt: skip
        self.model, self.denoiser, self.batches, self.test, self.config = model, denoiser, batches, test, config
        if model.networks.face_mask is None:
            raise PortraitError(f"the model {model.config.name!r} has no mask to train: set face_crop.mask_width")
        model.networks.requires_grad_(False).eval()
        model.networks.face_mask.requires_grad_(True)
        self.module = FaceMaskModule(model.networks.face_mask, config, model)

    def batch(self, generator: torch.Generator, done: float) -> Batch:
        """Warped, generated and true crops, n 3 H W."""
        return self._generated(self.batches, self.config.settings.batch_size // FRAMES, generator)

    @torch.no_grad()
    def _generated(self, batches: FaceBatches, count: int, generator: torch.Generator) -> Batch:
        """Crops as the denoiser predicts them from the truth with noise: as far from it as what a sampler ends with."""
        model, schedule, scale = self.denoiser, self.model.config.scheduler, self.model.config.vae.scale
        batch = batches.clips(max(1, count), FRAMES, generator)
        warped = model.encode(batch["warped"])
        clean = (model.encode(batch["target"]) - warped) * scale
        kept = torch.ones(len(clean), 3, device=clean.device)
        share = torch.rand(clean.shape[:2], generator=generator) * (1 - self.config.latest) + self.config.latest
        timestep = (share * (schedule.train_steps - 1)).round().long()
        flat = clean.flatten(0, 1)
        noisy = add_noise(flat, torch.randn_like(flat), timestep.flatten(), schedule)
        conditions = model.conditions(batch, warped, kept)
        found = model.networks.denoiser(
            noisy.view_as(clean), timestep.to(clean.device), conditions, temporal=False
        ).flatten(0, 1)
        latents = pred_x0(found.float(), noisy, timestep.flatten(), schedule) / scale + warped.flatten(0, 1)
        crop = self.model.config.face_crop
        landmarks = batch["landmarks"].flatten(0, 1)
        return {
            "warped": batch["warped"].flatten(0, 1),
            "target": batch["target"].flatten(0, 1),
            "generated": self.model.vae.decode(latents).float().clamp(-1, 1),
            "weight": region_weight(landmarks, crop.width, crop.height, 1, self.config.regions),
            "landmarks": landmarks,
        }

    def validate(self) -> dict[str, float]:
        """Figures by region of composed crops of test people, of the generated ones (`generated_`), and the mask's area."""
        batch = self._generated(self.test, VALIDATION_CLIPS, torch.Generator().manual_seed(0))
        composed, mask = self.module.compose(batch)
        figures = {"area": float(mask.mean()), **region_figures(composed, batch["target"], batch["landmarks"])}
        found = region_figures(batch["generated"], batch["target"], batch["landmarks"])
        return figures | {f"generated_{key}": value for key, value in found.items()}


class FaceMaskModule(nn.Module):
    """Batch -> error of the composed crops and the area of the mask."""

    border: Tensor

    def __init__(self, mask: FaceMask, config: FaceMaskPhase, model: PortraitModel):
        super().__init__()
        self.mask, self.config = mask, config
        crop = model.config.face_crop
        self.register_buffer("border", border_mask(crop.width, crop.height, FEATHER), persistent=False)
        self.to(next(mask.parameters()).device)

    def compose(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Composed crops n 3 H W and their masks n 1 H W."""
        mask = self.mask(batch["warped"], batch["generated"]).float() * self.border
        return torch.lerp(batch["warped"], batch["generated"], mask), mask

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        composed, mask = self.compose(batch)
        weight = batch["weight"] / batch["weight"].mean()
        error = (weight * (composed - batch["target"]).abs()).mean()
        area = mask.mean()
        values = {"area": area, "psnr": psnr(composed.detach(), batch["target"])}
        return error + self.config.area_weight * area, values
