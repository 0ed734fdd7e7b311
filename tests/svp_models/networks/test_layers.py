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
