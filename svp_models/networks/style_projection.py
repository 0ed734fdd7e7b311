"""Style projection: one style code per frame -> tokens for the style attention (sec. 3.2)."""

from __future__ import annotations

from torch import Tensor, nn


class StyleProjection(nn.Module):
    """Linear and LayerNorm; several tokens, since attention over a single one could not vary over the picture."""

    def __init__(self, style_size: int, tokens: int, out_size: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.proj = nn.Linear(style_size, tokens * out_size)
        self.norm = nn.LayerNorm(out_size)

    def forward(self, codes: Tensor) -> Tensor:
        """n d_s -> n tokens out_size"""
        return self.norm(self.proj(codes).unflatten(-1, (self.tokens, -1)))
