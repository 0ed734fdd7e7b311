"""The portrait model: its networks, VAE, face analyser and config."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from .config import ModelConfig
from .networks.audio_encoder import AudioEncoder
from .networks.audio_projection import AudioProjection, ExpressionProjection
from .networks.denoiser import Denoiser
from .networks.dense_motion import DenseMotion
from .networks.face_mask import FaceMask
from .networks.pose_guider import PoseGuider
from .networks.style_extractor import StyleExtractor, StyleProjection
from .networks.unet import ReferenceNet
from .networks.vae import Vae


class PortraitNetworks(nn.Module):
    """The networks that are trained together: the module has no forward."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        unet, style = config.unet, config.style
        self.denoiser = Denoiser(unet, style=unet.style_attention)
        self.reference = ReferenceNet(unet)
        self.guider = PoseGuider(config.guider, unet.block_out_channels[0])
        self.audio_projection = AudioProjection(config.audio, unet.cross_attention_dim)
        self.style_projection = StyleProjection(style.style_size, style.tokens, unet.cross_attention_dim)
        self.style_extractor = StyleExtractor(style)
        self.expression_projection = ExpressionProjection(unet) if unet.expression_size else None
        crop = config.face_crop
        self.face_mask = FaceMask(crop.mask_width) if crop.mask_width else None
        self.dense_motion = DenseMotion(crop.dense_width) if crop.dense_width else None


@dataclass
class PortraitModel:
    """A model ready for use.

    face_analyzer: ONNX bytes; style_space: identifies the style extractor, whose styles alone fit; audio_encoder: for models
    with Whisper or wav2vec2 features, not saved with the model; device: on which the networks compute, None for that of their
    weights. A host can store weights elsewhere, and its layers move them to the input's device one by one.
    """

    config: ModelConfig
    networks: PortraitNetworks
    vae: Vae
    face_analyzer: bytes | None
    style_space: str
    metadata: dict[str, str] = field(default_factory=dict)
    audio_encoder: AudioEncoder | None = None
    device: torch.device | None = None

    def like(self, network: nn.Module) -> Tensor:
        """An empty tensor with the device and dtype of a network's computations, for `tensor.to(...)`."""
        weight = next(network.parameters())
        return torch.empty(0, device=self.device or weight.device, dtype=weight.dtype)


def build_networks(config: ModelConfig) -> PortraitNetworks:
    """Networks with random weights; inside `shapes_only` without memory."""
    return PortraitNetworks(config)


def parameter_group(name: str) -> str:
    """The parameter group of a tensor of PortraitNetworks by its name.

    Groups of the denoiser are spatial, temporal, audio and style; other tensors have the name of their network.
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
