"""Core nodes of the host that the workflows use, with the host's ids, inputs and outputs, for the command line.

Types are the host's: IMAGE b h w c in [0, 1]; MASK b h w; AUDIO {"waveform": b c t, "sample_rate"}; LATENT {"samples":
b c h w}; VIDEO anything with get_components() -> images, audio, frame_rate. Each node is bound to its folders.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ..diffusion.checks import check_latents, check_pictures
from ..errors import PortraitError
from ..media.audio import load_audio
from ..media.images import load_images, save_png
from ..media.video import load_video
from ..media.writer import VideoWriter
from ..types import Audio
from .folders import Folders
from .schema import HIDDEN_GRAPH, Hidden, InputSpec, NodeSpec, show_value

LARGEST_SIDE = 16384  # pixels, the host's limit
CHUNK = 32  # frames per chunk


@dataclass(frozen=True)
class Result:
    """Result of a node: its outputs in order, and the files it saved."""

    args: tuple[Any, ...] = ()
    ui: dict[str, list[dict[str, str]]] | None = None


@dataclass(frozen=True)
class VideoComponents:
    """images: b h w c in [0, 1]; frame_rate in frames per second; audio as the host has it, or None."""

    images: Tensor
    frame_rate: Fraction
    audio: dict[str, Any] | None = None


@dataclass(frozen=True)
class ComponentVideo:
    """A VIDEO of frames and audio."""

    components: VideoComponents

    def get_components(self) -> VideoComponents:
        return self.components


@dataclass(frozen=True)
class FileVideo:
    """A VIDEO in a file, decoded by `get_components`."""

    path: Path

    def get_stream_source(self) -> str:
        return str(self.path)

    def get_components(self) -> VideoComponents:
        video = load_video(self.path)
        images = torch.from_numpy(video.frames).float().div_(255)  # n h w 3
        rate = Fraction(video.fps).limit_denominator(1001)
        return VideoComponents(images, rate, audio_to_host(video.audio))


def audio_to_host(audio: Audio | None) -> dict[str, Any] | None:
    """Audio as an AUDIO value: waveform 1 x channels x samples."""
    return None if audio is None else {"waveform": audio.waveform[None], "sample_rate": audio.sample_rate}


def audio_from_host(audio: dict[str, Any] | None) -> Audio | None:
    """The first audio of an AUDIO value."""
    return None if audio is None else Audio(audio["waveform"][0].float().cpu(), int(audio["sample_rate"]))


def images_to_uint8(images: Tensor, first: int = 0) -> np.ndarray:
    """b h w c in [0, 1] -> b h w c uint8, rounded. first: number of the first frame, for error messages."""
    check_pictures(images, first)
    return images.detach().cpu().float().mul(255).round_().clamp_(0, 255).to(torch.uint8).numpy()


@dataclass(frozen=True)
class CoreNode:
    """A core node and its folders. hidden: the running graph, for nodes that save it."""

    folders: Folders
    hidden: Hidden = Hidden()

    def graph_texts(self) -> dict[str, str]:
        """Metadata of a saved file: the graph that made it."""
        return {name: json.dumps(value) for name, value in vars(self.hidden).items() if value is not None}

    def save(self, images: Tensor, prefix: str, kind: str) -> Result:
        """Writes each image to a numbered PNG file in a folder."""
        check_pictures(images)  # all of them before the first is saved
        height, width = images.shape[1:3]
        target = self.folders.save_target(prefix, width, height, kind)
        saved = []
        for index in range(len(images)):
            frame = images_to_uint8(images[index : index + 1], index)[0]
            with target.reserved("png", index) as path:
                save_png(path, frame, self.graph_texts(), clear=False)
            saved.append(target.saved(path))
        return Result(ui={"images": saved})


class LoadImage(CoreNode):
    """The frames of an image file that have the size of the first, and their transparency as a mask."""

    def define_schema(self) -> NodeSpec:
        return NodeSpec("LoadImage", (InputSpec("image", "COMBO"),), ("IMAGE", "MASK"))

    def validate_inputs(self, image: str) -> bool | str:
        return _file_there(self.folders, image, "image")

    def execute(self, image: str) -> Result:
        images, masks = load_images(self.folders.find(image))
        return Result((torch.from_numpy(images), torch.from_numpy(masks)))


class LoadAudio(CoreNode):
    """The audio of an audio or video file."""

    def define_schema(self) -> NodeSpec:
        return NodeSpec("LoadAudio", (InputSpec("audio", "COMBO"),), ("AUDIO",))

    def validate_inputs(self, audio: str) -> bool | str:
        return _file_there(self.folders, audio, "audio")

    def execute(self, audio: str) -> Result:
        return Result((audio_to_host(load_audio(self.folders.find(audio))),))


class LoadVideo(CoreNode):
    """A video file, decoded later."""

    def define_schema(self) -> NodeSpec:
        return NodeSpec("LoadVideo", (InputSpec("file", "COMBO"),), ("VIDEO",))

    def validate_inputs(self, file: str) -> bool | str:
        return _file_there(self.folders, file, "video")

    def execute(self, file: str) -> Result:
        return Result((FileVideo(self.folders.find(file)),))


class GetVideoComponents(CoreNode):
    """Frames, audio and frame rate of a video."""

    def define_schema(self) -> NodeSpec:
        return NodeSpec("GetVideoComponents", (InputSpec("video", "VIDEO"),), ("IMAGE", "AUDIO", "FLOAT"))

    def execute(self, video: Any) -> Result:
        components = video.get_components()
        return Result((components.images, components.audio, float(components.frame_rate)))


class CreateVideo(CoreNode):
    """A video of frames, frame rate and optionally audio."""

    def define_schema(self) -> NodeSpec:
        inputs = (
            InputSpec("images", "IMAGE"),
            InputSpec("fps", "FLOAT", min=1.0, max=120.0),
            InputSpec("audio", "AUDIO", optional=True),
        )
        return NodeSpec("CreateVideo", inputs, ("VIDEO",))

    def execute(self, images: Tensor, fps: float, audio: dict[str, Any] | None = None) -> Result:
        return Result((ComponentVideo(VideoComponents(images, Fraction(fps).limit_denominator(1001), audio)),))


class SaveVideo(CoreNode):
    """Writes a video into the output folder as H.264 and AAC in mp4."""

    def define_schema(self) -> NodeSpec:
        inputs = (
            InputSpec("video", "VIDEO"),
            InputSpec("filename_prefix", "STRING"),
            InputSpec("format", "COMBO", options=("auto", "mp4")),
            InputSpec("codec", "COMBO", options=("auto", "h264")),
        )
        return NodeSpec("SaveVideo", inputs, is_output_node=True, hidden=HIDDEN_GRAPH)

    def validate_inputs(self, filename_prefix: str | None) -> bool | str:
        return self.folders.prefix_problem(filename_prefix)

    def execute(self, video: Any, filename_prefix: str, format: str, codec: str) -> Result:
        components = video.get_components()
        if not len(components.images):
            raise PortraitError("the video has no frames, so there is nothing to save")
        height, width = components.images.shape[1:3]
        target = self.folders.save_target(filename_prefix, width, height)
        audio = audio_from_host(components.audio)
        with target.reserved("mp4") as path:
            with VideoWriter(path, width, height, components.frame_rate, audio, metadata=self.graph_texts()) as writer:
                for start in range(0, len(components.images), CHUNK):
                    writer.write(images_to_uint8(components.images[start : start + CHUNK, ..., :3], start))
        return Result(ui={"images": [target.saved(path)]})


class VAEDecode(CoreNode):
    """Latent to images, by the VAE."""

    def define_schema(self) -> NodeSpec:
        return NodeSpec("VAEDecode", (InputSpec("samples", "LATENT"), InputSpec("vae", "VAE")), ("IMAGE",))

    def execute(self, samples: dict[str, Tensor], vae: Any) -> Result:
        check_latents(samples["samples"])
        images = vae.decode(samples["samples"])
        return Result((images.reshape(-1, *images.shape[-3:]),))  # video VAEs give b f h w c


class VAEEncode(CoreNode):
    """Images to latent, by the VAE."""

    def define_schema(self) -> NodeSpec:
        return NodeSpec("VAEEncode", (InputSpec("pixels", "IMAGE"), InputSpec("vae", "VAE")), ("LATENT",))

    def execute(self, pixels: Tensor, vae: Any) -> Result:
        return Result(({"samples": vae.encode(pixels)},))


class ImageScale(CoreNode):
    """Images in another size; 0 for one side keeps the aspect ratio, 0 for both keeps the size."""

    def define_schema(self) -> NodeSpec:
        inputs = (
            InputSpec("image", "IMAGE"),
            InputSpec("upscale_method", "COMBO", options=("nearest-exact", "bilinear", "area", "bicubic", "lanczos")),
            InputSpec("width", "INT", min=0, max=LARGEST_SIDE),
            InputSpec("height", "INT", min=0, max=LARGEST_SIDE),
            InputSpec("crop", "COMBO", options=("disabled", "center")),
        )
        return NodeSpec("ImageScale", inputs, ("IMAGE",))

    def execute(self, image: Tensor, upscale_method: str, width: int, height: int, crop: str) -> Result:
        high, wide = image.shape[1:3]
        if width == height == 0:
            return Result((image,))
        width = width or max(1, round(wide * height / high))
        height = height or max(1, round(high * width / wide))
        if crop == "center":
            image = _centre(image, width / height)
        if upscale_method == "lanczos":  # as in the host, on truncated bytes
            frames = (Image.fromarray((255 * frame).clamp(0, 255).byte().cpu().numpy()) for frame in image)
            scaled = [np.asarray(frame.resize((width, height), Image.Resampling.LANCZOS)) for frame in frames]
            return Result((torch.from_numpy(np.stack(scaled)).float() / 255,))
        channels_first = image.movedim(-1, 1)
        return Result((functional.interpolate(channels_first, (height, width), mode=upscale_method).movedim(1, -1),))


class SaveImage(CoreNode):
    """Writes images into the output folder as PNG."""

    def define_schema(self) -> NodeSpec:
        inputs = (InputSpec("images", "IMAGE"), InputSpec("filename_prefix", "STRING"))
        return NodeSpec("SaveImage", inputs, is_output_node=True, hidden=HIDDEN_GRAPH)

    def validate_inputs(self, filename_prefix: str | None) -> bool | str:
        return self.folders.prefix_problem(filename_prefix)

    def execute(self, images: Tensor, filename_prefix: str) -> Result:
        return self.save(images, filename_prefix, "output")


class PreviewImage(CoreNode):
    """Writes images into the temp folder, which is removed after the run."""

    def define_schema(self) -> NodeSpec:
        return NodeSpec("PreviewImage", (InputSpec("images", "IMAGE"),), is_output_node=True)

    def execute(self, images: Tensor) -> Result:
        return self.save(images, "preview", "temp")


CORE_NODES = (
    LoadImage,
    LoadAudio,
    LoadVideo,
    GetVideoComponents,
    CreateVideo,
    SaveVideo,
    VAEDecode,
    VAEEncode,
    ImageScale,
    SaveImage,
    PreviewImage,
)


def core_nodes(folders: Folders) -> list[CoreNode]:
    """All core nodes, bound to these folders."""
    return [node(folders) for node in CORE_NODES]


def _file_there(folders: Folders, name: str, what: str) -> bool | str:
    return folders.has(name) or f"no {what} file {show_value(name)} in {folders.input} nor at that path"


def _centre(image: Tensor, aspect: float) -> Tensor:
    """The largest centre crop of b h w c with width / height = aspect."""
    high, wide = image.shape[1:3]
    own = wide / high
    left = round((wide - wide * (aspect / own)) / 2) if own > aspect else 0
    top = round((high - high * (own / aspect)) / 2) if own < aspect else 0
    return image[:, top : high - top, left : wide - left]
