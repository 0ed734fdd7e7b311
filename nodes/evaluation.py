"""Nodes that measure: made frames of any model against true ones, and style priors as a picture."""

from __future__ import annotations

from typing import Any

import torch

from ..svp_models.evaluation.frames_evaluation import evaluate_frames
from ..svp_models.evaluation.plots import style_plane
from ..svp_models.face.tracking import FaceTracker
from ..svp_models.types import StylePrior
from . import host
from .host import io
from .types import (
    FaceAnalyzerSocket,
    StylePriorSocket,
    audio_from_host,
    audio_of_video,
    images_from_bytes,
    open_frames,
    search_aliases,
    seed_input,
)

MOST_PRIORS = 8


class SVPEvaluate(io.ComfyNode):
    """Made and true frames -> figures as text and JSON, and a plot."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPEvaluate",
            display_name="Evaluate Frames (SVP)",
            category="SVP Portrait/evaluation",
            description="Measures made frames of any model against true ones: PSNR, SSIM, sharpness, flicker, colour drift; with a "
            "face analyser landmarks, mouth, lids and regions of the face, and with a voice how well the mouth follows it.",
            inputs=[
                io.MultiType.Input(
                    "made",
                    types=[io.Image, io.Video],
                    tooltip="The frames that a model made, of any pack, or a video.",
                ),
                io.MultiType.Input(
                    "true",
                    types=[io.Image, io.Video],
                    tooltip="The true frames, of the same size and frame rate; the longer clip is cut.",
                ),
                io.Audio.Input(
                    "audio",
                    optional=True,
                    tooltip="What the face says. If not connected, the audio of a video is used, if one is connected.",
                ),
                FaceAnalyzerSocket.Input(
                    "face_analyzer",
                    optional=True,
                    tooltip="From Load Face Analyzer. Without it, pixels alone are measured.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of both clips; a video has its own.",
                ),
                io.Int.Input(
                    "tolerance",
                    default=0,
                    min=0,
                    max=255,
                    step=1,
                    tooltip="Up to which change (of 255) a true pixel stands still, for the flicker; 1 or 2 for compressed videos.",
                ),
            ],
            outputs=[
                io.String.Output("text", tooltip="A table: one line a figure, of the made and of the true frames."),
                io.String.Output("json", tooltip="The same figures as JSON, and why others are missing."),
                io.Image.Output("plot", tooltip="PSNR, change, mouth and lids frame by frame, 960 pixels wide."),
            ],
            **search_aliases("metrics", "psnr", "ssim", "compare"),
        )

    @classmethod
    def execute(
        cls,
        made: Any,
        true: Any,
        fps: float,
        tolerance: int,
        audio=None,
        face_analyzer: FaceTracker | None = None,
    ) -> io.NodeOutput:
        own, real = open_frames(made), open_frames(true)
        videos = [video for video in (made, true) if audio is None and not isinstance(video, torch.Tensor)]
        sounds = [sound for video in videos if (sound := audio_of_video(video)) is not None]
        voice = audio_from_host(audio) if audio is not None else next(iter(sounds), None)
        found = evaluate_frames(own, real, real.fps or own.fps or fps, voice, face_analyzer, tolerance, host.progress())
        return io.NodeOutput(found.text, found.json, images_from_bytes(found.plot[None]))


class SVPStylePlot(io.ComfyNode):
    """Up to eight SVP_STYLE_PRIOR -> a picture of where they lie."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        others = [
            StylePriorSocket.Input(
                f"style_prior_{number}", optional=True, tooltip="Another style prior of the same model."
            )
            for number in range(2, MOST_PRIORS + 1)
        ]
        return io.Schema(
            node_id="SVPStylePlot",
            display_name="Plot Style Priors (SVP)",
            category="SVP Portrait/evaluation",
            description="Shows style priors in the plane of their two principal components: every mean, and samples around it.",
            inputs=[
                StylePriorSocket.Input(
                    "style_prior_1", tooltip="A style prior from Extract Speaking Style or Load Style."
                ),
                *others,
                io.Int.Input(
                    "samples",
                    default=64,
                    min=0,
                    max=1000,
                    step=1,
                    tooltip="Samples of each prior that are shown, at temperature 1.",
                ),
                seed_input("The same seed shows the same samples."),
            ],
            outputs=[io.Image.Output("plot", tooltip="The plane, 720 pixels wide, and the names of the priors.")],
        )

    @classmethod
    def execute(
        cls,
        style_prior_1: StylePrior,
        samples: int,
        seed: int,
        style_prior_2: StylePrior | None = None,
        style_prior_3: StylePrior | None = None,
        style_prior_4: StylePrior | None = None,
        style_prior_5: StylePrior | None = None,
        style_prior_6: StylePrior | None = None,
        style_prior_7: StylePrior | None = None,
        style_prior_8: StylePrior | None = None,
    ) -> io.NodeOutput:
        others = (
            style_prior_2,
            style_prior_3,
            style_prior_4,
            style_prior_5,
            style_prior_6,
            style_prior_7,
            style_prior_8,
        )
        priors = [style_prior_1, *(prior for prior in others if prior is not None)]
        return io.NodeOutput(images_from_bytes(style_plane(priors, samples, seed)[None]))
