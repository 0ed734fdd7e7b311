"""Generated faces joined with the portrait at its own resolution."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..svp_models.diffusion.composition import compose_clip, plan_composition
from ..svp_models.face.tracking import FaceTracker
from ..svp_models.io.progress import shared
from ..svp_models.types import HeadMotion
from . import host, types
from .host import folder_paths, io
from .sampler import LARGEST, motion_of
from .types import ADVANCED, SIDE_STEP, FaceAnalyzerSocket, HeadMotionSocket, SvpModel, check_sides


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
                    types=[io.Image, HeadMotionSocket],
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
        head_motion: Tensor | HeadMotion | None = None, mask: Tensor | None = None,
        face_analyzer: FaceTracker | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        config, whole = model.portrait.config, types.frames_from_images(portrait[:1])[0]
        motion: Any = motion_of(head_motion, portrait, face_analyzer or model.portrait.face_analyzer)
        drawn = types.rgb_images(faces)
        sizes = (drawn.shape[2], drawn.shape[1]), (width or config.size, height or config.size)
        reading, composing = shared(host.progress(), 1, 9)
        plan = plan_composition(model.portrait, whole, motion, len(drawn), fps or config.fps, *sizes, reading)
        model.load_for_conditions()
        folder = folder_paths.get_temp_directory()
        return io.NodeOutput(*compose_clip(model.portrait, plan, drawn, mask, feather, composing, folder))
