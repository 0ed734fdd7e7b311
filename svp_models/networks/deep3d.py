"""Deep3DFaceRecon's network: an aligned photograph -> coefficients of a 3D face; SVP uses its expression and pose.

ResNet-50 and seven 1 x 1 heads (Deng et al., CVPRW 2019). Parameter names are those of the published file.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

DEPTHS = (3, 4, 6, 3)  # bottlenecks of the four stages
STEM = 64  # channels
EXPANSION = 4
# Head -> number of its coefficients, in the order of the file.
HEADS = {"identity": 80, "expression": 64, "texture": 80, "angle": 3, "light": 27, "shift": 2, "distance": 1}


class _Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (with the stride), 1 x 1 to four times the width, plus the input."""

    def __init__(self, channels: int, width: int, stride: int):
        super().__init__()
        wide = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, wide, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(wide)
        self.downsample = None
        if stride != 1 or channels != wide:
            self.downsample = nn.Sequential(nn.Conv2d(channels, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.bn1(self.conv1(x)).relu()
        hidden = self.bn2(self.conv2(hidden)).relu()
        hidden = self.bn3(self.conv3(hidden))
        return (hidden + (x if self.downsample is None else self.downsample(x))).relu()


class _Backbone(nn.Module):
    def __init__(self, stem: int, depths: tuple[int, ...]):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = stem
        for number, depth in enumerate(depths, start=1):
            width = stem * 2 ** (number - 1)
            blocks = []
            for index in range(depth):
                blocks.append(_Bottleneck(channels, width, stride=2 if index == 0 and number > 1 else 1))
                channels = width * EXPANSION
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.stages = len(depths)
        self.channels = channels

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.maxpool(self.bn1(self.conv1(images)).relu())
        for number in range(1, self.stages + 1):
            hidden = getattr(self, f"layer{number}")(hidden)
        return hidden.mean(dim=(2, 3), keepdim=True)  # n c 1 1


class Deep3DNetwork(nn.Module):
    """images: n 3 224 224, RGB in [0, 1], aligned on five points (`face.expression`) -> coefficients by name, n k each.

    `expression` n 64; `angle` n 3 in radians about x, y and z (x right, y up, z towards the viewer).
    """

    def __init__(self, stem: int = STEM, depths: tuple[int, ...] = DEPTHS):
        super().__init__()
        self.backbone = _Backbone(stem, depths)
        self.final_layers = nn.ModuleList(nn.Conv2d(self.backbone.channels, count, 1) for count in HEADS.values())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        hidden = self.backbone(images)
        return {name: torch.flatten(head(hidden), 1) for name, head in zip(HEADS, self.final_layers, strict=True)}
