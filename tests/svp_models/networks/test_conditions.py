"""Zeroing, dropping, cutting and stacking of conditions."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.networks.conditions import Conditions, cat


@pytest.fixture
def conditions():
    torch.manual_seed(0)
    return Conditions(
        reference=(torch.randn(2, 9, 4), torch.randn(2, 4, 8)),
        reference_latent=torch.randn(2, 4, 3, 3),
        audio=torch.randn(2, 5, 3, 6),
        kps=torch.randn(2, 5, 4, 3, 3),
        style=torch.randn(2, 5, 16, 6),
        reference_warped=torch.randn(2, 5, 4, 3, 3),
    )


def tensors(conditions: Conditions) -> list[torch.Tensor]:
    rest = [
        conditions.reference_latent,
        conditions.audio,
        conditions.kps,
        conditions.style,
        conditions.reference_warped,
    ]
    return [*conditions.reference, *(each for each in rest if each is not None)]


def test_unconditional_is_zero_where_it_is_added_and_empty_where_it_is_attended_to(conditions):
    zero = conditions.unconditional()
    for name in ("kps", "reference_latent", "reference_warped"):
        assert torch.equal(getattr(zero, name), torch.zeros_like(getattr(conditions, name)))
    assert [len(value) for value in (*zero.reference, zero.audio, zero.style)] == [0, 0, 0, 0]
    assert zero.unconditional_clips == 2


def test_keep_drops_whole_clips(conditions):
    kept = conditions.mask(torch.tensor([True, False]))
    for before, after in zip(tensors(conditions), tensors(kept), strict=True):
        assert torch.equal(after[0], before[0]) and not after[1].any()


def test_frames_cuts_what_varies_over_the_clip(conditions):
    cut = conditions.frames([4, 1])
    assert torch.equal(cut.audio, conditions.audio[:, [4, 1]])
    assert torch.equal(cut.kps, conditions.kps[:, [4, 1]]) and torch.equal(cut.style, conditions.style[:, [4, 1]])
    assert torch.equal(cut.reference_warped, conditions.reference_warped[:, [4, 1]])
    assert cut.reference is conditions.reference and cut.reference_latent is conditions.reference_latent
    assert replace(conditions, style=None).frames([0]).style is None


def test_cat_and_to(conditions):
    both = cat(conditions.unconditional(), conditions)
    assert len(both.kps) == 4 and both.unconditional_clips == 2
    assert torch.equal(both.audio, conditions.audio) and torch.equal(both.reference[1], conditions.reference[1])
    assert all(each.dtype == torch.float16 for each in tensors(both.to("cpu", torch.float16)))
    bare = replace(conditions, style=None, reference_latent=None, reference_warped=None)
    assert cat(bare, bare).style is None
    with pytest.raises(PortraitError, match="the other way round"):
        cat(conditions, conditions.unconditional())
    with pytest.raises(PortraitError, match="carries a style"):
        cat(conditions, replace(conditions, style=None))


def test_guidance_may_keep_the_portrait(conditions):
    given = replace(conditions, expression=torch.randn(2, 5, 2, 6))
    zero = given.unconditional(keep_portrait=True)
    assert [len(value) for value in (zero.audio, zero.style, zero.expression)] == [0, 0, 0]
    assert torch.equal(zero.reference_warped, given.reference_warped) and torch.equal(zero.kps, given.kps)
    assert zero.reference is given.reference and torch.equal(zero.reference_latent, given.reference_latent)
    both = cat(zero, given)
    assert torch.equal(both.expression, given.expression) and len(both.reference[0]) == 4
    assert torch.equal(given.frames([3, 1]).expression, given.expression[:, [3, 1]])
