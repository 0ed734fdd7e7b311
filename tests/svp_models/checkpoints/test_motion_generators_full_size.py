"""The generators' files at their published size, with random values in the published form: every name, loaded strictly."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import pytest
import torch
from transformers import HubertConfig, HubertModel

from svp_portrait.svp_models.checkpoints.motion_generators import load_joyvasa, load_kdtalker, load_wav2lip
from svp_portrait.svp_models.networks.layers import shapes_only

from ...reference.weights import full_size_liveportrait_shapes

WIDTH, BEFORE, WINDOW, STEPS, LAYERS = 256, 10, 100, 500, 8  # of the public motion_generator_hubert_chinese.pt
JOYVASA_BYTES = 414e6  # as its page on Hugging Face says

# Wav2Lip's audio encoder: channels in and out and kernel of its convolutions.
WAV2LIP = (
    (1, 32, 3), (32, 32, 3), (32, 32, 3), (32, 64, 3), (64, 64, 3), (64, 64, 3), (64, 128, 3), (128, 128, 3), (128, 128, 3),
    (128, 256, 3), (256, 256, 3), (256, 512, 3), (512, 512, 1),
)  # fmt: skip

pytestmark = pytest.mark.slow


def joyvasa_shapes() -> dict[str, tuple[int, ...]]:
    """Name -> shape of the file's `model`."""

    def linear(name: str, wide: int, narrow: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (wide, narrow), f"{name}.bias": (wide,)}

    shapes: dict[str, tuple[int, ...]] = {
        "start_audio_feat": (1, BEFORE, WIDTH), "start_motion_feat": (1, BEFORE, 70), "null_audio_feat": (1, 1, WIDTH),
        "denoising_net.TE.pe": (1, STEPS + 1, WIDTH), "denoising_net.PE.pe": (1, 600, WIDTH),
        "denoising_net.alignment_mask": (BEFORE + WINDOW, BEFORE + WINDOW),
        **linear("audio_feature_map", WIDTH, 768), **linear("denoising_net.feature_proj", WIDTH, 70),
        **linear("denoising_net.diff_step_map.0", WIDTH, WIDTH), **linear("denoising_net.diff_step_map.2", WIDTH, WIDTH),
        **linear("denoising_net.motion_dec.0", WIDTH // 2, WIDTH), **linear("denoising_net.motion_dec.2", 70, WIDTH // 2),
    }  # fmt: skip
    for name in ("betas", "alphas", "alpha_bars", "sigmas_flex", "sigmas_inflex"):
        shapes[f"diffusion_sched.{name}"] = (STEPS + 1,)
    for layer in range(LAYERS):
        base = f"denoising_net.transformer.layers.{layer}"
        for attention in ("self_attn", "multihead_attn"):
            shapes[f"{base}.{attention}.in_proj_weight"] = (3 * WIDTH, WIDTH)
            shapes[f"{base}.{attention}.in_proj_bias"] = (3 * WIDTH,)
            shapes |= linear(f"{base}.{attention}.out_proj", WIDTH, WIDTH)
        shapes |= linear(f"{base}.linear1", 4 * WIDTH, WIDTH) | linear(f"{base}.linear2", WIDTH, 4 * WIDTH)
        for norm in ("norm1", "norm2", "norm3"):
            shapes |= {f"{base}.{norm}.weight": (WIDTH,), f"{base}.{norm}.bias": (WIDTH,)}
    with shapes_only():
        hubert = HubertModel(HubertConfig()).state_dict()
    return shapes | {f"audio_encoder.{name}": tuple(tensor.shape) for name, tensor in hubert.items()}


def drawn(shapes, generator):
    return {
        name: torch.rand(shape, generator=generator) + 0.5
        if name.endswith("running_var")
        else torch.randn(shape, generator=generator) / math.sqrt(max(1, math.prod(shape[1:])))
        for name, shape in shapes.items()
    }


def sinusoids(positions: int, channels: int) -> torch.Tensor:
    angles = torch.arange(positions)[:, None] * torch.exp(
        torch.arange(0, channels, 2) * (-math.log(10000.0) / channels)
    )
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[None]


def test_joyvasa(tmp_path):
    shapes = joyvasa_shapes()
    assert abs(sum(4 * math.prod(shape) for shape in shapes.values()) - JOYVASA_BYTES) < 1e6
    tensors = drawn(shapes, torch.Generator().manual_seed(0))
    for name, positions in (("TE", STEPS + 1), ("PE", 600)):
        tensors[f"denoising_net.{name}.pe"] = sinusoids(positions, WIDTH)
    tensors["denoising_net.alignment_mask"] = ~torch.eye(BEFORE + WINDOW, dtype=torch.bool)
    path = tmp_path / "motion_generator_hubert_chinese.pt"
    torch.save({"args": argparse.Namespace(data_root=Path("data")), "model": tensors}, path)
    config = load_joyvasa(path).config
    assert (config.feature_dim, config.layers, config.feed_forward, config.heads) == (WIDTH, LAYERS, 4 * WIDTH, 8)
    assert (config.n_motions, config.n_prev_motions, config.n_diff_steps) == (WINDOW, BEFORE, STEPS)


def test_wav2lip(tmp_path):
    shapes: dict[str, tuple[int, ...]] = {}
    for index, (narrow, wide, kernel) in enumerate(WAV2LIP):
        base = f"module.audio_encoder.{index}.conv_block"
        shapes |= {f"{base}.0.weight": (wide, narrow, kernel, kernel), f"{base}.0.bias": (wide,)}
        shapes |= {f"{base}.1.{name}": (wide,) for name in ("weight", "bias", "running_mean", "running_var")}
    counters = {
        f"module.audio_encoder.{index}.conv_block.1.num_batches_tracked": torch.tensor(1) for index in range(13)
    }
    others = {"module.face_encoder_blocks.0.0.conv_block.0.weight": torch.zeros(16, 6, 7, 7)}
    tensors = drawn(shapes, torch.Generator().manual_seed(0)) | counters | others
    torch.save({"state_dict": tensors, "optimizer": {}, "global_step": 1}, tmp_path / "wav2lip.pth")
    encoder = load_wav2lip(tmp_path / "wav2lip.pth")
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 2_812_672
    with torch.no_grad():
        assert encoder(torch.zeros(2, 80, 16)).shape == (2, 512)


def test_kdtalker(tmp_path):
    shapes = {f"point_model.model.{name}": shape for name, shape in full_size_liveportrait_shapes()["kdtalker"].items()}
    torch.save({"model": drawn(shapes, torch.Generator().manual_seed(0)), "step": 1}, tmp_path / "KDTalker.pth")
    config = load_kdtalker(tmp_path / "KDTalker.pth").config
    assert (config.dim, config.layers, config.heads, config.head_dim, config.rotary) == (768, 6, 12, 64, 6)
