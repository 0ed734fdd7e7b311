from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.diffusion.conditioning import ClipConditions
from svp_portrait.svp_models.diffusion.conditioning_cache import KeyValueCache
from svp_portrait.svp_models.diffusion.guidance import FASTEST
from svp_portrait.svp_models.diffusion.pipeline import PortraitPipeline, SamplerOptions
from svp_portrait.svp_models.evaluation.bench import gflop
from svp_portrait.svp_models.networks.conditions import AS_TRAINED
from svp_portrait.svp_models.types import Style

FRAMES, STEPS = 7, 3  # two windows of four frames
OPTIONS = SamplerOptions(steps=STEPS, cfg=2.0)
ATTENTIONS = ("reference_attn", "attn2", "style_attn")


class Uncached:
    """Conditions as they are, whose keys and values the denoiser makes in every step."""

    def __init__(self, denoiser, conditions: ClipConditions, *_, **__) -> None:
        self.conditions = conditions

    def windows(self, numbers, indices, like):
        return self.conditions.windows(indices, like)


@pytest.fixture
def inputs(model, clip):
    portrait = torch.rand(3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pipeline = PortraitPipeline(model)
    return pipeline.prepare(portrait, clip.audio, clip.motion(FRAMES), clip.style, FRAMES, 25.0, clip.size)


@pytest.fixture
def rows(model):
    """How many rows of keys every kind of attention has projected, in the first block of the denoiser."""
    count = dict.fromkeys(ATTENTIONS, 0)
    block = model.networks.denoiser.transformer_blocks()[0]
    hooks = []
    for name in ATTENTIONS:

        def add(module, given, result, name=name):
            count[name] += len(result)

        hooks.append(getattr(block, name).to_k.register_forward_hook(add))
    yield count
    for hook in hooks:
        hook.remove()


def sampled(model, inputs, plan=FASTEST):
    pipeline = PortraitPipeline(model)
    return pipeline.denoise(inputs, pipeline.encode_conditions(inputs), 7, OPTIONS, plan=plan)


def uncached(model, inputs, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("svp_portrait.svp_models.diffusion.noise_prediction.KeyValueCache", Uncached)
        return sampled(model, inputs)


def test_keys_and_values_are_made_once(model, inputs, clip, rows, monkeypatch):
    plain = uncached(model, inputs, monkeypatch)
    assert rows == {"reference_attn": 2 * STEPS, "attn2": 8 * STEPS, "style_attn": 8 * STEPS}
    rows.update(dict.fromkeys(ATTENTIONS, 0))
    assert torch.equal(sampled(model, inputs), plain)
    assert rows == {"reference_attn": 1, "attn2": 8, "style_attn": 8}
    rows.update(dict.fromkeys(ATTENTIONS, 0))
    still = replace(inputs, style=Style(clip.style.codes[:1], clip.style.style_space))
    sampled(model, still)
    assert rows == {"reference_attn": 1, "attn2": 8, "style_attn": 2}, "a style that stays has one row a window"


@torch.no_grad()
def test_the_products_are_those_of_making_them_once(model, inputs, monkeypatch):
    model = replace(model, networks=deepcopy(model.networks).requires_grad_(False))
    plain = gflop(lambda: uncached(model, inputs, monkeypatch))
    denoiser, pipeline = model.networks.denoiser, PortraitPipeline(model)
    conditions = pipeline.encode_conditions(inputs)
    like, index = torch.zeros(1), list(range(4))
    window = conditions.window(index, like)
    cells = [features.shape[1] for features in window.reference]
    reference = gflop(lambda: denoiser.reference_keys(window.reference, len(index)))
    tokens = gflop(lambda: denoiser.prepare(window, cells))
    assert reference > 0 and tokens > 0
    expected = plain - (2 * STEPS - 1) * reference - 2 * (STEPS - 1) * tokens
    assert gflop(lambda: sampled(model, inputs)) == pytest.approx(expected, rel=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("windows", [0, 1])
def test_what_does_not_fit_is_made_in_every_step(model, inputs, rows, windows, monkeypatch):
    plain = uncached(model, inputs, monkeypatch)
    pipeline = PortraitPipeline(model)
    conditions = pipeline.encode_conditions(inputs)
    denoiser, like = model.networks.denoiser, torch.zeros(1)
    whole = KeyValueCache(denoiser, conditions, AS_TRAINED, 2**30).window(0, [0, 1, 2, 3], like).keys
    size = sum(entry.nbytes for part in (whole.audio, whole.style) for entry in part)
    rows.update(dict.fromkeys(ATTENTIONS, 0))
    assert torch.equal(sampled(model, inputs, replace(FASTEST, key_bytes=windows * size + 1)), plain)
    made = 8 * STEPS if not windows else 4 + 4 * STEPS
    assert rows == {"reference_attn": 1, "attn2": made, "style_attn": made}
