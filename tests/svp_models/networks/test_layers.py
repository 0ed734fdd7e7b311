"""The plain layers against diffusers' own: the same parameters, the same numbers; shapes without memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import IPAdapterPlusImageProjectionBlock, TimestepEmbedding, Timesteps
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from svp_portrait.svp_models.networks import layers
from svp_portrait.svp_models.networks.audio_projection import ResamplerLayer

LOAD = """
import sys
from svp_portrait.svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
load_model(BUILTIN_MODEL)
print(sorted({"torch._dynamo", "sympy", "diffusers", "transformers"} & set(sys.modules)))
"""


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def resnet(channels_in: int, channels: int, time: int | None) -> torch.nn.Module:
    return ResnetBlock2D(in_channels=channels_in, out_channels=channels, temb_channels=time, groups=4, eps=1e-5)


CASES = {
    "resnet": (
        lambda: layers.ResnetBlock(8, 12, 16, 4, 1e-5), lambda: resnet(8, 12, 16), (draw(2, 8, 6, 7), draw(2, 16)), None,
    ),
    "resnet without time": (
        lambda: layers.ResnetBlock(8, 8, None, 4, 1e-5), lambda: resnet(8, 8, None), (draw(2, 8, 6, 7),), (None,),
    ),
    "downsample": (
        lambda: layers.Downsample(4, 6), lambda: Downsample2D(4, use_conv=True, out_channels=6, name="op"),
        (draw(2, 4, 7, 9),), None,
    ),
    "upsample": (
        lambda: layers.Upsample(4, 6), lambda: Upsample2D(4, use_conv=True, out_channels=6), (draw(2, 4, 3, 5),), None,
    ),
    "upsample to a size": (
        lambda: layers.Upsample(4), lambda: Upsample2D(4, use_conv=True), (draw(2, 4, 3, 5), (5, 9)), None,
    ),
    "feed forward": (
        lambda: layers.feed_forward(12), lambda: FeedForward(12, activation_fn="geglu"), (draw(2, 5, 12),), None,
    ),
    "self-attention": (
        lambda: layers.attention(12, 3), lambda: Attention(12, heads=3, dim_head=4), (draw(2, 5, 12),), None,
    ),
    "cross-attention, narrow": (
        lambda: layers.attention(12, 2, 10, 7), lambda: Attention(12, cross_attention_dim=10, heads=2, dim_head=3),
        (draw(2, 5, 12), draw(2, 4, 10)), None,
    ),
    "waves": (lambda: layers.Timesteps(12), lambda: Timesteps(12, True, 0), (torch.tensor([0.0, 7, 999]),), None),
    "waves of odd width": (lambda: layers.Timesteps(7), lambda: Timesteps(7, True, 0), (torch.tensor([3, 999]),), None),
    "time": (lambda: layers.TimestepEmbedding(12, 20), lambda: TimestepEmbedding(12, 20), (draw(3, 12),), None),
    "resampler": (
        lambda: ResamplerLayer(12, 5, 3, 4), lambda: IPAdapterPlusImageProjectionBlock(12, 5, 3, 4),
        (draw(2, 6, 12), draw(2, 4, 12)), (draw(2, 4, 12),),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_numbers_and_parameters_are_those_of_diffusers(name):
    """The last column: what diffusers' layer wants beside the same inputs."""
    ours, theirs, inputs, more = CASES[name]
    torch.manual_seed(0)
    ours, theirs = ours().eval(), theirs().eval()
    names = {key: value.shape for key, value in theirs.state_dict().items()}
    assert {key: value.shape for key, value in ours.state_dict().items()} == names
    assert list(ours.state_dict()) == list(names), "random weights are drawn in this order"
    ours.load_state_dict(theirs.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(ours(*inputs), theirs(*inputs, *(more or ())), rtol=0, atol=2e-6)


def test_layers_are_built_without_memory():
    with layers.shapes_only():
        layer, table = nn.Linear(3, 4), nn.Embedding(5, 6)
        normal = nn.init.normal_(torch.empty(2, 7))
    assert layer.weight.is_meta and table.weight.is_meta and table.weight.shape == (5, 6)
    assert normal.is_meta and normal.shape == (2, 7)
    assert nn.Embedding(5, 6).weight.std() > 0, "outside, weights are random as usual"


def test_the_built_in_model_is_read_without_a_compiler():
    done = subprocess.run([sys.executable, "-c", LOAD], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "[]"


def flops(work) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("factor, height, width", [(2, 5, 3), (3, 4, 4), (4, 1, 6)])
def test_convolved_from_the_small_map(factor, height, width, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=bias).double()
    x = torch.randn(2, 3, height, width, dtype=torch.float64)
    plain = conv(functional.interpolate(x, scale_factor=float(factor), mode="nearest"))
    torch.testing.assert_close(layers.convolve_enlarged(x, conv, factor), plain)


@torch.no_grad()
def test_the_products_of_a_large_map():
    """4/9 of the products at the factor 2; at 4, where two of four outputs are equal, 25/144. Sums of weights come on top."""
    conv, x = nn.Conv2d(4, 8, 3, padding=1), torch.randn(1, 4, 64, 64)
    for factor, share in ((2, 16 / 36), (4, 25 / 144)):
        plain = flops(lambda factor=factor: conv(functional.interpolate(x, scale_factor=float(factor))))
        ours = flops(lambda factor=factor: layers.convolve_enlarged(x, conv, factor))
        assert share <= ours / plain < 1.05 * share


@torch.no_grad()
def test_a_doubled_map_is_not_made_where_no_gradient_is_wanted():
    layer, x = layers.Upsample(6, 8), draw(16, 6, 8, 5)
    plain = layer.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
    torch.testing.assert_close(layer(x), plain, rtol=0, atol=1e-6)
    assert flops(lambda: layer(x)) < 0.7 * flops(lambda: layer.conv(x.new_empty(16, 6, 16, 10)))
    with torch.enable_grad():
        assert torch.equal(layer(x), plain)
    assert torch.equal(layer(x[:2]), plain[:2]), "of few cells it takes less time to double them"


@torch.no_grad()
def test_few_keys_are_put_into_the_layers_around_the_attention():
    layer, hidden, context = layers.attention(48, 3, 10), draw(2, 70, 48), draw(2, 5, 10)
    with torch.enable_grad():
        plain = layer(hidden, context).detach()
    torch.testing.assert_close(layer(hidden, context), plain, rtol=0, atol=1e-6)
    # A query takes part in 2 x 3 x 5 products a channel, and not in 2 x 48 and those with keys and values.
    assert flops(lambda: layer(hidden, context)) < 0.5 * 4 * 2 * 70 * 48 * 48
    given = layer.keys_values(context, queries=70)
    assert given.folded and torch.equal(layer.attend(hidden, given), layer(hidden, context))
    assert not layer.keys_values(context, queries=1).folded, "a single query is cheaper through the whole layers"


@torch.no_grad()
def test_attention_to_zero_tokens_is_the_bias_of_its_output():
    layer, hidden = layers.attention(12, 3, 10), draw(2, 7, 12)
    expected = layer(hidden, torch.zeros(2, 4, 10))
    torch.testing.assert_close(layer.to_nothing(hidden).expand_as(hidden), expected)
    torch.testing.assert_close(layer.to_nothing(hidden), layer.to_out[0].bias)
