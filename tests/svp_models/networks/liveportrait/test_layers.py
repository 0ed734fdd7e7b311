"""Convolutions of enlarged maps against the enlarged maps themselves, convolved by torch in float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from svp_portrait.svp_models.networks.liveportrait.layers import UpBlock, convolve_doubled_volume, convolve_enlarged


def flops(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("factor, height, width", [(2, 5, 3), (3, 4, 4), (4, 1, 6)])
def test_maps(factor, height, width, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=bias).double()
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    plain = conv(functional.interpolate(x, scale_factor=float(factor), mode="nearest"))
    torch.testing.assert_close(convolve_enlarged(x, conv, factor), plain)


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


@torch.no_grad()
def test_the_products_of_a_large_map():
    """4/9 of the products at the factor 2; at 4, where two of four outputs are equal, 25/144. Borders come on top."""
    conv, x = nn.Conv2d(4, 8, 3, padding=1), torch.randn(1, 4, 64, 64)
    for factor, share in ((2, 16 / 36), (4, 25 / 144)):
        plain = flops(lambda factor=factor: conv(functional.interpolate(x, scale_factor=float(factor))))
        ours = flops(lambda factor=factor: convolve_enlarged(x, conv, factor))
        assert share <= ours / plain < 1.05 * share
