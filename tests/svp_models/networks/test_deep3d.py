from __future__ import annotations

import pytest
import torch
from transformers import ResNetConfig, ResNetModel

from svp_portrait.svp_models.networks.deep3d import HEADS, Deep3DNetwork

STEM, DEPTHS = 8, (1, 2, 1, 1)
PARTS = {"convolution": "conv", "normalization": "bn"}


def own_name(name: str) -> str:
    """A name of transformers' ResNet in the published file's words."""
    words = name.split(".")
    if words[0] == "embedder":
        return f"{PARTS[words[2]]}1.{words[3]}"
    _, _, stage, _, layer, part, *rest = words
    block = f"layer{int(stage) + 1}.{layer}"
    if part == "shortcut":
        return f"{block}.downsample.{0 if rest[0] == 'convolution' else 1}.{rest[1]}"
    return f"{block}.{PARTS[rest[1]]}{int(rest[0]) + 1}.{rest[2]}"


def test_the_backbone_is_resnet():
    torch.manual_seed(0)
    config = ResNetConfig(
        embedding_size=STEM,
        hidden_sizes=[STEM * 4 * 2**i for i in range(4)],
        depths=list(DEPTHS),
        layer_type="bottleneck",
    )
    theirs = ResNetModel(config).eval()
    for name, tensor in theirs.state_dict().items():
        if tensor.is_floating_point() and "normalization" in name:
            tensor.uniform_(0.5, 1.5)  # fresh norms are the identity and would hide a mix-up
    network = Deep3DNetwork(STEM, DEPTHS).eval()
    network.backbone.load_state_dict({own_name(name): tensor for name, tensor in theirs.state_dict().items()})
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(network.backbone(images), theirs(images).pooler_output, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_each_head_is_a_linear_map_of_the_pooled_features(count):
    network = Deep3DNetwork(STEM, DEPTHS).eval()
    images = torch.rand(count, 3, 64, 64)
    with torch.no_grad():
        pooled = network.backbone(images).flatten(1)
        found = network(images)
    assert {name: tuple(each.shape) for name, each in found.items()} == {name: (count, n) for name, n in HEADS.items()}
    head = network.final_layers[1]
    torch.testing.assert_close(found["expression"], pooled @ head.weight.flatten(1).T + head.bias)


def test_the_published_size():
    with torch.device("meta"):
        shapes = {name: tuple(each.shape) for name, each in Deep3DNetwork().state_dict().items()}
    assert shapes["backbone.conv1.weight"] == (64, 3, 7, 7)
    assert shapes["backbone.layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["backbone.layer3.5.conv2.weight"] == (256, 256, 3, 3)
    assert shapes["backbone.layer4.2.bn3.running_var"] == (2048,)
    assert [shapes[f"final_layers.{index}.weight"][0] for index in range(7)] == [80, 64, 80, 3, 27, 2, 1]
    assert len(shapes) == 53 + 53 * 5 + 14  # convolutions, batch norms, heads
