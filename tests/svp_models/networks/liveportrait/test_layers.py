"""Convolutions of enlarged volumes against the enlarged volumes themselves, convolved by torch in float64."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from svp_portrait.svp_models.networks.liveportrait.layers import UpBlock, convolve_doubled_volume


@torch.no_grad()
def test_volumes():
    torch.manual_seed(0)
    conv = nn.Conv3d(3, 5, 3, padding=1).double()
    x = torch.randn(2, 3, 4, 5, 2, dtype=torch.float64)
    plain = conv(functional.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest"))
    torch.testing.assert_close(convolve_doubled_volume(x, conv), plain)


@torch.no_grad()
def test_small_and_large_volumes_go_through_the_same_block():
    torch.manual_seed(0)
    block = UpBlock(3, 5, dims=3).eval()
    x = torch.randn(1, 3, 4, 8, 8)
    plain = block(x)
    block.fewest_cells = 256
    assert not torch.equal(block(x), plain)  # another order of sums
    torch.testing.assert_close(block(x), plain)
