from __future__ import annotations

import torch
from torch.nn import functional

from svp_portrait.svp_models.networks.liveportrait.spade_generator import SpadeConfig, SpadeGenerator, SpadeNorm


@torch.no_grad()
def test_the_picture_of_liveportrait(liveportrait_networks, liveportrait_io, close):
    close(liveportrait_networks.generator(liveportrait_io["warped"]), liveportrait_io["frame"])


@torch.no_grad()
def test_features_scale_and_shift_the_normed_map():
    norm = SpadeNorm(3, 2, 4)
    for layer, value in ((norm.mlp_gamma, 0.5), (norm.mlp_beta, -2.0)):
        layer.weight.zero_()
        layer.bias.fill_(value)
    x = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    wanted = 1.5 * functional.instance_norm(x) - 2
    torch.testing.assert_close(norm(functional.instance_norm(x), torch.ones(1, 2, 4, 4)), wanted)


@torch.no_grad()
def test_without_the_last_enlargement_the_picture_is_half_as_large():
    small = SpadeGenerator(SpadeConfig(channels=4, out_channels=3, hidden=4, upscale=False))
    large = SpadeGenerator(SpadeConfig(channels=4, out_channels=3, hidden=4))
    assert small(torch.zeros(1, 4, 4, 4)).shape == (1, 3, 16, 16)
    assert large(torch.zeros(1, 4, 4, 4)).shape == (1, 3, 32, 32)
