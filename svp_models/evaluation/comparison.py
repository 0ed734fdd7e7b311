"""The model beside what it has to beat, on the same clips in the same table: warped portrait, its VAE alone, truth, and more.

Reconstruction takes the first true frame as the portrait. Style transfer does not make it easy: in half of the cases the portrait
shows another emotion than the target, and in half of them the style comes from another person.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ..diffusion.context_windows import frame_windows
from ..diffusion.pipeline import resolve_options
from ..diffusion.style import extract_style, interpolate_styles, sample_style
from ..face.detection import FaceTrack, given
from ..media import audio as voices
from ..model import PortraitModel
from ..synthetic.clips import Clip
from ..synthetic.performance import EMOTIONS, classify_emotion
from ..synthetic.speakers import speaker
from ..types import Audio, Style
from .baselines import TrainingPeople, still_portrait, vae_alone, warped_expression, warped_portrait
from .evaluator import Case, Evaluator, audio_of, true_track
from .figures import Row, Table, summarize
from .measure import ClipFigures, measure_clip
from .metrics.style import cosine

MODEL, TRUTH = "SVP", "truth"
WARPED, WARPED_EXPRESSION, MODEL_EXPRESSION = (
    "warped portrait",
    "warped portrait, expression given",
    "SVP, expression given",
)
BASELINES = ("still portrait", "warped portrait", "nearest training clip", "SVP, mute voice", "VAE alone")
SAMPLED, NO_STYLE, MEAN_STYLE = "SVP", "SVP without style", "SVP, mean style (s = mu)"
VOICE_ONLY, FACE_ONLY, OTHER_EMOTION = (
    "SVP, style from voice only",
    "SVP, style from face only",
    "SVP, style of another emotion",
)
VARIANTS = (SAMPLED, NO_STYLE, MEAN_STYLE, VOICE_ONLY, FACE_ONLY, OTHER_EMOTION)
STEPS = (1, 4, 8, 25)
BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the interpolation strip
BLEND_FRAMES = 3
# Figures in the output beside those of earlier versions: key -> (system, figure).
KEYS = {
    "bent_psnr": (WARPED, "psnr"),
    "bent_ssim": (WARPED, "ssim"),
    "vae_psnr": ("VAE alone", "psnr"),
    "vae_ssim": ("VAE alone", "ssim"),
    **{
        f"{region}_{figure}": (MODEL, f"{region}_{figure}")
        for region in ("mouth", "eyes", "brows", "rest")
        for figure in ("psnr", "ssim", "sharpness")
    },
    **{name: (MODEL, name) for name in ("f_lmd", "m_lmd", "still_flicker", "lid_corr", "colour_drift", "jitter")},
}
# Of models that read an expression track.
EXPRESSION_KEYS = {
    f"{prefix}_{name}": (system, name)
    for prefix, system in (
        ("bent_expression", WARPED_EXPRESSION),
        ("expression", MODEL_EXPRESSION),
    )
    for name in ("psnr", "ssim", "mouth_psnr", "mouth_sharpness", "eyes_psnr", "brows_psnr", "lid_corr", "mouth_corr")
}
RECONSTRUCTION_COLUMNS = (
    *("psnr", "ssim", "sharpness", "f_lmd_256", "m_lmd_256", "mouth_corr", "lid_corr", "voice_lag", "voice_corr"),
    *("still_flicker", "colour_drift", "jitter", "seams", "blink_rate"),
)
REGION_COLUMNS = tuple(
    f"{region}_{figure}" for region in ("mouth", "eyes", "brows", "rest") for figure in ("psnr", "ssim", "sharpness")
)
TRANSFER_COLUMNS = (
    "emotion_acc",
    "stylesim",
    "psnr",
    "ssim",
    "mouth_psnr",
    "eyes_psnr",
    "f_lmd_256",
    "m_lmd_256",
    "mouth_corr",
)


@contextmanager
def silence_is_meant() -> Iterator[None]:
    """No warnings about a silent voice while the block lasts."""

    def other(record: logging.LogRecord) -> bool:
        return record.levelno > logging.WARNING

    voices.LOG.addFilter(other)
    try:
        yield
    finally:
        voices.LOG.removeFilter(other)


@dataclass(frozen=True)
class ComparisonSize:
    """How much is compared. transfers: cases of style transfer, transfer_seconds long, with that many seeds of style and noise;
    step_clips, step_seconds: for the figures by steps; people: of training, among whom the nearest is looked up."""

    transfers: int
    transfer_seconds: float
    seeds: int
    step_clips: int
    step_seconds: float
    people: int

    def steps(self, cases: int, beside: int = 0, expressive: bool = False) -> int:
        """How often the evaluator's on_step is called for that many cases, beside so many other models."""
        transfers = min(self.transfers, cases) * (len(VARIANTS) + self.seeds - 1 + beside)
        return (
            cases * (1 + beside + expressive)
            + transfers
            + min(self.step_clips, cases) * len(STEPS)
            + (len(BLENDS) if cases else 0)
        )


@dataclass(frozen=True)
class Sample:
    """Frames of a case for the report, n h w 3 by name, in the order in which they are shown; landmarks: true ones, n 68 2."""

    name: str
    frames: dict[str, np.ndarray]
    landmarks: np.ndarray
    fps: float
    audio: Audio
    figures: dict[str, float]


@dataclass
class Comparison:
    """Collects case after case. beside: other models by their names in the tables; samples: for the report."""

    evaluator: Evaluator
    size: ComparisonSize
    seed: int
    beside: Mapping[str, PortraitModel] = field(default_factory=dict)
    others: dict[str, Evaluator] = field(default_factory=dict)
    reconstruction: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    transfer: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    by_steps: dict[int, list[dict[str, float]]] = field(default_factory=lambda: {count: [] for count in STEPS})
    samples: list[Sample] = field(default_factory=list)
    transfers: list[Sample] = field(default_factory=list)
    blend: list[np.ndarray] = field(default_factory=list)
    people: TrainingPeople | None = None

    def add(self, case: Case, made: np.ndarray, made_track: FaceTrack, true_track: FaceTrack, seed: int) -> None:
        """made: what the model makes of the case (n h w 3), as the analyser reads it; true_track: of the clip's own frames."""
        evaluator, clip, number = self.evaluator, case.clip, len(self.samples)
        if self.people is None:
            self.people = TrainingPeople(self.size.people, evaluator.size, evaluator.version)
            self.others = {label: self._other(model) for label, model in self.beside.items()}
        portrait = clip.images[0]
        silence = replace(audio_of(clip), waveform=torch.zeros_like(audio_of(clip).waveform))
        with silence_is_meant():
            muted = evaluator.generate(clip, clip, silence, case.style, len(clip.images), seed)
        frames = {
            "still portrait": still_portrait(portrait, len(clip.images)),
            WARPED: warped_portrait(portrait, clip.head_keypoints[0], clip.head_keypoints),
            **self._with_expression(case, seed),
            "nearest training clip": self.people.nearest_clip(portrait, clip, seed),
            "SVP, mute voice": muted,
            "VAE alone": vae_alone(evaluator.model, clip.images, clip.head_keypoints),
            **{
                label: other.generate(clip, clip, audio_of(clip), other.styled(case), len(clip.images), seed)
                for label, other in self.others.items()
            },
            MODEL: made,
            TRUTH: clip.images,
        }
        name = f"case {number + 1:02}, {clip.emotion}"
        for system, images in frames.items():
            track = {MODEL: made_track, TRUTH: true_track}.get(system)
            joins = self._joins(len(images)) if system in (MODEL, MODEL_EXPRESSION, "SVP, mute voice") else ()
            figures = self._measured(images, clip, track, joins).figures
            self.reconstruction.setdefault(system, {})[name] = figures
        shown = {
            "portrait": still_portrait(portrait, len(made)),
            **{
                key: frames[key]
                for key in (TRUTH, WARPED, WARPED_EXPRESSION, MODEL, MODEL_EXPRESSION, *self.others)
                if key in frames
            },
        }
        own = self.reconstruction[MODEL][name]
        self.samples.append(Sample(name, shown, clip.landmarks, clip.fps, audio_of(clip), own))
        if number < self.size.transfers:
            self._add_transfer(case, name, number, seed)
        if number < self.size.step_clips:
            self._add_steps(case, seed)
        if not number:
            self._add_blend(case, seed)

    def _other(self, model: PortraitModel) -> Evaluator:
        own = self.evaluator
        return Evaluator(model, own.sampling, own.on_step, version=own.version, size=own.size)

    def _with_expression(self, case: Case, seed: int) -> dict[str, np.ndarray]:
        """Warped portrait and model with the expression track, of a model that reads one."""
        evaluator, clip = self.evaluator, case.clip
        if not evaluator.expressive:
            return {}
        count, first = len(clip.images), clip.head_keypoints[0]
        voice, track = audio_of(clip), true_track(clip, count)
        return {
            WARPED_EXPRESSION: warped_expression(
                evaluator.model.face_analyzer, clip.images[0], first, clip.head_keypoints, track
            ),
            MODEL_EXPRESSION: evaluator.generate(clip, clip, voice, case.style, count, seed, track),
        }

    def _joins(self, frames: int) -> tuple[int, ...]:
        """The first frames of the windows of a generated clip, without the first window."""
        options = resolve_options(self.evaluator.model.config, self.evaluator.sampling)
        return tuple(window[0] for window in frame_windows(frames, options.window, options.overlap)[1:])

    def _measured(
        self, images: np.ndarray, clip: Clip, track: FaceTrack | None = None, joins: tuple[int, ...] = ()
    ) -> ClipFigures:
        """images: n h w 3, the clip's first frames as somebody made them."""
        count = len(images)
        track = self.evaluator.read(np.ascontiguousarray(images)) if track is None else track
        truth = replace(
            track,
            landmarks=clip.landmarks[:count].astype(np.float32),
            pose=clip.states.pose[:count, :3].astype(np.float32),
            present=np.ones(count, bool),
        )
        return measure_clip(images, clip.images[:count], track, truth, clip.fps, audio_of(clip), joins=joins)

    def _add_transfer(self, case: Case, name: str, number: int, seed: int) -> None:
        evaluator, clip = self.evaluator, case.clip
        frames = min(len(clip.images), max(1, round(self.size.transfer_seconds * clip.fps)))
        strange, moody = number // 2 % 2 == 0, number % 2 == 0
        portrait = case.wrong_clip if moody else case.style_clip  # of another emotion, or of the same
        right, wrong = self._stranger(case, number) if strange else (case.style_clip, case.wrong_clip)
        voice = audio_of(right)
        face = torch.from_numpy(given(evaluator.analyzer.analyze(right.images).expression, "expression"))
        prior, wrong_prior = (
            (evaluator.prior_of(right), evaluator.prior_of(wrong)) if strange else (case.prior, case.wrong_prior)
        )
        styles: dict[str, Style | None] = {
            SAMPLED: sample_style(prior, case.seed),
            NO_STYLE: None,
            MEAN_STYLE: sample_style(prior, case.seed, 0),
            VOICE_ONLY: sample_style(extract_style(evaluator.model, None, voice, right.fps), case.seed),
            FACE_ONLY: sample_style(extract_style(evaluator.model, face, None, right.fps), case.seed),
            OTHER_EMOTION: sample_style(wrong_prior, case.seed),
        }
        wanted = self._code(evaluator.expression(clip.images[:frames]))
        shown = {"portrait": still_portrait(portrait.images[0], frames), TRUTH: clip.images[:frames]}
        warped = warped_portrait(portrait.images[0], portrait.head_keypoints[0], clip.head_keypoints[:frames])
        made = {WARPED: warped}
        for label, another in self.others.items():
            own_style = sample_style(another.prior_of(right), case.seed)
            made[label] = another.generate(portrait, clip, audio_of(clip), own_style, frames, seed)
        for variant, style in styles.items():
            made[variant] = evaluator.generate(portrait, clip, audio_of(clip), style, frames, seed)
        for again in range(1, self.size.seeds):
            other = sample_style(prior, case.seed + again)
            made[f"{SAMPLED} {again}"] = evaluator.generate(portrait, clip, audio_of(clip), other, frames, seed + again)
        for variant, images in made.items():
            track = evaluator.read(images)
            expression = given(track.expression, "expression")
            figures = self._measured(images, clip, track).figures | {
                "emotion_acc": float(classify_emotion(expression)[0] == clip.emotion),
                "stylesim": cosine(self._code(expression), wanted),
            }
            self.transfer.setdefault(variant, {})[name] = figures
        title = f"{name}: the portrait shows {portrait.emotion}, the style is {'a stranger' if strange else 'the same person'}'s"
        shown |= {key: made[key] for key in (WARPED, *self.others, *VARIANTS) if key in made}
        own = self.transfer[SAMPLED][name]
        self.transfers.append(Sample(title, shown, clip.landmarks[:frames], clip.fps, audio_of(clip), own))

    def _stranger(self, case: Case, number: int) -> tuple[Clip, Clip]:
        """Clips of another test person: with the emotion of the case, and with that of its wrong clip."""
        rng = np.random.default_rng((self.seed, number, len(EMOTIONS)))
        who, first, second = rng.integers(2**31, size=3).tolist()
        seconds, fps = len(case.style_clip.images) / case.clip.fps, case.clip.fps
        moods = ((case.clip.emotion, first), (case.wrong_clip.emotion, second))
        right, wrong = (self.evaluator.make(speaker(who, "test"), mood, turn, seconds, fps) for mood, turn in moods)
        return right, wrong

    def _code(self, expression: np.ndarray) -> np.ndarray:
        """The mean style of expressions n x 64 alone."""
        evaluator = self.evaluator
        return extract_style(evaluator.model, torch.from_numpy(expression), None, evaluator.fps).mu.numpy()

    def _add_steps(self, case: Case, seed: int) -> None:
        clip, sampling = case.clip, self.evaluator.sampling
        frames = min(len(clip.images), max(1, round(self.size.step_seconds * clip.fps)))
        for count in STEPS:
            own = Evaluator(
                self.evaluator.model,
                replace(sampling, steps=count),
                self.evaluator.on_step,
                version=self.evaluator.version,
            )
            track = true_track(clip, frames) if own.expressive else None
            made = own.generate(clip, clip, audio_of(clip), case.style, frames, seed, track)
            self.by_steps[count].append(self._measured(made, clip).figures)

    def _add_blend(self, case: Case, seed: int) -> None:
        """The relaxed portrait between the case's style and that of another emotion: one frame for each weight."""
        for weight in BLENDS:
            style = interpolate_styles(case.style, case.wrong_style, weight, weight)
            frames = min(BLEND_FRAMES, len(case.clip.images))
            made = self.evaluator.generate(case.portrait, case.clip, audio_of(case.clip), style, frames, seed)
            self.blend.append(made[-1])

    def step_figures(self, figure: str) -> dict[int, float]:
        """A figure by the number of denoising steps, mean over the clips."""
        return {count: float(np.mean([row[figure] for row in rows])) for count, rows in self.by_steps.items() if rows}

    def figures(self) -> dict[str, object]:
        """The keys that the comparison adds; `svp evaluate demo --help` explains them."""
        rows = {row.label: row.values for row in self.reconstruction_rows()}
        found: dict[str, object] = {
            key: rows[system][figure]
            for key, (system, figure) in (KEYS | EXPRESSION_KEYS).items()
            if figure in rows.get(system, {})
        }
        found["steps_psnr"] = {str(count): value for count, value in self.step_figures("psnr").items()}
        found["systems"] = {label: dict(values) for label, values in rows.items()}
        found["style_transfer"] = {row.label: dict(row.values) for row in self.transfer_rows()}
        return found

    def reconstruction_rows(self) -> tuple[Row, ...]:
        return tuple(
            summarize(system, clips, self.seed, competes=system not in (TRUTH, "VAE alone"))
            for system, clips in self.reconstruction.items()
        )

    def transfer_rows(self) -> tuple[Row, ...]:
        """One row a variant; of several seeds the first, and how the means of all of them scatter."""
        rows = [
            summarize(name, clips, self.seed)
            for name, clips in self.transfer.items()
            if name in (WARPED, *self.others, *VARIANTS)
        ]
        seeds = [name for name in self.transfer if name == SAMPLED or name.removeprefix(f"{SAMPLED} ").isdigit()]
        if len(seeds) > 1:
            means = [summarize(name, self.transfer[name], self.seed).values for name in seeds]
            spread = {key: float(np.std([mean[key] for mean in means], ddof=1)) for key in means[0]}
            label = f"standard deviation over {len(seeds)} seeds of {SAMPLED}"
            rows.append(Row(label, spread, competes=False, note="of style and noise, each seed's mean over the clips"))
        return tuple(rows)

    def tables(self) -> Iterator[Table]:
        """The tables of the report."""
        note = (
            "SVP and the portraits start from the first true frame. Truth's landmarks are known, so its own row shows how the "
            "reader errs. VAE alone sees the true frames: nothing that the model makes can be better."
        )
        rows = self.reconstruction_rows()
        yield Table("Reconstruction", RECONSTRUCTION_COLUMNS, rows, note)
        yield Table("Reconstruction by region", REGION_COLUMNS, rows)
        if self.transfer:
            note = (
                "Half of the portraits show another emotion than the target, half of the styles come from another person. "
                "Under a style of another emotion, recognised emotions should be rare."
            )
            yield Table("Style transfer and ablations", TRANSFER_COLUMNS, self.transfer_rows(), note)
