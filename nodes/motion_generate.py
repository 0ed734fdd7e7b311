"""Motions from voices: generators loaded, and a motion for an audio made with one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..svp_models.checkpoints.built_in_motion import BUILT_IN_MOTION
from ..svp_models.checkpoints.model_zoo import missing_file_error
from ..svp_models.diffusion.style import sample_style
from ..svp_models.errors import PortraitError
from ..svp_models.face.tracking import FaceTracker
from ..svp_models.io.progress import shared
from ..svp_models.motion.built_in import STYLE_GUIDANCE, WORDS_GUIDANCE
from ..svp_models.motion.built_in_generator import (
    BuiltInConditions,
    with_conditions,
)
from ..svp_models.motion.control import PARTS, MotionControl
from ..svp_models.motion.extract import extract_liveportrait_motion
from ..svp_models.motion.generator_files import BUILT_IN, KINDS, GeneratorKind
from ..svp_models.motion.generators import GenerateOptions, generate_motion
from ..svp_models.motion.keypoints import keypoints_of_motion
from ..svp_models.motion.liveportrait import INPUT_SIDE
from ..svp_models.types import Motion, Style, StylePrior
from . import host
from .host import NO_FILES, folder_paths, io
from .liveportrait import any_analyzer
from .types import (
    ADVANCED,
    TALK,
    FaceAnalyzerSocket,
    LivePortraitSocket,
    LoadedMotionGenerator,
    MotionGeneratorSocket,
    MotionSocket,
    StylePriorSocket,
    StyleSocket,
    audio_from_host,
    open_frames,
    search_aliases,
    seed_input,
)

FIND_FACE, WHOLE_IMAGE = FRAMINGS = ("find face", "whole image")
PORTRAIT_SIDE = INPUT_SIDE  # pixels that LivePortrait sees
PORTRAIT_SHARE = 0.1  # of the time, for the face of the portrait
OWN_BLINKS = -1.0  # a blink rate that leaves lids to the generator
PROMPT = "# at 1 s nods, from 3 to 5 s looks left"  # a comment: no words
FOLDERS = " and ".join(f"models/{kind.entry}" for kind in KINDS)


def generator_names() -> list[str]:
    """Loadable generators: their weight files below models, as `kdtalker/KDTalker.pth`."""
    return list(generator_files()) or [NO_FILES]


def generator_files() -> dict[str, tuple[GeneratorKind, str, str]]:
    """Name -> kind, folder as the host names it, file without folders. The pack's own generator comes last:
    photographs need one of the others."""
    found: dict[str, tuple[GeneratorKind, str, str]] = {}
    for kind in KINDS:
        for folder, files in host.list_folders(kind.entry).items():
            for name in sorted(map(os.path.basename, files)):
                if kind.is_own(name):
                    found[f"{kind.entry}/{folder.lstrip('/')}{name}"] = (kind, folder, name)
    if BUILT_IN_MOTION.is_file():
        found[BUILT_IN.entry] = (BUILT_IN, "", BUILT_IN_MOTION.name)
    return found


def generator_path(name: str) -> tuple[GeneratorKind, str]:
    """The kind of a choice and its file. PortraitError says what is missing and how to get it."""
    found = generator_files()
    if name in found:
        kind, folder, file = found[name]
        if kind is BUILT_IN:
            return kind, str(BUILT_IN_MOTION)
        return kind, os.path.join(host.find_folder(kind.entry, folder), file)
    if name != NO_FILES:
        raise PortraitError(f"there is no file '{name}' in {folder_paths.models_dir}: press R and choose another one")
    errors = [
        missing_file_error(kind.entry, folder_paths.get_folder_paths(kind.entry), models=folder_paths.models_dir)
        for kind in KINDS
    ]
    raise PortraitError("; or ".join(map(str, errors)))


def check_generator(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or what is missing and how to get it. None: an input that is not known yet."""
    try:
        if name is not None:
            generator_path(name)
    except PortraitError as error:
        return str(error)
    return True


class SVPLoadMotionGenerator(io.ComfyNode):
    """File -> SVP_MOTION_GENERATOR."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        found = generator_names()
        return io.Schema(
            node_id="SVPLoadMotionGenerator",
            display_name="Load Motion Generator (SVP)",
            category="SVP Portrait",
            description="Loads a network that makes head movements and expressions from a voice: the pack's own, which needs no "
            "download and moves the built-in model, or KDTalker or JoyVASA, which move photographs.",
            inputs=[
                io.Combo.Input(
                    "generator",
                    options=found,
                    default=found[0],
                    tooltip=f"built-in, which comes with the pack, or a weight file in {FOLDERS}. KDTalker also needs wav2lip.pth "
                    "and norm.npz beside it, JoyVASA motion_template.pkl; svp download kdtalker joyvasa fetches all of them.",
                )
            ],
            outputs=[
                MotionGeneratorSocket.Output(
                    "motion_generator", tooltip="For Generate Motion and Predict Speaking Style."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, generator: str | None) -> bool | str:
        return check_generator(generator)

    @classmethod
    def execute(cls, generator: str) -> io.NodeOutput:
        kind, path = generator_path(generator)
        return io.NodeOutput(LoadedMotionGenerator.of(kind.open(Path(path))))

    @classmethod
    def fingerprint_inputs(cls, generator: str) -> float:
        _, path = generator_path(generator)
        return max(entry.stat().st_mtime for entry in os.scandir(os.path.dirname(path)) if entry.is_file())


class SVPMotionGenerate(io.ComfyNode):
    """AUDIO and SVP_MOTION_GENERATOR -> SVP_MOTION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionGenerate",
            display_name="Generate Motion (SVP)",
            **search_aliases(*TALK, "audio to motion", "kdtalker", "joyvasa"),
            category="SVP Portrait/motion",
            description="Makes the movements of a face that says a voice: lips, expression and head, as long as the voice. Animate "
            "Portrait moves a photograph by them.",
            inputs=[
                MotionGeneratorSocket.Input("motion_generator", tooltip="From Load Motion Generator."),
                io.Audio.Input("audio", tooltip="The voice, of any length and sample rate; both channels are mixed."),
                seed_input(
                    "Another seed gives other movements for the same voice; the same seed the same, to the bit."
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Frames per second of the motion. The generators make 25; other rates are interpolated.",
                ),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=1000,
                    step=1,
                    tooltip="Sampling steps; 0 takes the generator's own: built-in 10, KDTalker 50, JoyVASA all that it was trained with "
                    "(500).",
                ),
                io.Float.Input(
                    "guidance",
                    default=-1.0,
                    min=-1.0,
                    max=10.0,
                    step=0.1,
                    tooltip="How much the voice counts, as a factor; -1 takes the generator's own: built-in 1, JoyVASA 2. KDTalker has "
                    "none and takes no notice.",
                ),
                io.Boolean.Input(
                    "smoothing",
                    default=True,
                    tooltip="The generator's own smoothing: KDTalker's takes jitter out of pose and expression, JoyVASA's makes head "
                    "movements slow and small.",
                ),
                io.Int.Input(
                    "overlap",
                    default=-1,
                    min=-1,
                    max=60,
                    step=1,
                    extra_dict=ADVANCED,
                    tooltip="Frames that neighbouring windows share, so that they join without a jerk. -1: KDTalker 12, JoyVASA 0, "
                    "whose windows join by themselves. 0: as published.",
                ),
                io.Combo.Input(
                    "framing",
                    options=list(FRAMINGS),
                    default=FIND_FACE,
                    extra_dict=ADVANCED,
                    tooltip="find face: the face is cut out of the portrait, as Animate Portrait does it. whole image: the portrait is a "
                    "square crop of a face already.",
                ),
                LivePortraitSocket.Input(
                    "liveportrait",
                    optional=True,
                    tooltip="From Load LivePortrait, for KDTalker: reads the portrait's face.",
                ),
                io.Image.Input(
                    "portrait",
                    optional=True,
                    tooltip="The photograph that will be moved, for KDTalker. JoyVASA takes no notice of it.",
                ),
                FaceAnalyzerSocket.Input(
                    "face_analyzer",
                    optional=True,
                    tooltip="From Load Face Analyzer: finds the face of the portrait. Without: the best that is installed.",
                ),
                io.MultiType.Input(
                    "style",
                    types=[StyleSocket, StylePriorSocket],
                    optional=True,
                    tooltip="For built-in: the speaking style, from Sample Speaking Style, Predict Speaking Style or Extract Speaking "
                    "Style (of a prior, its mean).",
                ),
                MotionSocket.Input(
                    "given_motion",
                    optional=True,
                    tooltip="For built-in: a motion whose given_part is taken over exactly; the rest is made to fit. One frame stands "
                    "for all.",
                ),
                io.String.Input(
                    "prompt",
                    optional=True,
                    default=PROMPT,
                    multiline=True,
                    tooltip="For built-in: what the head does, in English, with times if wanted: nods slowly, at 3 s looks left, from 5 "
                    "to 7 s still. Movements: nod, shake, tilt, look, lean, sway, still, lively. Lines with # in front do not count. The log "
                    "names words that it does not know.",
                ),
                io.Float.Input(
                    "blink_rate",
                    optional=True,
                    default=OWN_BLINKS,
                    min=OWN_BLINKS,
                    max=2.0,
                    step=0.05,
                    tooltip="For built-in: blinks per second, as a number; 0 none, 0.3 usual, below 0 its own.",
                ),
                io.Combo.Input(
                    "given_part",
                    options=list(PARTS),
                    optional=True,
                    default="head",
                    extra_dict=ADVANCED,
                    tooltip="What is taken from given_motion. The names of two parts mean both; face is the expression with lids and gaze.",
                ),
                io.Float.Input(
                    "largest_angle",
                    optional=True,
                    default=0.0,
                    min=0.0,
                    max=90.0,
                    step=0.5,
                    extra_dict=ADVANCED,
                    tooltip="For built-in: how far the head may turn from straight ahead, in degrees; 0 sets no limit.",
                ),
                io.Float.Input(
                    "largest_shift",
                    optional=True,
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    extra_dict=ADVANCED,
                    tooltip="For built-in: how far the head may move away from its place, in shares of the picture's side; 0 sets no "
                    "limit.",
                ),
                io.Float.Input(
                    "words_guidance",
                    optional=True,
                    default=WORDS_GUIDANCE,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    extra_dict=ADVANCED,
                    tooltip="How much the prompt counts, as a factor: 1 as trained, more makes its movements clearer.",
                ),
                io.Float.Input(
                    "style_guidance",
                    optional=True,
                    default=STYLE_GUIDANCE,
                    min=0.0,
                    max=10.0,
                    step=0.1,
                    extra_dict=ADVANCED,
                    tooltip="How much the style counts, as a factor: 1 as trained, more exaggerates it.",
                ),
            ],
            outputs=[
                MotionSocket.Output(
                    "motion",
                    tooltip="As many frames as the voice has; for Animate Portrait, that of built-in for Motion to Head Keypoints and "
                    "Portrait Sampler.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, motion_generator, audio: dict[str, Any], seed: int, fps: float, steps: int, guidance: float, smoothing: bool,
        overlap: int, framing: str, liveportrait=None, portrait=None, face_analyzer: FaceTracker | None = None,
        style: Style | StylePrior | None = None, given_motion: Motion | None = None, prompt: str = PROMPT,
        blink_rate: float = OWN_BLINKS, given_part: str = "head", largest_angle: float = 0.0, largest_shift: float = 0.0,
        words_guidance: float = WORDS_GUIDANCE, style_guidance: float = STYLE_GUIDANCE,
    ) -> io.NodeOutput:  # fmt: skip
        groups = () if given_motion is None else PARTS[given_part]
        limits = {
            name: (-most, most) for name, most in (("rotation", largest_angle), ("shift", largest_shift)) if most > 0
        }
        control = MotionControl(given_motion, groups, None if blink_rate < 0 else blink_rate, limits)
        conditions = BuiltInConditions(
            style=style_of(style),
            prompt=prompt,
            control=control,
            words_guidance=words_guidance,
            style_guidance=style_guidance,
        )
        generator = with_conditions(motion_generator.generator, conditions)
        reading, generating = shared(host.progress(), PORTRAIT_SHARE, 1 - PORTRAIT_SHARE)
        face = None
        if motion_generator.generator.needs_face and liveportrait is not None and portrait is not None:
            liveportrait.load()
            whole = framing == WHOLE_IMAGE
            analyzer = None if whole else any_analyzer(face_analyzer)
            still = open_frames(portrait[:1])
            motion = extract_liveportrait_motion(
                liveportrait.networks, still, motion_generator.generator.fps, analyzer, whole, reading, PORTRAIT_SIDE
            )
            face = keypoints_of_motion(motion)
        motion_generator.load()
        options = GenerateOptions(seed, steps, guidance, overlap, smoothing)
        voice = audio_from_host(audio)
        return io.NodeOutput(generate_motion(generator, voice, fps, options, face, generating))


def style_of(style: Style | StylePrior | None) -> Style | None:
    """A style as it is, or the mean of a prior."""
    return sample_style(style, 0, 0.0) if isinstance(style, StylePrior) else style
