"""The values that travel between nodes: plain dataclasses of tensors on the CPU, independent of any host."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .errors import PortraitError
from .io.resampling import interpolate_rows


@dataclass(frozen=True)
class Audio:
    """Audio. waveform: channels x samples, float32, nominally in [-1, 1]; sample_rate in Hz."""

    waveform: Tensor
    sample_rate: int

    @property
    def seconds(self) -> float:
        return self.waveform.shape[-1] / self.sample_rate


@dataclass(frozen=True)
class StylePrior:
    """A Gaussian over styles (eq. 2-3). mu, sigma: d_s, float32; style_space names its style extractor."""

    mu: Tensor
    sigma: Tensor
    style_space: str
    label: str = ""


@dataclass(frozen=True)
class Style:
    """Style codes over a clip. codes: k x d_s, float32, evenly spaced from the first frame to the last; k = 1 is constant."""

    codes: Tensor
    style_space: str
    label: str = ""

    def at(self, frames: int) -> Tensor:
        """The code of every frame: frames x d_s, linear between the stored codes."""
        return interpolate_rows(self.codes, torch.linspace(0, len(self.codes) - 1, frames))


@dataclass(frozen=True)
class HeadMotion:
    """Head-Kps of a clip.

    keypoints: n x 8 x 2, float32, x right and y down in pixels of an image of `width` x `height`; order: left edge
    upper, left edge lower, right edge upper, right edge lower, left pupil, right pupil, bridge top, bridge bottom, where
    left is the left of the image. fps: frames per second. interpolated: frames whose points were filled in between neighbours.
    portrait: 8 x 2, the points of the portrait that the motion was fitted to; None where they are not known.
    """

    keypoints: Tensor
    width: int
    height: int
    fps: float
    interpolated: tuple[int, ...] = ()
    portrait: Tensor | None = None

    def __len__(self) -> int:
        return len(self.keypoints)


LIVEPORTRAIT, SVP = "liveportrait", "svp"  # spaces of a motion's expression


@dataclass(frozen=True)
class Motion:
    """What a face does in time: n frames, float32 on the CPU. One frame is a still face.

    angles: n x 3, yaw, pitch, roll in degrees (positive: nose to the right of the image, nose down, head tilted clockwise).
    shift: n x 2, right and down, as shares of the picture's side. scale: n, size of the head, of its own picture.
    expression: n x e; what it means depends on `space`:
        'liveportrait': how far k points move, k x 3 flattened (63 for the 21 published points), x right, y down, z in.
        'svp': 64 coefficients, of the synthetic speakers or of Deep3DFaceRecon.
    lids: n x 2, image-left and image-right lid, 0 open to 1 closed. gaze: n x 2, right and down, -1 to 1. Both are None where
        the expression contains them ('liveportrait') or where nothing detects them (photographs in 'svp').
    fps: frames per second.
    face: k x 3, LivePortrait's points of the face at rest; None in 'svp' and where a generator knows no face.
    reference: one frame, with which relative driving compares all frames; None: the first one. Whatever shifts the whole motion
        (a style, an emotion, a slider) keeps the frame from before, or relative driving would take the shift out again.
    """

    angles: Tensor
    shift: Tensor
    scale: Tensor
    expression: Tensor
    fps: float
    space: str
    lids: Tensor | None = None
    gaze: Tensor | None = None
    face: Tensor | None = None
    reference: Motion | None = None

    def __post_init__(self) -> None:
        frames = len(self.scale)
        if self.space not in (LIVEPORTRAIT, SVP):
            raise PortraitError(f"the space of a motion is {LIVEPORTRAIT} or {SVP}, not {self.space!r}")
        sizes = {
            "angles": (frames, 3),
            "shift": (frames, 2),
            "scale": (frames,),
            "lids": (frames, 2),
            "gaze": (frames, 2),
        }
        for name, size in sizes.items():
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != size:
                raise PortraitError(f"{name} of a motion has shape {tuple(value.shape)}, {size} is needed")
        if self.expression.ndim != 2 or len(self.expression) != frames or not frames:
            raise PortraitError(
                f"the expression of a motion has shape {tuple(self.expression.shape)}: {frames} x e is needed"
            )
        if self.face is not None and self.face.numel() != self.expression.shape[1]:
            raise PortraitError(
                f"the face of a motion has shape {tuple(self.face.shape)}, its expression {self.expression.shape[1]} numbers: "
                "three numbers for each point are needed"
            )

        other = self.reference
        if other is not None and (len(other), other.space, other.expression.shape[1]) != (
            1,
            self.space,
            self.expression.shape[1],
        ):
            raise PortraitError(
                f"the reference of a motion has {len(other)} frames of {other.expression.shape[1]} numbers in the space "
                f"{other.space}: one of {self.expression.shape[1]} in {self.space} is needed"
            )

    def __len__(self) -> int:
        return len(self.scale)

    @property
    def compared(self) -> Motion:
        """The frame with which relative driving compares: `reference`, or the first."""
        if self.reference is not None:
            return self.reference
        rows = {
            name: value[:1]
            for name in ("angles", "shift", "scale", "expression", "lids", "gaze")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **rows)
