"""All networks of a model that are trained together, built from one config."""

from __future__ import annotations

from torch import nn

from ..config import ModelConfig
from .audio_projection import AudioProjection
from .denoiser import Denoiser
from .kps_guider import KpsGuider
from .reference import ReferenceNet
from .style_extractor import StyleExtractor
from .style_projection import StyleProjection


class PortraitNetworks(nn.Module):
    """Denoiser, ReferenceNet, guider, audio projection, style projection and style extractor. It has no forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        unet, style = config.unet, config.style
        self.denoiser = Denoiser(unet, style=unet.style_attention)
        self.reference = ReferenceNet(unet)
        self.guider = KpsGuider(config.guider, unet.block_out_channels[0])
        self.audio_projection = AudioProjection(config.audio, unet.cross_attention_dim)
        self.style_projection = StyleProjection(style.style_size, style.tokens, unet.cross_attention_dim)
        self.style_extractor = StyleExtractor(style)


def build_networks(config: ModelConfig) -> PortraitNetworks:
    """Freshly initialised networks; inside `torch.device("meta")` only their shapes."""
    return PortraitNetworks(config)
