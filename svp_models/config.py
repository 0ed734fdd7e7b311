"""Every size and choice of the model as frozen dataclasses; the presets are in `presets`. `io.strict_config` reads them from files."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields

from .errors import PortraitError
from .io.strict_config import Checked, config_from_dict, config_to_json, limited, one_of, required

__all__ = [
    "AudioConfig",
    "BaseShape",
    "FaceCropConfig",
    "GuiderConfig",
    "ModelConfig",
    "SchedulerConfig",
    "StyleConfig",
    "StyleLayerConfig",
    "UNetConfig",
    "VaeConfig",
    "config_from_dict",
    "config_to_json",
]

# Upper limits of what a config may contain: generous for existing models, and still quick to build.
MAX_CHANNELS = 8192
MAX_LAYERS = 16  # layers of a block
MAX_LEVELS = 8
MAX_HEADS = 256
MAX_ROWS = 65536  # frames, numbers of a feature
FEATURES = ("mel", "whisper", "wav2vec2")
VAE_GROUPS = {"portrait": 8, "sd15": 32}  # of the norms inside, by kind


@dataclass(frozen=True)
class VaeConfig(Checked):
    """Image <-> latent. kind `portrait`: the pack's small autoencoder; `sd15`: the AutoencoderKL of Stable Diffusion 1.5."""

    kind: str = one_of("sd15", "portrait", "sd15")
    latent_channels: int = limited(4, 1, 512)
    scale: float = limited(0.18215, 1e-6, 1e6)  # scaled latent = latent x scale
    downscale: int = limited(8, 1, 64)  # pixels per latent cell and side
    fold: int = limited(1, 1, 64)  # portrait: pixels folded into channels before the first convolution
    encoder_widths: tuple[int, ...] = limited((128, 256, 512, 512), 1, MAX_CHANNELS, most=MAX_LEVELS)
    decoder_widths: tuple[int, ...] = limited((512, 512, 256, 128), 1, MAX_CHANNELS, most=MAX_LEVELS)
    layers: int = limited(2, 1, MAX_LAYERS)

    def __post_init__(self) -> None:
        super().__post_init__()
        groups = VAE_GROUPS[self.kind]
        for name in ("encoder_widths", "decoder_widths"):
            for width in getattr(self, name):
                if width % groups:
                    raise PortraitError(
                        f"{name} has {width}: multiples of {groups}, the groups of its norms, are needed"
                    )
        ways = {"encoder_widths": (self.encoder_widths, self.fold)}
        if self.kind == "portrait":
            ways["decoder_widths"] = (self.decoder_widths, self.downscale // 2 ** (len(self.decoder_widths) - 1))
        for name, (widths, fold) in ways.items():
            reached = fold * 2 ** (len(widths) - 1)
            if reached != self.downscale:
                raise PortraitError(
                    f"downscale is {self.downscale}: {len(widths)} {name} and fold {fold} give 1/{reached}"
                )


@dataclass(frozen=True)
class UNetConfig(Checked):
    """Denoiser and ReferenceNet; names follow diffusers' UNet2DConditionModel where it has them."""

    latent_channels: int = limited(4, 1, 512)
    block_out_channels: tuple[int, ...] = limited((320, 640, 1280, 1280), 2, MAX_CHANNELS, most=MAX_LEVELS)
    layers_per_block: int = limited(2, 1, MAX_LAYERS)
    attention_levels: tuple[bool, ...] = limited((True, True, True, False), most=MAX_LEVELS)
    attention_heads: int | tuple[int, ...] = limited(
        8, 1, MAX_HEADS, most=MAX_LEVELS
    )  # one number, or one for each level; a head has width // heads channels
    cross_attention_dim: int = limited(768, 1, MAX_CHANNELS)
    norm_groups: int = limited(32, 1, MAX_CHANNELS)
    style_attention: bool = True
    style_width: int = limited(
        0, 0, MAX_CHANNELS
    )  # of the style attention inside, at most the block's; 0: as wide as the block
    reference_concat: bool = (
        False  # the portrait's latent is concatenated to the input channels, as in image-to-video models
    )
    reference_warp: bool = False  # so is that of the portrait warped to the frame's head keypoints
    condition_embedding: bool = False  # audio and style are also added to the time embedding, which reaches every layer
    expression_size: int = limited(
        0, 0, MAX_CHANNELS
    )  # numbers of an expression track, see ExpressionProjection; 0: none
    expression_tokens: int = limited(2, 1, 1024)
    motion_heads: int = limited(8, 1, MAX_HEADS)
    motion_groups: int = limited(32, 1, MAX_CHANNELS)
    motion_positions: int = limited(32, 1, 4096)  # longest window of frames
    motion_mid_block: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        widths, heads = self.block_out_channels, self.attention_heads
        for name, found in (("attention_levels", self.attention_levels), ("attention_heads", heads)):
            if not isinstance(found, int) and len(found) != len(widths):
                raise PortraitError(f"{name} has {len(found)} values: block_out_channels has {len(widths)} levels")
        heads = (heads,) * len(widths) if isinstance(heads, int) else heads
        for width, count in zip(widths, heads, strict=True):
            narrowest = min(width, self.style_width or width)
            if max(count, self.motion_heads) > narrowest:
                raise PortraitError(
                    f"attention_heads is {count} and motion_heads {self.motion_heads}: a level of {narrowest} channels has no "
                    "more heads than these"
                )
            if width % 2 or self.motion_heads * (width // self.motion_heads) % 2:
                raise PortraitError(
                    f"block_out_channels has {width}: it and its whole part for {self.motion_heads} motion_heads have to be even"
                )
            for name in ("norm_groups", "motion_groups"):
                if width % getattr(self, name):
                    raise PortraitError(
                        f"{name} is {getattr(self, name)}: the width {width} of block_out_channels is no multiple of it"
                    )


@dataclass(frozen=True)
class GuiderConfig(Checked):
    """Head-Kps picture (3 x H x W) -> features added behind the denoiser's first convolution."""

    channels: tuple[int, ...] = limited((16, 32, 96, 256), 1, MAX_CHANNELS, most=MAX_LEVELS)


@dataclass(frozen=True)
class AudioConfig(Checked):
    """Audio features and their projection to tokens. features: `mel`, `whisper` or `wav2vec2`."""

    features: str = one_of("whisper", *FEATURES)
    feature_size: int = limited(1920, 1, MAX_ROWS)
    window: int = limited(5, 1, 256)  # feature rows around a frame that the projection reads
    rows_per_frame: int = limited(1, 1, 16)
    tokens: int = limited(5, 1, 1024)
    layers: int = limited(4, 1, 64)
    heads: int = limited(12, 1, MAX_HEADS)
    head_size: int = limited(64, 1, 1024)
    width: int | None = limited(None, 1, MAX_CHANNELS)  # channels inside the projection; None: as many as a token has
    feed_forward: int = limited(4, 1, 64)  # channels of its feed-forward layers, in widths


@dataclass(frozen=True)
class StyleConfig(Checked):
    """Style extractor (eq. 2-4) and style projection (style code -> tokens)."""

    expression_size: int = limited(64, 1, MAX_CHANNELS)
    audio_size: int = limited(1920, 1, MAX_ROWS)
    style_size: int = limited(256, 1, MAX_CHANNELS)  # d_s
    layers: int = limited(3, 1, 64)
    heads: int = limited(8, 1, MAX_HEADS)
    feed_forward: int = limited(1024, 1, MAX_ROWS)
    dropout: float = limited(0.1, 0, 1, below=True)
    max_frames: int = limited(256, 1, MAX_ROWS)
    tokens: int = limited(16, 1, 1024)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.style_size % self.heads or self.style_size % 2:
            raise PortraitError(f"heads is {self.heads}: style_size {self.style_size} is no even multiple of it")


@dataclass(frozen=True)
class SchedulerConfig(Checked):
    """Noise schedule shared by training and sampling."""

    prediction: str = one_of(
        "v_prediction", "epsilon", "v_prediction", "sample"
    )  # or epsilon, or sample: the clean latent itself
    beta_start: float = limited(0.00085, 1e-8, 1, below=True)
    beta_end: float = limited(0.012, 1e-8, 1, below=True)
    beta_schedule: str = one_of("scaled_linear", "linear", "scaled_linear", "squaredcos_cap_v2")
    train_steps: int = limited(1000, 2, 100_000)
    zero_terminal_snr: bool = True
    timestep_spacing: str = one_of("trailing", "trailing", "leading", "linspace")
    steps_offset: int = limited(1, 0, 1000)
    exact_terminal: bool = False  # the terminal SNR is exactly 0 and not 2^-24, as in V-Express' DDIM

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.exact_terminal and self.prediction == "epsilon":
            raise PortraitError(
                "exact_terminal asks for pure noise, from which no epsilon leads back: use v_prediction"
            )
        if self.beta_start > self.beta_end:
            raise PortraitError(f"beta_start is {self.beta_start}: no more than beta_end, {self.beta_end}, is allowed")


@dataclass(frozen=True)
class FaceCropConfig(Checked):
    """The part of every frame that a model draws, an upright crop that goes with the head; width 0: the whole frame.

    width, height: pixels of the crop. face: half the width of a face in it. centre: the point of the mean head
    (`head_pose.RIGID_3D`) in its middle. snap_scale, snap_angle: a scale this near to one to a whole number of pixels, and a
    tilt of fewer degrees, are left as they are: then no pixel is resampled. smoothing: frames before and after over which the
    centre is averaged. mask_width: channels of the network that joins crops and portraits, 0: none. expression_warp: the
    portrait is warped to an expression track too, see `face.expression_warp`, and not to the head keypoints alone; paint_mouth:
    and the inside of a mouth that opens is painted, see `face.mouth_interior`. dense_width: channels of the network that corrects
    that warp, see `face.dense_warp`, 0: none; dense_size: pixels per side of the window that it sees, and dense_window: the side of
    this window in half widths of the face.
    """

    width: int = limited(0, 0, 8192)
    height: int = limited(0, 0, 8192)
    face: float = limited(60.0, 1, 8192)
    centre: tuple[float, float, float] = limited((0.0, 0.44, 0.3), -10, 10)
    snap_scale: float = limited(0.22, 0, 1)
    snap_angle: float = limited(15.0, 0, 180)
    smoothing: int = limited(2, 0, 250)
    mask_width: int = limited(0, 0, MAX_CHANNELS)
    expression_warp: bool = False
    paint_mouth: bool = False
    dense_width: int = limited(0, 0, MAX_CHANNELS)
    dense_size: int = limited(128, 8, 1024)
    dense_window: float = limited(3.6, 0.5, 20)

    def __post_init__(self) -> None:
        super().__post_init__()
        if bool(self.width) != bool(self.height):
            raise PortraitError(f"face_crop is {self.width} x {self.height}: give both sides, or 0 for whole frames")
        if self.mask_width % 8:
            raise PortraitError(f"mask_width is {self.mask_width}: multiples of 8, the groups of its norms, are needed")
        if self.dense_width % 8:
            raise PortraitError(
                f"dense_width is {self.dense_width}: multiples of 8, the groups of its norms, are needed"
            )
        if self.dense_size % 8:
            raise PortraitError(
                f"dense_size is {self.dense_size}: multiples of 8, the pixels of its coarsest cell, are needed"
            )
        if self.dense_width and not self.expression_warp:
            raise PortraitError(
                f"dense_width is {self.dense_width}: it corrects the warp to an expression, so set expression_warp too, or dense_width 0"
            )


@dataclass(frozen=True)
class ModelConfig(Checked):
    """A whole model. size: pixels per side it was trained at; fps: frame rate it was trained at."""

    name: str = limited(least=1, most=200)
    size: int = limited(512, 8, 8192)
    fps: float = limited(25.0, 1, 240)
    window: int = limited(24, 1, 4096)
    overlap: int = limited(4, 0, 4095)
    keypoints: str = one_of("head8", "head8", "vexpress3")  # or vexpress3
    reference_weight: float = limited(1.0, 0, 100)  # strength of the attention at a sampler's weight of 1
    audio_weight: float = limited(1.0, 0, 100)
    residual: bool = False  # diffuses the difference to the (warped) portrait's latent: still parts need no learning
    guide_portrait: bool = (
        True  # guidance also pushes towards the portrait; no: towards voice, style and expression alone
    )
    shared_noise: float = limited(0.0, 0, 1)  # share of the noise's variance that all frames of a clip have in common
    steps: int = limited(25, 1, 100_000)  # default of the sampler
    cfg: float = limited(3.5, 0, 100)
    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: VaeConfig = field(default_factory=VaeConfig)
    guider: GuiderConfig = field(default_factory=GuiderConfig)
    audio: AudioConfig = field(default_factory=AudioConfig)
    style: StyleConfig = field(default_factory=StyleConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    face_crop: FaceCropConfig = field(default_factory=FaceCropConfig)

    def __post_init__(self) -> None:
        super().__post_init__()
        for side in (self.face_crop.width, self.face_crop.height):
            if side % self.vae.downscale:
                raise PortraitError(f"face_crop has {side} pixels: multiples of {self.vae.downscale} are needed")
        if self.overlap >= self.window:
            raise PortraitError(f"overlap is {self.overlap}: less than the window of {self.window} frames is needed")
        if self.unet.latent_channels != self.vae.latent_channels:
            raise PortraitError(
                f"unet.latent_channels is {self.unet.latent_channels}: vae.latent_channels is {self.vae.latent_channels}"
            )
        reached = 2 ** (len(self.guider.channels) - 1)
        if reached != self.vae.downscale:
            raise PortraitError(
                f"guider.channels has {len(self.guider.channels)} values, which give 1/{reached} of the size: the latents "
                f"have 1/{self.vae.downscale}"
            )


@dataclass(frozen=True)
class BaseShape(Checked):
    """The part of a UNetConfig that decides the number and the widths of its style layers."""

    block_out_channels: tuple[int, ...] = limited(low=1, high=MAX_CHANNELS, most=MAX_LEVELS)
    layers_per_block: int = limited(low=1, high=MAX_LAYERS)
    attention_levels: tuple[bool, ...] = limited(most=MAX_LEVELS)
    attention_heads: int | tuple[int, ...] = limited(low=1, high=MAX_HEADS, most=MAX_LEVELS)
    cross_attention_dim: int = limited(low=1, high=MAX_CHANNELS)
    condition_embedding: bool = required()

    @classmethod
    def of(cls, unet: UNetConfig) -> BaseShape:
        return cls(**{item.name: getattr(unet, item.name) for item in fields(cls)})


@dataclass(frozen=True)
class StyleLayerConfig(Checked):
    """The config in a style layer file. features: the audio features that its extractor reads."""

    style: StyleConfig
    base: BaseShape
    features: str = one_of(MISSING, *FEATURES)
    width: int = limited(0, 0, MAX_CHANNELS)  # UNetConfig.style_width
