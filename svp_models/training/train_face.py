"""Training of the denoiser on upright crops of faces, within a time: everything that conditions it learns with it (eq. 1)."""

from __future__ import annotations

import torch
from einops import repeat
from torch import Tensor, nn
from torch.nn import functional

from ..diffusion.noise_schedule import add_noise, alphas_cumprod, pred_x0, sampling_schedule
from ..diffusion.samplers import sample_ddim
from ..errors import PortraitError
from ..io.memory_map import MappedFrames, as_tensor
from ..model import PortraitModel
from ..networks.conditions import Conditions
from .face_batches import Batch, FaceBatches, inner_weight, region_weight
from .face_config import FaceDenoiserPhase
from .train_diffusion import freeze_all_but
from .train_face_vae import crop_loss, region_figures

LEARNT = (
    "spatial",
    "audio",
    "style",
    "reference",
    "guider",
    "audio_projection",
    "style_projection",
    "expression_projection",
)
DROPPED = ("audio", "style", "expression")
FEATHER = 0.06  # of a crop, at whose border the portrait stays
TEST_FRAMES = 2  # of a clip


class FaceDenoiserTraining:
    """The phase of the denoiser; the VAE and the style extractor stay as they are."""

    name = "denoiser"

    def __init__(self, model: PortraitModel, batches: FaceBatches, test: FaceBatches, config: FaceDenoiserPhase):
        self.model, self.batches, self.test, self.config = model, batches, test, config
        freeze_all_but(model.networks, LEARNT)
        self.module = FaceDenoiserModule(model, config)

    def batch(self, generator: torch.Generator, done: float) -> Batch:
        """`settings.batch_size` samples, `frames` to a clip, with their noise, timesteps and what is dropped."""
        config = self.config
        self.module.decoding = done >= 1 - config.decoded_share
        count = max(1, config.settings.batch_size // config.frames)
        random = self._random(count, generator)
        known = random["kept"][:, DROPPED.index("expression")]
        return {**self.batches.clips(count, config.frames, generator, known), **random}

    def _random(self, count: int, generator: torch.Generator) -> Batch:
        config, device = self.config, self.batches.device
        steps = self.model.config.scheduler.train_steps
        normal = torch.randn(count, config.frames, generator=generator)
        share = (config.noise_mean + config.noise_std * normal).sigmoid()
        pure = torch.rand(count, config.frames, generator=generator) < config.pure_noise_prob
        timestep = torch.where(pure, 1.0, share).mul(steps - 1).round().long()
        probs = (config.audio_drop_prob, config.style_drop_prob, config.expression_drop_prob)
        kept = torch.rand(count, len(probs), generator=generator) >= torch.tensor(probs)
        kept &= torch.rand(count, 1, generator=generator) >= config.cond_drop_prob
        return {"timestep": timestep, "kept": kept.to(device)}  # schedules are on the CPU: nothing waits for a GPU

    def validate(self) -> dict[str, float]:
        """Figures by region of crops of test people, in the model's own steps and in one, with the expression track and without
        it; `warped_*` are those of the warped portraits."""
        module, figures = self.module, {}
        batch = self.test.clips(self.config.validation_clips, TEST_FRAMES, torch.Generator().manual_seed(0))
        truth, landmarks = batch["target"].flatten(0, 1), batch["landmarks"].flatten(0, 1)
        for name, warped in region_figures(batch["warped"].flatten(0, 1), truth, landmarks).items():
            figures[f"warped_{name}"] = warped
        for prefix, steps, controls in (
            ("", self.model.config.steps, True),
            ("one_step_", 1, True),
            ("voice_", 8, False),
        ):
            found = module.sample(batch, steps, controls, torch.Generator().manual_seed(1))
            figures |= {f"{prefix}{key}": value for key, value in region_figures(found, truth, landmarks).items()}
        return figures


class FaceDenoiserModule(nn.Module):
    """Batch -> denoising loss. The model's VAE is used but not part of the module: it is neither trained nor saved."""

    inner: Tensor

    def __init__(self, model: PortraitModel, phase: FaceDenoiserPhase):
        super().__init__()
        self.model, self.networks, self.config, self.phase = model, model.networks, model.config, phase
        model.vae.eval().requires_grad_(False)
        crop, cell = self.config.face_crop, self.config.vae.downscale
        self.register_buffer("inner", inner_weight(crop.width, crop.height, cell, FEATHER), persistent=False)
        self.decoding = False  # whether the errors of decoded crops count too

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        config, schedule = self.config, self.config.scheduler
        warped = self.encode(batch["warped"])
        clean = (self.encode(batch["target"]) - warped) * config.vae.scale
        conditions = self.conditions(batch, warped, batch["kept"])
        timestep = batch["timestep"].flatten()  # every frame has its own: (b f)
        flat = clean.flatten(0, 1)
        noise = torch.randn_like(flat)
        noisy = add_noise(flat, noise, timestep, schedule)
        # Single frames: layers over time would need neighbours.
        predict = self.networks.denoiser
        prediction = predict(
            noisy.view_as(clean), batch["timestep"].to(flat.device), conditions, temporal=False
        ).flatten(0, 1)
        found = pred_x0(prediction.float(), noisy, timestep, schedule)
        error = (found - flat).square()
        noise_share = 1 - alphas_cumprod(schedule)[timestep].to(flat.device)
        level = (1 / noise_share).clamp(max=self.phase.max_weight)[:, None, None, None]
        explained = 1 - error.mean() / flat.square().mean().clamp(min=1e-6)
        loss = (self.weight(batch) * level * error).mean()
        if self.decoding:
            loss = loss + self.phase.decoded_weight * self.decoded_error(
                batch, found / config.vae.scale + warped.flatten(0, 1)
            )
        return loss, {"explained": explained}

    def decoded_error(self, batch: Batch, latents: Tensor) -> Tensor:
        """Error of pixels, gradients and structure of the crops of latents n c h w, unscaled."""
        decoded = self.model.vae.decode(latents).float()
        target, cell = batch["target"].flatten(0, 1), self.config.vae.downscale
        inner = functional.interpolate(self.inner, scale_factor=cell)
        weight = self.region(batch, 1) * inner
        return crop_loss(decoded, target, weight, self.phase.gradient_weight, self.phase.ssim_weight)

    def weight(self, batch: Batch) -> Tensor:
        """n 1 h w, 1 on average; small at the border, where the portrait is kept."""
        weight = self.region(batch, self.config.vae.downscale) * self.inner
        return weight / weight.mean()

    def region(self, batch: Batch, cell: int) -> Tensor:
        """More than 1 in the boxes of mouth and eyes, for every cell: n 1 h w."""
        crop = self.config.face_crop
        return region_weight(batch["landmarks"].flatten(0, 1), crop.width, crop.height, cell, self.phase.regions)

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """b f 3 H W -> b f c h w, unscaled"""
        return self.model.vae.encode(images.flatten(0, 1)).float().unflatten(0, images.shape[:2])

    def conditions(self, batch: Batch, warped: Tensor, kept: Tensor) -> Conditions:
        """warped: latents b f c h w, unscaled; kept: b 3, whether audio, style and expression are there."""
        networks, scale = self.networks, self.config.vae.scale
        if networks.expression_projection is None:
            raise PortraitError(f"{self.config.name} has no expression tokens: set unet.expression_size")
        frames = batch["target"].shape[1]
        expression = networks.expression_projection
        portrait = self.encode(batch["portrait"][:, None])[:, 0] * scale  # b c h w
        tokens = {
            "audio": networks.audio_projection(batch["audio"].flatten(0, 1)).unflatten(0, (-1, frames)),
        }
        if expression is not None:
            tokens["expression"] = expression(batch["controls"])
        if "style" in batch:
            tokens["style"] = repeat(networks.style_projection(batch["style"]), "b t d -> b f t d", f=frames)
        masks = dict(zip(DROPPED, kept.to(portrait).unbind(1), strict=True))
        tokens = {name: value * masks[name][:, None, None, None] for name, value in tokens.items()}
        return Conditions(
            reference=networks.reference(portrait),
            reference_latent=portrait,
            audio=tokens["audio"],
            kps=networks.guider(batch["kps"]),
            style=tokens.get("style"),
            reference_warped=warped * scale,
            expression=tokens.get("expression"),
        )

    @torch.no_grad()
    def sample(self, batch: Batch, steps: int, controls: bool, generator: torch.Generator) -> Tensor:
        """Generated crops n 3 H W of a batch. controls: with the expression track."""
        config, count = self.config, len(batch["target"])
        warped = self.encode(batch["warped"])
        kept = torch.ones(count, len(DROPPED), device=warped.device)
        kept[:, DROPPED.index("expression")] = float(controls)
        conditions = self.conditions(batch, warped, kept)
        schedule = sampling_schedule(config.scheduler, steps)
        noise = torch.randn(warped.shape, generator=generator).to(warped)

        def x0(noisy: Tensor | MappedFrames, step: int) -> Tensor:
            x = as_tensor(noisy)
            timestep = schedule.timesteps[step].expand(count).to(x.device)
            prediction = self.networks.denoiser(x, timestep, conditions, temporal=False).float()
            return pred_x0(prediction, x, timestep, config.scheduler)

        found = as_tensor(sample_ddim(x0, noise, schedule)).flatten(0, 1) / config.vae.scale + warped.flatten(0, 1)
        return torch.cat([self.model.vae.decode(part).float() for part in found.split(8)]).clamp(-1, 1)
