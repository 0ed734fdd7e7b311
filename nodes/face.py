"""Finding faces in photographs and films: a choice of ways, and of the face that is meant."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..svp_models.checkpoints.catalog import entry_named, missing_file_error
from ..svp_models.checkpoints.deep3d import FILE as RECON_FILE
from ..svp_models.checkpoints.deep3d import load_deep3d
from ..svp_models.checkpoints.native import BUILTIN_MODEL, load_model
from ..svp_models.face.backends.auto import AutoBackend, best_of
from ..svp_models.face.backends.built_in import BuiltInBackend
from ..svp_models.face.backends.classical import ClassicalBackend
from ..svp_models.face.backends.insightface import FILES, InsightFaceBackend
from ..svp_models.face.backends.mediapipe import FILE, MediaPipeBackend, carries_models
from ..svp_models.face.backends.yunet import FILE as YUNET_FILE
from ..svp_models.face.backends.yunet import YuNetBackend
from ..svp_models.face.detection import FaceBackend
from ..svp_models.face.selection import FACE_CHOICES
from ..svp_models.face.tracking import FaceTracker
from .host import folder_paths, io
from .sockets import FaceAnalyzerSocket
from .widgets import ADVANCED

OF_BACKEND, DEEP3D = "backend", "deep3d"  # where expression comes from


def weight_file(entry: str, name: str) -> str:
    """The path of a file of a catalogue entry: in the entry's folder below `models`, or in the folder of its name there."""
    kind, _, below = entry_named(entry).folder.partition("/")
    looked = []
    for folder, inside in ((kind, os.path.join(below, name)), (entry, name)):
        folder_paths.add_model_folder_path(folder, os.path.join(folder_paths.models_dir, folder))
        try:
            return folder_paths.get_full_path_or_raise(folder, inside)
        except FileNotFoundError:
            looked += [os.path.dirname(os.path.join(root, inside)) for root in folder_paths.get_folder_paths(folder)]
    raise missing_file_error(entry, looked, [name], folder_paths.models_dir)


def open_mediapipe() -> FaceBackend:
    return MediaPipeBackend(None if carries_models() else weight_file("mediapipe", FILE))


# For photographs, the best first
PHOTOGRAPHS: dict[str, Callable[[], FaceBackend]] = {
    InsightFaceBackend.name: lambda: InsightFaceBackend(*(weight_file("buffalo_l", each) for each in FILES)),
    MediaPipeBackend.name: open_mediapipe,
    YuNetBackend.name: lambda: YuNetBackend(weight_file("yunet", YUNET_FILE)),
    ClassicalBackend.name: ClassicalBackend,
}


def open_built_in() -> BuiltInBackend:
    return BuiltInBackend(load_model(BUILTIN_MODEL).face_analyzer)


BACKENDS: dict[str, Callable[[], FaceBackend]] = {
    AutoBackend.name: lambda: AutoBackend(open_built_in(), best_of(PHOTOGRAPHS)),
    BuiltInBackend.name: open_built_in,
    **PHOTOGRAPHS,
}


class SVPLoadFaceAnalyzer(io.ComfyNode):
    """A way to find faces -> SVP_FACE_ANALYZER."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPLoadFaceAnalyzer",
            display_name="Load Face Analyzer (SVP)",
            category="SVP Portrait/motion",
            description="Chooses how faces are found in photographs and films, and which of several faces is meant.",
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
                    tooltip="Takes the trembling out of the points of a resting head, fast movement stays. A share: 0 is off, "
                    "0.3 mild, 1 strongest.",
                ),
                io.Combo.Input(
                    "expression",
                    options=[OF_BACKEND, DEEP3D],
                    default=OF_BACKEND,
                    extra_dict=ADVANCED,
                    tooltip="backend: what the backend reads; only built-in reads expression. deep3d: Deep3DFaceRecon reads it from "
                    "photographs, for models trained on its coefficients - not for the built-in demo model.",
                ),
            ],
            outputs=[FaceAnalyzerSocket.Output("face_analyzer", tooltip="For the nodes that look for a face.")],
        )

    @classmethod
    def execute(cls, backend: str, face: str, index: int, smoothing: float, expression: str) -> io.NodeOutput:
        recon = load_deep3d(weight_file(DEEP3D, RECON_FILE))[0] if expression == DEEP3D else None
        return io.NodeOutput(FaceTracker(BACKENDS[backend](), face, index, smoothing, recon))
