"""Memory that a training takes, so that whoever owns the device can make room for it."""

from __future__ import annotations

import torch

from ..checkpoints.native import PortraitModel
from ..networks.conditions import ConditionWeights
from ..networks.denoiser import Denoiser
from ..sampling.memory import KERNELS, PeakBytes, window_conditions
from .recipe import StagePhase, StylePhase

FLOAT = 4  # bytes
STATE = 5  # floats for a weight that learns: itself, its gradient, Adam's two moments, its moving average
OTHERS = 2  # times the denoiser's activations: ReferenceNet, VAE and losses on decoded pictures come on top


def training_memory(model: PortraitModel, phase: StagePhase | StylePhase) -> int:
    """Bytes that a phase takes in float32 at the model's size, every weight counted as one that learns."""
    weights = sum(weight.numel() for network in (model.networks, model.vae) for weight in network.parameters())
    needed = weights * STATE * FLOAT
    if isinstance(phase, StagePhase):
        samples = -(-phase.settings.batch // phase.settings.accumulate)  # that pass through at once
        needed += round(samples * OTHERS * KERNELS * activations(model, phase.frames))
    return needed


def activations(model: PortraitModel, frames: int) -> int:
    """Bytes of what the denoiser's backward pass needs of one sample, measured on tensors without data."""
    config, unet = model.config, model.config.unet
    cells = config.size // config.vae.downscale
    peak = PeakBytes()
    with torch.inference_mode(False), torch.enable_grad(), torch.device("meta"):
        denoiser = Denoiser(unet, style=unet.style_attention)
        conditions = window_conditions(config, frames, (cells, cells), torch.float32)
        latents = torch.empty(1, frames, unet.latent_channels, cells, cells)
        with peak:
            denoiser(latents, torch.zeros(1), conditions, ConditionWeights())
    return peak.peak
