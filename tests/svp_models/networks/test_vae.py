from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.config import VaeConfig
from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.vae import PortraitVae, RunningNorm, build_vae
from svp_portrait.svp_models.presets import PRESETS

CHANNELS = PRESETS["demo"].vae.latent_channels


def test_a_fresh_one_is_the_linear_path_between_patches_of_8_pixels_and_latents():
    torch.manual_seed(0)
    vae = build_vae(PRESETS["demo"].vae).eval()
    images = torch.rand(2, 3, 64, 96)
    patches = torch.nn.functional.pixel_unshuffle(images, 8)  # 2 192 8 12
    latents = vae.encode(images)
    torch.testing.assert_close(latents, vae.patch_encoder(patches))
    decoded = torch.nn.functional.pixel_shuffle(vae.patch_decoder(latents), 8)
    torch.testing.assert_close(vae.decode(latents), decoded)
    assert decoded.shape == images.shape


def test_it_starts_as_the_principal_components_of_its_patches():
    # Patches that live in as many dimensions as there are channels come back exactly, before any training.
    generator = torch.Generator().manual_seed(0)
    basis = torch.randn(CHANNELS, 3 * 64, generator=generator)
    images = torch.pixel_shuffle((torch.randn(4, 8, 8, CHANNELS, generator=generator) @ basis).movedim(-1, 1), 8)
    vae = PortraitVae(PRESETS["demo"].vae).eval()
    vae.init_from_pca(images)
    latents = vae.encode(images)
    torch.testing.assert_close(latents.var((0, 2, 3), unbiased=False), torch.ones(CHANNELS), atol=0.02, rtol=0)
    torch.testing.assert_close(vae.decode(latents), images, atol=0.02, rtol=1e-3)


def test_statistics_follow_the_latents_while_training():
    torch.manual_seed(0)
    norm = RunningNorm(2).train()
    for _ in range(1000):
        norm(torch.randn(4, 2, 8, 8) * torch.tensor([3.0, 0.5])[:, None, None] + 7)
    torch.testing.assert_close(norm.mean, torch.full((2,), 7.0), atol=0.1, rtol=0)
    torch.testing.assert_close(norm.variance, torch.tensor([9.0, 0.25]), atol=0, rtol=0.1)
    before = norm.mean.clone()
    norm.eval()(torch.zeros(1, 2, 4, 4))
    assert torch.equal(norm.mean, before)


def test_rescaled_channels_give_the_same_picture():
    torch.manual_seed(0)
    vae = PortraitVae(PRESETS["demo"].vae).eval()
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    latents = vae.encode(images)
    picture = vae.decode(latents)
    factors = torch.linspace(0.5, 2, CHANNELS)
    vae.rescale(factors)
    torch.testing.assert_close(vae.encode(images), latents * factors[:, None, None])
    torch.testing.assert_close(vae.decode(vae.encode(images)), picture, atol=1e-5, rtol=1e-4)


def test_sd15_vae_has_the_published_shapes():
    with torch.device("meta"):
        vae = build_vae(PRESETS["sd15"].vae)
    shapes = {name: tuple(tensor.shape) for name, tensor in vae.autoencoder.state_dict().items()}
    assert shapes["encoder.conv_in.weight"] == (128, 3, 3, 3)
    assert shapes["quant_conv.weight"] == (8, 8, 1, 1)
    assert shapes["decoder.mid_block.resnets.0.conv1.weight"] == (512, 512, 3, 3)
    assert sum(tensor.numel() for tensor in vae.parameters()) == 83_653_863  # SD1.5's autoencoder


def test_widths_that_do_not_give_the_downscale_are_refused():
    with pytest.raises(PortraitError, match="downscale is 8: 2 encoder_widths and fold 2 give 1/4"):
        PortraitVae(replace(PRESETS["demo"].vae, fold=2))


def test_unknown_kind_is_refused():
    with pytest.raises(PortraitError, match="kind is 'x': it must be one of portrait, sd15"):
        build_vae(replace(PRESETS["demo"].vae, kind="x"))


@torch.no_grad()
def test_sd15_vae_decodes_as_that_of_diffusers():
    from diffusers import AutoencoderKL

    torch.manual_seed(0)
    ours = build_vae(VaeConfig(encoder_widths=(32, 64, 96, 96), decoder_widths=(96, 96, 64, 32), layers=1)).eval()
    theirs = AutoencoderKL(
        block_out_channels=(32, 64, 96, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
    ).eval()
    theirs.load_state_dict(ours.autoencoder.state_dict())
    latents = torch.randn(2, 4, 16, 12)
    expected = theirs.decode(latents).sample
    assert (ours.decode(latents) - expected).norm() < 1e-5 * expected.norm()
