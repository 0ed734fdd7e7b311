"""Training data: videos or synthetic people, prepared into a folder below the output folder."""

from __future__ import annotations

import re
from pathlib import Path

from ..svp_models.data.manifest import summary
from ..svp_models.data.prepare import prepare
from ..svp_models.data.schema import (
    BACKENDS,
    DEEP3D,
    FPS,
    MAX_SECONDS,
    MAX_SIZE,
    MIN_FRAMES,
    OF_BACKEND,
    OutputOptions,
    PrepareConfig,
    SyntheticOptions,
    VideoOptions,
)
from ..svp_models.data.sources import MAX_FOLDERS, newest_change
from . import host
from .host import folder_paths, io
from .loaders import encoder_path, encoders
from .types import ADVANCED, DatasetSocket, PreparedDataset, seed_input

FOLDER = "svp_data"
SYNTHETIC, NONE = "synthetic", "none"
NAME = re.compile(r"\w[\w .-]*")


def check_name(name: str | None) -> bool | str:
    """For `validate_inputs`: True, or why this cannot name a folder and a file. None: linked, not known yet."""
    if name is None or NAME.fullmatch(name):
        return True
    return (
        f"name {name!r} cannot be a file's: begin with a letter or digit and use those, '-', '_', '.' and spaces alone"
    )


def output_path(*parts: str) -> Path:
    """A place below the output folder."""
    return Path(folder_paths.get_output_directory(), *parts)


def video_folder(source: str) -> Path:
    """The folder of videos: an absolute path, or one below the input folder."""
    return Path(folder_paths.get_input_directory()) / source


def synthetic_options(people: int, clips: int, test_share: float, seed: int) -> SyntheticOptions:
    """Synthetic people, a share of them in the test split: at least one unless it is 0, and never all."""
    test = min(people - 1, max(1, round(people * test_share))) if test_share else 0
    return SyntheticOptions(people - test, test, clips, seed)


class SVPPrepareDataset(io.ComfyNode):
    """Videos or synthetic people -> SVP_DATASET."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPPrepareDataset",
            display_name="Prepare Training Data (SVP)",
            category="SVP Portrait/training",
            description="Cuts videos into clips of one face with audio and labels, or renders synthetic people that talk, and keeps them below "
            f"the output folder in {FOLDER}/. Queued again it goes on where it was stopped, and uses what is finished.",
            is_output_node=True,
            inputs=[
                io.String.Input(
                    "source",
                    default=SYNTHETIC,
                    tooltip="A folder of videos, below the input folder or anywhere: one folder for each person in it, or MEAD's or "
                    f"HDTF's own layout. New videos are noticed in its first {MAX_FOLDERS} folders. Or the word {SYNTHETIC}: synthetic people with "
                    "exact labels.",
                ),
                io.String.Input(
                    "name", default="people", tooltip=f"Of the data set: its folder is output/{FOLDER}/NAME."
                ),
                io.Int.Input(
                    "size",
                    default=256,
                    min=64,
                    max=MAX_SIZE,
                    step=16,
                    tooltip="Pixels per side of the clips; the model's own size is best: 128 built-in, 512 Stable Diffusion 1.5.",
                ),
                io.Float.Input(
                    "seconds",
                    default=4.0,
                    min=MIN_FRAMES / FPS,
                    max=MAX_SECONDS,
                    step=0.2,
                    extra_dict=ADVANCED,
                    tooltip="Longest clip of a video in seconds; the length of every synthetic one.",
                ),
                io.Float.Input(
                    "test_share",
                    default=0.1,
                    min=0.0,
                    max=0.5,
                    step=0.05,
                    extra_dict=ADVANCED,
                    tooltip="Share of the people that training only measures itself on; 0 learns from all, for a few people.",
                ),
                io.Combo.Input(
                    "audio_encoder",
                    options=[NONE, *encoders()],
                    default=NONE,
                    extra_dict=ADVANCED,
                    tooltip="Whose audio features are kept too: that of the model to train, such as wav2vec2-base-960h for "
                    "V-Express. The built-in model needs none.",
                ),
                io.Combo.Input(
                    "backend",
                    options=list(BACKENDS),
                    default=VideoOptions.backend,
                    tooltip="Videos: who finds the faces, as in Load Face Analyzer; insightface or mediapipe for photographs.",
                ),
                io.Combo.Input(
                    "expression",
                    options=[OF_BACKEND, DEEP3D],
                    default=OF_BACKEND,
                    extra_dict=ADVANCED,
                    tooltip="Videos: who reads the 64 expression coefficients that a style is made of. Only the backend built-in "
                    "reads any; deep3d: Deep3DFaceRecon, for all others.",
                ),
                io.Int.Input(
                    "people",
                    default=16,
                    min=2,
                    max=9999,
                    step=1,
                    tooltip="Number of synthetic people, those for tests too.",
                ),
                io.Int.Input(
                    "clips_per_person",
                    default=8,
                    min=1,
                    max=999,
                    step=1,
                    tooltip="Clips of every synthetic person; 8 show every emotion once.",
                ),
                seed_input(
                    "The same seed gives the same emotions and sentences of the synthetic people.",
                    changes=False,
                    advanced=True,
                ),
            ],
            outputs=[
                DatasetSocket.Output("dataset", tooltip="For the training nodes."),
                io.String.Output("summary", tooltip="Clips, hours and people, and what was left out and why."),
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None, source: str | None = SYNTHETIC) -> bool | str:
        if source not in (None, SYNTHETIC) and not video_folder(source).is_dir():
            return f"source: there is no folder {video_folder(source)}: name the folder that holds the videos, or {SYNTHETIC}"
        return check_name(name)

    @classmethod
    def fingerprint_inputs(cls, source: str = SYNTHETIC, **others: object) -> float:
        return 0.0 if source == SYNTHETIC else newest_change(video_folder(source))

    @classmethod
    def execute(
        cls, source: str, name: str, size: int, seconds: float, test_share: float, audio_encoder: str, backend: str,
        expression: str, people: int, clips_per_person: int, seed: int,
    ) -> io.NodeOutput:  # fmt: skip
        output = OutputOptions(
            size=size, seconds=seconds, audio_encoder="" if audio_encoder == NONE else encoder_path(audio_encoder)
        )
        if source == SYNTHETIC:
            root, people_options = None, synthetic_options(people, clips_per_person, test_share, seed)
            config = PrepareConfig(output, synthetic=people_options)
        else:
            root = video_folder(source)
            videos = VideoOptions(backend=backend, expression=expression, test_share=test_share)
            config = PrepareConfig(output, videos=videos)
        models = [Path(folder_paths.models_dir)]
        manifest = prepare(
            root,
            output_path(FOLDER, name),
            config,
            models=models,
            progress=host.progress(),
            check_stop=host.check_cancelled,
        )
        return io.NodeOutput(PreparedDataset(manifest.folder), "\n".join(summary(manifest)))
