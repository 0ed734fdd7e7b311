"""Videos as pictures: a part of one, at the wanted frame rate and size."""

from __future__ import annotations

from typing import Any

from ..svp_models.headless.core_nodes import audio_to_host
from ..svp_models.media.image_buffer import pictures_of
from ..svp_models.media.stream import Selection
from . import host
from .host import folder_paths, io
from .sockets import clip_from, sound_from
from .widgets import found_by

MOST_FRAMES = 10_000_000


class SVPLoadVideo(io.ComfyNode):
    """VIDEO -> IMAGE, AUDIO, frame rate and number of frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = {"default": 0, "min": 0, "max": 8192, "step": 1}
        return io.Schema(
            node_id="SVPLoadVideo",
            display_name="Load Video Frames (SVP)",
            **found_by("load video", "frame_load_cap", "skip_first_frames", "force_rate", "select_every_nth"),
            category="SVP Portrait",
            description="Frames and sound of a part of a video, at the wanted frame rate and size. It is decoded frame by frame, so "
            "that memory is needed only for the frames that come out.",
            inputs=[
                io.Video.Input("video", tooltip="From Load Video or Create Video."),
                io.Float.Input(
                    "frame_rate",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second that the video is brought to first: frames are left out or repeated. 0 keeps its own "
                    "rate.",
                ),
                io.Int.Input(
                    "skip_first_frames",
                    default=0,
                    min=0,
                    max=MOST_FRAMES,
                    step=1,
                    tooltip="Frames left out at the beginning, counted after frame_rate is applied.",
                ),
                io.Int.Input(
                    "frame_load_cap",
                    default=0,
                    min=0,
                    max=MOST_FRAMES,
                    step=1,
                    tooltip="Largest number of frames that come out; 0 is all of them.",
                ),
                io.Int.Input(
                    "select_every_nth",
                    default=1,
                    min=1,
                    max=10_000,
                    step=1,
                    tooltip="1 takes every frame, 2 every other and so on; fps is divided by it.",
                ),
                io.Int.Input("width", tooltip="Pixels; 0 follows from the height, or keeps the video's own.", **side),
                io.Int.Input(
                    "height",
                    tooltip="Pixels; 0 follows from the width, or keeps the video's own. If both are given, the picture fills them "
                    "and the rest is cut off.",
                    **side,
                ),
            ],
            outputs=[
                io.Image.Output("images", tooltip="The frames."),
                io.Audio.Output("audio", tooltip="The sound of these frames; empty if the video has none."),
                io.Float.Output("fps", tooltip="Frames per second of the frames that come out."),
                io.Int.Output("frame_count", tooltip="How many frames come out."),
            ],
        )

    @classmethod
    def execute(
        cls, video: Any, frame_rate: float, skip_first_frames: int, frame_load_cap: int, select_every_nth: int, width: int,
        height: int,
    ) -> io.NodeOutput:  # fmt: skip
        chosen = Selection(frame_rate, skip_first_frames, select_every_nth, frame_load_cap, width, height)
        clip = clip_from(video, chosen)
        images = pictures_of(clip, folder_paths.get_temp_directory(), host.progress())
        rate = clip.fps * select_every_nth
        sound = sound_from(video, skip_first_frames / rate, len(images) / clip.fps)
        return io.NodeOutput(images, audio_to_host(sound), clip.fps, len(images))
