"""The time of LivePortrait's networks on this machine, and what every rearrangement of their arithmetic gives against the plain one.

Figures: see `bench`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import convert_conv2d_weight_memory_format

from ..checkpoints.liveportrait import LivePortraitNetworks
from ..networks.layers import convolve_enlarged
from ..networks.liveportrait.appearance_extractor import AppearanceConfig, AppearanceExtractor
from ..networks.liveportrait.layers import UpBlock, convolve_doubled_volume
from ..networks.liveportrait.motion_extractor import MotionExtractor, MotionExtractorConfig
from ..networks.liveportrait.spade_generator import (
    MIDDLE_BLOCKS,
    SLOPE,
    SpadeConfig,
    SpadeGenerator,
    SpadeNorm,
    SpadeResnetBlock,
)
from ..networks.liveportrait.stitching import EYE_WIDTHS, MOUTH_WIDTHS, SHOULDER_WIDTHS, KeypointMLP
from ..networks.liveportrait.warping import DenseMotionConfig, WarpingConfig, WarpingNetwork
from .bench import Case, matmul_rate, measure

BATCH = 4  # frames at once


@dataclass(frozen=True)
class BenchSize:
    """Sizes of networks and pictures. side: pixels of the face that they see."""

    side: int
    appearance: AppearanceConfig
    motion: MotionExtractorConfig
    warping: WarpingConfig
    generator: SpadeConfig


SIZES = {
    "full": BenchSize(256, AppearanceConfig(), MotionExtractorConfig(), WarpingConfig(), SpadeConfig()),
    "tiny": BenchSize(
        64,
        AppearanceConfig(block_expansion=8, max_features=32, reshape_channel=4, num_resblocks=2),
        MotionExtractorConfig(depths=(1, 1, 2, 1), dims=(8, 16, 24, 32)),
        WarpingConfig(32, DenseMotionConfig(feature_channel=4, reshape_depth=8, block_expansion=8, max_features=32, num_blocks=3)),
        SpadeConfig(channels=32, out_channels=8, hidden=16),
    ),
}  # fmt: skip


def random_networks(size: BenchSize, seed: int = 0) -> LivePortraitNetworks:
    """Networks of a size with random weights; the time does not depend on them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LivePortraitNetworks(
            AppearanceExtractor(size.appearance).eval(),
            MotionExtractor(size.motion).eval(),
            WarpingNetwork(size.warping).eval(),
            SpadeGenerator(size.generator).eval(),
            *(KeypointMLP(widths).eval() for widths in (SHOULDER_WIDTHS, MOUTH_WIDTHS, EYE_WIDTHS)),
        )


@torch.no_grad()
def bench_liveportrait(networks: LivePortraitNetworks, side: int, repeats: int = 3) -> Iterator[dict[str, Any]]:
    """One row of figures for every case, the machine's own rate first."""
    rate = matmul_rate()
    yield {"case": "matmul", "gflop_per_second": round(rate, 2), "threads": torch.get_num_threads()}
    for case in cases(networks, side):
        yield measure(case, rate, repeats)


def cases(networks: LivePortraitNetworks, side: int) -> Iterator[Case]:
    """What is measured: every network, every rearrangement alone, a whole frame of a still portrait, and frames together."""
    generator = torch.Generator().manual_seed(0)
    face = torch.rand(1, 3, side, side, generator=generator)
    volume = networks.appearance(face)
    own = 1.6 * torch.rand(1, networks.warping.config.dense_motion.num_kp, 3, generator=generator) - 0.8
    moved = own + 0.05 * torch.randn(BATCH, *own.shape[1:], generator=generator)
    plain_warping = plain_volumes(networks.warping)
    warped = networks.warping(volume, moved[:1], own).warped
    yield Case("appearance", lambda: networks.appearance(face))
    yield Case("motion", lambda: networks.motion(face)["exp"])
    yield Case(
        "warping", lambda: networks.warping(volume, moved[:1], own).warped, lambda: plain_warping(volume, moved[:1], own).warped
    )  # fmt: skip
    yield Case("generator", lambda: networks.generator(warped), lambda: plain_generator(networks.generator, warped))
    yield from _parts(networks, warped)

    def frame(warping: WarpingNetwork, paint: Callable[[Tensor], Tensor], points: Tensor) -> Tensor:
        return paint(warping(volume, points, own).warped)

    yield Case(
        "frame",
        lambda: frame(networks.warping, networks.generator, moved[:1]),
        lambda: frame(plain_warping, lambda features: plain_generator(networks.generator, features), moved[:1]),
    )
    yield Case(
        f"{BATCH} frames together",
        lambda: frame(networks.warping, networks.generator, moved),
        lambda: torch.cat([frame(networks.warping, networks.generator, points) for points in moved.split(1)]),
        BATCH,
    )


def _parts(networks: LivePortraitNetworks, warped: Tensor) -> Iterator[Case]:
    generator, dense = networks.generator, networks.warping.config.dense_motion
    cell = warped.shape[-1]
    for factor, block in ((2, generator.up_0), (4, generator.up_1)):
        conv, side = cast(nn.Conv2d, block.norm_0.mlp_shared[0]), factor * cell
        yield Case(
            f"shared convolution of features enlarged by {factor}",
            partial(convolve_enlarged, warped, conv, factor),
            partial(_of_enlarged, conv, warped, side),
        )
        x = torch.randn(1, block.conv_0.in_channels, side // 2, side // 2)
        yield Case(
            f"block enlarged by {factor}",
            partial(block.forward, x, warped),
            partial(_of_enlarged, partial(plain_block, block), x, side, warped),
        )
    decoder = networks.warping.dense_motion_network.hourglass.decoder
    for index, doubling in enumerate(cast(Iterable[UpBlock], decoder.up_blocks)):
        side = cell // 2 ** (dense.num_blocks - index)
        x = torch.randn(1, doubling.conv.in_channels, dense.reshape_depth, side, side)
        yield Case(
            f"convolution of a doubled volume, {side} cells wide",
            partial(convolve_doubled_volume, x, doubling.conv),
            partial(_of_doubled, doubling.conv, x),
        )
    mask = networks.warping.dense_motion_network.mask
    hidden = torch.rand(1, mask.in_channels, dense.reshape_depth, cell, cell)
    yield Case("mask convolution of 7 x 7 x 7", lambda: mask(hidden))
    last = convert_conv2d_weight_memory_format(copy.deepcopy(generator), torch.channels_last)
    features = warped.contiguous(memory_format=torch.channels_last)
    yield Case("generator, channels last", lambda: last(features), lambda: generator(warped))


def plain_volumes(network: WarpingNetwork) -> WarpingNetwork:
    """A copy that makes every doubled volume before it is convolved."""
    plain = copy.deepcopy(network)
    for module in plain.modules():
        if isinstance(module, UpBlock):
            module.fewest_cells = math.inf
    return plain


def plain_generator(network: SpadeGenerator, warped: Tensor) -> Tensor:
    """SpadeGenerator as it is written in the paper: maps and features are enlarged before anything is computed of them."""
    hidden = network.fc(warped)
    for index in range(MIDDLE_BLOCKS):
        hidden = plain_block(cast(SpadeResnetBlock, network.get_submodule(f"G_middle_{index}")), hidden, warped)
    for block in (network.up_0, network.up_1):
        hidden = plain_block(block, enlarged(hidden, 2 * hidden.shape[-1]), warped)
    return network.conv_img(functional.leaky_relu(hidden, SLOPE)).sigmoid()


def plain_block(block: SpadeResnetBlock, x: Tensor, features: Tensor) -> Tensor:
    """SpadeResnetBlock of a map that is enlarged already."""
    hidden = block.conv_0(functional.leaky_relu(plain_norm(block.norm_0, x, features), SLOPE))
    hidden = block.conv_1(functional.leaky_relu(plain_norm(block.norm_1, hidden, features), SLOPE))
    if block.conv_s is not None and block.norm_s is not None:
        x = block.conv_s(plain_norm(block.norm_s, x, features))
    return x + hidden


def plain_norm(norm: SpadeNorm, x: Tensor, features: Tensor) -> Tensor:
    """SPADE of a map and features that are enlarged to its size (Park et al. 2019, eq. 1)."""
    hidden = norm.mlp_shared(enlarged(features, x.shape[-1]))
    return functional.instance_norm(x) * (1 + norm.mlp_gamma(hidden)) + norm.mlp_beta(hidden)


def _of_enlarged(work: Callable[..., Tensor], x: Tensor, side: int, *others: Tensor) -> Tensor:
    return work(enlarged(x, side), *others)


def _of_doubled(conv: nn.Module, x: Tensor) -> Tensor:
    return conv(functional.interpolate(x, scale_factor=(1.0, 2.0, 2.0), mode="nearest"))


def enlarged(x: Tensor, side: int) -> Tensor:
    """A map enlarged by nearest neighbour."""
    return x if x.shape[-1] == side else functional.interpolate(x, size=(side, side), mode="nearest")
