"""Video nodes: frames and audio into a video file, frames and audio out of a video, and a median filter against flicker."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..svp_models.cli.core_nodes import audio_to_host
from ..svp_models.diffusion.checks import check_latents, check_pictures
from ..svp_models.errors import PortraitError
from ..svp_models.io.memory_map import release
from ..svp_models.io.progress import in_background
from ..svp_models.media.frame_stream import FrameSelection
from ..svp_models.media.images import images_from_stream, median_filter_frames
from ..svp_models.media.writer import VideoWriter
from . import host
from .host import InputImpl, folder_paths, io, ui
from .types import (
    ADVANCED,
    FACES,
    audio_from_host,
    audio_of_video,
    bytes_from_images,
    open_frames,
    rgb_images,
    search_aliases,
)

CHUNK = 16  # frames decoded and written at a time: memory stays the same for any length


def check_latent(latent: Tensor, vae: Any) -> None:
    """Raises PortraitError for a latent of another kind of model."""
    channels = getattr(vae, "latent_channels", None)
    if latent.ndim != 4 or not len(latent) or channels not in (None, latent.shape[1]):
        raise PortraitError(
            f"the latent has shape {tuple(latent.shape)}: frames x {channels or 'some'} channels x height x width is needed for "
            "this VAE, connect latent and VAE of one model"
        )


def image_chunks(images: Tensor | None, latent: dict[str, Any] | None, vae: Any) -> Iterator[Tensor]:
    """IMAGE of up to CHUNK frames at a time, decoded from the latent if there are no images; crops of faces lie on their portrait."""
    if (images is None) == (latent is None) or (latent is not None and vae is None):
        raise PortraitError("connect either images, or a latent together with its vae")
    clip = images if latent is None else latent["samples"]
    if latent is not None:
        check_latent(clip, vae)
    elif clip.ndim != 4 or not len(clip):
        raise PortraitError(f"the frames have shape {tuple(clip.shape)}: at least one frame of 3 dimensions is needed")
    progress, faces = host.progress(), None if latent is None else latent.get(FACES)
    for start in range(0, len(clip), CHUNK):
        chunk = clip[start : start + CHUNK]
        if latent is not None:
            check_latents(chunk, start)
            chunk = vae.decode(chunk)
        check_pictures(chunk, start)
        if faces is not None and faces.fits(chunk, len(clip)):
            chunk = faces.compose(chunk, start)
        yield chunk
        release(clip)  # of a long clip in a file
        progress(min(start + CHUNK, len(clip)), len(clip))


class SVPVideoCombine(io.ComfyNode):
    """Images or latents, and audio -> file, VIDEO and preview."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPVideoCombine",
            display_name="Combine Video (SVP)",
            category="SVP Portrait",
            description="Writes frames and sound to an mp4 in the output folder, and the workflow with them: drop the file on the "
            "canvas to open it. A latent is decoded a few frames at a time, so that memory does not grow with the clip.",
            is_output_node=True,
            inputs=[
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    tooltip="Frames per second; connect the sampler's.",
                ),
                io.Int.Input(
                    "crf",
                    default=18,
                    min=0,
                    max=51,
                    step=1,
                    extra_dict=ADVANCED,
                    tooltip="Quality of H.264 as its rate factor: 0 the best that every player shows, 18 very good, 51 worst.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="svp/portrait",
                    tooltip="Name in the output folder, with subfolders if you like; a number is added.",
                ),
                io.Image.Input("images", optional=True, tooltip="The frames, if they are decoded already."),
                io.Latent.Input(
                    "latent", optional=True, tooltip="The frames as the sampler gives them; connect vae too."
                ),
                io.Vae.Input("vae", optional=True, tooltip="Decodes the latent."),
                io.Audio.Input(
                    "audio", optional=True, tooltip="The sound; cut or padded with silence to the frames' length."
                ),
            ],
            outputs=[io.Video.Output("video", tooltip="The saved video.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix: str | None) -> bool | str:
        return host.check_prefix(filename_prefix)

    @classmethod
    def execute(
        cls, fps: float, crf: int, filename_prefix: str, images=None, latent=None, vae=None, audio=None
    ) -> io.NodeOutput:
        chunks = image_chunks(images, latent, vae)
        first = next(chunks)
        height, width = first.shape[1:3]
        sound = None if audio is None else audio_from_host(audio)
        metadata = host.graph_metadata(cls.hidden)
        with host.output_file(filename_prefix, "mp4", width, height) as (path, saved):
            with (
                VideoWriter(path, width, height, fps, sound, crf, metadata=metadata) as writer,
                in_background(lambda chunk: writer.write(bytes_from_images(chunk))) as write,
            ):
                for chunk in chain([first], chunks):  # the next one is decoded while this one is written
                    write(chunk)
        return io.NodeOutput(InputImpl.VideoFromFile(path), ui=ui.PreviewVideo([saved]))


class SVPMedianFilter(io.ComfyNode):
    """IMAGE -> IMAGE without flicker."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVPMedianFilter",
            display_name="Median Filter (SVP)",
            category="SVP Portrait",
            description="Takes flicker out of a clip: every value becomes the median of the 3 x 3 x 3 values around it in space and "
            "time, as V-Express does before it writes the video. Fine detail gets a little softer.",
            inputs=[io.Image.Input("images", tooltip="The frames of one clip, in order.")],
            outputs=[io.Image.Output("images", tooltip="As many frames of the same size.")],
        )

    @classmethod
    def execute(cls, images: Tensor) -> io.NodeOutput:
        frames = rgb_images(images)  # f h w 3
        filtered, progress = torch.empty_like(frames), host.progress()
        for index, median in enumerate(median_filter_frames(frame.movedim(-1, 0) for frame in frames)):
            filtered[index] = median.movedim(0, -1)
            progress(index + 1, len(frames))
        return io.NodeOutput(filtered)


MAX_FRAMES = 10_000_000


class SVPLoadVideo(io.ComfyNode):
    """VIDEO -> IMAGE, AUDIO, frame rate and number of frames."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = {"default": 0, "min": 0, "max": 8192, "step": 1}
        return io.Schema(
            node_id="SVPLoadVideo",
            display_name="Load Video Frames (SVP)",
            **search_aliases("load video", "frame_load_cap", "skip_first_frames", "force_rate", "select_every_nth"),
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
                    max=MAX_FRAMES,
                    step=1,
                    tooltip="Frames to skip at the beginning, counted after frame_rate is applied.",
                ),
                io.Int.Input(
                    "frame_load_cap",
                    default=0,
                    min=0,
                    max=MAX_FRAMES,
                    step=1,
                    tooltip="Maximum number of frames to load; 0 loads all of them.",
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
                io.Float.Output("fps", tooltip="Frame rate of the output."),
                io.Int.Output("frame_count", tooltip="Number of frames in the output."),
            ],
        )

    @classmethod
    def execute(
        cls, video: Any, frame_rate: float, skip_first_frames: int, frame_load_cap: int, select_every_nth: int, width: int,
        height: int,
    ) -> io.NodeOutput:  # fmt: skip
        selection = FrameSelection(frame_rate, skip_first_frames, select_every_nth, frame_load_cap, width, height)
        clip = open_frames(video, selection)
        images = images_from_stream(clip, folder_paths.get_temp_directory(), host.progress())
        rate = clip.fps * select_every_nth
        audio = audio_of_video(video, skip_first_frames / rate, len(images) / clip.fps)
        return io.NodeOutput(images, audio_to_host(audio), clip.fps, len(images))
