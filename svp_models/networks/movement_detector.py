"""Finds named head movements in a head's pose: convolutions over time, a class for every frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

POSE_UNITS = (4.0, 2.5, 2.5, 0.012, 0.010, 0.02)  # of yaw, pitch, roll in degrees, shift x and y, scale
WIDTH, KERNEL, DILATIONS = 48, 5, (1, 2, 4, 8, 12)


class MovementDetector(nn.Module):
    """Poses b n 6 (25 frames a second, as in synthetic.identity.FaceStates) -> scores of the classes, b n k; class 0 is none."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 2 * len(POSE_UNITS)
        for dilation in DILATIONS:
            padding = dilation * (KERNEL // 2)
            layers += [
                nn.Conv1d(channels, WIDTH, KERNEL, padding=padding, dilation=dilation, padding_mode="replicate"),
                nn.BatchNorm1d(WIDTH),
                nn.SiLU(),
            ]
            channels = WIDTH
        self.layers = nn.Sequential(*layers)
        self.out = nn.Conv1d(WIDTH, classes, 1)

    def forward(self, pose: Tensor) -> Tensor:
        centred = (pose - pose.mean(dim=1, keepdim=True)) / pose.new_tensor(POSE_UNITS)
        speed = torch.diff(centred, dim=1, prepend=centred[:, :1]) * 5
        return self.out(self.layers(torch.cat([centred, speed], dim=-1).transpose(1, 2))).transpose(1, 2)
