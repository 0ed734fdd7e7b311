"""The pack's own generator behind the interface of all generators: voice, style, words and control -> a motion."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from ..checkpoints.built_in_motion import BUILT_IN_MOTION, MotionModel, load_motion_model
from ..errors import PortraitError
from ..io.progress import Progress
from ..media.audio import check_audio, to_mono
from ..media.prosody import prosody
from ..networks.audio_encoder import SAMPLE_RATE, mel_rows
from ..networks.motion_generator import HABITS
from ..types import Audio, Motion, Style, StylePrior
from .built_in import (
    STEPS,
    MotionGuidance,
    conditions_for,
    generate_motion,
    motion_of_numbers,
    predict_style,
    smooth_pose_numbers,
)
from .control import MotionControl, given_motion
from .generators import GenerateOptions, MotionGenerator
from .keypoints import KeypointMotion
from .words import parse_prompt, without_comments

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuiltInConditions:
    """What a motion is made from beside the voice; None and '' leave it to the generator.

    style: of the model whose styles it was trained with; portrait: e, the resting expression of the face; prompt: of the head,
    see `motion.words`; pose_spread: standard deviations of yaw, pitch and roll in degrees; guidance: by words and style.
    """

    style: Style | None = None
    portrait: Tensor | None = None
    prompt: str = ""
    control: MotionControl = field(default_factory=MotionControl)
    pose_spread: tuple[float, float, float] | None = None
    words_guidance: float = 1.0
    style_guidance: float = 1.0


class BuiltInGenerator:
    """The pack's motion generator as a MotionGenerator. guidance: by the voice, 1 its own; smoothing: of the pose's jitter."""

    name = "built-in"
    needs_face = False

    def __init__(self, model: MotionModel, conditions: BuiltInConditions | None = None) -> None:
        self.model, self.conditions = model, conditions or BuiltInConditions()
        self.networks = nn.ModuleList([model.network])

    @property
    def fps(self) -> float:
        return self.model.network.config.fps

    def given(self, conditions: BuiltInConditions) -> BuiltInGenerator:
        """The same generator for other conditions."""
        return BuiltInGenerator(self.model, conditions)

    def generate(
        self,
        voice: Tensor,
        frames: int,
        options: GenerateOptions,
        face: KeypointMotion | None = None,
        progress: Progress | None = None,
    ) -> Motion:
        network, conditions = self.model.network, self.conditions
        config = network.config
        generator = torch.Generator().manual_seed(options.seed)
        noise = torch.randn(1, frames, config.channels, generator=generator)
        prompt = parse_prompt(conditions.prompt, frames / config.fps, config.vocabulary)
        if prompt.warning:
            LOG.warning(prompt.warning)
        encoded = conditions_for(
            network,
            mel_rows(voice.numpy(), 0, frames, config.fps),
            frames,
            self._style(conditions.style, frames),
            conditions.portrait,
            self._habits(conditions),
            prompt.phrases,
        )
        given = given_motion(network, frames, conditions.control, generator)
        guidance = MotionGuidance(
            voice=1.0 if options.guidance < 0 else options.guidance,
            style=conditions.style_guidance if conditions.style is not None else 1.0,
            words=conditions.words_guidance if prompt.phrases else 1.0,
        )
        made = generate_motion(
            network, encoded, noise, given, options.steps or STEPS, guidance, progress=progress
        ).cpu()
        made = smooth_pose_numbers(made, network, None if given is None else given.known) if options.smoothing else made
        return motion_of_numbers(made[0], network)

    def _style(self, style: Style | None, frames: int) -> Tensor | None:
        """The style's code d_s, or that of every frame where it changes, n d_s; PortraitError for a style of another model."""
        if style is None:
            return None
        if style.style_space != self.model.style_space:
            raise PortraitError(
                f"the style is of style space {style.style_space}, the motion generator was trained with {self.model.style_space}: "
                "extract the style with the built-in model"
            )
        return style.codes[0] if len(style.codes) == 1 else style.at(frames)

    def _habits(self, conditions: BuiltInConditions) -> Tensor:
        """HABITS, NaN where they are left to the generator."""
        habits = torch.full((len(HABITS),), torch.nan)
        if conditions.control.blink_rate is not None:
            habits[0] = conditions.control.blink_rate
        if conditions.pose_spread is not None:
            habits[1:] = torch.tensor(conditions.pose_spread)
        return habits


def with_conditions(generator: MotionGenerator, conditions: BuiltInConditions) -> MotionGenerator:
    """The generator for these conditions; PortraitError where it is another one that cannot follow them."""
    if isinstance(generator, BuiltInGenerator):
        return generator.given(conditions)
    control = conditions.control
    asked = {
        "style": conditions.style is not None,
        "prompt": bool(without_comments(conditions.prompt).strip()),
        "given motion": bool(control.groups),
        "blink rate": control.blink_rate is not None,
        "limits": bool(control.limits),
    }
    if any(asked.values()):
        named = ", ".join(name for name, value in asked.items() if value)
        raise PortraitError(f"{generator.name} cannot follow {named}: load the generator 'built-in', or leave it empty")
    return generator


def built_in_parts(generator: MotionGenerator) -> MotionModel:
    """The networks of the pack's own generator; PortraitError for another one."""
    if not isinstance(generator, BuiltInGenerator):
        raise PortraitError(f"{generator.name} predicts no styles: load the generator 'built-in'")
    return generator.model


def open_built_in(path: Path | None = None) -> BuiltInGenerator:
    """The generator of a file, the shipped one without."""
    return BuiltInGenerator(load_motion_model(path or BUILT_IN_MOTION))


def predict_style_prior(
    model: MotionModel, audio: Audio, seed: int, portrait: Tensor | None = None, label: str = ""
) -> StylePrior:
    """One of the styles that fit a voice (Ma et al. 2023): the seed chooses. portrait: e, the resting expression.

    A prediction is a style and no spread: sigma is 0, so that every sample of the prior is it.
    """
    predictor = model.style_predictor
    if predictor is None:
        raise PortraitError(
            "the motion generator's file holds no style predictor: choose another file, or extract a style"
        )
    check_audio(audio)
    heard = torch.from_numpy(prosody(to_mono(audio, SAMPLE_RATE).numpy()))[None]
    face = None if portrait is None else portrait[None]
    code = predict_style(predictor, heard, face, torch.Generator().manual_seed(seed))[0].float().cpu()
    return StylePrior(code, torch.zeros_like(code), model.style_space, label)
