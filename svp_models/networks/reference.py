"""ReferenceNet: the portrait's features for the denoiser's reference attention (sec. 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import UNetConfig
from .attention import BlockContext, BlockKind
from .unet import UNet


class ReferenceNet(UNet):
    """Stable Diffusion 1.5's UNet without its last norm, run once on the portrait at t = 0.

    The file format it shares with V-Express has `conv_out`; nothing reads that layer's output, so it is never run.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__(config, config.latent_channels, BlockKind())
        self.cross_attention_dim = config.cross_attention_dim

    def forward(self, latent: Tensor) -> tuple[Tensor, ...]:
        """Scaled portrait latent b c h w -> bank: what every transformer block hands to its cross-attention, b t c each."""
        batch = len(latent)
        time = self.embed_time(torch.zeros(batch, device=latent.device))
        context = BlockContext(frames=1, tokens=latent.new_zeros(batch, 1, self.cross_attention_dim), bank=[])
        self.trunk(self.conv_in(latent), time, context)
        return tuple(context.bank)
