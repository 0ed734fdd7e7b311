"""What drives one clip, prepared once: reference bank, audio and style tokens; kps features window by window.

What a model has made of the last portrait, voice and head motion, kept for the next run with another style or seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.audio_encoder import check_audio_encoder
from ..face.keypoints import draw_frames
from ..face.retarget import draw_three_frames
from ..io.memory_map import IN_MEMORY, Index, Repeated, Rows, Storage, first_alike, held
from ..io.progress import Progress, in_chunks, shared
from ..media.audio import warn_of_silence
from ..model import PortraitModel
from ..networks.audio_encoder import feature_windows, mel_features, mel_windows, mono_samples
from ..networks.conditions import Conditions
from ..types import Audio, HeadMotion, Style
from .inputs import ClipRequest

CHUNK = 32  # frames that the small networks see at once
PICTURES = 4  # as large as the frames that the guider sees at once: it never sets the peak of the denoising's memory
DRAWINGS = {"head8": draw_frames, "vexpress3": draw_three_frames}  # how a head motion is drawn for a kind of keypoints
CACHE_BYTES = 128 * 2**20  # kps features are kept up to this size, those used last; beyond it they are made anew


def audio_features(
    model: PortraitModel,
    audio: Audio,
    frames: int,
    fps: float,
    rows_per_frame: int = 1,
    progress: Progress | None = None,
) -> Tensor:
    """The audio features that the model reads: (frames x rows_per_frame) x feature size, float32 on the CPU.

    progress(done, total) is called for every segment that an audio encoder has heard.
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
) -> Rows:
    """Audio -> tokens of every frame: frames x tokens x d, on the CPU.

    progress(done, total) is called for every segment that is heard and every chunk of frames that is projected.
    """
    projection = model.networks.audio_projection
    hearing, projecting = shared(progress, 1, 1)
    windows = _heard_windows(model, audio, frames, fps, hearing)
    like = model.like(projection)
    return in_chunks(
        lambda chunk: projection(windows(chunk).to(like)).cpu(), torch.arange(frames), CHUNK, projecting, storage
    )


def _heard_windows(
    model: PortraitModel, audio: Audio, frames: int, fps: float, progress: Progress | None
) -> Callable[[Tensor], Tensor]:
    """What gives the audio features around successive frames: their numbers, n -> n window F. Mel features are made when
    they are asked for, an encoder hears the whole sound first."""
    config = model.config.audio
    check_audio_encoder(model.config, model.audio_encoder)
    if model.audio_encoder is None:
        samples = mono_samples(audio)
        return lambda wanted: mel_windows(samples, config, frames, fps, int(wanted[0]), int(wanted[-1]) + 1)
    features = audio_features(model, audio, frames, fps, config.rows_per_frame, progress)
    return feature_windows(features, config, frames).__getitem__


@torch.no_grad()
def style_tokens(model: PortraitModel, style: Style, frames: int, storage: Storage = IN_MEMORY) -> Rows:
    """Style -> tokens of every frame: frames x 16 x d, on the CPU; 1 x 16 x d for a style that stays the same."""
    projection = model.networks.style_projection
    like = model.like(projection)
    codes = style.at(1 if len(style.codes) == 1 else frames)
    return in_chunks(lambda chunk: projection(chunk.to(like)).cpu(), codes, CHUNK, storage=storage)


@dataclass
class KpsFeatures:
    """Guider features of any frames of a clip, with bounded memory.

    motion: HeadMotion, drawn when needed, or pictures f x 3 x H x W in [0, 1], resized when needed; a motion of one
    frame holds for the whole clip. Frames that look the same share their features. width, height: pixels of the frames to be
    sampled; keypoints: as ModelConfig has it; device: where the guider computes, None is where its weights lie.
    """

    guider: nn.Module
    motion: HeadMotion | Rows
    width: int
    height: int
    keypoints: str = "head8"
    device: torch.device | None = None
    _kept: dict[int, Tensor] = field(default_factory=dict, init=False)  # frame -> c h w, CPU, in the order of their use
    _kept_bytes: int = field(default=0, init=False)
    _alike: list[int] = field(init=False)  # frame -> the first one that looks the same

    def __post_init__(self) -> None:
        if isinstance(self.motion, HeadMotion):
            self._alike = first_alike(each.tobytes() for each in self.motion.keypoints.cpu().numpy())
        else:
            own = self.motion.order if isinstance(self.motion, Repeated) else range(len(self.motion))
            self._alike = first_alike(own)

    @torch.no_grad()
    def frames(self, index: list[int]) -> Tensor:
        """f c h/8 w/8 on the CPU, in the guider's precision."""
        wanted = [0] * len(index) if len(self.motion) == 1 else [self._alike[each] for each in index]
        missing = [each for each in dict.fromkeys(wanted) if each not in self._kept]
        weight = next(self.guider.parameters())
        device = self.device or weight.device
        made: dict[int, Tensor] = {}
        for start in range(0, len(missing), PICTURES):
            chunk = missing[start : start + PICTURES]
            features = self.guider(self.pictures(chunk)[None].to(device, weight.dtype))[0].cpu()  # f c h/8 w/8
            made.update(zip(chunk, features.unbind(0), strict=True))
        found = torch.stack([made[each] if each in made else self._kept[each] for each in wanted])
        for each in dict.fromkeys(wanted):
            # Not a view of what was made: it would hold its whole chunk.
            feature = made[each].clone() if each in made else self._kept.pop(each)
            self._kept[each] = feature
            self._kept_bytes += feature.nbytes if each in made else 0
        while self._kept_bytes > CACHE_BYTES:
            self._kept_bytes -= self._kept.pop(next(iter(self._kept))).nbytes
        return found

    def pictures(self, index: list[int]) -> Tensor:
        """Head-Kps pictures of some frames of the motion: f 3 H W in [0, 1]."""
        if isinstance(self.motion, HeadMotion):
            draw = DRAWINGS[self.keypoints]
            return draw(self.motion, index, self.width, self.height)
        chosen = self.motion[index].float()
        if chosen.shape[-2:] == (self.height, self.width):
            return chosen
        return F.interpolate(chosen, (self.height, self.width), mode="bilinear", antialias=True).clamp(0, 1)


@dataclass(frozen=True)
class ClipConditions:
    """The conditions of a whole clip; `window` cuts some frames out of them, on the device of the networks.

    reference: the ReferenceNet's bank, 1 x tokens x ch each; reference_latent: 1 c h w, scaled, or None;
    reference_warped: f c h w (or 1, held), unscaled, on the CPU, or None; scale: what it is multiplied by;
    audio: f tokens d and style: f 16 d (or 1, held) or None, on the CPU.
    """

    reference: tuple[Tensor, ...]
    reference_latent: Tensor | None
    audio: Rows
    style: Rows | None
    kps: KpsFeatures
    reference_warped: Rows | None = None
    scale: float = 1.0

    def window(self, index: list[int], like: Tensor) -> Conditions:
        """Conditions of those frames with a batch of 1, device and dtype as `like`."""
        return Conditions(
            reference=self.reference,
            reference_latent=self.reference_latent,
            audio=self.audio[index][None].to(like),
            kps=self.kps.frames(index)[None].to(like),
            style=None if self.style is None else held(self.style, index)[None].to(like),
            reference_warped=self._warped(index, like),
        )

    def _warped(self, index: Index, like: Tensor) -> Tensor | None:
        if self.reference_warped is None:
            return None
        return (held(self.reference_warped, index) * self.scale)[None].to(like)


@torch.no_grad()
def clip_conditions(
    model: PortraitModel, request: ClipRequest, progress: Progress | None = None, storage: Storage = IN_MEMORY
) -> ClipConditions:
    """Runs every condition network that does not depend on the step; progress: see `audio_tokens`, the long part."""
    warn_of_silence(request.audio)
    networks, config = model.networks, model.config
    like = model.like(networks.reference)
    scaled = (request.portrait_latent.float() * config.vae.scale).to(like)  # 1 c h/8 w/8
    width, height = request.size
    return ClipConditions(
        reference=tuple(networks.reference(scaled)),
        reference_latent=scaled if config.unet.reference_concat else None,
        audio=audio_tokens(model, request.audio, request.frames, request.fps, progress, storage),
        style=None if request.style is None else style_tokens(model, request.style, request.frames, storage),
        kps=KpsFeatures(networks.guider, request.motion, width, height, config.keypoints, model.device),
        reference_warped=request.warped,
        scale=config.vae.scale,
    )


LARGEST = 256 * 2**20  # bytes of what a clip was made of; it is held as long as what was made of it


class KeptClip:
    """The encoded portrait, bent or not, the ReferenceNet's bank and the audio tokens of one clip: nothing of them depends on
    style, seed, steps or weights. Another clip takes its place. It belongs to one model, whose networks do not change."""

    def __init__(self) -> None:
        self._forget()

    def request(self, made_of: tuple[Any, ...], style: Style | None, make: Callable[[], ClipRequest]) -> ClipRequest:
        """With that style, the request that `make` gives, or gave when it was last made of the same."""
        if self._request is None or not alike(self._made_of, made_of):
            self._forget()  # before the next is made, so that there is never room needed for both
            request = make()
            if size_of(made_of) > LARGEST:
                return request
            self._made_of, self._request = made_of, request
        return replace(self._request, style=style)

    def conditions(
        self, model: PortraitModel, request: ClipRequest, progress: Progress | None = None, storage: Storage = IN_MEMORY
    ) -> ClipConditions:
        """As `clip_conditions`, which only runs for what is not kept."""
        same = [each.name for each in fields(request) if each.name != "style"]
        if any(getattr(request, each) is not getattr(self._request, each, None) for each in same):
            return clip_conditions(model, request, progress, storage)
        if self._conditions is None:
            made = clip_conditions(model, replace(request, style=None), progress, storage)
            self._conditions = replace(made, reference=tuple(each.cpu() for each in made.reference))
        kept, networks = self._conditions, model.networks
        like = model.like(networks.reference)
        latent = kept.reference_latent
        return replace(
            kept,
            reference=tuple(each.to(like) for each in kept.reference),
            reference_latent=None if latent is None else latent.to(like),
            style=None if request.style is None else style_tokens(model, request.style, request.frames, storage),
            kps=KpsFeatures(networks.guider, request.motion, *request.size, model.config.keypoints, model.device),
        )

    def _forget(self) -> None:
        self._made_of: tuple[Any, ...] = ()
        self._request: ClipRequest | None = None
        self._conditions: ClipConditions | None = None


def alike(first: Any, second: Any) -> bool:
    """Whether two values are equal; tensors by their numbers, dataclasses and tuples by what they hold."""
    if first is second:
        return True
    if type(first) is not type(second):
        return False
    if isinstance(first, Tensor):
        return first.shape == second.shape and first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, tuple):
        return len(first) == len(second) and all(map(alike, first, second))
    if is_dataclass(first):
        return all(alike(getattr(first, each.name), getattr(second, each.name)) for each in fields(first))
    return bool(first == second)


def size_of(value: Any) -> int:
    """Bytes of the tensors in a value."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if is_dataclass(value):
        return sum(size_of(getattr(value, each.name)) for each in fields(value))
    return sum(map(size_of, value)) if isinstance(value, tuple) else 0
