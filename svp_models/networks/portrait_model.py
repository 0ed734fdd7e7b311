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


def parameter_group(name: str) -> str:
    """The group a tensor of PortraitNetworks belongs to by its name.

    Parts of the denoiser are spatial, temporal, audio or style; everything else is of the group of its network's name.
    """
    network, _, rest = name.partition(".")
    if network != "denoiser":
        return network
    if "motion_modules" in rest:
        return "temporal"
    if "style_" in rest:
        return "style"
    if ".attn2." in rest or "audio_embedding" in rest or (".norm2." in rest and "transformer_blocks" in rest):
        return "audio"
    return "spatial"
