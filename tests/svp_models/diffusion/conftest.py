"""A tiny random model and clip conditions for the sampling tests."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from svp_portrait.svp_models.config import AudioConfig, GuiderConfig, ModelConfig, StyleConfig, UNetConfig, VaeConfig
from svp_portrait.svp_models.diffusion.acceleration import Acceleration
from svp_portrait.svp_models.diffusion.guidance import FASTEST, MemoryPlan
from svp_portrait.svp_models.diffusion.inputs import ClipInputs
from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline, SamplerOptions
from svp_portrait.svp_models.io.memory_map import IN_MEMORY, Storage
from svp_portrait.svp_models.model import PortraitModel, build_networks
from svp_portrait.svp_models.networks.vae import build_vae
from svp_portrait.svp_models.types import Audio, HeadMotion, Style

TINY = ModelConfig(
    name="tiny",
    size=32,
    window=4,
    overlap=1,
    unet=UNetConfig(
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_levels=(False, True),
        attention_heads=2,
        cross_attention_dim=8,
        norm_groups=4,
        reference_concat=True,
        motion_heads=2,
        motion_groups=4,
        motion_positions=8,
    ),
    vae=VaeConfig(kind="portrait", scale=0.5, fold=4, encoder_widths=(8, 8), decoder_widths=(8, 8, 8), layers=1),
    guider=GuiderConfig(channels=(4, 4, 4, 4)),
    audio=AudioConfig(features="mel", window=3, tokens=2, layers=1, heads=2, head_size=4),
    style=StyleConfig(style_size=16, layers=1, heads=2, feed_forward=16, max_frames=10, tokens=3),
)

STEPS = SamplerOptions(steps=8, cfg=2.0)


def fill(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Every weight from one generator, also those that start at zero, so that every condition matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            drawn = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1:
                weight.copy_(drawn / weight[0].numel() ** 0.5)
            else:
                weight.copy_(0.1 * drawn + (1 if name.endswith("weight") else 0))
    return module.eval()


@pytest.fixture(scope="session")
def model() -> PortraitModel:
    return PortraitModel(
        config=TINY,
        networks=fill(build_networks(TINY), 1),
        vae=fill(build_vae(TINY.vae), 2),
        face_analyzer=None,
        style_space="tiny-space",
        metadata={},
    )


@pytest.fixture(scope="session")
def clip() -> SimpleNamespace:
    """What drives a clip of 32 x 24 pixels: portrait latent, a second of sound, a style; motion(frames) is a head."""
    generator = torch.Generator().manual_seed(3)

    def motion(frames: int) -> HeadMotion:
        points = torch.tensor([[4, 8], [5, 16], [28, 8], [27, 16], [11, 10], [21, 10], [16, 10], [16, 15]])
        moved = points.float() + torch.linspace(0, 3, frames)[:, None, None]
        return HeadMotion(keypoints=moved, width=32, height=24, fps=25.0)

    return SimpleNamespace(
        latent=torch.randn(1, 4, 3, 4, generator=generator),
        size=(32, 24),
        audio=Audio(0.1 * torch.randn(1, 16000, generator=generator), 16000),
        style=Style(torch.randn(2, 16, generator=generator), "tiny-space"),
        motion=motion,
    )


@pytest.fixture
def calls(model):
    """The number of clips in every batch that the denoiser gets."""
    batches: list[int] = []
    hook = model.networks.denoiser.register_forward_pre_hook(lambda module, args: batches.append(len(args[0])))
    yield batches
    hook.remove()


def encoded(model, clip, frames: int, storage: Storage = IN_MEMORY):
    pipeline = PortraitPipeline(model, storage=storage)
    inputs = ClipInputs(clip.latent, clip.audio, clip.motion(frames), clip.style, frames, 25.0, clip.size)
    return pipeline, inputs, pipeline.encode_conditions(inputs)


def sample(given, acceleration: Acceleration, plan: MemoryPlan = FASTEST) -> tuple[torch.Tensor, int]:
    """The latents, and the products that they took."""
    pipeline, inputs, conditions = given
    with FlopCounterMode(display=False) as counter:
        latents = pipeline.denoise(inputs, conditions, 7, replace(STEPS, acceleration=acceleration), plan=plan)
    return latents, counter.get_total_flops()
