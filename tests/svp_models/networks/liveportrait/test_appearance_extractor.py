from __future__ import annotations

import torch

from svp_portrait.svp_models.networks.liveportrait.appearance_extractor import AppearanceConfig


@torch.no_grad()
def test_the_volume_of_liveportrait(liveportrait_networks, liveportrait_io, close):
    close(liveportrait_networks.appearance(liveportrait_io["source"]), liveportrait_io["feature_3d"])


def test_channels_double_up_to_the_most():
    assert AppearanceConfig().widths == [64, 128, 256]
    assert AppearanceConfig(block_expansion=8, num_down_blocks=3, max_features=24).widths == [8, 16, 24, 24]
