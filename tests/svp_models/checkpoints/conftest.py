"""Small files in the layouts that others publish, with random weights, and the config they belong to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from svp_portrait.svp_models.checkpoints import sd15
from svp_portrait.svp_models.checkpoints.sd15 import animatediff_name, motion_shapes
from svp_portrait.svp_models.config import AudioConfig, GuiderConfig, StyleConfig, UNetConfig, VaeConfig
from svp_portrait.svp_models.networks.attention import sinusoidal_encoding
from svp_portrait.svp_models.presets import PRESETS

CONFIG = replace(
    PRESETS["sd15"],
    window=8,
    overlap=2,
    unet=UNetConfig(
        block_out_channels=(16, 32), layers_per_block=1, attention_levels=(True, False), attention_heads=2,
        cross_attention_dim=24, norm_groups=8, motion_heads=2, motion_groups=8, motion_positions=8,
    ),
    vae=VaeConfig(encoder_widths=(32, 64), decoder_widths=(64, 32), layers=1, downscale=2),
    guider=GuiderConfig(channels=(4, 4)),
    audio=AudioConfig(features="whisper", window=3, layers=1, heads=2, head_size=4, feature_size=20),
    style=StyleConfig(style_size=8, layers=1, heads=2, feed_forward=8, audio_size=20, expression_size=6),
)  # fmt: skip
# Names beside the UNet and the VAE as v1-5-pruned-emaonly.safetensors has them.
BESIDE = {
    "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(4)[None],
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.ones(4),
    "model_ema.decay": torch.tensor(0.9),
    "model_ema.num_updates": torch.tensor(3),
    "betas": torch.ones(5),
    "alphas_cumprod_prev": torch.ones(5),
    "sqrt_one_minus_alphas_cumprod": torch.ones(5),
    "posterior_mean_coef1": torch.ones(5),
}


def random_tensors(shapes, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(*shape, generator=generator).to(dtype) for name, shape in shapes.items()}


def published_motion(config, positions=8, middle=True, dtype=torch.float32):
    """Tensors of a motion module file by its own names, with tables of positions."""
    own = random_tensors(motion_shapes(config), dtype, seed=5)
    tensors = {animatediff_name(name): tensor for name, tensor in own.items()}
    for name in [each for each in tensors if each.endswith(".to_q.weight")]:
        table = sinusoidal_encoding(positions, tensors[name].shape[1], torch.zeros(()))
        tensors[name.replace("to_q.weight", "pos_encoder.pe")] = table[None].to(dtype)
    return {name: each for name, each in tensors.items() if middle or not name.startswith("mid_block.")}


@pytest.fixture(scope="session")
def config():
    return CONFIG


@pytest.fixture(scope="session")
def unet():
    """Tensors of a small SD1.5 UNet by diffusers' names."""
    return random_tensors(sd15.unet_shapes(CONFIG.unet))


@pytest.fixture(scope="session")
def vae():
    """Tensors of a small autoencoder by diffusers' names."""
    return random_tensors(sd15.vae_shapes(CONFIG.vae), seed=1)


@pytest.fixture(scope="session")
def original_vae(vae):
    """The same by the original names, its attention as 1x1 convolutions."""
    names = sd15.vae_names(CONFIG.vae)
    attention = (".mid.attn_1.q.", ".mid.attn_1.k.", ".mid.attn_1.v.", ".mid.attn_1.proj_out.")
    return {
        names[name]: tensor[..., None, None]
        if any(each in names[name] for each in attention) and tensor.ndim == 2
        else tensor
        for name, tensor in vae.items()
    }


@pytest.fixture(scope="session")
def single_file(tmp_path_factory, unet, original_vae):
    """A whole checkpoint in one file."""
    path = tmp_path_factory.mktemp("sd") / "v1-5-pruned-emaonly.safetensors"
    names = sd15.unet_names(CONFIG.unet)
    tensors = {f"model.diffusion_model.{names[name]}": tensor for name, tensor in unet.items()}
    tensors |= {f"first_stage_model.{name}": tensor for name, tensor in original_vae.items()}
    save_file({name: tensor.contiguous() for name, tensor in {**tensors, **BESIDE}.items()}, path)
    return path


@pytest.fixture(scope="session")
def diffusers_folder(tmp_path_factory, unet, vae):
    """The same checkpoint as diffusers keeps it."""
    folder = tmp_path_factory.mktemp("diffusers")
    for part, tensors in (("unet", unet), ("vae", vae)):
        (folder / part).mkdir()
        save_file(tensors, folder / part / "diffusion_pytorch_model.safetensors")
    return folder


@pytest.fixture
def motion_file(tmp_path):
    """Writes a motion module file and returns its path."""

    def write(name="mm_sd_v15_v2.ckpt", wrapper=None, **options):
        tensors = published_motion(CONFIG.unet, **options)
        torch.save({wrapper: tensors} if wrapper else tensors, tmp_path / name)
        return tmp_path / name

    return write
