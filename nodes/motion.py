"""Nodes for motions: saved, loaded, mixed, drawn as curves, and turned into head keypoints."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from ..svp_models.face.tracking import FaceTracker
from ..svp_models.motion.files import SUFFIXES, load_motion, save_motion
from ..svp_models.motion.head_keypoints import MODES, head_keypoints_of_motion
from ..svp_models.motion.mix import FILLS, LENGTHS, TRANSFERS, mix_motions
from ..svp_models.motion.plot import LEAST, THEMES, plot_motion
from ..svp_models.types import HeadMotion, Motion
from . import host
from .head_motion import portrait_keypoints
from .host import io
from .saved_files import SavedKind
from .types import (
    ADVANCED,
    FaceAnalyzerSocket,
    FaceLandmarksSocket,
    HeadMotionSocket,
    MotionSocket,
    SvpModel,
    images_from_bytes,
    search_aliases,
)

CATEGORY = "SVP Portrait/motion"
MOTIONS = SavedKind("motion", "svp_motions", "Save Motion", "Load Motion", "no motion is chosen", SUFFIXES)


class SVPMotionMix(io.ComfyNode):
    """Several SVP_MOTION -> one with parts of each."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionMix",
            display_name="Mix Motions (SVP)",
            **search_aliases("redub", "dub", "lip sync video", "combine motions"),
            category=CATEGORY,
            description="The first motion with the pose of another, the lips of a third, the eyes of a fourth. A video's own motion "
            "with the lips of a voice is redubbing.",
            inputs=[
                MotionSocket.Input(
                    "motion",
                    tooltip="Everything that no other input replaces comes from this motion, and the frame rate too.",
                ),
                MotionSocket.Input(
                    "pose", optional=True, tooltip="Its head angles, shift and scale are used; of any space."
                ),
                MotionSocket.Input(
                    "lips",
                    optional=True,
                    tooltip="Its mouth is used, such as that of a voice; of the same space as motion.",
                ),
                MotionSocket.Input(
                    "eyes", optional=True, tooltip="Its lids and gaze are used; of the same space as motion."
                ),
                io.Combo.Input(
                    "length",
                    options=list(LENGTHS),
                    default="first",
                    tooltip="How long the result is: as the first motion, the longest, or the shortest of all, in seconds.",
                ),
                io.Combo.Input(
                    "fill",
                    options=list(FILLS),
                    default="loop",
                    tooltip="How a shorter motion goes on. loop: it plays backwards and forwards. hold: its last frame stays.",
                ),
                io.Combo.Input(
                    "transfer",
                    options=list(TRANSFERS),
                    default="absolute",
                    extra_dict=ADVANCED,
                    tooltip="absolute: the parts as they are. relative: their movement about the first motion's mean, for parts "
                    "of another face.",
                ),
            ],
            outputs=[MotionSocket.Output("motion", tooltip="The mixed motion.")],
        )

    @classmethod
    def execute(
        cls,
        motion: Motion,
        length: str,
        fill: str,
        transfer: str,
        pose: Motion | None = None,
        lips: Motion | None = None,
        eyes: Motion | None = None,
    ) -> io.NodeOutput:
        given = {"pose": pose, "lips": lips, "eyes": eyes}
        parts = {region: part for region, part in given.items() if part is not None}
        return io.NodeOutput(mix_motions(motion, parts, length, fill, transfer))


class SVPMotionPlot(io.ComfyNode):
    """SVP_MOTION -> IMAGE of its curves."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionPlot",
            display_name="Plot Motion (SVP)",
            **search_aliases("curves", "graph", "compare motions"),
            category=CATEGORY,
            description="Draws the curves of a motion over time: head angles, shift and scale, lids, mouth and gaze; of two motions "
            "to compare them.",
            inputs=[
                MotionSocket.Input("motion", tooltip="The motion to draw, in solid lines."),
                MotionSocket.Input(
                    "other", optional=True, tooltip="A second motion, in dashed lines of the same colours."
                ),
                io.Int.Input(
                    "width", default=1024, min=LEAST[0], max=4096, step=8, tooltip="Width of the picture in pixels."
                ),
                io.Int.Input(
                    "height", default=1024, min=LEAST[1], max=4096, step=8, tooltip="Height of the picture in pixels."
                ),
                io.Combo.Input("theme", options=list(THEMES), default="light", tooltip="The ground of the picture."),
            ],
            outputs=[io.Image.Output("image", tooltip="One picture.")],
        )

    @classmethod
    def execute(cls, motion: Motion, width: int, height: int, theme: str, other: Motion | None = None) -> io.NodeOutput:
        return io.NodeOutput(images_from_bytes(plot_motion(motion, other, width, height, theme)[None]))


class SVPMotionToHeadKps(io.ComfyNode):
    """SVP_MOTION, portrait -> SVP_HEAD_MOTION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionToHeadKps",
            display_name="Motion to Head Keypoints (SVP)",
            category=CATEGORY,
            description="Moves the portrait's 8 head keypoints as a motion moves the head, so that Portrait Sampler follows it with "
            "SVP and V-Express models.",
            inputs=[
                MotionSocket.Input("motion", tooltip="The motion to follow; only head and gaze are used."),
                io.MultiType.Input(
                    "portrait",
                    types=[io.Image, HeadMotionSocket, FaceLandmarksSocket],
                    tooltip="The portrait picture (connect a model or a face analyzer too), its 8 points from Type Head Keypoints, "
                    "or what Detect Face Landmarks (MediaPipe) found in it.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default="relative",
                    tooltip="relative: the head turns as far as the motion turns after its first frame. absolute: it turns to the "
                    "motion's own angles. Place and size begin with the portrait's in both.",
                ),
                SvpModel.Input(
                    "model", optional=True, tooltip="Finds the face in a portrait picture; not needed for points."
                ),
                FaceAnalyzerSocket.Input(
                    "face_analyzer",
                    optional=True,
                    tooltip="From Load Face Analyzer: finds the face in a photograph, instead of the model.",
                ),
            ],
            outputs=[HeadMotionSocket.Output("head_motion", tooltip="The motion in pixels of the portrait.")],
        )

    @classmethod
    def execute(
        cls,
        motion: Motion,
        portrait: Tensor | HeadMotion | dict[str, Any],
        mode: str,
        model=None,
        face_analyzer: FaceTracker | None = None,
    ) -> io.NodeOutput:
        return io.NodeOutput(head_keypoints_of_motion(motion, portrait_keypoints(portrait, model, face_analyzer), mode))


class SVPMotionSave(io.ComfyNode):
    """SVP_MOTION -> file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionSave",
            display_name="Save Motion (SVP)",
            category=CATEGORY,
            description="Saves a motion as a small file in the output folder, for Load Motion.",
            is_output_node=True,
            inputs=[
                MotionSocket.Input("motion", tooltip="The motion to save."),
                MOTIONS.prefix_input(),
            ],
            outputs=[MOTIONS.file_output()],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str) -> bool | str:
        return host.check_prefix(filename_prefix)

    @classmethod
    def execute(cls, motion: Motion, filename_prefix: str) -> io.NodeOutput:
        return MOTIONS.write(filename_prefix, partial(save_motion, motion=motion))


class SVPMotionLoad(io.ComfyNode):
    """File -> SVP_MOTION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionLoad",
            display_name="Load Motion (SVP)",
            **search_aliases("liveportrait template", "motion template", "pkl"),
            category=CATEGORY,
            description="Loads a motion from models/svp_motions or output/svp_motions: a file of Save Motion, or a motion template "
            "of LivePortrait (.pkl), of which no code is run.",
            inputs=MOTIONS.file_inputs(),
            outputs=[MotionSocket.Output("motion", tooltip="The motion, with its frame rate.")],
        )

    @classmethod
    def execute(cls, motion: str, file: str | None = None) -> io.NodeOutput:
        return io.NodeOutput(load_motion(MOTIONS.path(motion, file)))

    @classmethod
    def fingerprint_inputs(cls, motion: str, file: str | None = None) -> float:
        return MOTIONS.changed(motion, file)
