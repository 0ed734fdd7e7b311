"""Head motion nodes: extracted from a clip, retargeted to the portrait, typed by hand, drawn; and the choice of face detector."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..svp_models.checkpoints.model_file import BUILTIN_MODEL, load_model
from ..svp_models.checkpoints.model_zoo import entry_named, missing_file_error
from ..svp_models.checkpoints.third_party import DEEP3D_FILE, load_deep3d
from ..svp_models.diffusion.conditioning import DRAWINGS
from ..svp_models.errors import PortraitError
from ..svp_models.face.detection import FACE_CHOICES, FaceBackend, FaceTrack
from ..svp_models.face.detectors.auto import AutoBackend, first_available
from ..svp_models.face.detectors.built_in import BuiltInBackend
from ..svp_models.face.detectors.insightface import FILES, InsightFaceBackend
from ..svp_models.face.detectors.mediapipe import MEDIAPIPE_FILE, MediaPipeBackend, has_bundled_models
from ..svp_models.face.detectors.opencv import YUNET_FILE, ClassicalBackend, YuNetBackend
from ..svp_models.face.keypoints import HEAD_KEYPOINT_NAMES, draw_motion, motion_from_track, parse_keypoints
from ..svp_models.face.retarget import RETARGET_MODES, retarget
from ..svp_models.face.tracking import FaceTracker, track_face, track_from_landmarks
from ..svp_models.types import HeadMotion
from . import host
from .host import folder_paths, io
from .types import (
    ADVANCED,
    SIDE_STEP,
    FaceAnalyzerSocket,
    FaceLandmarksSocket,
    HeadMotionSocket,
    SvpModel,
    bytes_from_images,
    open_frames,
    rgb_images,
)

EXAMPLE_POINTS = "\n".join(
    f"{name}: {x}, {y}"
    for name, (x, y) in zip(
        HEAD_KEYPOINT_NAMES,
        ((0.25, 0.46), (0.28, 0.66), (0.75, 0.46), (0.72, 0.66), (0.39, 0.45), (0.61, 0.45), (0.5, 0.43), (0.5, 0.58)),
        strict=True,
    )
)


def landmarks_input(what: str) -> io.Custom.Input:
    """The face landmarks of the host."""
    return FaceLandmarksSocket.Input("face_landmarks", optional=True, tooltip=what)


def landmarks_track(landmarks: dict[str, Any], face_analyzer: FaceTracker | None, what: str) -> FaceTrack:
    """The face in the landmarks of the host: the one the face analyzer would choose, the largest without it."""
    choice = () if face_analyzer is None else (face_analyzer.choice, face_analyzer.index)
    return track_from_landmarks(landmarks, what, *choice)


def portrait_keypoints(
    portrait: Tensor | HeadMotion | dict[str, Any], model, face_analyzer: FaceTracker | None
) -> HeadMotion:
    """The keypoints of the portrait, detected in its first image unless they are given."""
    if isinstance(portrait, HeadMotion):
        return portrait
    if isinstance(portrait, dict):
        first = {**portrait, "frames": portrait.get("frames", [])[:1]}
        return motion_from_track(landmarks_track(first, face_analyzer, "the portrait"), 25.0)
    if model is None and face_analyzer is None:
        raise PortraitError(
            "the points of a portrait have to be detected: connect Load Face Analyzer, a model that has a face analyser of "
            "its own, or the points of Type Head Keypoints"
        )
    track = track_face(face_analyzer or model.portrait.face_analyzer, bytes_from_images(portrait[:1]), "the portrait")
    return motion_from_track(track, 25.0 if model is None else model.portrait.config.fps)


class SVPHeadKpsExtract(io.ComfyNode):
    """Clip -> SVP_HEAD_MOTION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPHeadKpsExtract",
            display_name="Extract Head Motion (SVP)",
            category="SVP Portrait/motion",
            description=(
                "Tracks 8 keypoints of the head through a clip or a whole video. Frames without a face "
                "are interpolated from their neighbours."
            ),
            inputs=[
                SvpModel.Input("model", tooltip="The model whose face analyser is used."),
                io.MultiType.Input(
                    "frames",
                    types=[io.Image, io.Video],
                    tooltip="The driving clip, one face in view: its frames, or the video of Load Video, which is read frame by "
                    "frame and may be long.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of the clip; connect the fps of Get Video Components. A video has its own.",
                ),
                FaceAnalyzerSocket.Input(
                    "face_analyzer",
                    optional=True,
                    tooltip="From Load Face Analyzer, for photographs. Without: the model's own, which knows drawn faces.",
                ),
                landmarks_input(
                    "From Detect Face Landmarks (MediaPipe), for all frames of the clip. No face is looked for then, and of a "
                    "video in frames only the frame rate is used."
                ),
            ],
            outputs=[HeadMotionSocket.Output("head_motion", tooltip="8 keypoints for every frame, in its pixels.")],
        )

    @classmethod
    def execute(
        cls, model, frames: Any, fps: float, face_analyzer: FaceTracker | None = None, face_landmarks=None
    ) -> io.NodeOutput:
        clip = open_frames(frames)
        fps = clip.fps or fps
        if face_landmarks is not None:
            track = landmarks_track(face_landmarks, face_analyzer, "the driving clip")
        else:
            analyzer = face_analyzer or model.portrait.face_analyzer
            track = track_face(analyzer, clip, "the driving clip", host.progress(), fps)
        return io.NodeOutput(motion_from_track(track, fps))


class SVPHeadKpsRetarget(io.ComfyNode):
    """SVP_HEAD_MOTION of the driver -> SVP_HEAD_MOTION of the portrait."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPHeadKpsRetarget",
            display_name="Retarget Head Motion (SVP)",
            category="SVP Portrait/motion",
            description="Fits the motion of another head to the portrait's position, size and proportions.",
            inputs=[
                HeadMotionSocket.Input("head_motion", tooltip="The driving motion, of any face and picture size."),
                io.MultiType.Input(
                    "portrait",
                    types=[io.Image, HeadMotionSocket, FaceLandmarksSocket],
                    tooltip="The portrait picture (connect a model too), its 8 points from Type Head Keypoints, or what Detect Face "
                    "Landmarks (MediaPipe) found in it.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(RETARGET_MODES),
                    default="offset",
                    tooltip="fix: the head keeps still. offset: the portrait's points, moved as the driver moves. rescale: the "
                    "driver's points, scaled to the portrait's face. vexpress offset, vexpress naive: as V-Express does it, half "
                    "of the driver's way the other way round, or the driver's points.",
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
        head_motion,
        portrait: Tensor | HeadMotion | dict[str, Any],
        mode: str,
        model=None,
        face_analyzer: FaceTracker | None = None,
    ) -> io.NodeOutput:
        return io.NodeOutput(retarget(head_motion, portrait_keypoints(portrait, model, face_analyzer), mode))


class SVPHeadKpsManual(io.ComfyNode):
    """Typed points -> SVP_HEAD_MOTION of one frame."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPHeadKpsManual",
            display_name="Type Head Keypoints (SVP)",
            category="SVP Portrait/motion",
            description="The 8 keypoints of a portrait by hand, for pictures in which no face is found.",
            inputs=[
                io.Image.Input("image", tooltip="The portrait; only its size is used."),
                io.String.Input(
                    "points",
                    multiline=True,
                    default=EXAMPLE_POINTS,
                    tooltip="Eight lines 'x, y' in this order; x to the right, y down; left is the picture's left. Pixels, or "
                    "fractions of width and height if no number is above 1.",
                ),
            ],
            outputs=[HeadMotionSocket.Output("head_motion", tooltip="One frame; the sampler keeps the head still.")],
        )

    @classmethod
    def execute(cls, image: Tensor, points: str) -> io.NodeOutput:
        height, width = rgb_images(image).shape[1:3]
        keypoints = parse_keypoints(points, width, height)
        return io.NodeOutput(HeadMotion(keypoints[None], width, height, fps=25.0, portrait=keypoints))


class SVPHeadKpsRender(io.ComfyNode):
    """SVP_HEAD_MOTION -> IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = {"default": 0, "min": 0, "max": 4096, "step": SIDE_STEP}
        return io.Schema(
            node_id="SVPHeadKpsRender",
            display_name="Draw Head Motion (SVP)",
            category="SVP Portrait/motion",
            description="Draws the keypoints on black as a model sees them, to look at or to edit.",
            inputs=[
                HeadMotionSocket.Input("head_motion", tooltip="The motion to draw."),
                io.Int.Input("width", tooltip="Pixels; 0 takes the width of the motion's own picture.", **side),
                io.Int.Input("height", tooltip="Pixels; 0 takes the height of the motion's own picture.", **side),
                io.Int.Input(
                    "frames",
                    default=0,
                    min=0,
                    max=1_000_000,
                    step=1,
                    tooltip=(
                        "Number of frames; 0 draws all. If there are fewer, the motion plays forwards and backwards."
                    ),
                ),
                SvpModel.Input("model", optional=True, tooltip="Draws what this model sees; without, the 8 points."),
            ],
            outputs=[io.Image.Output("images", tooltip="One picture per frame.")],
        )

    @classmethod
    def execute(cls, head_motion, width: int, height: int, frames: int, model=None) -> io.NodeOutput:
        size = (width or head_motion.width, height or head_motion.height)
        draw = DRAWINGS["head8" if model is None else model.portrait.config.keypoints]
        folder = folder_paths.get_temp_directory()
        return io.NodeOutput(draw_motion(head_motion, *size, frames or len(head_motion), draw, folder, host.progress()))


BACKEND_EXPRESSION, DEEP3D = "backend", "deep3d"  # sources of the expression


def weight_file(entry: str, name: str) -> str:
    """The path of a weight file: in the folder of its entry in the model zoo below `models`, or in the folder of its name there."""
    kind, _, below = entry_named(entry).folder.partition("/")
    searched = []
    for folder, inside in ((kind, os.path.join(below, name)), (entry, name)):
        folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))
        try:
            return folder_paths.get_full_path_or_raise(folder, inside)
        except FileNotFoundError:
            searched += [os.path.dirname(os.path.join(root, inside)) for root in folder_paths.get_folder_paths(folder)]
    raise missing_file_error(entry, searched, [name], folder_paths.models_dir)


def open_mediapipe() -> FaceBackend:
    return MediaPipeBackend(None if has_bundled_models() else weight_file("mediapipe", MEDIAPIPE_FILE))


# For photographs, best first
PHOTO_BACKENDS: dict[str, Callable[[], FaceBackend]] = {
    InsightFaceBackend.name: lambda: InsightFaceBackend(*(weight_file("buffalo_l", name) for name in FILES)),
    MediaPipeBackend.name: open_mediapipe,
    YuNetBackend.name: lambda: YuNetBackend(weight_file("yunet", YUNET_FILE)),
    ClassicalBackend.name: ClassicalBackend,
}


def open_built_in() -> BuiltInBackend:
    return BuiltInBackend(load_model(BUILTIN_MODEL).face_analyzer)


BACKENDS: dict[str, Callable[[], FaceBackend]] = {
    AutoBackend.name: lambda: AutoBackend(open_built_in(), first_available(PHOTO_BACKENDS)),
    BuiltInBackend.name: open_built_in,
    **PHOTO_BACKENDS,
}


class SVPLoadFaceAnalyzer(io.ComfyNode):
    """Face detector and choice of face -> SVP_FACE_ANALYZER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPLoadFaceAnalyzer",
            display_name="Load Face Analyzer (SVP)",
            category="SVP Portrait/motion",
            description=("Chooses how faces are found in photographs and videos, and which of several faces is used."),
            inputs=[
                io.Combo.Input(
                    "backend",
                    options=list(BACKENDS),
                    default=AutoBackend.name,
                    tooltip="auto: built-in for drawn faces, for photographs the best that is installed (the log names it). built-in: drawn "
                    "faces. insightface: photographs, the three files of buffalo_l. mediapipe: photographs, the package mediapipe, and its file for newer releases. "
                    "yunet: photographs, one small file. classical: frontal photographs, no files, OpenCV 4 only.",
                ),
                io.Combo.Input(
                    "face",
                    options=list(FACE_CHOICES),
                    default=FACE_CHOICES[0],
                    tooltip="Of several faces: the largest in every frame, the one that stays in view over the clip, or one "
                    "counted from left to right.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=0,
                    max=99,
                    step=1,
                    tooltip="Number of the face for 'left to right': 0 is the leftmost. The other choices take no notice of it.",
                ),
                io.Float.Input(
                    "smoothing",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    extra_dict=ADVANCED,
                    tooltip=(
                        "Removes jitter from the points of a resting head; fast motion stays. A factor: 0 is off, 0.3 mild, "
                        "1 strongest."
                    ),
                ),
                io.Combo.Input(
                    "expression",
                    options=[BACKEND_EXPRESSION, DEEP3D],
                    default=BACKEND_EXPRESSION,
                    extra_dict=ADVANCED,
                    tooltip="backend: what the backend reads; only built-in reads expression. deep3d: Deep3DFaceRecon reads it from "
                    "photographs, for models trained on its coefficients - not for the built-in demo model.",
                ),
            ],
            outputs=[FaceAnalyzerSocket.Output("face_analyzer", tooltip="For the nodes that look for a face.")],
        )

    @classmethod
    def execute(cls, backend: str, face: str, index: int, smoothing: float, expression: str) -> io.NodeOutput:
        network = load_deep3d(weight_file(DEEP3D, DEEP3D_FILE))[0] if expression == DEEP3D else None
        return io.NodeOutput(FaceTracker(BACKENDS[backend](), face, index, smoothing, network))
