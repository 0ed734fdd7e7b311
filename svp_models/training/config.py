"""The configuration of a training run: settings of each phase, data and start model, put together as a Recipe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..config import SchedulerConfig
from ..data.schema import FPS, MAX_CLIPS, MAX_PEOPLE, MAX_SECONDS, MAX_SIZE, MIN_FRAMES
from ..errors import PortraitError
from ..io.strict_config import LARGEST_SEED, Checked, limited, one_of, required, shown
from ..presets import PRESETS
from ..synthetic.identity import VERSIONS
from ..types import LIVEPORTRAIT, SVP

PRECISIONS = ("no", "fp16", "bf16")
OPTIMIZERS = ("adam", "adamw", "adamw8bit")
BUILT_IN = "built-in"  # the name of the pack's own model in recipes
MAX_COUNT = 10**6  # frames, clips, steps between two of something


@dataclass(frozen=True)
class TrainSettings(Checked):
    """How long, how fast and in what steps a phase learns.

    steps: optimiser steps. batch_size: samples of a step over all processes. grad_accum_steps: passes that a process takes for
    its part of a batch. learning_rate: the peak; it rises for `warmup_steps` and falls along a cosine to `final_lr_ratio` of
    the peak. clip_norm: largest norm of the gradient. ema_decay: of the exponential moving average of the weights, which is
    what a phase ends with; 0 is none. precision: no, fp16 or bf16 (mixed; fp16 on a GPU only). gradient_checkpointing: of the
    UNets; less memory, more time, the same numbers. num_workers: processes that load data, for each training process.
    *_steps: how often; 0 is never. keep_checkpoints: how many stay on disk. log_smoothing: decay of the running means in the
    log. max_loss_ratio: a loss this many times its running mean stops the run, from step `loss_check_after` on.
    """

    steps: int = limited(low=1, high=10**9)
    batch_size: int = limited(1, 1, MAX_COUNT)
    grad_accum_steps: int = limited(1, 1, MAX_COUNT)
    learning_rate: float = limited(1e-4, 1e-12, 100)
    warmup_steps: int = limited(50, 0, 10**9)
    final_lr_ratio: float = limited(0.1, 0, 1)
    optimizer: str = one_of("adamw", *OPTIMIZERS)
    betas: tuple[float, float] = limited((0.9, 0.98), 0, 1, below=True)
    weight_decay: float = limited(0.01, 0, 100)
    clip_norm: float = limited(1.0, 1e-12, 1e12)
    ema_decay: float = limited(0.995, 0, 1, below=True)
    precision: str = one_of("no", *PRECISIONS)
    gradient_checkpointing: bool = False
    num_workers: int = limited(0, 0, 1024)
    checkpoint_steps: int = limited(200, 1, 10**9)
    keep_checkpoints: int = limited(2, 1, MAX_COUNT)
    log_steps: int = limited(25, 1, 10**9)
    log_smoothing: float = limited(0.95, 0, 1, below=True)
    validate_steps: int = limited(0, 0, 10**9)
    sample_steps: int = limited(0, 0, 10**9)
    max_loss_ratio: float = limited(50.0, 1, 1e12)
    loss_check_after: int = limited(20, 1, 10**9)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        progress = min(1.0, (step - self.warmup_steps) / max(1, self.steps - self.warmup_steps))
        fallen = (1 + math.cos(math.pi * progress)) / 2  # 1 -> 0
        return self.learning_rate * (self.final_lr_ratio + (1 - self.final_lr_ratio) * fallen)

    def ema_decay_at(self, step: int) -> float:
        """The decay of the moving average after a step: smaller at the start, when there is little to average."""
        return min(self.ema_decay, (step + 1) / (step + 10))


@dataclass(frozen=True)
class AutoencoderPhase(Checked):
    """Portrait VAE.

    latent_noise: standard deviation of noise on the latents, so that the decoder forgives what a denoiser leaves. face_weight,
    mouth_weight: added to the 1 of every pixel in these regions, which reach `region_margin` of the frame's width beyond the
    landmarks. ssim_weight: of 1 - SSIM beside the L1 errors.
    """

    settings: TrainSettings
    latent_noise: float = limited(0.05, 0, 10)
    face_weight: float = limited(2.0, 0, 1e6)
    mouth_weight: float = limited(2.0, 0, 1e6)
    region_margin: float = limited(0.02, 0, 1)
    ssim_weight: float = limited(0.5, 0, 1e6)


@dataclass(frozen=True)
class AnalyzerLoss(Checked):
    """Weights of the face analyser's errors; mouth_weight: of a mouth landmark among the landmarks."""

    landmark_weight: float = limited(20.0, 0, 1e6)
    keypoint_weight: float = limited(20.0, 0, 1e6)
    expression_weight: float = limited(10.0, 0, 1e6)
    pose_weight: float = limited(0.3, 0, 1e6)
    presence_weight: float = limited(0.2, 0, 1e6)
    mouth_weight: float = limited(3.0, 0, 1e6)


@dataclass(frozen=True)
class PortraitReaderLoss(Checked):
    """Weights of the portrait reader's errors: points as fractions of its square; mouth_weight: of a mouth landmark among the landmarks,
    eye_weight: of one of the eyes."""

    landmark_weight: float = limited(20.0, 0, 1e6)
    keypoint_weight: float = limited(10.0, 0, 1e6)
    expression_weight: float = limited(20.0, 0, 1e6)
    eyes_weight: float = limited(4.0, 0, 1e6)
    mouth_weight: float = limited(2.0, 0, 1e6)
    eye_weight: float = limited(2.0, 0, 1e6)


@dataclass(frozen=True, kw_only=True)
class AnalyzerPhase(AnalyzerLoss):
    """Built-in face analyser.

    no_face_prob: share of the frames without a face. zoom: largest logarithm of a random zoom; shift: largest random shift, of
    the frame's width.
    """

    settings: TrainSettings
    no_face_prob: float = limited(0.08, 0, 1)
    zoom: float = limited(0.2, 0, 4)
    shift: float = limited(0.12, 0, 1)


@dataclass(frozen=True)
class StylePhase(Checked):
    """Style extractor by InfoNCE (eq. 6-7), and optionally by what its codes tell of their clips.

    emotions: emotions of one identity in a batch, the hard negatives of one another; takes: clips of each, the positives.
    audio_drop_prob, expression_drop_prob: shares of the samples that lose one input, never both. min_frames: shortest segment.
    voice_mix_prob: share of the samples whose audio features get the mean of another clip of that emotion (cf. MixStyle,
    Zhou et al. 2021); otherwise the extractor memorises voices, which identify people but not emotions. neutral_face_prob: share of
    the samples with both inputs whose expression is that of a neutral clip of the person, so that the audio branch learns emotions
    that the face does not show. statistics_weight: of the statistics of the whole clip (expression, blinks, head) that a code has
    to rebuild, see StatisticsDecoder; 0 as in the paper. anchor_weight: of staying near the codes of the extractor that the phase starts from, see StyleModule.
    """

    settings: TrainSettings
    emotions: int = limited(4, 1, MAX_COUNT)
    takes: int = limited(2, 2, MAX_COUNT)
    temperature: float = limited(0.1, 1e-4, 100)
    audio_drop_prob: float = limited(0.3, 0, 1)
    expression_drop_prob: float = limited(0.2, 0, 1)
    voice_mix_prob: float = limited(0.0, 0, 1)
    neutral_face_prob: float = limited(0.0, 0, 1)
    min_frames: int = limited(20, 1, MAX_COUNT)
    statistics_weight: float = limited(0.0, 0, 1e6)
    anchor_weight: float = limited(0.0, 0, 1e6)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.audio_drop_prob + self.expression_drop_prob > 1:
            raise PortraitError(
                f"audio_drop_prob is {self.audio_drop_prob:g}: with expression_drop_prob {self.expression_drop_prob:g} at most "
                "1 is allowed"
            )


@dataclass(frozen=True)
class ProjectionsPhase(Checked):
    """Warm start of audio and style projection, see ProjectionsTraining. frame_step: every how manyth frame is learnt from;
    style_input_probs: see StagePhase."""

    settings: TrainSettings
    frame_step: int = limited(5, 1, MAX_COUNT)
    style_input_probs: tuple[float, float, float] = limited((0.7, 0.2, 0.1), 0, 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probs("style_input_probs", self.style_input_probs)


@dataclass(frozen=True)
class StagePhase(Checked):
    """One stage of the paper's schedule (sec. 3.3); a sample of the batch is `frames` consecutive frames of one clip.

    trainable: parameter groups that learn, everything else is frozen. single_frame_prob: share of the steps whose samples are
    as many frames of as many clips instead. reference_margin: frames between portrait and target, where the clip is long
    enough. cross_emotion_prob: share of the samples whose portrait shows the person in another emotion than the target.
    deterministic: s = mu instead of a sample of the prior (the paper's ablation). own_style_prob: share of the style codes
    that are of the target clip itself; the others are of another clip of that person and emotion. style_input_probs: shares of
    the style inputs that have both audio and expression, expression alone, audio alone. cond_drop_prob: share of the samples
    whose conditions are all zero, for classifier-free guidance. style_drop_prob: share of the steps without any style.
    noise_offset: of each channel of a clip. snr_gamma: of the min-SNR loss weight (Hang et al. 2023), 0 is none.
    timestep_power: timestep = T u^power. mouth_weight, face_weight: added to the 1 of every latent cell in these regions, which
    reach `region_margin` of the frame's width beyond the landmarks. keypoint_jitter, keypoint_bias: standard deviations of a
    keypoint's error, independent in each frame and shared by all frames, of the frame's width.
    """

    settings: TrainSettings
    trainable: tuple[str, ...] = limited(least=1, most=20)
    frames: int = limited(1, 1, MAX_COUNT)
    audio: bool = False
    style: bool = False
    temporal: bool = True
    single_frame_prob: float = limited(0.0, 0, 1)
    reference_margin: int = limited(30, 0, MAX_COUNT)
    cross_emotion_prob: float = limited(0.0, 0, 1)
    deterministic: bool = False
    own_style_prob: float = limited(1.0, 0, 1)
    style_input_probs: tuple[float, float, float] = limited((0.7, 0.2, 0.1), 0, 1)
    cond_drop_prob: float = limited(0.1, 0, 1)
    style_drop_prob: float = limited(0.0, 0, 1)
    noise_offset: float = limited(0.05, 0, 10)
    snr_gamma: float = limited(5.0, 0, 1e6)
    timestep_power: float = limited(1.0, 0, 100)
    mouth_weight: float = limited(0.0, 0, 1e6)
    face_weight: float = limited(0.0, 0, 1e6)
    region_margin: float = limited(0.03, 0, 1)
    keypoint_jitter: float = limited(0.0, 0, 1)
    keypoint_bias: float = limited(0.0, 0, 1)
    validation_batches: int = limited(8, 1, MAX_COUNT)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_probs("style_input_probs", self.style_input_probs)


@dataclass(frozen=True)
class DistillPhase(StagePhase):
    """Distillation of the model's own sampler into few steps without guidance, see `train_distill`.

    The samples and what learns are those of a stage; `trainable` holds groups of the denoiser alone. student_steps: what the model
    samples with afterwards. substeps: steps that the teacher takes for one of these; together they should be as many as the
    sampler would take. cfg: the teacher's guidance. pool, turns: `pool` steps have samples of their own, and then the same ones
    again, `turns` times in all: the teacher's paths stay in memory and are walked once. cond_drop_prob, noise_offset, snr_gamma
    and timestep_power have no meaning.
    """

    student_steps: int = limited(4, 1, 1000)
    substeps: int = limited(6, 1, 1000)
    cfg: float = limited(3.5, 0, 100)
    pool: int = limited(1, 1, 10_000)
    turns: int = limited(1, 1, MAX_COUNT)


PHASE_TYPES = {
    "autoencoder": AutoencoderPhase,
    "analyzer": AnalyzerPhase,
    "style": StylePhase,
    "projections": ProjectionsPhase,
    "stage1": StagePhase,
    "stage2": StagePhase,
    "stage3": StagePhase,
    "distill": DistillPhase,
}
PHASES = tuple(PHASE_TYPES)


@dataclass(frozen=True)
class StartModel(Checked):
    """What training begins with: `file`, a model file, V-Express folder or `built-in` for the pack's own, or else `preset` with
    fresh networks. prediction: what the denoiser learns to predict, "" leaves it; epsilon also takes zero terminal SNR away, because
    pure noise says nothing of epsilon."""

    preset: str = one_of("demo", *PRESETS)
    file: str = ""
    prediction: str = one_of("", "", "epsilon", "v_prediction", "sample")

    def schedule(self, config: SchedulerConfig) -> SchedulerConfig:
        """A model's noise schedule with this prediction."""
        if not self.prediction:
            return config
        if self.prediction == "epsilon":
            return replace(config, prediction="epsilon", zero_terminal_snr=False, exact_terminal=False)
        return replace(config, prediction=self.prediction)


@dataclass(frozen=True)
class SyntheticData(Checked):
    """Synthetic people, see `svp prepare synthetic`."""

    size: int = limited(low=64, high=MAX_SIZE)
    seconds: float = limited(low=MIN_FRAMES / FPS, high=MAX_SECONDS)
    speakers: int = limited(low=0, high=MAX_PEOPLE)
    test_speakers: int = limited(low=0, high=MAX_PEOPLE)
    clips_per_speaker: int = limited(low=1, high=MAX_CLIPS)
    takes: int = limited(0, 0, MAX_CLIPS)
    seed: int = limited(0, 0, LARGEST_SEED)
    version: int = limited(1, VERSIONS[0], VERSIONS[-1])

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size % 16:
            raise PortraitError(f"size is {self.size}: a multiple of 16 is needed")
        if not self.speakers + self.test_speakers:
            raise PortraitError("speakers is 0, and so is test_speakers: one of them must be at least 1")


@dataclass(frozen=True)
class DataRecipe(Checked):
    """The data set. folder: written by `svp prepare`. synthetic: what is rendered into the folder if nothing is there.

    cache_frames: store the decoded frames of all clips in the run's folder; it pays for small frames and many epochs.
    predict_expressions: styles are learnt from expressions that the model's face analyser predicts, not from the labels. space:
    of the expressions; `liveportrait` takes those of the motions that `svp prepare --space liveportrait` stores, 63 numbers, and
    the model's style.expression_size has to be 63.
    """

    folder: str = limited(least=1, most=4096)
    cache_frames: bool = False
    predict_expressions: bool = False
    space: str = one_of(SVP, SVP, LIVEPORTRAIT)
    synthetic: SyntheticData | None = None


@dataclass(frozen=True)
class SampleVideoRecipe(Checked):
    """The video that stages write while they train: number of frames, and how it is sampled."""

    frames: int = limited(50, 1, MAX_COUNT)
    steps: int = limited(25, 1, 100_000)
    cfg: float = limited(3.5, 0, 100)


def check_name(name: str) -> None:
    """Raises PortraitError unless a recipe of that name can have a folder."""
    if name in (".", "..") or not name.isprintable() or set(name) & set("/\\"):
        raise PortraitError(
            f"name is {shown(name)}: it names a folder, so slashes and unprintable characters are not allowed"
        )


@dataclass(frozen=True)
class Recipe(Checked):
    """A whole run. Phases that are left out are not run; the others run in the order of PHASES."""

    name: str = limited(least=1, most=200)
    data: DataRecipe = required()
    seed: int = limited(0, 0, LARGEST_SEED)
    model: StartModel = field(default_factory=StartModel)
    sample_video: SampleVideoRecipe = field(default_factory=SampleVideoRecipe)
    autoencoder: AutoencoderPhase | None = None
    analyzer: AnalyzerPhase | None = None
    style: StylePhase | None = None
    projections: ProjectionsPhase | None = None
    stage1: StagePhase | None = None
    stage2: StagePhase | None = None
    stage3: StagePhase | None = None
    distill: DistillPhase | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)

    def phases(self) -> list[str]:
        """The names of the phases of this recipe, in their order."""
        return [name for name in PHASES if getattr(self, name) is not None]


def check_probs(name: str, probs: Sequence[float]) -> None:
    """Raises PortraitError unless the probabilities sum to 1."""
    if not math.isclose(sum(probs), 1, abs_tol=1e-6):
        raise PortraitError(f"{name} sums to {sum(probs):g}: 1 is needed")
