"""Test cases of the synthetic world, what a model generates for them, and what a face analyser reads from the frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from einops import rearrange

from ..diffusion.conditioning_cache import ConditioningCache
from ..diffusion.pipeline import PortraitPipeline, SamplerOptions
from ..diffusion.style import extract_style, sample_style
from ..errors import PortraitError
from ..face.detection import FaceTrack, given
from ..face.detectors.built_in import FaceAnalyzer
from ..model import PortraitModel
from ..synthetic.clips import Clip, act, make_clip, neutral_portrait
from ..synthetic.performance import EMOTIONS
from ..synthetic.renderer import RenderedClip
from ..synthetic.speakers import speaker
from ..types import Audio, HeadMotion, Style, StylePrior

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

    reader: ONNX bytes of the analyser that scores, best one that no training used; None: the model's own, which styles are always
    read by.
    """

    def __init__(
        self,
        model: PortraitModel,
        sampling: SamplerOptions,
        on_step: Callable[[], None],
        reader: bytes | None = None,
    ):
        self.model, self.sampling, self.on_step = model, sampling, on_step
        self.size, self.fps = model.config.size, model.config.fps
        self.pipeline = PortraitPipeline(model, cache=ConditioningCache())  # a case is generated with many styles
        self.analyzer = analyzer_of(model)
        self.reader = self.analyzer if reader is None else FaceAnalyzer(reader)

    def prior_of(self, clip: Clip) -> StylePrior:
        """Style of a clip as a user gets it: from the expressions read from its pixels, and its audio."""
        expression = torch.from_numpy(given(self.analyzer.analyze(clip.images).expression, "expression"))
        return extract_style(self.model, expression, audio_of(clip), clip.fps)

    def generate(
        self, portrait: Clip | RenderedClip, clip: Clip, audio: Audio, style: Style | None, frames: int, seed: int
    ) -> np.ndarray:
        """Frames n h w 3 uint8 of the portrait's first frame moving its head as in `clip` and saying `audio`."""
        face = rearrange(torch.from_numpy(portrait.images[0].copy()), "h w c -> c h w").float() / 127.5 - 1
        points, own = (torch.from_numpy(array) for array in (clip.head_keypoints[:frames], portrait.head_keypoints[0]))
        motion = HeadMotion(points, self.size, self.size, clip.fps, portrait=own)
        inputs = self.pipeline.prepare(face, audio, motion, style, frames, clip.fps, (self.size, self.size))
        pixels = ((self.pipeline(inputs, seed, self.sampling) + 1) * 127.5).round().clamp(0, 255).byte()
        self.on_step()
        return rearrange(pixels, "n c h w -> n h w c").numpy()

    def read(self, frames: np.ndarray) -> FaceTrack:
        """As the analyser that scores sees them."""
        return self.reader.analyze(frames)

    def expression(self, frames: np.ndarray) -> np.ndarray:
        """n 64"""
        return given(self.read(frames).expression, "expression")


def analyzer_of(model: PortraitModel) -> FaceAnalyzer:
    """The face analyser that the model comes with; a model without one raises PortraitError."""
    if model.face_analyzer is None:
        raise PortraitError(
            f"the model {model.config.name!r} has no face analyser to measure with: evaluate a model that has one, such as the "
            "built-in model"
        )
    return FaceAnalyzer(model.face_analyzer)


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
    fps, size = evaluator.fps, evaluator.size
    for _ in range(rounds):
        for number, emotion in enumerate(EMOTIONS):
            who = speaker(int(rng.integers(2**31)), "test")
            wrong = EMOTIONS[(number + int(rng.integers(1, len(EMOTIONS)))) % len(EMOTIONS)]
            seeds = rng.integers(2**31, size=6).tolist()
            clip = make_clip(who, emotion, INTENSITY, seeds[0], seconds, fps, size)
            style_clip = make_clip(who, emotion, INTENSITY, seeds[1], style_seconds, fps, size)
            wrong_clip = make_clip(who, wrong, INTENSITY, seeds[2], style_seconds, fps, size)
            _, other, _ = act(speaker(seeds[3], "test"), wrong, INTENSITY, seeds[4], len(clip.images), fps)
            prior, wrong_prior = evaluator.prior_of(style_clip), evaluator.prior_of(wrong_clip)
            yield Case(
                clip=clip,
                portrait=neutral_portrait(who, size),
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
