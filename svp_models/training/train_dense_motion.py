"""Training of the network that corrects how a spline moves a portrait, on whole frames of synthetic people, within a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..diffusion.face_inputs import dense_warp
from ..errors import PortraitError
from ..face.compose import place_face_crops
from ..face.dense_warp import DenseWarp, corrected
from ..face.expression_warp import spline_displacements
from ..face.warp import window_pixels
from ..model import PortraitModel
from ..networks.dense_motion import DenseMotion
from ..optional_deps import kornia_metrics
from .face_batches import Batch, FaceBatches
from .face_config import FaceDensePhase
from .train_face_vae import psnr

PART = 12  # frames that are validated at a time


class FaceDenseTraining:
    """The phase of the dense motion; everything else stays as it is."""

    name = "dense_motion"

    def __init__(self, model: PortraitModel, batches: FaceBatches, test: FaceBatches, config: FaceDensePhase):
        self.model, self.batches, self.test, self.config = model, batches, test, config
        dense = dense_warp(model)
        if dense is None:
            raise PortraitError(f"the model {model.config.name!r} has no dense motion: set face_crop.dense_width")
        self.dense: DenseWarp = dense
        model.networks.requires_grad_(False).eval()
        dense.network.requires_grad_(True)
        self.module = FaceDenseModule(dense.network, config)

    def batch(self, generator: torch.Generator, done: float) -> Batch:
        """What FaceDenseModule needs of `settings.batch_size` pairs of frames."""
        return self.prepared(self.batches.wholes(self.config.settings.batch_size, generator))

    @torch.no_grad()
    def prepared(self, batch: Batch) -> Batch:
        """A batch of `FaceBatches.wholes` with the spline between its pairs: plain and places n S S 2, the displacements and the
        pixels; windows n 2 2 and pictures n 8 s s, see DenseWarp."""
        images, targets = batch["portrait"], batch["targets"]
        places = window_pixels(images, None, None)
        found = spline_displacements(images, batch["sources"], targets, batch["points"], batch["moved"], places)
        windows = self.dense.windows(images, targets)
        return {
            **batch,
            "places": places,
            "plain": found.at(places),
            "windows": windows,
            "pictures": self.dense.pictures(images, windows, found),
        }

    def validate(self) -> dict[str, float]:
        """PSNR in dB and SSIM of whole frames of test people, and PSNR outside of the crop of the face; `spline_*` are those of the
        spline alone; stay: the mean share that stays."""
        batch = self.test.wholes(self.config.validation_frames, torch.Generator().manual_seed(0))
        outside = self._outside(batch)
        parts, shares = [], []
        for start in range(0, len(outside), PART):
            part = self.prepared({name: value[start : start + PART] for name, value in batch.items()})
            maps = self.module.network(part["pictures"]).float()
            parts.append((self.module.warped(part, maps), move(part["portrait"], part["places"] + part["plain"])))
            shares.append(maps[:, 2].mean())
        found, spline = (torch.cat(images) for images in zip(*parts, strict=True))
        figures = {"stay": float(torch.stack(shares).mean())}
        for prefix, images in (("", found), ("spline_", spline)):
            figures |= {prefix + name: value for name, value in whole_figures(images, batch["target"], outside).items()}
        return figures

    def _outside(self, batch: Batch) -> Tensor:
        """Which pixels no crop of the face covers: n 1 S S, bool."""
        size = batch["target"].shape[-1]
        crop = self.model.config.face_crop
        line = torch.arange(size, device=batch["target"].device)
        rows = []
        for points in batch["targets"].cpu().numpy():
            left, top = (-place_face_crops(points[None], crop).matrices[0, :, 2]).tolist()
            across = (line >= left) & (line < left + crop.width)
            rows.append(~(((line >= top) & (line < top + crop.height))[:, None] & across))
        return torch.stack(rows)[:, None]


class FaceDenseModule(nn.Module):
    """Batch -> error of the whole warped pictures, with small penalties on what the network says."""

    def __init__(self, network: DenseMotion, config: FaceDensePhase):
        super().__init__()
        self.network, self.config = network, config

    def warped(self, batch: Batch, maps: Tensor) -> Tensor:
        """n 3 S S"""
        change = corrected(maps, batch["windows"], batch["plain"], batch["places"])
        return move(batch["portrait"], batch["places"] + change)

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        maps = self.network(batch["pictures"]).float()
        found = self.warped(batch, maps)
        error = (found - batch["target"]).abs().mean()
        correction, stay = maps[:, :2], maps[:, 2]
        rough = stay.diff(dim=-1).abs().mean() + stay.diff(dim=-2).abs().mean()
        loss = error + self.config.correction_weight * correction.square().mean() + self.config.smooth_weight * rough
        return loss, {"error": error, "stay": stay.mean(), "psnr": psnr(found.detach(), batch["target"])}


def move(images: Tensor, grid: Tensor) -> Tensor:
    """Images n 3 h w read at places n H W 2 in [-1, 1] -> n 3 H W."""
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def whole_figures(found: Tensor, truth: Tensor, outside: Tensor) -> dict[str, float]:
    """PSNR in dB, SSIM and PSNR `outside` (n 1 h w, bool) of images n 3 h w in [-1, 1], over all of their pixels."""
    error = (found.clamp(-1, 1) - truth).square()
    similar = kornia_metrics.ssim((found.clamp(-1, 1) + 1) / 2, (truth + 1) / 2, 7)
    far = error[outside.expand_as(error)].mean()
    return {
        "psnr": float(psnr(found, truth)),
        "ssim": float(similar.mean()),
        "outside_psnr": float(-10 * torch.log10(far / 4)),
    }
