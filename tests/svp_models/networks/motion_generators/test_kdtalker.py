from __future__ import annotations

import torch

from svp_portrait.svp_models.networks.motion_generators.kdtalker import RelativePositionBias, RotaryEmbedding, sinusoids


@torch.no_grad()
def test_the_noise_of_kdtalker(kdtalker, kdtalker_io, close):
    conditions = (kdtalker_io[name] for name in ("kd.audio", "kd.canonical", "kd.reference"))
    audio, canonical, reference = conditions
    for step in (0, 5):
        t = kdtalker_io["kd.timesteps"][step][None]
        ours = kdtalker(kdtalker_io[f"kd.input_{step}"], t, audio, canonical, reference)
        close(ours, kdtalker_io[f"kd.noise_pred_{step}"])


@torch.no_grad()
def test_turned_tokens_know_their_distance_alone():
    embedding = RotaryEmbedding(2)
    x = torch.randn(1, 6, generator=torch.Generator().manual_seed(0)).expand(5, 6)  # the same token at 5 positions
    turned = embedding(x)
    torch.testing.assert_close(turned[0], x[0])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert torch.equal(turned[:, 4:], x[:, 4:])  # two frequencies turn four channels
    products = turned @ turned.T
    torch.testing.assert_close(products.diagonal(1), products[0, 1].expand(4))
    torch.testing.assert_close(products.diagonal(3), products[0, 3].expand(2))


@torch.no_grad()
def test_far_frames_share_a_bias():
    bias = RelativePositionBias(32, 1)
    bias.relative_attention_bias.weight.copy_(torch.arange(32.0)[:, None])
    buckets = bias(300, torch.device("cpu"))[0]
    assert buckets[7, :8].tolist() == [7, 6, 5, 4, 3, 2, 1, 0]  # keys before the query, by distance
    assert buckets[0, :8].tolist() == [0, 17, 18, 19, 20, 21, 22, 23]  # after it
    assert buckets[8, 0] == buckets[11, 0] == 8 and buckets[12, 0] == 9  # from 8 on in powers
    assert buckets[299, 0] == buckets[127, 0] == 15 and buckets[0, 299] == 31


def test_timesteps_are_sines_then_cosines():
    waves = sinusoids(torch.tensor([0, 1]), 4)
    torch.testing.assert_close(waves[0], torch.tensor([0.0, 0.0, 1.0, 1.0]))
    torch.testing.assert_close(waves[1], torch.tensor([1.0, 1e-4, 1.0, 1e-4]).sin() * torch.tensor([1, 1, 0, 0])
                               + torch.tensor([1.0, 1e-4, 1.0, 1e-4]).cos() * torch.tensor([0, 0, 1, 1]))  # fmt: skip
