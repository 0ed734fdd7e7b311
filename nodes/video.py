"""Frames and sound -> a video file, and the filter that steadies frames before it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from ..svp_models.errors import PortraitError
from ..svp_models.io.frames import release
from ..svp_models.media.median import median_filtered
from ..svp_models.media.writer import VideoWriter
from ..svp_models.sampling.decode import check_latents, check_pictures
from . import host
from .host import InputImpl, io, ui
from .sockets import audio_from, bytes_from, rgb_from
from .widgets import ADVANCED

CHUNK = 16  # frames decoded and written at a time: memory stays the same for any length


def check_latent(latent: Tensor, vae: Any) -> None:
    """Raises PortraitError for a latent of another kind of model than the VAE."""
    channels = getattr(vae, "latent_channels", None)
    if latent.ndim != 4 or not len(latent) or channels not in (None, latent.shape[1]):
        raise PortraitError(
            f"the latent has shape {tuple(latent.shape)}: frames x {channels or 'some'} channels x height x width is needed for "
            "this VAE, connect latent and VAE of one model"
        )


def picture_chunks(images: Tensor | None, latent: dict[str, Tensor] | None, vae: Any) -> Iterator[Tensor]:
    """IMAGE of up to CHUNK frames at a time, decoded from the latent if there are no images."""
    if (images is None) == (latent is None) or (latent is not None and vae is None):
        raise PortraitError("connect either images, or a latent together with its vae")
    whole = images if latent is None else latent["samples"]
    if latent is not None:
        check_latent(whole, vae)
    elif whole.ndim != 4 or not len(whole):
        raise PortraitError(f"the frames have shape {tuple(whole.shape)}: at least one frame of 3 dimensions is needed")
    progress = host.progress()
    for start in range(0, len(whole), CHUNK):
        part = whole[start : start + CHUNK]
        if latent is not None:
            check_latents(part, start)
            part = vae.decode(part)
        check_pictures(part, start)
        yield part
        release(whole)  # of a long clip that lies in a file
        progress(min(start + CHUNK, len(whole)), len(whole))


class SVPVideoCombine(io.ComfyNode):
    """Images or latents, and sound -> file, VIDEO and preview."""

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
        chunks = picture_chunks(images, latent, vae)
        first = next(chunks)
        height, width = first.shape[1:3]
        sound, texts = None if audio is None else audio_from(audio), host.graph_texts(cls.hidden)
        with host.output_file(filename_prefix, "mp4", width, height) as (path, saved):
            with VideoWriter(path, width, height, fps, sound, crf, metadata=texts) as writer:
                for chunk in chain([first], chunks):
                    writer.write(bytes_from(chunk))
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
        frames = rgb_from(images)  # f h w 3
        filtered, progress = torch.empty_like(frames), host.progress()
        for index, frame in enumerate(median_filtered(each.movedim(-1, 0) for each in frames)):
            filtered[index] = frame.movedim(0, -1)
            progress(index + 1, len(frames))
        return io.NodeOutput(filtered)
