"""The socket types of the pack, their values, the conversion of host values, and inputs that several nodes share.

| socket          | value                                                        |
|-----------------|--------------------------------------------------------------|
| SVP_MODEL       | LoadedModel: a PortraitModel under the host's memory management |
| SVP_AUDIO_ENCODER | LoadedAudioEncoder: an AudioEncoder under the same |
| SVP_STYLE_PRIOR | types.StylePrior: mean and standard deviation of a speaking style |
| SVP_STYLE       | types.Style: style codes over a clip                        |
| SVP_HEAD_MOTION | types.HeadMotion: 8 head keypoints per frame                |
| SVP_MOTION      | types.Motion: pose, expression, lids and gaze per frame       |
| SVP_MOTION_STYLE | motion.style.MotionStylePrior: mean and spread of how a face moves |
| SVP_LIVEPORTRAIT | LoadedLivePortrait: LivePortrait's networks under the host's memory management  |
| SVP_MOTION_GENERATOR | LoadedMotionGenerator: networks that make motions from voices, under the same |
| SVP_FACE_ANALYZER | face.tracking.FaceTracker: a face detector and the choice of face |
| SVP_DATASET     | PreparedDataset: a folder of clips to train on               |
| SVP_CROP        | face.crop.FaceCrop: squares that were cropped from images    |
| FACE_LANDMARKS  | of the host, see face.tracking; older hosts have none         |

Host values: IMAGE b h w c in [0, 1]; VIDEO an object, see `open_frames`; AUDIO {"waveform": b c t, "sample_rate"}; LATENT {"samples": f c h w, unscaled}.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from ..svp_models.checkpoints.liveportrait import LivePortraitNetworks
from ..svp_models.diffusion.acceleration import EXACT, Acceleration
from ..svp_models.diffusion.composition import Composition, chunk_of, compose_frames, plan_composition, portrait_of_size
from ..svp_models.diffusion.conditioning_cache import ConditioningCache
from ..svp_models.diffusion.guidance import FASTEST, MemoryPlan
from ..svp_models.diffusion.memory import choose_plan
from ..svp_models.errors import PortraitError
from ..svp_models.face.portrait_face import PortraitFace
from ..svp_models.io.progress import Progress
from ..svp_models.media.audio import audio_segment
from ..svp_models.media.frame_stream import (
    ALL_FRAMES,
    FrameSelection,
    FrameStream,
    file_audio,
    file_stream,
    image_stream,
)
from ..svp_models.model import PortraitModel
from ..svp_models.motion.generators import MotionGenerator
from ..svp_models.networks.audio_encoder import AudioEncoder
from ..svp_models.types import Audio, HeadMotion
from .host import (
    InputImpl,
    available_memory,
    compute_device,
    io,
    load_networks,
    load_whole_networks,
    manage,
    manage_whole,
    weights_dtype,
)

MANY_WINDOWS = 1000  # of a clip; to find out how many of fewer are best computed together takes longer than it saves
GENERATING_MEMORY = 2**30  # bytes beside a motion generator's networks
FACES = "svp_faces"  # in a LATENT of face crops, beside "samples": what puts them onto the portrait
RENDERING_MEMORY = 3 * 2**30  # bytes beside LivePortrait's networks

SvpModel = io.Custom("SVP_MODEL")
AudioEncoderSocket = io.Custom("SVP_AUDIO_ENCODER")
StylePriorSocket = io.Custom("SVP_STYLE_PRIOR")
StyleSocket = io.Custom("SVP_STYLE")
HeadMotionSocket = io.Custom("SVP_HEAD_MOTION")
MotionSocket = io.Custom("SVP_MOTION")
MotionStyleSocket = io.Custom("SVP_MOTION_STYLE")
LivePortraitSocket = io.Custom("SVP_LIVEPORTRAIT")
MotionGeneratorSocket = io.Custom("SVP_MOTION_GENERATOR")
FaceAnalyzerSocket = io.Custom("SVP_FACE_ANALYZER")
DatasetSocket = io.Custom("SVP_DATASET")
CropSocket = io.Custom("SVP_CROP")
FaceLandmarksSocket = io.Custom("FACE_LANDMARKS")


@dataclass(eq=False)
class LoadedModel:
    """A model and the host's handles on its memory (None without a host): on what denoises, on what encodes the conditions
    before that, and on its audio encoder, if it has one. acceleration: what samplers leave out; conditioning_cache: of the last
    clip; every copy has one of its own."""

    portrait: PortraitModel
    denoising_handle: Any
    conditions_handle: Any
    encoder_handle: Any = None
    acceleration: Acceleration = EXACT
    conditioning_cache: ConditioningCache = field(default_factory=ConditioningCache, init=False, repr=False)

    @classmethod
    def of(cls, portrait: PortraitModel) -> LoadedModel:
        """In the precision and on the device of the host; the style space stays what it was in the file.

        The style extractor is small and runs once a clip: it stays on the CPU in float32.
        """
        networks = portrait.networks.eval()
        networks.style_extractor.to("cpu", torch.float32)
        denoising = nn.ModuleList([networks.denoiser, networks.guider]).to(weights_dtype())
        conditions = [networks.reference, networks.audio_projection, networks.style_projection]
        conditions += [
            part
            for part in (networks.expression_projection, networks.face_mask, networks.dense_motion)
            if part is not None
        ]
        handles = manage(denoising), manage(nn.ModuleList(conditions).to(weights_dtype()))
        return cls(replace(portrait, device=compute_device()), *handles)

    def load_for_conditions(self, memory: int = 0) -> None:
        """Brings what encodes conditions to the device, with `memory` bytes free beside it."""
        encoder = [] if self.encoder_handle is None else [self.encoder_handle]
        load_networks([] if self.conditions_handle is None else [self.conditions_handle], memory)
        load_whole_networks(encoder, memory)

    def load_for_denoising(self, memory: int) -> None:
        """Brings denoiser and guider to the device, with `memory` bytes free beside them: what encodes conditions and all
        else makes room where it must."""
        load_networks([] if self.denoising_handle is None else [self.denoising_handle], memory)

    def plan(self, cfg: float, frames: int, size: tuple[int, int], windows: int = 1) -> tuple[MemoryPlan, int]:
        """How to denoise so many windows of so many frames (size: width, height in pixels) in the memory there is, and the bytes
        it takes; without a host the fastest way, whatever it takes."""
        space, device = available_memory(self.denoising_handle), compute_device()
        if space is None and windows < MANY_WINDOWS:
            return FASTEST, 0
        on_cpu, given = (
            device is None or device.type == "cpu",
            (self.portrait.config, cfg, frames, size, weights_dtype()),
        )
        plan, needed = choose_plan(*given, sys.maxsize if space is None else space, windows, on_cpu)
        together = self.acceleration.at_once(plan.windows)
        return replace(plan, windows=together), needed // plan.windows * min(together, windows)


@dataclass(frozen=True)
class LoadedAudioEncoder:
    """An audio encoder and the host's handle on its memory (None without a host)."""

    encoder: AudioEncoder
    handle: Any

    @classmethod
    def of(cls, encoder: AudioEncoder) -> LoadedAudioEncoder:
        """In float32, as it was loaded: the host's choice of precision is for denoisers."""
        return cls(encoder, manage_whole(encoder))


@dataclass(frozen=True)
class LoadedLivePortrait:
    """LivePortrait's networks and the host's handle on their memory (None without a host)."""

    networks: LivePortraitNetworks
    handle: Any

    @classmethod
    def of(cls, networks: LivePortraitNetworks) -> LoadedLivePortrait:
        """In float32; the generator in float16 where the host chooses that, as its authors run it.

        Key points, and the grids that move the features, need more digits than float16 or bfloat16 have.
        """
        if weights_dtype() == torch.float16:
            networks.generator.to(torch.float16)
        return cls(networks, manage_whole(nn.ModuleList(getattr(networks, item.name) for item in fields(networks))))

    def load(self) -> None:
        """Brings the networks to the device, with room beside them for the frames that are made at once."""
        load_whole_networks([] if self.handle is None else [self.handle], RENDERING_MEMORY)


@dataclass(frozen=True)
class LoadedMotionGenerator:
    """A motion generator and the host's handle on its networks' memory (None without a host)."""

    generator: MotionGenerator
    handle: Any

    @classmethod
    def of(cls, generator: MotionGenerator) -> LoadedMotionGenerator:
        """In float32: the steps of the sampling add up rounding errors, and the networks are small."""
        return cls(generator, manage_whole(generator.networks))

    def load(self) -> None:
        """Brings the networks to the device, with room beside them for one window."""
        load_whole_networks([] if self.handle is None else [self.handle], GENERATING_MEMORY)


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared data set: the folder of its manifest and shards."""

    folder: Path


def audio_from_host(audio: dict[str, Any] | None) -> Audio:
    """AUDIO -> the first of its batch. The host passes None for the audio of a silent video."""
    if audio is None:
        raise PortraitError("there is no audio: the video has none, connect the audio of another one")
    return Audio(audio["waveform"][0].detach().cpu().float(), int(audio["sample_rate"]))


def rgb_images(images: Tensor) -> Tensor:
    """IMAGE of 1, 3 or 4 channels -> b h w 3 in [0, 1]: grey is repeated, transparency dropped."""
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or not len(images):
        raise PortraitError(f"the image has shape {tuple(images.shape)}: images x height x width x 3 is needed")
    return images.expand(*images.shape[:3], 3) if images.shape[-1] == 1 else images[..., :3]


def frames_from_images(images: Tensor) -> Tensor:
    """IMAGE -> frames f 3 h w in [-1, 1], float32 on the CPU."""
    return rearrange(rgb_images(images).detach().cpu().float(), "f h w c -> f c h w") * 2 - 1


def images_from_frames(frames: Tensor) -> Tensor:
    """Frames f 3 h w in [-1, 1] -> IMAGE."""
    return rearrange((frames + 1) / 2, "f c h w -> f h w c").clamp(0, 1)


def bytes_from_images(images: Tensor) -> np.ndarray:
    """IMAGE -> n h w 3, uint8, rounded; a frame at a time, which stays in the processor's cache."""
    frames = rgb_images(images).detach()
    return np.stack([frame.cpu().float().clamp(0, 1).mul_(255).round_().byte().numpy() for frame in frames])


def images_from_bytes(frames: np.ndarray) -> Tensor:
    """n h w 3, uint8 -> IMAGE."""
    return torch.from_numpy(frames).float() / 255


def open_frames(images: Any, selection: FrameSelection = ALL_FRAMES) -> FrameStream:
    """IMAGE or VIDEO -> a stream of its frames, decoded one at a time. A VIDEO has its own frame rate."""
    if isinstance(images, Tensor):
        return image_stream(rgb_images(images), selection=selection)
    file = _video_file(images)
    if file is not None:
        return file_stream(*file, selection)
    components = images.get_components()
    return image_stream(rgb_images(components.images), float(components.frame_rate), selection)


def audio_of_video(video: Any, start: float = 0.0, seconds: float = 0.0) -> Audio | None:
    """The audio of a VIDEO from `start` seconds on, `seconds` of it (0: to its end); None where it has none."""
    file = _video_file(video)
    if file is not None:
        source, file_start, length = file
        remaining = max(length - start, 0.0) if length else 0.0
        wanted = min(seconds, remaining) if seconds and remaining else seconds or remaining
        return file_audio(source, file_start + start, wanted)
    audio = video.get_components().audio
    return None if audio is None else audio_segment(audio_from_host(audio), start, seconds)


def _video_file(video: Any) -> tuple[Any, float, float] | None:
    """The file of a VIDEO, its start in the file and its length in seconds (0: to the end); None where only its components are
    available."""
    if not isinstance(video, InputImpl.VideoFromFile):
        return None
    if hasattr(video, "get_active_trim_window"):
        return (video.get_stream_source(), *video.get_active_trim_window())
    # A host that can trim videos and does not tell how this one is trimmed
    return None if hasattr(video, "as_trimmed") else (video.get_stream_source(), 0.0, 0.0)


# For `extra_dict`: a widget for advanced users. Newer front ends hide it, web/js/advanced.js does so in older ones.
ADVANCED = {"advanced": True}
LARGEST_SEED = 2**53 - 1  # the largest whole number that a web page keeps exactly
SIDE_STEP = 8  # pixels to a latent cell

# Search words for talking portraits.
TALK = ("animate photo", "talking photo", "talking head", "talking portrait", "lip sync", "avatar")


def seed_input(tooltip: str, changes: bool = True, advanced: bool = False) -> Any:
    """The seed. changes: the front end may change it after each run; else it stays as typed.

    Left out, `control_after_generate` would be on for every input of this name: the front end takes it from the name.
    """
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=LARGEST_SEED,
        step=1,
        control_after_generate=changes,
        extra_dict=ADVANCED if advanced else None,
        tooltip=tooltip,
    )


def weight_input(name: str, what: str, advanced: bool = True) -> Any:
    """A widget for the strength of a condition."""
    return io.Float.Input(
        f"{name}_weight",
        default=1.0,
        min=0.0,
        max=5.0,
        step=0.05,
        extra_dict=ADVANCED if advanced else None,
        tooltip=f"Strength of {what}, as a factor: 1 as trained, 0 off.",
    )


def search_aliases(*words: str) -> dict[str, list[str]]:
    """For a schema: more words for the search of the host, where it supports them."""
    return {"search_aliases": list(words)} if "search_aliases" in io.Schema.__dataclass_fields__ else {}


def check_sides(largest: int, **sides: int | None) -> bool | str:
    """For `validate_inputs`: True, or which side is wrong and the nearest that is right. 0: the model's own; None: linked."""
    for name, side in sides.items():
        if side is not None and (side % SIDE_STEP or not 0 <= side <= largest):
            nearest = min(max(SIDE_STEP * ((side + SIDE_STEP // 2) // SIDE_STEP), SIDE_STEP), largest)
            return (
                f"{name} is {side} pixels: use a multiple of {SIDE_STEP} up to {largest}, the nearest is {nearest}, or 0 "
                "for the model's own size"
            )
    return True


@dataclass(frozen=True, eq=False)
class LatentFaces:
    """What becomes of a latent's faces. model: whose mask joins them; plan: the portrait and where they lie in it; frames: of the
    latent; size: width, height of a decoded face."""

    model: LoadedModel
    plan: Composition
    frames: int
    size: tuple[int, int]

    def fits(self, images: Tensor, frames: int) -> bool:
        """Whether IMAGE of a latent with so many frames still shows these faces, and no node has cut or resized them."""
        return frames == self.frames and (images.shape[2], images.shape[1]) == self.size

    def compose(self, images: Tensor, first: int) -> Tensor:
        """IMAGE of faces, n H W 3 from the frame `first` on -> IMAGE of whole frames."""
        if not first:
            self.model.load_for_conditions()
        height, width = self.plan.portrait.shape[-2:]
        faces = 2 * rearrange(images.float().cpu(), "n h w c -> n c h w") - 1
        done, found = 0, []
        for part in faces.split(chunk_of(width, height)):
            frames, _ = compose_frames(self.model.portrait, self.plan, part, first + done)
            found.append(rearrange((frames + 1) / 2, "n c h w -> n h w c").clamp(0, 1))
            done += len(part)
        return torch.cat(found)


def latent_of_faces(
    samples: Tensor,
    model: LoadedModel,
    portrait: Tensor,
    motion: HeadMotion | Tensor,
    fps: float,
    asked: tuple[int, int],
    progress: Progress | None = None,
    expression: Tensor | None = None,
    face: PortraitFace | None = None,
) -> dict[str, Any]:
    """The LATENT of samples: of a model that draws crops of the face, with what puts them onto the portrait.

    portrait: 3 h w in [-1, 1] of any size; asked: width, height of the frames as the user gave them, 0: the portrait's own; face:
    that of the portrait in pixels of the frames, None: the model's analyser finds it.
    """
    crop, size = model.portrait.config.face_crop, model.portrait.config.size
    latent: dict[str, Any] = {"samples": samples}
    if not crop.width:
        return latent
    frame_size = asked[0] or size, asked[1] or size
    shown = portrait_of_size(portrait, frame_size, *((0, 0) if asked == (0, 0) else frame_size))
    faces = crop.width, crop.height
    plan = plan_composition(
        model.portrait, shown, motion, len(samples), fps, faces, frame_size, progress, expression, face
    )
    return latent | {FACES: LatentFaces(model, plan, len(samples), faces)}
