from __future__ import annotations

import torch

from svp_portrait.svp_models.networks.liveportrait.motion_extractor import ChannelNorm, GlobalResponseNorm


@torch.no_grad()
def test_the_outputs_of_liveportrait(liveportrait_networks, liveportrait_io, close):
    outputs = liveportrait_networks.motion(liveportrait_io["source"])
    for name, tensor in outputs.items():
        close(tensor, liveportrait_io[f"motion_raw.{name}"])
    assert {f"motion_raw.{name}" for name in outputs} == {name for name in liveportrait_io if "motion_raw" in name}


@torch.no_grad()
def test_channels_with_more_than_their_share_grow():
    norm = GlobalResponseNorm(2)
    x = torch.tensor([[[[3.0, 1.0]], [[4.0, 0.0]]]])  # 1 2 1 2, norms 5 and 1, their mean 3
    torch.testing.assert_close(norm(x), x)
    norm.gamma.fill_(1.0)
    norm.beta.fill_(0.5)
    torch.testing.assert_close(norm(x), x + x * torch.tensor([5 / 3, 1 / 3]) + 0.5)


@torch.no_grad()
def test_the_norm_is_over_channels():
    x = torch.tensor([1.0, 3.0])[None, :, None, None].expand(1, 2, 2, 3) * torch.arange(1, 4)
    torch.testing.assert_close(ChannelNorm(2)(x)[0, :, 0, 0], torch.tensor([-1.0, 1.0]), rtol=1e-4, atol=1e-4)
    assert ChannelNorm(2)(x).shape == x.shape
