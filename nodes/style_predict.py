"""A speaking style that fits a voice, without a style clip."""

from __future__ import annotations

from typing import Any

from ..svp_models.errors import PortraitError
from ..svp_models.face.tracking import expression_from_track, track_face
from ..svp_models.motion.built_in_generator import built_in_parts, predict_style_prior
from .host import io
from .types import (
    MotionGeneratorSocket,
    StylePriorSocket,
    SvpModel,
    audio_from_host,
    open_frames,
    search_aliases,
    seed_input,
)


class SVPStylePredict(io.ComfyNode):
    """AUDIO, portrait -> SVP_STYLE_PRIOR."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPStylePredict",
            display_name="Predict Speaking Style (SVP)",
            **search_aliases("style from voice", "emotion from voice", "audio to style"),
            category="SVP Portrait/style",
            description="Draws a speaking style that fits a voice, without a style clip. A voice leaves open how a face moves: another "
            "seed gives another style that fits it.",
            inputs=[
                MotionGeneratorSocket.Input(
                    "motion_generator", tooltip="From Load Motion Generator; built-in alone can do this."
                ),
                io.Audio.Input("audio", tooltip="The voice; a few seconds are enough."),
                seed_input("Another seed gives another style for the same voice; the same seed the same."),
                io.Image.Input(
                    "portrait",
                    optional=True,
                    tooltip="The portrait, whose resting face counts too; connect a model with it.",
                ),
                SvpModel.Input(
                    "model", optional=True, tooltip="From Load Portrait Model: reads the portrait's expression."
                ),
            ],
            outputs=[
                StylePriorSocket.Output(
                    "style_prior", tooltip="The style, without spread; for Sample Speaking Style or Generate Motion."
                ),
            ],
        )

    @classmethod
    def execute(cls, motion_generator, audio: dict[str, Any], seed: int, portrait=None, model=None) -> io.NodeOutput:
        resting = None
        if portrait is not None:
            if model is None:
                raise PortraitError("the portrait's expression has to be read: connect a model too, or no portrait")
            model.load_for_conditions()
            analyzer = model.portrait.face_analyzer
            resting = expression_from_track(track_face(analyzer, open_frames(portrait[:1]), "the portrait"))[0]
        motion_generator.load()
        parts = built_in_parts(motion_generator.generator)
        return io.NodeOutput(predict_style_prior(parts, audio_from_host(audio), seed, resting))
