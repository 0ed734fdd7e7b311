from __future__ import annotations

import torch

from svp_portrait.svp_models.networks.liveportrait.stitching import KeypointMLP


@torch.no_grad()
def test_negative_values_pass_the_last_layer_alone():
    network = KeypointMLP((1, 1, 1))
    for layer in (network.mlp[0], network.mlp[2]):
        layer.weight.fill_(-1.0)
        layer.bias.zero_()
    assert network(torch.tensor([[2.0], [-3.0]])).flatten().tolist() == [0.0, -3.0]
