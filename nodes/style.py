"""Nodes for speaking styles: extracted from a clip, sampled, interpolated, saved and loaded."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ..svp_models.checkpoints.style_layers import load_style, save_style
from ..svp_models.diffusion.style import EASINGS, extract_style, interpolate_styles, sample_style
from ..svp_models.errors import PortraitError
from ..svp_models.face.tracking import FaceTracker, expression_from_track, track_face
from ..svp_models.io.progress import shared
from ..svp_models.model import PortraitModel
from ..svp_models.types import Audio, StylePrior
from . import host
from .host import io
from .saved_files import SavedKind
from .types import (
    FaceAnalyzerSocket,
    StylePriorSocket,
    StyleSocket,
    SvpModel,
    audio_from_host,
    audio_of_video,
    open_frames,
    seed_input,
)

STYLES = SavedKind("style", "svp_styles", "Save Style", "Load Style", "no style is chosen")


def video_audio(portrait: PortraitModel, frames: Any) -> Audio | None:
    """The audio of a VIDEO, if it has one and the model's styles use audio features."""
    uses_audio = portrait.config.style.audio_size == portrait.config.audio.feature_size
    return audio_of_video(frames) if uses_audio and frames is not None and not isinstance(frames, Tensor) else None


class SVPStyleExtract(io.ComfyNode):
    """Clip -> SVP_STYLE_PRIOR."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPStyleExtract",
            display_name="Extract Speaking Style (SVP)",
            category="SVP Portrait/style",
            description=("Extracts a speaking style (emotion, liveliness, habits) from a clip of face, voice or both."),
            inputs=[
                SvpModel.Input(
                    "model", tooltip="The model that will use the style; styles of other models do not fit."
                ),
                io.MultiType.Input(
                    "frames",
                    types=[io.Image, io.Video],
                    optional=True,
                    tooltip=(
                        "The style clip with one visible face: its frames, or the output of Load Video, which is "
                        "read frame by frame and may be long. If not connected, the style comes from the voice "
                        "alone."
                    ),
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip=(
                        "The voice of the style clip. If not connected, the audio of the video is used; with "
                        "images, the style comes from the frames alone."
                    ),
                ),
                io.Float.Input(
                    "fps",
                    optional=True,
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of the clip; connect the fps of Get Video Components. A video has its own.",
                ),
                FaceAnalyzerSocket.Input(
                    "face_analyzer",
                    optional=True,
                    tooltip="From Load Face Analyzer, for a model that learnt from the expressions it reads. Without: the model's "
                    "own.",
                ),
            ],
            outputs=[StylePriorSocket.Output("style_prior", tooltip="Mean and spread of the style.")],
        )

    @classmethod
    def execute(
        cls,
        model,
        frames: Any = None,
        audio=None,
        fps: float = 25.0,
        face_analyzer: FaceTracker | None = None,
    ) -> io.NodeOutput:
        model.load_for_conditions()
        portrait = model.portrait
        track_progress, extract_progress = shared(host.progress(), 3, 1)
        expression = None
        if frames is not None:
            clip = open_frames(frames)
            fps = clip.fps or fps
            analyzer = face_analyzer or portrait.face_analyzer
            expression = expression_from_track(track_face(analyzer, clip, "the style clip", track_progress, fps))
        audio = video_audio(portrait, frames) if audio is None else audio_from_host(audio)
        return io.NodeOutput(extract_style(portrait, expression, audio, fps, progress=extract_progress))


class SVPStyleSample(io.ComfyNode):
    """SVP_STYLE_PRIOR -> SVP_STYLE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPStyleSample",
            display_name="Sample Speaking Style (SVP)",
            category="SVP Portrait/style",
            description=(
                "Samples one style from a style prior. Another seed gives another variation of the same speaking style."
            ),
            inputs=[
                StylePriorSocket.Input("style_prior", tooltip="From Extract Speaking Style or Load Style."),
                seed_input("The same seed gives the same style."),
                io.Float.Input(
                    "temperature",
                    default=1.0,
                    min=0.0,
                    max=4.0,
                    step=0.05,
                    tooltip="A factor for the spread of the prior: 0 is its mean, 1 as learned, above 1 more varied.",
                ),
            ],
            outputs=[StyleSocket.Output("style", tooltip="One style, constant over the clip.")],
        )

    @classmethod
    def execute(cls, style_prior, seed: int, temperature: float) -> io.NodeOutput:
        return io.NodeOutput(sample_style(style_prior, seed, temperature))


class SVPStyleInterpolate(io.ComfyNode):
    """Two SVP_STYLE -> one that moves between them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        weight = {"min": -1.0, "max": 2.0, "step": 0.05}
        return io.Schema(
            node_id="SVPStyleInterpolate",
            display_name="Interpolate Speaking Styles (SVP)",
            category="SVP Portrait/style",
            description="Moves from one style to another over the clip, or mixes them in fixed parts (start = end).",
            inputs=[
                StyleSocket.Input("style_a", tooltip="The style at weight 0."),
                StyleSocket.Input("style_b", tooltip="The style at weight 1."),
                io.Float.Input(
                    "start",
                    default=0.0,
                    tooltip="Weight of style_b in the first frame, 0 to 1; values outside exaggerate.",
                    **weight,
                ),
                io.Float.Input(
                    "end",
                    default=1.0,
                    tooltip="Weight of style_b in the last frame, 0 to 1; values outside exaggerate.",
                    **weight,
                ),
                io.Combo.Input(
                    "easing",
                    options=list(EASINGS),
                    default="linear",
                    tooltip="How the weight runs from start to end: evenly, or slow at either or both ends.",
                ),
            ],
            outputs=[StyleSocket.Output("style", tooltip="A style that changes over the clip.")],
        )

    @classmethod
    def execute(cls, style_a, style_b, start: float, end: float, easing: str) -> io.NodeOutput:
        return io.NodeOutput(interpolate_styles(style_a, style_b, start, end, easing))


class SVPStyleSave(io.ComfyNode):
    """SVP_STYLE_PRIOR -> file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPStyleSave",
            display_name="Save Style (SVP)",
            category="SVP Portrait/style",
            description="Saves a style prior as a small file in the output folder, for Load Style.",
            is_output_node=True,
            inputs=[
                StylePriorSocket.Input("style_prior", tooltip="The style prior to save."),
                STYLES.prefix_input(),
            ],
            outputs=[STYLES.file_output()],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str) -> bool | str:
        return host.check_prefix(filename_prefix)

    @classmethod
    def execute(cls, style_prior, filename_prefix: str) -> io.NodeOutput:
        return STYLES.write(filename_prefix, partial(save_style, value=style_prior))


class SVPStyleLoad(io.ComfyNode):
    """File -> SVP_STYLE_PRIOR."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPStyleLoad",
            display_name="Load Style (SVP)",
            category="SVP Portrait/style",
            description="Loads a style prior from models/svp_styles or output/svp_styles.",
            inputs=STYLES.file_inputs(),
            outputs=[StylePriorSocket.Output("style_prior", tooltip="Mean and spread of the style.")],
        )

    @classmethod
    def execute(cls, style: str, file: str | None = None) -> io.NodeOutput:
        prior = load_style(STYLES.path(style, file))
        if not isinstance(prior, StylePrior):
            raise PortraitError(
                f"{file or style} holds a single style: choose a file that Save Style wrote from a prior"
            )
        return io.NodeOutput(prior)

    @classmethod
    def fingerprint_inputs(cls, style: str, file: str | None = None) -> float:
        return STYLES.changed(style, file)
