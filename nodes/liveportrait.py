"""LivePortrait: its networks loaded, and portraits and videos moved by motions."""

from __future__ import annotations

import os
from typing import Any

from ..svp_models.checkpoints.liveportrait import FILES, SUBFOLDERS, holds_liveportrait, load_liveportrait
from ..svp_models.checkpoints.model_zoo import missing_file_error
from ..svp_models.checkpoints.third_party import missing_stems
from ..svp_models.errors import PortraitError
from ..svp_models.face.detectors.auto import AutoBackend
from ..svp_models.face.tracking import FaceTracker
from ..svp_models.motion.animation import FRAMINGS, PASTE_BACK, Framing, animate_portrait
from ..svp_models.motion.extract import extract_liveportrait_motion, extract_svp_motion
from ..svp_models.motion.keypoints import REGIONS
from ..svp_models.motion.liveportrait import AnimateOptions
from . import host
from .head_motion import BACKENDS
from .host import folder_paths, io
from .types import (
    ADVANCED,
    TALK,
    FaceAnalyzerSocket,
    LivePortraitSocket,
    LoadedLivePortrait,
    MotionSocket,
    SvpModel,
    open_frames,
    search_aliases,
)

FOLDER = "liveportrait"
RELATIVE, ABSOLUTE = MODES = ("relative", "absolute")


def liveportrait_names() -> list[str]:
    """Loadable networks: folders with LivePortrait's five files, with a slash at the end ('/' is the models folder itself), and
    converted files with all of them."""
    folders = host.list_folders(FOLDER)
    whole = [name for name in _sets(folders) if holds_liveportrait(_set_files(name, folders))]
    files = [name for name in host.list_files(FOLDER) if os.path.splitext(os.path.basename(name))[0] not in FILES]
    return [*whole, *files] or [host.NO_FILES]


def liveportrait_path(name: str) -> str:
    """The folder or file of a choice. PortraitError says what is missing and how to get it."""
    if name != host.NO_FILES and not name.endswith("/"):
        return host.find_file(FOLDER, name)
    name = "/" if name == host.NO_FILES else name
    folders = host.list_folders(FOLDER)
    files = _set_files(name, folders)
    if not holds_liveportrait(files):
        searched = [os.path.join(root, name.strip("/")) for root in folder_paths.get_folder_paths(FOLDER)]
        missing = missing_stems(files, FILES)
        raise missing_file_error(
            FOLDER, searched, missing if len(missing) < len(FILES) else (), folder_paths.models_dir
        )
    inside = next(folder for folder in _subfolders(name) if folder in folders)
    path = host.find_folder(FOLDER, inside)
    return path if inside == name else os.path.dirname(path)


def _sets(folders: dict[str, list[str]]) -> list[str]:
    """The folders, and those of which only the published subfolders hold files."""
    parents = [os.path.dirname(name.rstrip("/")) + "/" for name in folders if os.path.basename(name[:-1]) in SUBFOLDERS]
    return list(dict.fromkeys([*folders, *parents]))


def _subfolders(name: str) -> list[str]:
    """A folder, and the published subfolders of it."""
    return [name, *(f"{name.lstrip('/')}{below}/" for below in SUBFOLDERS if below)]


def _set_files(name: str, folders: dict[str, list[str]]) -> list[str]:
    """The names of the files in a folder and in its published subfolders, without folders."""
    return [os.path.basename(file) for folder in _subfolders(name) for file in folders.get(folder, [])]


def check_liveportrait(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or what is missing and how to get it. None: an input that is not known yet."""
    try:
        if name is not None:
            liveportrait_path(name)
    except PortraitError as error:
        return str(error)
    return True


def any_analyzer(face_analyzer: FaceTracker | None, model: Any = None) -> FaceTracker | bytes:
    """What finds the face: the connected analyzer, that of a model, or the best that is installed."""
    if face_analyzer is not None:
        return face_analyzer
    own = None if model is None else model.portrait.face_analyzer
    return own or FaceTracker(BACKENDS[AutoBackend.name]())


class SVPLoadLivePortrait(io.ComfyNode):
    """Folder or file -> SVP_LIVEPORTRAIT."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        found = liveportrait_names()
        return io.Schema(
            node_id="SVPLoadLivePortrait",
            display_name="Load LivePortrait (SVP)",
            category="SVP Portrait",
            description="Loads LivePortrait's networks, which move the face of a photograph or video.",
            inputs=[
                io.Combo.Input(
                    "liveportrait",
                    options=found,
                    default=found[0],
                    tooltip=f"A folder in models/{FOLDER} with LivePortrait's five files, as published or as other packs have them "
                    "('/' is that folder itself), or one converted .safetensors file.",
                )
            ],
            outputs=[
                LivePortraitSocket.Output("liveportrait", tooltip="For Animate Portrait and the motion nodes."),
            ],
        )

    @classmethod
    def validate_inputs(cls, liveportrait: str | None) -> bool | str:
        return check_liveportrait(liveportrait)

    @classmethod
    def execute(cls, liveportrait: str) -> io.NodeOutput:
        return io.NodeOutput(LoadedLivePortrait.of(load_liveportrait(liveportrait_path(liveportrait))))

    @classmethod
    def fingerprint_inputs(cls, liveportrait: str) -> float:
        path = liveportrait_path(liveportrait)
        folders = [path, *(os.path.join(path, below) for below in SUBFOLDERS)]
        files = [entry.path for folder in folders if os.path.isdir(folder) for entry in os.scandir(folder)]
        return max(map(os.path.getmtime, files or [path]))


WHOLE_IMAGE, FIND_FACE = "whole image", "find face"


class SVPMotionExtract(io.ComfyNode):
    """Clip -> SVP_MOTION."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMotionExtract",
            display_name="Extract Motion (SVP)",
            **search_aliases("liveportrait", "motion template", "driving video", "expression", "mocap"),
            category="SVP Portrait/motion",
            description="Reads pose and expression of the face in every frame of a clip or a whole video. Frames without the face are "
            "interpolated from their neighbours.",
            inputs=[
                io.MultiType.Input(
                    "frames",
                    types=[io.Image, io.Video],
                    tooltip="The driving clip, one face in view: its frames, or the video of Load Video, which is read frame by frame "
                    "and may be long.",
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second of the clip; connect the fps of Get Video Components. A video has its own.",
                ),
                io.Combo.Input(
                    "crop",
                    options=[FIND_FACE, WHOLE_IMAGE],
                    default=FIND_FACE,
                    tooltip="With LivePortrait. find face: one square around the face for the whole clip. whole image: the frames are a "
                    "square crop of the face already, such as that of Crop Face.",
                ),
                LivePortraitSocket.Input(
                    "liveportrait",
                    optional=True,
                    tooltip="From Load LivePortrait: its motion extractor reads the clip, for Animate Portrait. Without: the face analyzer "
                    "reads 64 coefficients, for models of this pack.",
                ),
                FaceAnalyzerSocket.Input(
                    "face_analyzer",
                    optional=True,
                    tooltip="From Load Face Analyzer: finds the face, and chooses one of several. Without: the model's own, else the best "
                    "that is installed.",
                ),
                SvpModel.Input("model", optional=True, tooltip="Its face analyser is used if no other is connected."),
            ],
            outputs=[MotionSocket.Output("motion", tooltip="Pose and expression of every frame.")],
        )

    @classmethod
    def execute(
        cls, frames: Any, fps: float, crop: str, liveportrait=None, face_analyzer: FaceTracker | None = None, model=None
    ) -> io.NodeOutput:
        clip, analyzer = open_frames(frames), any_analyzer(face_analyzer, model)
        fps = clip.fps or fps
        if liveportrait is None:
            return io.NodeOutput(extract_svp_motion(clip, fps, analyzer, host.progress()))
        liveportrait.load()
        networks, whole = liveportrait.networks, crop == WHOLE_IMAGE
        return io.NodeOutput(extract_liveportrait_motion(networks, clip, fps, analyzer, whole, host.progress()))


class SVPAnimate(io.ComfyNode):
    """SVP_LIVEPORTRAIT, portrait or video, SVP_MOTION -> IMAGE."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPAnimate",
            display_name="Animate Portrait (SVP)",
            **search_aliases(*TALK, "liveportrait", "reenactment", "redub", "dubbing", "puppeteer"),
            category="SVP Portrait/motion",
            description="Moves the face of a photograph by a motion, or the faces of a video, every frame by its own: all of the face, "
            "or the lips, eyes, expression or pose alone. For another voice on a video: region lips, mode absolute.",
            inputs=[
                LivePortraitSocket.Input("liveportrait", tooltip="From Load LivePortrait."),
                io.MultiType.Input(
                    "portrait",
                    types=[io.Image, io.Video],
                    tooltip="A picture, which gets as many frames as the motion has; or a video: its frames, or what Load "
                    "Video gives, of which every frame is moved by its own frame of the motion, until one of them ends.",
                ),
                MotionSocket.Input(
                    "motion", tooltip="From Extract Motion with LivePortrait connected, a generator, or a file."
                ),
                io.Combo.Input(
                    "region",
                    options=list(REGIONS),
                    default="all",
                    tooltip="What the motion moves; everything else stays the portrait's or video's own. pose: turns, shifts and size of "
                    "the head.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(MODES),
                    default=RELATIVE,
                    tooltip="relative: the portrait moves by how the motion differs from its first frame, which should be at rest; styles, emotions "
                    "and sliders come on top. "
                    "absolute: it takes the motion's own pose and expression.",
                ),
                io.Combo.Input(
                    "framing",
                    options=list(FRAMINGS),
                    default=PASTE_BACK,
                    tooltip="paste back: the face is found, moved and pasted into the picture. face: the moved face alone, 512 x 512 "
                    "pixels. whole image: the pictures are square crops of a face already, such as those of Crop Face.",
                ),
                io.Boolean.Input(
                    "stitching",
                    default=True,
                    extra_dict=ADVANCED,
                    tooltip="Keeps the shoulders in their place, so that the face fits the picture it is pasted into.",
                ),
                io.Boolean.Input(
                    "normalize_lips",
                    default=False,
                    extra_dict=ADVANCED,
                    tooltip="Closes the mouth of the portrait before it is moved, if it is open. For mode relative; needs a face "
                    "analyzer that detects the lips.",
                ),
                io.Float.Input(
                    "feather",
                    default=0.1,
                    min=0.0,
                    max=0.5,
                    step=0.01,
                    extra_dict=ADVANCED,
                    tooltip="Share of the face's side over which it fades into the picture; 0 is a hard edge.",
                ),
                FaceAnalyzerSocket.Input(
                    "face_analyzer",
                    optional=True,
                    tooltip="From Load Face Analyzer: finds the face, and chooses one of several. Without: the best that is installed.",
                ),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The frames, at the size of the portrait when pasted back."),
                io.Float.Output("fps", tooltip="Frames per second, of the video or of the motion; for Combine Video."),
                io.Mask.Output(
                    "mask", tooltip="Where the moved face is in the frames, 1 inside and fading at its edges."
                ),
            ],
        )

    @classmethod
    def execute(
        cls, liveportrait, portrait: Any, motion, region: str, mode: str, framing: str, stitching: bool, normalize_lips: bool,
        feather: float, face_analyzer: FaceTracker | None = None,
    ) -> io.NodeOutput:  # fmt: skip
        options = AnimateOptions(region, mode == RELATIVE, stitching, normalize_lips)
        place = Framing(framing, feather, any_analyzer(face_analyzer))
        liveportrait.load()
        bar, folder = host.PreviewBar(), folder_paths.get_temp_directory()
        frames, mask, fps = animate_portrait(
            liveportrait.networks, open_frames(portrait), motion, options, place, folder, bar, host.image_preview(bar)
        )
        return io.NodeOutput(frames, float(fps), mask)
