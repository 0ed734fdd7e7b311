"""The mask between generated face and portrait: open at first, and it learns where they have to differ."""

from __future__ import annotations

import pytest
import torch

from svp_portrait.svp_models.networks.face_mask import FaceMask


def test_an_untrained_mask_is_the_same_everywhere():
    mask = FaceMask(16)(torch.rand(2, 3, 32, 24), torch.rand(2, 3, 32, 24))
    assert mask.shape == (2, 1, 32, 24)
    torch.testing.assert_close(mask, torch.full_like(mask, 0.7310586))  # sigmoid of 1


def test_it_learns_to_open_where_the_face_is_right():
    """The generated crop is right in its left half and noise in its right half."""
    torch.manual_seed(0)
    network = FaceMask(16)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        truth = torch.rand(4, 3, 32, 32) * 2 - 1
        warped = torch.where(torch.arange(32) < 16, -truth, truth)
        generated = torch.where(torch.arange(32) < 16, truth, torch.rand_like(truth))
        mask = network(warped, generated)
        loss = (torch.lerp(warped, generated, mask) - truth).abs().mean() + 0.01 * mask.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert mask[..., :12].mean().item() == pytest.approx(1, abs=0.1)
    assert mask[..., 20:].mean().item() == pytest.approx(0, abs=0.1)
