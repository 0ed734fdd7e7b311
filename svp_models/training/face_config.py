"""The configuration of a training with a budget of time: data, and the phases of a model that draws upright crops of faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..config import ModelConfig
from ..data.schema import MAX_PEOPLE, MAX_SIZE
from ..io.strict_config import LARGEST_SEED, Checked, limited, one_of, required
from ..presets import PRESETS
from .config import check_name
from .recipe import load_toml

MAX_COUNT = 10**6


@dataclass(frozen=True)
class FaceDataConfig(Checked):
    """Synthetic people that are rendered for the training.

    version: of their pictures. size: pixels per side of the frames. people, test_people, clips: of a person; seconds: of a
    clip. portraits: frames of a clip that serve as portraits. margin: pixels around the crops that are stored too, within which
    the crops are shifted at random.
    """

    version: int = limited(1, 1, 100)
    size: int = limited(256, 64, MAX_SIZE)
    people: int = limited(200, 1, MAX_PEOPLE)
    test_people: int = limited(8, 1, MAX_PEOPLE)
    clips: int = limited(4, 1, MAX_COUNT)
    seconds: float = limited(1.6, 0.1, 60)
    portraits: int = limited(2, 1, MAX_COUNT)
    margin: int = limited(4, 0, 64)


@dataclass(frozen=True)
class BudgetSettings(Checked):
    """How a phase learns within its time.

    share: of the whole budget. learning_rate: the peak; it rises over `warmup` of the phase's time and falls along a cosine to
    `final_lr_ratio` at its end. ema_decay: of the average of the weights that the phase ends with. precision,
    cpu_precision: of the computation on a GPU and on a CPU, bf16 (mixed) or no (float32); bf16 is faster on processors that have
    instructions for it. checkpoint_seconds, log_seconds: how often. max_loss_ratio: a loss this many times its
    running mean stops the run.
    """

    share: float = limited(1.0, 0, 1)
    batch_size: int = limited(16, 1, MAX_COUNT)
    learning_rate: float = limited(1e-3, 1e-12, 100)
    warmup: float = limited(0.02, 0, 1)
    final_lr_ratio: float = limited(0.02, 0, 1)
    betas: tuple[float, float] = limited((0.9, 0.98), 0, 1, below=True)
    weight_decay: float = limited(0.01, 0, 100)
    clip_norm: float = limited(1.0, 1e-12, 1e12)
    ema_decay: float = limited(0.999, 0, 1, below=True)
    precision: str = one_of("bf16", "no", "bf16")
    cpu_precision: str = one_of("no", "no", "bf16")
    checkpoint_seconds: float = limited(300.0, 1, 1e9)
    log_seconds: float = limited(20.0, 0.1, 1e9)
    max_loss_ratio: float = limited(50.0, 1, 1e12)


@dataclass(frozen=True)
class Augmentation(Checked):
    """What is changed at random in training.

    color_prob: share of the samples whose colours change, portrait and target alike; color: spread of the logarithms of their
    gains and gamma. keypoint_jitter, keypoint_bias: errors of a keypoint as fractions of the frame, independent in each frame
    and shared by all frames of a clip. other_clip_prob: share of the portraits from any clip of the person. other_style_prob:
    share of the styles from a clip of another person with the same emotion. expression_error: standard deviation of the errors with which
    a portrait's own expression, lids and gaze are known; those of a reader are alike in all frames.
    """

    color_prob: float = limited(0.5, 0, 1)
    color: float = limited(0.12, 0, 1)
    keypoint_jitter: float = limited(0.001, 0, 1)
    keypoint_bias: float = limited(0.003, 0, 1)
    other_clip_prob: float = limited(0.7, 0, 1)
    other_style_prob: float = limited(0.5, 0, 1)
    expression_error: float = limited(0.0, 0, 1)


@dataclass(frozen=True)
class Regions(Checked):
    """Added to the weight 1 of an error: in the boxes of mouth and of eyes with brows, grown by `margin` pixels."""

    mouth: float = limited(3.0, 0, 1e6)
    eyes: float = limited(2.0, 0, 1e6)
    margin: float = limited(4.0, 0, 1e6)


@dataclass(frozen=True)
class FaceVaePhase(Checked):
    """The autoencoder on crops. latent_noise: standard deviation of noise on its latents; ssim_weight: of 1 - SSIM, gradient_weight:
    of the error of gradients, beside the error of pixels. patch: pixels per side of the parts of crops that it learns from; 0:
    whole crops; patch_share: part of its time that it learns from parts, before whole crops. validation_frames: of
    test people."""

    settings: BudgetSettings
    latent_noise: float = limited(0.05, 0, 10)
    ssim_weight: float = limited(0.3, 0, 1e6)
    gradient_weight: float = limited(2.0, 0, 1e6)
    regions: Regions = field(default_factory=Regions)
    patch: int = limited(0, 0, 8192)
    patch_share: float = limited(0.0, 0, 1)
    validation_frames: int = limited(48, 1, MAX_COUNT)


@dataclass(frozen=True)
class FaceDensePhase(Checked):
    """The network that corrects the spline of the warped portrait, on whole frames: of a person's portraits one is warped to
    another. correction_weight: of the mean square of the corrections, which are in [-1, 1]; smooth_weight: of the differences
    between neighbours of the share that stays; both beside the error of pixels. validation_frames: of test people."""

    settings: BudgetSettings
    correction_weight: float = limited(0.002, 0, 1e6)
    smooth_weight: float = limited(0.01, 0, 1e6)
    validation_frames: int = limited(48, 1, MAX_COUNT)


@dataclass(frozen=True)
class FaceDenoiserPhase(Checked):
    """The denoiser with everything that conditions it.

    frames: of a clip that share a portrait. The timestep is T sigmoid(noise_mean + noise_std x normal number), and T itself in
    a share `pure_noise_prob` (Esser et al. 2024 without the flow). *_drop_prob: shares of the samples that lose one condition, or all.
    max_weight: the network predicts the clean latents, and its errors are weighted as errors of the velocity are, 1 / (1 - a) (Li &
    He 2025), up to this weight. decoded_share: last part of the time in which the predicted crops are decoded too; decoded_weight: of
    their error there, in which gradient_weight and ssim_weight are those of FaceVaePhase. validation_clips: of test people, two
    frames of each.
    """

    settings: BudgetSettings
    frames: int = limited(4, 1, MAX_COUNT)
    noise_mean: float = limited(0.4, -10, 10)
    noise_std: float = limited(1.0, 0, 10)
    pure_noise_prob: float = limited(0.05, 0, 1)
    cond_drop_prob: float = limited(0.05, 0, 1)
    audio_drop_prob: float = limited(0.1, 0, 1)
    style_drop_prob: float = limited(0.1, 0, 1)
    expression_drop_prob: float = limited(0.4, 0, 1)
    max_weight: float = limited(5.0, 1, 1e6)
    decoded_share: float = limited(0.2, 0, 1)
    decoded_weight: float = limited(4.0, 0, 1e6)
    ssim_weight: float = limited(0.3, 0, 1e6)
    gradient_weight: float = limited(2.0, 0, 1e6)
    regions: Regions = field(default_factory=Regions)
    validation_clips: int = limited(8, 1, MAX_COUNT)


@dataclass(frozen=True)
class FaceMaskPhase(Checked):
    """The mask that joins faces and warped portraits. area_weight: of the mean of the mask beside the error of the composed
    crop. latest: the generated crops are predicted from timesteps of this share of the schedule up to its noisy end."""

    settings: BudgetSettings
    area_weight: float = limited(0.002, 0, 1e6)
    latest: float = limited(0.6, 0, 1)
    regions: Regions = field(default_factory=Regions)


@dataclass(frozen=True)
class FaceRecipe(Checked):
    """A whole training with a budget.

    preset: of the model; widths: of its UNets' levels, none: the preset's. start: a model file, "" for the built-in model: one
    of the same configuration learns on, of another the face analyser, the style extractor and the projections of audio and
    style are taken. dense_motion: of models with face_crop.dense_width; left out where it has no share. steps: denoising steps that the exported model takes by default, 0: the preset's; face_analyzer: ONNX file
    that the exported model gets, "": that of the pack, which knows synthetic people of both versions.
    """

    name: str = limited(least=1, most=200)
    vae: FaceVaePhase = required()
    denoiser: FaceDenoiserPhase = required()
    mask: FaceMaskPhase = required()
    dense_motion: FaceDensePhase = field(default_factory=lambda: FaceDensePhase(BudgetSettings(share=0.0)))
    preset: str = one_of("demo256", *PRESETS)
    widths: tuple[int, ...] = limited((), 8, 8192, least=0, most=8)
    start: str = ""
    steps: int = limited(0, 0, MAX_COUNT)
    face_analyzer: str = ""
    seed: int = limited(0, 0, LARGEST_SEED)
    data: FaceDataConfig = field(default_factory=FaceDataConfig)
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)

    def model(self) -> ModelConfig:
        """The configuration of the model."""
        preset = PRESETS[self.preset]
        if not self.widths:
            return preset
        unet = replace(preset.unet, block_out_channels=self.widths)
        return replace(preset, unet=unet)


def load_face_recipe(path: Path | str, overrides: Sequence[str] = ()) -> FaceRecipe:
    """A recipe file with `section.key=value` overrides."""
    return load_toml(path, FaceRecipe, overrides)
