"""LivePortrait's stitching and retargeting networks S and R: small corrections of key points (Guo et al. 2024, sec. 3.2-3.3)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

# Widths of the published networks, from input to output; 63 are 21 points, 65 of them with a shift in x and y.
SHOULDER_WIDTHS = (126, 128, 128, 64, 65)  # source and driving points -> corrections and shift
MOUTH_WIDTHS = (65, 128, 128, 64, 63)  # source points, its own mouth ratio, the wanted one -> corrections
EYE_WIDTHS = (
    66,
    256,
    256,
    128,
    128,
    64,
    63,
)  # source points, its own ratios of two eyes, the wanted one -> corrections


class KeypointMLP(nn.Module):
    """Linear layers with ReLU between them: n widths[0] -> n widths[-1]."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.widths = widths
        layers: list[nn.Module] = []
        for narrow, wide in pairwise(widths):
            layers += [nn.Linear(narrow, wide), nn.ReLU()]
        self.mlp = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)
