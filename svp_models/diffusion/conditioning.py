"""The conditions of a clip, encoded once: reference bank, audio and style tokens; keypoint features window by window."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.audio_encoder import check_audio_encoder
from ..errors import PortraitError
from ..face.keypoints import draw_head_frames, draw_vexpress_frames
from ..io.memory_map import (
    IN_MEMORY,
    FrameArray,
    MappedFrames,
    ReorderedFrames,
    Storage,
    blocks,
    broadcast,
    first_equal,
)
from ..io.progress import Progress, in_chunks, shared
from ..media.audio import warn_if_silent
from ..model import PortraitModel
from ..networks.audio_encoder import feature_windows, mel_features, mel_windows, mono_samples
from ..networks.conditions import Conditions
from ..types import Audio, HeadMotion, Style
from .inputs import ClipInputs

CHUNK = 32  # frames that the small networks take at once
GUIDER_FRAMES = 4  # that the guider takes at once: it never sets the peak of the denoising's memory
DRAWINGS = {
    "head8": draw_head_frames,
    "vexpress3": draw_vexpress_frames,
}  # how a head motion is drawn for a kind of keypoints
CACHE_BYTES = 128 * 2**20  # of keypoint features in memory
DISK_SHARE = 4  # of the free disk, one part in so many for them


def audio_features(
    model: PortraitModel,
    audio: Audio,
    frames: int,
    fps: float,
    rows_per_frame: int = 1,
    progress: Progress | None = None,
) -> Tensor:
    """The audio features of the model: (frames x rows_per_frame) x feature size, float32 on the CPU.

    progress(done, total) is called for every segment that an audio encoder has processed.
    """
    check_audio_encoder(model.config, model.audio_encoder)
    if model.audio_encoder is None:
        return mel_features(audio, frames * rows_per_frame, fps * rows_per_frame)
    return model.audio_encoder.features(audio, frames, fps, rows_per_frame, progress)


@torch.no_grad()
def audio_tokens(
    model: PortraitModel,
    audio: Audio,
    frames: int,
    fps: float,
    progress: Progress | None = None,
    storage: Storage = IN_MEMORY,
) -> FrameArray:
    """Audio -> tokens of every frame: frames x tokens x d, on the CPU.

    progress(done, total) is called for every segment that is encoded and every chunk of frames that is projected.
    """
    projection = model.networks.audio_projection
    encoding, projecting = shared(progress, 1, 1)
    windows = _audio_windows(model, audio, frames, fps, encoding)
    like = model.like(projection)
    return in_chunks(
        lambda chunk: projection(windows(chunk).to(like)).cpu(), torch.arange(frames), CHUNK, projecting, storage
    )


def _audio_windows(
    model: PortraitModel, audio: Audio, frames: int, fps: float, progress: Progress | None
) -> Callable[[Tensor], Tensor]:
    """A function from numbers of successive frames, n, to the audio features around them, n window F. Mel features are computed
    on demand, an encoder runs over the whole audio first."""
    config = model.config.audio
    check_audio_encoder(model.config, model.audio_encoder)
    if model.audio_encoder is None:
        samples = mono_samples(audio)
        return lambda wanted: mel_windows(samples, config, frames, fps, int(wanted[0]), int(wanted[-1]) + 1)
    features = audio_features(model, audio, frames, fps, config.rows_per_frame, progress)
    return feature_windows(features, config, frames).__getitem__


@torch.no_grad()
def style_tokens(model: PortraitModel, style: Style, frames: int, storage: Storage = IN_MEMORY) -> FrameArray:
    """Style -> tokens of every frame: frames x 16 x d, on the CPU; 1 x 16 x d for a constant style."""
    projection = model.networks.style_projection
    like = model.like(projection)
    codes = style.at(1 if len(style.codes) == 1 else frames)
    return in_chunks(lambda chunk: projection(chunk.to(like)).cpu(), codes, CHUNK, storage=storage)


@torch.no_grad()
def expression_tokens(model: PortraitModel, expression: Tensor, storage: Storage = IN_MEMORY) -> FrameArray:
    """An expression track f 68 -> tokens of every frame: f x tokens x d, on the CPU."""
    projection = model.networks.expression_projection
    if projection is None:
        raise PortraitError(f"model {model.config.name!r} reads no expression track: leave the motion out")
    like = model.like(projection)
    return in_chunks(lambda chunk: projection(chunk.to(like)).cpu(), expression, CHUNK, storage=storage)


class KpsFeatureCache:
    """Guider features of any frames of a clip, in `storage` for the next step: as many as fit into a quarter of the free disk. No more
    than CACHE_BYTES stay in memory, without a folder all of them; what finds no room is computed anew.

    motion: HeadMotion, drawn when needed, or images f x 3 x H x W in [0, 1], resized when needed; a motion of one frame stands
    for the whole clip. Frames that look the same share their features. size: width, height in pixels of the frames to be
    sampled; keypoints: as ModelConfig has it; device: where the guider computes, None is where its weights are.
    """

    def __init__(
        self,
        guider: nn.Module,
        motion: HeadMotion | FrameArray,
        size: tuple[int, int],
        keypoints: str = "head8",
        device: torch.device | None = None,
        storage: Storage = IN_MEMORY,
    ) -> None:
        self.guider, self.motion, self.size, self.keypoints, self.device = guider, motion, size, keypoints, device
        self.storage = storage
        self._stored: Tensor | MappedFrames | None = None  # rows x c h w
        self._rows: dict[int, int] = {}  # frame -> row
        self._last: dict[
            int, Tensor
        ] = {}  # of the frames asked for last, those without a row, which the next window may share
        if isinstance(motion, HeadMotion):
            self._first = first_equal(points.tobytes() for points in motion.keypoints.cpu().numpy())
        else:
            self._first = first_equal(motion.order if isinstance(motion, ReorderedFrames) else range(len(motion)))

    @torch.no_grad()
    def frames(self, index: list[int], again: bool = True) -> Tensor:
        """f c h/8 w/8 on the CPU, in the guider's precision. again: whether frames are asked for more than once; else none are
        stored."""
        wanted = [0] * len(index) if len(self.motion) == 1 else [self._first[frame] for frame in index]
        different = list(dict.fromkeys(wanted))
        found = {frame: self._last[frame] for frame in different if frame in self._last}
        known = [frame for frame in different if frame in self._rows]
        if self._stored is not None and known:
            found |= zip(known, self._stored[[self._rows[frame] for frame in known]], strict=True)
        missing = [frame for frame in different if frame not in found]
        weight = next(self.guider.parameters())
        for block in blocks(len(missing), GUIDER_FRAMES):
            images = self.images(missing[block])[None].to(self.device or weight.device, weight.dtype)
            features = self.guider(images)[0].cpu()  # f c h/8 w/8
            found |= zip(missing[block], features, strict=True)
        if again and missing:
            self._store({frame: found[frame] for frame in missing})
        room = CACHE_BYTES // found[different[0]].nbytes
        if isinstance(self._stored, Tensor):
            room -= len(self._stored)
        others = [frame for frame in different if frame not in self._rows]
        self._last = {frame: found[frame].clone() for frame in others[max(0, len(others) - room) :]}
        return torch.stack([found[frame] for frame in wanted])

    def _store(self, features: dict[int, Tensor]) -> None:
        """Takes over the features of some frames, as long as there are rows."""
        if self._stored is None:
            like = next(iter(features.values()))
            most = CACHE_BYTES if self.storage == IN_MEMORY else self.storage.free() // DISK_SHARE
            count = min(len(set(self._first)), most // like.nbytes)
            self._stored = self.storage.zeros((count, *like.shape), like.dtype)
        new = list(features)[: len(self._stored) - len(self._rows)]
        if new:
            rows = [len(self._rows) + number for number in range(len(new))]
            self._stored[rows] = torch.stack([features[frame] for frame in new])
            self._rows |= zip(new, rows, strict=True)

    def images(self, index: list[int]) -> Tensor:
        """Head-Kps images of some frames of the motion: f 3 H W in [0, 1]."""
        width, height = self.size
        if isinstance(self.motion, HeadMotion):
            return DRAWINGS[self.keypoints](self.motion, index, width, height)
        chosen = self.motion[index].float()
        if chosen.shape[-2:] == (height, width):
            return chosen
        return F.interpolate(chosen, (height, width), mode="bilinear", antialias=True).clamp(0, 1)


@dataclass(frozen=True)
class ClipConditions:
    """The conditions of a whole clip; `window` cuts some frames out of them, on the device of the networks.

    reference: the ReferenceNet's bank, 1 x tokens x channels per block; reference_latent: 1 c h w, scaled, or None;
    reference_warped: f c h w (or 1), unscaled, on the CPU, or None; scale: its factor; audio: f tokens d, expression:
    f tokens d or None, and style: f 16 d (or 1) or None, on the CPU. A single row stands for every frame.
    """

    reference: tuple[Tensor, ...]
    reference_latent: Tensor | None
    audio: FrameArray
    style: FrameArray | None
    kps: KpsFeatureCache
    reference_warped: FrameArray | None = None
    scale: float = 1.0
    expression: FrameArray | None = None

    def window(self, index: list[int], like: Tensor) -> Conditions:
        """Conditions of those frames with a batch of 1, device and dtype as `like`."""
        return self.windows([index], like)

    def windows(self, indices: Sequence[list[int]], like: Tensor, again: bool = True) -> Conditions:
        """The same of several windows of one length, a batch of so many clips. again: whether they are cut out more than once."""
        count, index = len(indices), [frame for window in indices for frame in window]

        def clips(rows: Tensor) -> Tensor:
            return rows.unflatten(0, (count, -1)).to(like)

        def once(rows: Tensor) -> Tensor:
            return rows if count == 1 else rows.expand(count, *rows.shape[1:])

        style, warped, expression = self.style, self.reference_warped, self.expression
        if style is not None:
            style = once(style[:1])[:, None].to(like) if len(style) == 1 else clips(style[index])
        return Conditions(
            reference=tuple(once(block) for block in self.reference),
            reference_latent=None if self.reference_latent is None else once(self.reference_latent),
            audio=clips(self.audio[index]),
            kps=clips(self.kps.frames(index, again)),
            style=style,
            reference_warped=None if warped is None else clips(broadcast(warped, index) * self.scale),
            expression=None if expression is None else clips(expression[index]),
        )


@torch.no_grad()
def encode_conditions(
    model: PortraitModel,
    inputs: ClipInputs,
    progress: Progress | None = None,
    storage: Storage = IN_MEMORY,
    reference: tuple[Tensor, ...] | None = None,
) -> ClipConditions:
    """Runs every condition network that does not depend on the denoising step; progress: see `audio_tokens`, the long part.

    reference: what the ReferenceNet has made of this portrait before, None if nothing.
    """
    warn_if_silent(inputs.audio)
    networks, config = model.networks, model.config
    scaled = (inputs.portrait_latent.float() * config.vae.scale).to(model.like(networks.reference))  # 1 c h/8 w/8
    return ClipConditions(
        reference=tuple(networks.reference(scaled)) if reference is None else reference,
        reference_latent=scaled if config.unet.reference_concat else None,
        audio=audio_tokens(model, inputs.audio, inputs.frames, inputs.fps, progress, storage),
        style=None if inputs.style is None else style_tokens(model, inputs.style, inputs.frames, storage),
        kps=kps_features(model, inputs, storage),
        reference_warped=inputs.warped,
        scale=config.vae.scale,
        expression=None if inputs.expression is None else expression_tokens(model, inputs.expression, storage),
    )


def kps_features(model: PortraitModel, inputs: ClipInputs, storage: Storage = IN_MEMORY) -> KpsFeatureCache:
    """The keypoint features of a clip, of which none is computed yet; storage: where they go."""
    given = model.networks.guider, inputs.motion, inputs.size, model.config.keypoints, model.device
    return KpsFeatureCache(*given, storage)
