"""Every size and choice of the system as frozen dataclasses, and the three presets built from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from .errors import PortraitError


@dataclass(frozen=True)
class VaeConfig:
    """Image <-> latent. kind `portrait`: the pack's small autoencoder; `sd15`: AutoencoderKL as Stable Diffusion 1.5 has it."""

    kind: str = "sd15"
    latent_channels: int = 4
    scale: float = 0.18215  # scaled latent = latent x scale
    downscale: int = 8  # pixels per latent cell and side
    fold: int = 1  # portrait: pixels folded into channels before the first convolution
    encoder_widths: tuple[int, ...] = (128, 256, 512, 512)
    decoder_widths: tuple[int, ...] = (512, 512, 256, 128)
    layers: int = 2


@dataclass(frozen=True)
class UNetConfig:
    """Denoiser and ReferenceNet; names follow diffusers' UNet2DConditionModel where it has them."""

    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280)
    layers_per_block: int = 2
    attention_levels: tuple[bool, ...] = (True, True, True, False)
    attention_heads: int | tuple[int, ...] = 8  # of all levels or of each; a head has width // heads channels
    cross_attention_dim: int = 768
    norm_groups: int = 32
    style_attention: bool = True
    style_width: int = 0  # of the style attention inside, at most the block's; 0: as wide as the block
    reference_concat: bool = False  # portrait latent also stacked onto the input channels, as image-to-video models do
    reference_warp: bool = False  # and that of the portrait bent to the frame's head keypoints
    condition_embedding: bool = False  # audio and style also join the time embedding, which reaches every layer
    motion_heads: int = 8
    motion_groups: int = 32
    motion_positions: int = 32  # longest window of frames
    motion_mid_block: bool = True


@dataclass(frozen=True)
class GuiderConfig:
    """Head-Kps picture (3 x H x W) -> features added behind the denoiser's first convolution."""

    channels: tuple[int, ...] = (16, 32, 96, 256)


@dataclass(frozen=True)
class AudioConfig:
    """Audio features and their projection to tokens. features: `mel`, `whisper` or `wav2vec2`."""

    features: str = "whisper"
    feature_size: int = 1920
    window: int = 5  # rows around a frame that the projection sees
    rows_per_frame: int = 1
    tokens: int = 5
    layers: int = 4
    heads: int = 12
    head_size: int = 64
    width: int | None = None  # channels inside the projection; None: as many as a token has
    feed_forward: int = 4  # channels of its feed-forward layers, in widths


@dataclass(frozen=True)
class StyleConfig:
    """Style extractor (eq. 2-4) and style projection (style code -> tokens)."""

    expression_size: int = 64
    audio_size: int = 1920
    style_size: int = 256  # d_s
    layers: int = 3
    heads: int = 8
    feed_forward: int = 1024
    dropout: float = 0.1
    max_frames: int = 256
    tokens: int = 16


@dataclass(frozen=True)
class SchedulerConfig:
    """Noise schedule shared by training and sampling."""

    prediction: str = "v_prediction"  # or epsilon, or sample: the clean latent itself
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    train_steps: int = 1000
    zero_terminal_snr: bool = True
    timestep_spacing: str = "trailing"
    steps_offset: int = 1
    exact_terminal: bool = False  # zero terminal SNR is exactly 0 and not 2^-24, as V-Express' DDIM has it


@dataclass(frozen=True)
class ModelConfig:
    """A whole model. size: pixels per side it was trained at; fps: frame rate it was trained at."""

    name: str
    size: int = 512
    fps: float = 25.0
    window: int = 24
    overlap: int = 4
    keypoints: str = "head8"  # or vexpress3
    reference_weight: float = 1.0  # the strength of each attention that a sampler's weight of 1 stands for
    audio_weight: float = 1.0
    residual: bool = False  # the difference to the (bent) portrait's latent is diffused: still parts need no learning
    steps: int = 25  # what sampling takes unless told otherwise
    cfg: float = 3.5
    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    guider: GuiderConfig = field(default_factory=GuiderConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    style: StyleConfig = field(default_factory=StyleConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)


PRESETS: dict[str, ModelConfig] = {
    "demo": ModelConfig(
        name="demo",
        size=128,
        window=6,
        overlap=2,
        residual=True,
        steps=1,
        cfg=1.0,
        unet=UNetConfig(
            latent_channels=48,
            block_out_channels=(56, 72, 96),
            layers_per_block=1,
            attention_levels=(False, True, True),
            attention_heads=4,
            cross_attention_dim=128,
            norm_groups=8,
            reference_concat=True,
            reference_warp=True,
            condition_embedding=True,
            motion_heads=4,
            motion_groups=8,
            motion_positions=32,
        ),
        vae=VaeConfig(
            kind="portrait",
            latent_channels=48,
            scale=1.0,
            fold=4,
            encoder_widths=(24, 48),
            decoder_widths=(96, 64, 24),
            layers=2,
        ),
        guider=GuiderConfig(channels=(8, 16, 32, 64)),
        audio=AudioConfig(features="mel", window=3, tokens=5, layers=2, heads=4, head_size=32),
        style=StyleConfig(style_size=128, layers=2, heads=4, feed_forward=512, max_frames=40),
        scheduler=SchedulerConfig(prediction="sample"),
    ),
    "sd15": ModelConfig(
        name="sd15",
        overlap=6,
        unet=UNetConfig(style_width=320),  # sixteen tokens need no more, and style layers stay small
        scheduler=SchedulerConfig(),
    ),
    "vexpress": ModelConfig(
        name="vexpress",
        fps=30.0,
        keypoints="vexpress3",
        reference_weight=0.95,
        audio_weight=3.0,
        unet=UNetConfig(style_width=320),
        audio=AudioConfig(features="wav2vec2", feature_size=768, window=10, rows_per_frame=2),
        style=StyleConfig(audio_size=768),
        scheduler=SchedulerConfig(exact_terminal=True),
    ),
}


def config_from_dict(cls: type, values: Mapping[str, Any], where: str = "config") -> Any:
    """Builds a frozen config (nested ones too) from plain values; an unknown or missing key raises PortraitError."""
    hints = get_type_hints(cls)
    names = {each.name for each in fields(cls)}
    unknown = sorted(set(values) - names)
    if unknown:
        raise PortraitError(f"{where}: unknown key {', '.join(unknown)}; known are {', '.join(sorted(names))}")
    built = {}
    for name, value in values.items():
        built[name] = _config_value(hints[name], value, f"{where}.{name}")
    try:
        return cls(**built)
    except TypeError as error:
        raise PortraitError(f"{where}: {error}") from error


def _config_value(hint: Any, value: Any, where: str) -> Any:
    """A value as the type of its field has it: lists become tuples, whole numbers floats, mappings configs."""
    kinds = [each for each in get_args(hint) if each is not NoneType]
    kind = kinds[0] if NoneType in get_args(hint) else hint
    if value is None and kind is not hint:
        return None
    if is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise PortraitError(f"{where} is {value!r}: it must be a section of its own")
        return config_from_dict(kind, value, where)
    if isinstance(value, list):
        value = tuple(value)
    if kind is float and type(value) is int:
        return float(value)
    if kind in (int, float, str, bool) and type(value) is not kind:
        raise PortraitError(f"{where} is {value!r}: it must be {kind.__name__}")
    return value


def config_to_json(config: Any) -> str:
    """A config as one line of JSON, keys in the order of declaration."""
    return json.dumps(asdict(config))
