"""LivePortrait's pipeline: faces -> their motion; a portrait, prepared once, and a motion -> frames (Guo et al. 2024, fig. 2).

Faces are squares n 3 S S, RGB in [0, 1], of any S; the networks see INPUT_SIDE pixels a side and paint twice as many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checkpoints.liveportrait import LivePortraitNetworks
from ..errors import PortraitError
from ..face.detection import FaceTrack
from ..io.memory_map import blocks
from ..networks.liveportrait.stitching import KeypointMLP
from .keypoints import (
    POSE,
    REGIONS,
    KeypointMotion,
    drive_absolute,
    drive_relative,
    driving_frame,
    keypoints,
    motion_from_network,
    retarget,
    stitch,
)

INPUT_SIDE = 256  # pixels
FRAMES_AT_ONCE = 4  # on a GPU; a CPU takes longer for frames together than one after another
OPEN_MOUTH = 0.03  # ratio from which `normalize_lips` closes the lips
LIP_MIDDLES, LIP_CORNERS = (62, 66), (48, 54)  # of the 68 landmarks: inner edges of the lips, corners of the mouth


@dataclass(frozen=True)
class AnimateOptions:
    """How a portrait is driven.

    region: what of the face is driven, see REGIONS; all else stays the portrait's own. relative: by how the motion differs from
    its first frame; else the portrait takes the motion's own pose and expression. stitching: shoulders stay in their place.
    normalize_lips: of a portrait whose mouth is open, the lips are closed before they are driven (in relative motion alone).
    """

    region: str = "all"
    relative: bool = True
    stitching: bool = True
    normalize_lips: bool = False

    def __post_init__(self) -> None:
        if self.region not in REGIONS:
            raise PortraitError(f"the region is {self.region!r}: choose one of {', '.join(REGIONS)}")

    @property
    def closes_lips(self) -> bool:
        """Whether lips are closed at all: they are driven, and from where they are."""
        return self.normalize_lips and self.relative and self.region not in (POSE, "eyes")


DEFAULTS = AnimateOptions()


@dataclass(frozen=True)
class Source:
    """What is known of n pictures before they are driven: motion and keypoints n k 3, and the feature volume, n C D h w."""

    motion: KeypointMotion
    keypoints: Tensor
    volume: Tensor


@torch.no_grad()
def read_motion(networks: LivePortraitNetworks, faces: Tensor) -> KeypointMotion:
    """The motion of faces, n 3 S S -> n frames, float32, where the networks are."""
    return motion_from_network(networks.motion(faces.to(_weight(networks.motion))))


@torch.no_grad()
def prepare_source(networks: LivePortraitNetworks, faces: Tensor) -> Source:
    """What driving needs of the faces n 3 S S."""
    motion = read_motion(networks, faces)
    return Source(motion, keypoints(motion), networks.appearance(faces.to(_weight(networks.appearance))))


@torch.no_grad()
def driven_keypoints(
    networks: LivePortraitNetworks,
    source: Source,
    driving: KeypointMotion,
    first: KeypointMotion,
    options: AnimateOptions,
    lip_ratios: Tensor | None = None,
) -> Tensor:
    """Where the motion moves the points of the source: n k 3.

    source: one picture or n. first: the first frame of the whole motion. lip_ratios: how far the mouths of the source are
    open, as many as it has pictures, for `normalize_lips`.
    """
    if options.relative:
        points = drive_relative(source.motion, driving, first, options.region)
    else:
        points = drive_absolute(source.motion, driving, options.region)
    if options.stitching:
        points = stitch(networks.stitching, source.keypoints, points)
    if options.closes_lips and lip_ratios is not None:
        points = points + close_lips(networks.mouth, source.keypoints, lip_ratios.to(points))
    return points


def close_lips(network: KeypointMLP, source_keypoints: Tensor, ratios: Tensor) -> Tensor:
    """What to add to the points of n pictures so that mouths open by more than OPEN_MOUTH are closed: n k 3, n -> n k 3."""
    delta = retarget(network, source_keypoints, torch.stack([ratios, torch.zeros_like(ratios)], dim=1))
    return delta * (ratios >= OPEN_MOUTH).to(delta)[:, None, None]


def mouth_ratios(track: FaceTrack) -> Tensor:
    """Distance of the lips over the width of the mouth, of every frame: n. Frames without the face have 0."""
    if track.landmarks is None:
        raise PortraitError(
            "normalize_lips needs the landmarks of the lips, which this face analyser does not detect: choose the backend "
            "insightface or mediapipe in Load Face Analyzer, or turn normalize_lips off"
        )
    points = track.landmarks.astype(np.float64)
    gap, width = (
        np.linalg.norm(points[:, pair[0]] - points[:, pair[1]], axis=-1) for pair in (LIP_MIDDLES, LIP_CORNERS)
    )
    return torch.from_numpy(np.where(track.present, gap / np.maximum(width, 1e-6), 0)).float()


@torch.no_grad()
def render(networks: LivePortraitNetworks, source: Source, points: Tensor) -> Tensor:
    """The source with its points moved to n k 3: frames n 3 2S 2S in [0, 1], float32 on the CPU."""
    warped = networks.warping(source.volume, points, source.keypoints).warped
    return networks.generator(warped.to(_weight(networks.generator))).float().cpu()


def animate_still(
    networks: LivePortraitNetworks,
    face: Tensor,
    motion: KeypointMotion,
    options: AnimateOptions = DEFAULTS,
    lip_ratio: Tensor | None = None,
    size: int = 0,
    reference: KeypointMotion | None = None,
) -> Iterator[Tensor]:
    """A face 1 3 S S moved by all of a motion: frames n 3 2S 2S, in pieces of up to `size` (0: as many as the device makes best at once).

    What depends on the portrait alone is computed once. lip_ratio: of its mouth, 1, for `normalize_lips`. reference: one
    frame, with which relative driving compares; None: the motion's first.
    """
    source, motion = prepare_source(networks, face), on_device_of(networks, motion)
    first = driving_frame(motion, 0) if reference is None else on_device_of(networks, reference)
    for piece in blocks(len(motion), size or frames_at_once(networks)):
        points = driven_keypoints(networks, source, motion_part(motion, piece), first, options, lip_ratio)
        yield render(networks, source, points)


def animate_video(
    networks: LivePortraitNetworks,
    faces: Iterable[Tensor],
    motion: KeypointMotion,
    options: AnimateOptions = DEFAULTS,
    lip_ratios: Tensor | None = None,
    reference: KeypointMotion | None = None,
) -> Iterator[Tensor]:
    """Faces of a video in pieces n 3 S S, every face moved by its own frame of the motion: frames n 3 2S 2S.

    It ends with the faces or with the motion; a motion of one frame moves all faces. lip_ratios: of all mouths. reference: as
    in `animate_still`.
    """
    motion, done = on_device_of(networks, motion), 0
    first = driving_frame(motion, 0) if reference is None else on_device_of(networks, reference)
    for batch in faces:
        if len(motion) > 1:
            batch = batch[: len(motion) - done]
        if not len(batch):
            return
        piece = slice(done, done + len(batch))
        source = prepare_source(networks, batch)
        ratios = None if lip_ratios is None else lip_ratios[piece]
        driving = motion_part(motion, piece) if len(motion) > 1 else motion_part(motion, [0] * len(batch))
        yield render(networks, source, driven_keypoints(networks, source, driving, first, options, ratios))
        done = piece.stop


def frames_at_once(networks: LivePortraitNetworks) -> int:
    """How many frames are rendered together where the networks are."""
    return 1 if _weight(networks.motion).device.type == "cpu" else FRAMES_AT_ONCE


def motion_part(motion: KeypointMotion, index: slice | Sequence[int]) -> KeypointMotion:
    """Some frames of a motion."""
    return mapped(motion, lambda rows: rows[index])


def on_device_of(networks: LivePortraitNetworks, motion: KeypointMotion) -> KeypointMotion:
    """The motion where the networks are."""
    return mapped(motion, lambda rows: rows.to(_weight(networks.motion)))


def mapped(motion: KeypointMotion, function: Callable[[Tensor], Tensor]) -> KeypointMotion:
    """The motion with a function of all its tensors, n ..., applied."""
    values = {item.name: getattr(motion, item.name) for item in fields(motion)}
    results: dict[str, Any] = {name: None if value is None else function(value) for name, value in values.items()}
    return KeypointMotion(**results)


def _weight(network: nn.Module) -> Tensor:
    return next(network.parameters())
