"""Style networks: the extractor gives a Gaussian over styles (sec. 3.1), the projection turns codes into tokens (sec. 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..config import StyleConfig
from ..errors import PortraitError
from .attention import sinusoidal_encoding

# Keeps the square root differentiable for a clip without variation (a single frame).
VARIANCE_FLOOR = 1e-8


class Branch(nn.Module):
    """One modality: Linear to d_s, sinusoidal positions, post-norm transformer layers (StyleTalk's encoder)."""

    def __init__(self, size: int, config: StyleConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(size, config.style_size)
        layer = nn.TransformerEncoderLayer(
            config.style_size, config.heads, config.feed_forward, config.dropout, batch_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)

    def forward(self, rows: Tensor, padding: Tensor) -> Tensor:
        """b n size, padding b n (True = ignore) -> b n d_s"""
        hidden = self.proj(rows)
        hidden = hidden + sinusoidal_encoding(hidden.shape[1], hidden.shape[2], hidden)
        return self.encoder(hidden, src_key_padding_mask=padding)


class StyleExtractor(nn.Module):
    """Audio features and expression coefficients of a clip -> mean and standard deviation of its style.

    Two branches, residual cross-attention (queries from the expression) and attention pooling (eq. 2-3).
    """

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        self.max_frames = config.max_frames
        self.audio = Branch(config.audio_size, config)
        self.expression = Branch(config.expression_size, config)
        self.cross = nn.MultiheadAttention(config.style_size, config.heads, config.dropout, batch_first=True)
        self.pool = nn.Linear(config.style_size, 1, bias=False)  # W_s

    def forward(self, audio: Tensor, expression: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """audio b n A, expression b n E (all zeros: missing), mask b n (True = valid) -> mu b d_s, sigma b d_s"""
        frames = mask.shape[1]
        if frames > self.max_frames:
            raise PortraitError(f"the style clip has {frames} frames, at most {self.max_frames} fit: cut it shorter")
        if not bool(mask.any(dim=1).all()):
            raise PortraitError("a style clip has no valid frame: give at least one frame with audio or a face")
        padding = ~mask
        from_audio, from_expression = self.audio(audio, padding), self.expression(expression, padding)  # b n d_s
        crossed, _ = self.cross(from_expression, from_audio, from_audio, key_padding_mask=padding, need_weights=False)
        return pooled_gaussian(from_expression + crossed, self.pool.weight, mask)


def pooled_gaussian(embedding: Tensor, weight: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """s_hat b n d_s, W_s 1 d_s, mask b n (True = valid) -> mean (eq. 2) and standard deviation (eq. 3), b d_s each."""
    scores = (embedding @ weight.T).masked_fill(~mask[..., None], -torch.inf)  # b n 1
    weights = scores.softmax(dim=1)
    mu = (weights * embedding).sum(dim=1)
    variance = (weights * (embedding - mu[:, None]) ** 2).sum(dim=1)
    return mu, (variance + VARIANCE_FLOOR).sqrt()


def sample_code(mu: Tensor, sigma: Tensor, generator: torch.Generator, temperature: float = 1.0) -> Tensor:
    """s = mu + temperature x sigma x eps (eq. 4), of the shape of mu; the generator draws eps on the CPU."""
    noise = torch.randn(mu.shape, generator=generator).to(mu)
    return mu + temperature * sigma * noise


class StyleProjection(nn.Module):
    """One style code per frame -> tokens for the style attention: a linear layer and LayerNorm.

    Several tokens, because attention to a single one cannot vary over the image.
    """

    def __init__(self, style_size: int, tokens: int, out_size: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.proj = nn.Linear(style_size, tokens * out_size)
        self.norm = nn.LayerNorm(out_size)

    def forward(self, codes: Tensor) -> Tensor:
        """n d_s -> n tokens out_size"""
        return self.norm(self.proj(codes).unflatten(-1, (self.tokens, -1)))
