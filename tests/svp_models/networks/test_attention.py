"""Transformer blocks and positional encodings in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.networks import attention
from svp_portrait.svp_models.networks.attention import (
    AttentionConfig,
    BlockContext,
    SpatialTransformer,
    TransformerBlock,
    add_feed_forward,
    sinusoidal_encoding,
)
from svp_portrait.svp_models.networks.conditions import ConditionWeights

FRAMES, CELLS, CHANNELS, WIDTH = 3, 5, 12, 7


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def randomized(module: torch.nn.Module) -> torch.nn.Module:
    """Every parameter random, those that start at zero or one too."""
    torch.manual_seed(4)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module.eval()


@pytest.fixture
def block():
    return randomized(TransformerBlock(CHANNELS, 3, WIDTH, AttentionConfig(reference=True, style=True, style_width=6)))


@pytest.fixture
def context():
    bank = (draw(1, 4, CHANNELS), draw(1, 6, CHANNELS))
    return BlockContext(FRAMES, tokens=draw(FRAMES, 2, WIDTH), style=draw(FRAMES, 4, WIDTH), reference=bank)


def test_positions_are_sines_and_cosines_of_falling_rates():
    table = sinusoidal_encoding(20, 6, torch.zeros(()))
    for position in (0, 1, 19):
        for pair in range(3):
            angle = position * 10000 ** (-2 * pair / 6)
            assert table[position, 2 * pair].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)
    assert sinusoidal_encoding(2, 4, torch.zeros((), dtype=torch.float16)).dtype == torch.float16


@torch.no_grad()
def test_the_layers_follow_one_another_with_residuals_and_weights(block, context):
    block.index = 1
    weights = ConditionWeights(reference=0.7, audio=1.6, style=0.4)
    hidden = draw(FRAMES, CELLS, CHANNELS)
    expected = hidden + block.attn1(block.norm1(hidden))
    portrait = context.reference[1].expand(FRAMES, -1, -1)
    expected = expected + 0.7 * block.reference_attn(block.reference_norm(expected), portrait)
    expected = expected + 1.6 * block.attn2(block.norm2(expected), context.tokens)
    expected = expected + 0.4 * block.style_attn(block.style_norm(expected), context.style)  # eq. 5
    expected = expected + block.ff(block.norm3(expected))
    torch.testing.assert_close(block(hidden, replace(context, weights=weights)), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_bank_gets_what_the_audio_attention_reads(block, context):
    bank: list[torch.Tensor] = []
    hidden = draw(FRAMES, CELLS, CHANNELS)
    block(hidden, replace(context, reference=(), bank=bank))
    torch.testing.assert_close(bank[0], block.norm2(hidden + block.attn1(block.norm1(hidden))))
    assert len(bank) == 1


def test_style_layers_start_silent():
    fresh = TransformerBlock(CHANNELS, 3, WIDTH, AttentionConfig(style=True)).style_attn.to_out[0]
    assert not fresh.weight.any() and not fresh.bias.any()


@torch.no_grad()
def test_chunks_of_the_feed_forward_do_not_show(block, monkeypatch):
    hidden = draw(2, 9, CHANNELS)
    whole = hidden + block.ff(block.norm3(hidden))
    calls = []
    block.ff.register_forward_pre_hook(lambda module, inputs: calls.append(inputs[0].numel()))
    monkeypatch.setattr(attention, "CPU_TOKENS", 5)
    torch.testing.assert_close(add_feed_forward(hidden, block.norm3, block.ff), whole)
    assert calls == [5 * CHANNELS] * 3 + [3 * CHANNELS], "18 tokens, 5 at a time"


@torch.no_grad()
def test_a_spatial_transformer_keeps_every_cell_in_its_place(context):
    """Heads that do not divide the channels get the next smaller width; with all layers of the block silent it is linear."""
    layer = randomized(SpatialTransformer(CHANNELS, 5, WIDTH, 4, AttentionConfig()))
    assert layer.proj_in.out_channels == 10
    for name, parameter in layer.transformer_blocks.named_parameters():
        if name.rsplit(".", 2)[-2] in ("0", "2"):  # the projections that write to the residual stream
            parameter.zero_()
    images = draw(FRAMES, CHANNELS, 2, 4)
    normed = torch.nn.functional.group_norm(images, 4, layer.norm.weight, layer.norm.bias, eps=1e-6)
    found = layer(images, replace(context, reference=(), style=None))
    torch.testing.assert_close(found, images + layer.proj_out(layer.proj_in(normed)), rtol=1e-5, atol=1e-5)
