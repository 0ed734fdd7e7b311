"""Test cases of the synthetic world, what a model generates for them, and what a face analyser reads from the frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ..diffusion.composition import chunk_of, compose_frames, plan_composition
from ..diffusion.conditioning_cache import ConditioningCache
from ..diffusion.pipeline import PortraitPipeline, SamplerOptions
from ..diffusion.style import extract_style, sample_style
from ..errors import PortraitError
from ..face.detection import FaceTrack, given
from ..face.detectors.built_in import FaceAnalyzer
from ..face.portrait_face import expression_track
from ..face.portrait_reader import Analyzer
from ..model import PortraitModel
from ..motion.built_in_generator import BuiltInGenerator, open_built_in
from ..motion.spoken_expression import spoken_expression
from ..synthetic.clips import Clip, act, make_clip, neutral_portrait, states_to_motion
from ..synthetic.performance import EMOTIONS
from ..synthetic.renderer import RenderedClip
from ..synthetic.speakers import Speaker, speaker
from ..types import Audio, HeadMotion, Style, StylePrior
from .baselines import to_frames, to_planes

SAMPLE_RATE = 16000
INTENSITY = 3  # of the emotions


@dataclass(frozen=True)
class Case:
    """One test clip with all that drives it.

    portrait: the relaxed face, one frame; style_clip, wrong_clip: the same person with the clip's emotion and with another
    one, saying other sentences; style, wrong_style: theirs, sampled; prior: of style_clip; other_audio: another person's
    speech; seed: of the styles; wrong_prior: of wrong_clip.
    """

    clip: Clip
    portrait: RenderedClip
    style_clip: Clip
    wrong_clip: Clip
    prior: StylePrior
    style: Style
    wrong_style: Style
    other_audio: Audio
    seed: int
    wrong_prior: StylePrior


class Evaluator:
    """Generates with one model and reads the results back from pixels. on_step: called after every clip that is generated.

    reader: what scores, best an analyser that no training used; None: the model's own, which styles are always read by. version:
    of the synthetic pictures; size: pixels per side of the frames, 0: the model's own, which others are brought to.
    """

    def __init__(
        self,
        model: PortraitModel,
        sampling: SamplerOptions,
        on_step: Callable[[], None],
        reader: Analyzer | None = None,
        version: int = 1,
        size: int = 0,
    ):
        self.model, self.sampling, self.on_step = model, sampling, on_step
        self.size, self.fps, self.version = size or model.config.size, model.config.fps, version
        self.expressive = bool(model.config.unet.expression_size)  # whether it reads an expression track
        self.pipeline = PortraitPipeline(model, cache=ConditioningCache())  # a case is generated with many styles
        self.analyzer = analyzer_of(model)
        self.generator = generator_for(model)
        self.reader = reader or self.analyzer

    def prior_of(self, clip: Clip) -> StylePrior:
        """Style of a clip as a user gets it: from the expressions read from its pixels, and its audio."""
        expression = torch.from_numpy(given(self.analyzer.analyze(clip.images).expression, "expression"))
        return extract_style(self.model, expression, audio_of(clip), clip.fps)

    def styled(self, case: Case) -> Style:
        """The case's style in this model's own style space."""
        return sample_style(self.prior_of(case.style_clip), case.seed)

    def make(self, who: Speaker, emotion: str, seed: int, seconds: float, fps: float) -> Clip:
        """A strong clip of a person in the evaluation's pictures, see `make_clip`."""
        return make_clip(who, emotion, INTENSITY, seed, seconds, fps, self.size, self.version)

    def generate(
        self,
        portrait: Clip | RenderedClip,
        clip: Clip,
        audio: Audio,
        style: Style | None,
        frames: int,
        seed: int,
        track: torch.Tensor | None = None,
    ) -> np.ndarray:
        """Frames n h w 3 uint8 of the portrait's first frame moving its head as in `clip` and saying `audio`; track: its expression track,
        frames x 68, None: that of the voice, for models that read one. Of a model that draws crops of the face, the crops on the
        portrait."""
        face, motion = to_planes(portrait.images[:1])[0], head_motion(portrait, clip, frames)
        given = face, audio, motion, style, frames, clip.fps, self.size, seed, self.sampling
        made = draw_frames(self.pipeline, self.generator, *given, track, self.model.config.size)
        self.on_step()
        return made

    def read(self, frames: np.ndarray) -> FaceTrack:
        """As the analyser that scores sees them."""
        return self.reader.analyze(frames)

    def expression(self, frames: np.ndarray) -> np.ndarray:
        """n 64"""
        return given(self.read(frames).expression, "expression")


def draw_frames(
    pipeline: PortraitPipeline,
    generator: BuiltInGenerator | None,
    portrait: torch.Tensor,
    audio: Audio,
    motion: HeadMotion,
    style: Style | None,
    frames: int,
    fps: float,
    size: int,
    seed: int,
    options: SamplerOptions,
    track: torch.Tensor | None = None,
    sampled_size: int = 0,
) -> np.ndarray:
    """Frames n size size 3 uint8 as users get them: crops of the face lie on the portrait.

    portrait: 3 h w in [-1, 1]; motion: in pixels of the portrait; track: frames x 68, the expression of models that read one, None:
    that which generator makes of voice and style, see `generator_for`; sampled_size: pixels per side at which the model works, 0: size.
    """
    config = pipeline.model.config
    if track is None and generator is not None:
        track = spoken_expression(generator, audio, style, frames, fps, seed)
    sizes = (sampled_size or size, sampled_size or size), (size, size)
    inputs = pipeline.prepare(portrait, audio, motion, style, frames, fps, sizes[0], expression=track)
    drawn = pipeline(inputs, seed, options)
    crop = config.face_crop
    if crop.width:
        faces = crop.width, crop.height
        plan = plan_composition(pipeline.model, portrait, motion, frames, fps, faces, sizes[1], expression=track)
        parts, start = [], 0
        for part in drawn.split(chunk_of(*sizes[1])):
            parts.append(compose_frames(pipeline.model, plan, part, start)[0])
            start += len(part)
        drawn = torch.cat(parts)
    elif sizes[0] != sizes[1]:
        drawn = functional.interpolate(drawn, sizes[1], mode="bicubic", antialias=True)
    return to_frames(drawn)


def generator_for(model: PortraitModel) -> BuiltInGenerator | None:
    """What makes expressions of voices for a model that reads an expression track; None for others."""
    return open_built_in() if model.config.unet.expression_size else None


def analyzer_of(model: PortraitModel) -> FaceAnalyzer:
    """The face analyser that the model comes with; a model without one raises PortraitError."""
    if model.face_analyzer is None:
        raise PortraitError(
            f"the model {model.config.name!r} has no face analyser to measure with: evaluate a model that has one, such as the "
            "built-in model"
        )
    return FaceAnalyzer(model.face_analyzer)


def head_motion(portrait: Clip | RenderedClip, clip: Clip, frames: int) -> HeadMotion:
    """The head of the first frames of a clip, for a portrait whose keypoints are known."""
    points, own = (torch.from_numpy(array) for array in (clip.head_keypoints[:frames], portrait.head_keypoints[0]))
    side = clip.images.shape[1]
    return HeadMotion(points, side, side, clip.fps, portrait=own)


def true_track(clip: Clip, frames: int) -> torch.Tensor:
    """The clip's expression, lids and gaze as an expression track, frames x 68."""
    return expression_track(states_to_motion(clip.states, clip.fps), frames, clip.fps)


def audio_of(clip: Clip) -> Audio:
    return audio_from_samples(clip.audio)


def audio_from_samples(samples: np.ndarray) -> Audio:
    """Samples of synthetic speech."""
    return Audio(torch.from_numpy(samples)[None], SAMPLE_RATE)


def make_cases(evaluator: Evaluator, rounds: int, seconds: float, style_seconds: float, seed: int) -> Iterator[Case]:
    """One case per emotion and round; people and sentences of the test split, chosen by the seed.

    seconds: of the test clips; style_seconds: of the style clips.
    """
    rng = np.random.default_rng(seed)
    fps = evaluator.fps
    for _ in range(rounds):
        for number, emotion in enumerate(EMOTIONS):
            who = speaker(int(rng.integers(2**31)), "test")
            wrong = EMOTIONS[(number + int(rng.integers(1, len(EMOTIONS)))) % len(EMOTIONS)]
            seeds = rng.integers(2**31, size=6).tolist()
            clip = evaluator.make(who, emotion, seeds[0], seconds, fps)
            style_clip = evaluator.make(who, emotion, seeds[1], style_seconds, fps)
            wrong_clip = evaluator.make(who, wrong, seeds[2], style_seconds, fps)
            _, other, _ = act(speaker(seeds[3], "test"), wrong, INTENSITY, seeds[4], len(clip.images), fps)
            prior, wrong_prior = evaluator.prior_of(style_clip), evaluator.prior_of(wrong_clip)
            yield Case(
                clip=clip,
                portrait=neutral_portrait(who, evaluator.size, evaluator.version),
                style_clip=style_clip,
                wrong_clip=wrong_clip,
                prior=prior,
                style=sample_style(prior, seeds[5]),
                wrong_style=sample_style(wrong_prior, seeds[5]),
                other_audio=audio_from_samples(other.waveform),
                seed=seeds[5],
                wrong_prior=wrong_prior,
            )


@dataclass(frozen=True)
class PredictionError:
    """How an analyser errs, by coefficient (64): standard deviations of its error's mean over a clip and around that."""

    bias: np.ndarray
    noise: np.ndarray

    @classmethod
    def between(cls, predicted: list[np.ndarray], true: list[np.ndarray]) -> PredictionError:
        """Measured on clips, n x 64 a clip."""
        errors = [one - other for one, other in zip(predicted, true, strict=True)]
        return cls(
            np.std([error.mean(0) for error in errors], axis=0), np.mean([error.std(0) for error in errors], axis=0)
        )

    def add_to(self, performed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Performed expressions n x 64 as the analyser would have predicted them from frames."""
        bias = rng.standard_normal(performed.shape[-1]) * self.bias
        return (performed + bias + rng.standard_normal(performed.shape) * self.noise).astype(np.float32)
