"""The portrait itself in motion: with generated faces joined to it at its own resolution, or warped alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..svp_models.diffusion.composition import compose_clip, plan_composition
from ..svp_models.diffusion.face_inputs import dense_warp
from ..svp_models.face.portrait_face import expression_track
from ..svp_models.face.tracking import FaceTracker
from ..svp_models.io.progress import shared
from ..svp_models.motion.portrait_warp import WarpOptions, warp_portrait
from ..svp_models.types import HeadMotion, Motion
from . import host, types
from .host import folder_paths, io
from .sampler import LARGEST, motion_of
from .types import (
    ADVANCED,
    SIDE_STEP,
    TALK,
    FaceAnalyzerSocket,
    HeadMotionSocket,
    MotionSocket,
    SvpModel,
    check_sides,
    search_aliases,
)


class SVPComposePortrait(io.ComfyNode):
    """Portrait and generated faces -> IMAGE of the whole portrait, and MASK."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = {"default": 0, "min": 0, "max": LARGEST, "step": SIDE_STEP, "extra_dict": ADVANCED}
        return io.Schema(
            node_id="SVPComposePortrait",
            display_name="Compose Portrait (SVP)",
            category="SVP Portrait/face",
            description="Puts the faces that Portrait Sampler has drawn onto the portrait at its own resolution. The portrait is "
            "warped to the head motion, and a mask lets the face through where it differs: hair, clothes and background keep "
            "their own pixels, and what stands still does not flicker.",
            inputs=[
                SvpModel.Input("model", tooltip="The model that the sampler used: it knows where its faces lie."),
                io.Image.Input("portrait", tooltip="The portrait that the sampler got, at any resolution."),
                io.Image.Input(
                    "faces",
                    tooltip="The decoded frames of the sampler: upright crops of the face, or whole frames of V-Express.",
                ),
                io.MultiType.Input(
                    "head_motion",
                    types=[io.Image, HeadMotionSocket, MotionSocket],
                    optional=True,
                    tooltip="The head motion that the sampler got; if not connected, the head stays still.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Frames per second of the faces, from the sampler; 0 takes the model's own.",
                ),
                io.Float.Input(
                    "feather",
                    default=0.06,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    tooltip="Share of the shorter side of the faces over which they blend into the portrait at their border.",
                ),
                io.Int.Input("width", tooltip="As at the sampler, in pixels; 0 takes the model's size.", **side),
                io.Int.Input("height", tooltip="As at the sampler, in pixels; 0 takes the model's size.", **side),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Opacity of the faces from 0 to 1, of their size: one for all frames or one for each. If not connected, "
                    "the model's own mask, or an ellipse around the face.",
                ),
                FaceAnalyzerSocket.Input(
                    "face_analyzer",
                    optional=True,
                    tooltip="As at the sampler: finds the face of a photograph when there is no head motion.",
                ),
                MotionSocket.Input(
                    "motion",
                    optional=True,
                    tooltip="The motion that the sampler got, for models that warp the portrait to its expression too.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    "images", tooltip="The frames at the resolution of the portrait, in the aspect of the sampler."
                ),
                io.Mask.Output("mask", tooltip="Where the face replaces the portrait, from 0 to 1."),
            ],
        )

    @classmethod
    def validate_inputs(cls, width: int | None = 0, height: int | None = 0) -> bool | str:
        return check_sides(LARGEST, width=width, height=height)

    @classmethod
    def execute(
        cls, model, portrait: Tensor, faces: Tensor, fps: float, feather: float, width: int, height: int,
        head_motion: Tensor | HeadMotion | Motion | None = None, mask: Tensor | None = None,
        face_analyzer: FaceTracker | None = None, motion: Motion | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        config, whole = model.portrait.config, types.frames_from_images(portrait[:1])[0]
        head: Any = motion_of(head_motion, portrait, face_analyzer or model.portrait.face_analyzer)
        drawn = types.rgb_images(faces)
        sizes = (drawn.shape[2], drawn.shape[1]), (width or config.size, height or config.size)
        reading, composing = shared(host.progress(), 1, 9)
        fps = fps or config.fps
        track = None if motion is None else expression_track(motion, len(drawn), fps)
        plan = plan_composition(model.portrait, whole, head, len(drawn), fps, *sizes, reading, track)
        model.load_for_conditions()
        folder = folder_paths.get_temp_directory()
        return io.NodeOutput(*compose_clip(model.portrait, plan, drawn, mask, feather, composing, folder))


class SVPWarpPortrait(io.ComfyNode):
    """Portrait and motion -> IMAGE of the portrait that moves by warping alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPWarpPortrait",
            display_name="Warp Portrait (SVP)",
            **search_aliases(*TALK, "preview", "thin plate spline"),
            category="SVP Portrait/motion",
            description="Moves a portrait by warping alone: the head turns, lips, lids and brows follow the motion, and the inside "
            "of an opened mouth is painted. No model is needed: a quick look at a motion on any portrait, at its own resolution.",
            inputs=[
                io.Image.Input("portrait", tooltip="The portrait, at any resolution, with a relaxed face."),
                MotionSocket.Input(
                    "motion",
                    tooltip="In the space of synthetic speakers: from Generate Motion with the built-in generator, or extracted from "
                    "a clip of drawn faces.",
                ),
                SvpModel.Input(
                    "model",
                    optional=True,
                    tooltip="From Load Portrait Model: its face analyser finds drawn faces, and the built-in model keeps background and body "
                    "still.",
                ),
                FaceAnalyzerSocket.Input(
                    "face_analyzer",
                    optional=True,
                    tooltip="From Load Face Analyzer with the detector mediapipe: finds the face of a photograph.",
                ),
                HeadMotionSocket.Input(
                    "head_motion",
                    optional=True,
                    tooltip="Moves the head instead of the motion, fitted to the portrait. If not connected, the motion turns it.",
                ),
                io.Float.Input(
                    "expression",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="How far the face moves, as a factor: 0 turns the head alone.",
                ),
                io.Boolean.Input(
                    "paint_mouth",
                    default=True,
                    tooltip="Paint teeth, tongue and darkness where a mouth opens further than the portrait's.",
                ),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=120.0,
                    step=0.01,
                    extra_dict=ADVANCED,
                    tooltip="Frames per second; 0 takes the motion's own.",
                ),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The frames, as large as the portrait."),
                io.Float.Output("fps", tooltip="Frames per second."),
            ],
        )

    @classmethod
    def execute(
        cls, portrait: Tensor, motion: Motion, expression: float, paint_mouth: bool, fps: float, model=None,
        face_analyzer: FaceTracker | None = None, head_motion: HeadMotion | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        analyzer = face_analyzer or (None if model is None else model.portrait.face_analyzer)
        options = WarpOptions(fps, expression, paint_mouth)
        dense = None if model is None else dense_warp(model.portrait)
        if dense is not None:
            model.load_for_conditions()
        folder, image = folder_paths.get_temp_directory(), types.bytes_from_images(portrait[:1])
        clip = warp_portrait(image, motion, analyzer, head_motion, options, host.progress(), folder, dense)
        return io.NodeOutput(*clip)
