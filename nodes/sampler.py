"""The sampler: portrait, voice, head motion and style -> latents of the clip."""

from __future__ import annotations

from typing import Any
from weakref import ref

from einops import rearrange
from torch import Tensor

from ..svp_models.config import ModelConfig
from ..svp_models.diffusion.face_inputs import face_in_frame
from ..svp_models.diffusion.inputs import LENGTHS, clip_length, still_motion
from ..svp_models.diffusion.pipeline import PortraitPipeline, SamplerOptions, guidance_scales, resolve_options
from ..svp_models.diffusion.samplers import SAMPLERS
from ..svp_models.face.portrait_face import PortraitFace, expression_track
from ..svp_models.face.tracking import FaceTracker
from ..svp_models.io.memory_map import Storage
from ..svp_models.io.progress import shared
from ..svp_models.motion.built_in_generator import open_built_in
from ..svp_models.motion.head_keypoints import head_keypoints_of_motion
from ..svp_models.motion.spoken_expression import spoken_expression
from ..svp_models.types import HeadMotion, Motion
from . import types
from .host import PreviewBar, folder_paths, io, preview
from .types import (
    ADVANCED,
    SIDE_STEP,
    TALK,
    FaceAnalyzerSocket,
    HeadMotionSocket,
    MotionSocket,
    StyleSocket,
    SvpModel,
    check_sides,
    latent_of_faces,
    search_aliases,
    seed_input,
    weight_input,
)

LARGEST = 2048  # pixels per side


def motion_of(
    head_motion: Tensor | HeadMotion | Motion | None, portrait: Tensor, analyzer: FaceTracker | bytes | None
) -> Tensor | HeadMotion:
    """IMAGE -> f 3 h w in [0, 1]; a head motion stays; a motion moves the portrait's own keypoints, which stand still without one."""
    if isinstance(head_motion, HeadMotion):
        return head_motion
    if head_motion is None or isinstance(head_motion, Motion):
        still = still_motion(analyzer, types.bytes_from_images(portrait[:1]))
        return still if head_motion is None else head_keypoints_of_motion(head_motion, still)
    return rearrange(types.rgb_images(head_motion).cpu().float(), "f h w c -> f c h w")


def guidance_input(condition: str, what: str) -> Any:
    """Guidance of one condition alone."""
    return io.Float.Input(
        f"{condition}_cfg",
        optional=True,
        default=-1.0,
        min=-1.0,
        max=20.0,
        step=0.1,
        extra_dict=ADVANCED,
        tooltip=f"Guidance towards {what}, as a factor; -1 takes cfg. If audio_cfg and style_cfg differ, a step takes up to half as "
        "long again.",
    )


def known_face(
    analyzer: FaceTracker | None, portrait: Tensor, size: tuple[int, int], config: ModelConfig
) -> PortraitFace | None:
    """The face that an analyser finds in a portrait 3 h w, for models that warp it; None: the model's own analyser looks for it."""
    if analyzer is None or not config.face_crop.expression_warp:
        return None
    return face_in_frame(analyzer, portrait, *size)


class HostEncoder:
    """The host's VAE on frames n 3 h w in [-1, 1]; equal to another one of the same VAE, which it does not keep alive."""

    def __init__(self, vae: Any) -> None:
        self.vae = ref(vae)

    def __call__(self, frames: Tensor) -> Tensor:
        return self.vae().encode(types.images_from_frames(frames))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HostEncoder) and self.vae == other.vae

    def __hash__(self) -> int:
        return hash(self.vae)


class SVPSampler(io.ComfyNode):
    """Portrait, voice, head motion and style -> LATENT and frame rate."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        side = {"default": 0, "min": 0, "max": LARGEST, "step": SIDE_STEP, "extra_dict": ADVANCED}
        return io.Schema(
            node_id="SVPSampler",
            display_name="Portrait Sampler (SVP)",
            **search_aliases(*TALK, "audio driven"),
            category="SVP Portrait",
            description="Makes the portrait speak: as many frames as the voice lasts, in the given style and head motion.",
            inputs=[
                SvpModel.Input("model", tooltip="From Load Portrait Model."),
                io.Vae.Input("vae", tooltip="The VAE that encodes the portrait; the one of the model."),
                io.Image.Input(
                    "portrait",
                    tooltip="The portrait. Other aspect ratios are cropped around the centre to width x height.",
                ),
                io.Audio.Input("audio", tooltip="The voice; it sets the length of the clip."),
                io.MultiType.Input(
                    "head_motion",
                    types=[io.Image, HeadMotionSocket, MotionSocket],
                    optional=True,
                    tooltip=(
                        "How the head moves: a motion, which the portrait's head follows from its own pose on, a head motion "
                        "fitted to the portrait, or keypoint images, one per frame. A motion that is shorter than the voice plays forwards and backwards. If not "
                        "connected, or with one frame, the head stays still."
                    ),
                ),
                seed_input("The same seed gives the same clip."),
                io.Int.Input(
                    "steps",
                    default=0,
                    min=0,
                    max=200,
                    step=1,
                    tooltip="Denoising steps: more is finer and slower; 0 takes the model's own number.",
                ),
                io.Float.Input(
                    "cfg",
                    default=-1.0,
                    min=-1.0,
                    max=20.0,
                    step=0.1,
                    tooltip="Guidance towards the conditions, as a factor; 1 is none (fastest), -1 takes the model's own.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=list(SAMPLERS),
                    default="euler",
                    extra_dict=ADVANCED,
                    tooltip="The sampling method.",
                ),
                weight_input("reference", "the portrait's looks"),
                weight_input("audio", "the voice"),
                weight_input("style", "the speaking style", advanced=False),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Frames per second of the clip; 0 takes the model's own.",
                ),
                io.Int.Input(
                    "window",
                    default=0,
                    min=0,
                    max=512,
                    step=1,
                    extra_dict=ADVANCED,
                    tooltip="Frames denoised together; 0 takes the model's own.",
                ),
                io.Int.Input(
                    "overlap",
                    default=-1,
                    min=-1,
                    max=511,
                    step=1,
                    extra_dict=ADVANCED,
                    tooltip="Frames that neighbouring windows share; -1 takes the model's own.",
                ),
                io.Int.Input("width", tooltip="Pixels, a multiple of 8; 0 takes the model's size.", **side),
                io.Int.Input("height", tooltip="Pixels, a multiple of 8; 0 takes the model's size.", **side),
                io.Combo.Input(
                    "length",
                    options=list(LENGTHS),
                    default="audio",
                    tooltip="audio: as long as the voice. shortest: no longer than the head motion either.",
                ),
                StyleSocket.Input(
                    "style", optional=True, tooltip="The speaking style; if not connected, the model's neutral style."
                ),
                FaceAnalyzerSocket.Input(
                    "face_analyzer",
                    optional=True,
                    tooltip="From Load Face Analyzer: finds the face of a photograph, which the built-in model then moves too. "
                    "Without: the model's own, which knows drawn faces.",
                ),
                MotionSocket.Input(
                    "motion",
                    optional=True,
                    tooltip="Expression, lids and gaze of every frame, in the space of synthetic speakers, for models that read them. "
                    "If not connected, the built-in motion generator makes them of the voice and the style. The head follows "
                    "head_motion alone.",
                ),
                guidance_input("audio", "the voice, and all else but the style"),
                guidance_input("style", "the speaking style"),
            ],
            outputs=[
                io.Latent.Output("latent", tooltip="One latent per frame, for VAE Decode or Combine Video."),
                io.Float.Output("fps", tooltip="Frames per second."),
            ],
        )

    @classmethod
    def validate_inputs(cls, width: int | None = 0, height: int | None = 0) -> bool | str:
        return check_sides(LARGEST, width=width, height=height)

    @classmethod
    def execute(
        cls, model, vae: Any, portrait: Tensor, audio: dict[str, Any], seed: int, steps: int, cfg: float, scheduler: str,
        reference_weight: float, audio_weight: float, style_weight: float, fps: float, window: int, overlap: int, width: int,
        height: int, length: str, head_motion: Tensor | HeadMotion | Motion | None = None, style=None,
        face_analyzer: FaceTracker | None = None, motion: Motion | None = None, audio_cfg: float = -1.0, style_cfg: float = -1.0,
    ) -> io.NodeOutput:  # fmt: skip
        config = model.portrait.config
        options = SamplerOptions(
            steps=steps or None,
            cfg=None if cfg < 0 else cfg,
            scheduler=scheduler,
            reference_weight=reference_weight,
            audio_weight=audio_weight,
            style_weight=style_weight,
            window=window or None,
            overlap=None if overlap < 0 else overlap,
            acceleration=model.acceleration,
            audio_cfg=None if audio_cfg < 0 else audio_cfg,
            style_cfg=None if style_cfg < 0 else style_cfg,
        )
        options = resolve_options(config, options)
        fps, size = fps or config.fps, (width or config.size, height or config.size)
        head = motion_of(head_motion, portrait, face_analyzer or model.portrait.face_analyzer)
        voice, face = types.audio_from_host(audio), types.frames_from_images(portrait[:1])[0]
        frames = clip_length(voice.seconds, head, fps, length)
        track = None if motion is None else expression_track(motion, frames, fps)
        if track is None and config.unet.expression_size:
            track = spoken_expression(open_built_in(), voice, style, frames, fps, seed, audio_weight, style_weight)

        bar = PreviewBar()
        preparing, encoding, denoising = shared(bar, 1, 1, options.steps)  # in steps over the whole clip
        storage = Storage(folder_paths.get_temp_directory())
        pipeline = PortraitPipeline(model.portrait, HostEncoder(vae), storage, model.conditioning_cache)
        found = known_face(face_analyzer, face, size, config)
        inputs = pipeline.prepare(face, voice, head, style, frames, fps, size, preparing, track, found)
        windows = options.acceleration.windows(frames, options.window, options.overlap)
        plan, memory = model.plan(guidance_scales(options)[0], len(windows[0]), inputs.size, len(windows))
        model.load_for_conditions(memory)
        conditions = pipeline.encode_conditions(inputs, encoding)
        model.load_for_denoising(memory)
        on_latents = preview(bar, model.portrait)
        samples = pipeline.denoise(inputs, conditions, seed, options, denoising, on_latents, plan)
        given = model, face, head, fps, (width, height)
        return io.NodeOutput(latent_of_faces(samples, *given, expression=track, face=found), fps)
