"""The portrait bent to the head keypoints of every frame, for models that start from it (`reference_warp`)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from ..checkpoints.native import PortraitModel
from ..face.analyzer import FaceAnalyzer
from ..face.drawing import find_head_keypoints
from ..face.warp import warp_to_keypoints
from ..values import HeadMotion

CHUNK = 16  # frames bent and encoded at a time

Encode = Callable[[Tensor], Tensor]


@torch.no_grad()
def warped_latents(model: PortraitModel, encode: Encode, picture: Tensor, motion: HeadMotion | Tensor) -> Tensor | None:
    """Unscaled latents f c h/8 w/8 of the portrait bent to every frame of the motion, or None for models without it.

    picture: 3 h w in [-1, 1], as large as the frames; motion: of the frames' aspect, see `fit_motion`; one frame gives one
    latent. encode: n 3 h w in [-1, 1] -> n c h/8 w/8. The portrait's own keypoints are those the motion was fitted to,
    else those the model's face analyser finds; in a picture without a face that it knows, the first frame's.
    """
    if not model.config.unet.reference_warp:
        return None
    targets = target_keypoints(motion, picture.shape[-1], picture.shape[-2])  # f 8 2
    source = portrait_keypoints(model.face_analyzer, picture, motion)
    source = targets[0] if source is None else source
    parts = targets.split(CHUNK)
    return torch.cat([encode(warp_to_keypoints(picture, source, part)).cpu().float() for part in parts])


def target_keypoints(motion: HeadMotion | Tensor, width: int, height: int) -> Tensor:
    """Head keypoints of every frame in pixels of width x height: f 8 2. Those of pictures are read from their colours; a
    frame on which they cannot all be found has NaN."""
    if isinstance(motion, HeadMotion):
        return motion.keypoints * motion.keypoints.new_tensor([width / motion.width, height / motion.height])
    points = find_head_keypoints(motion)
    return points * points.new_tensor([width / motion.shape[-1], height / motion.shape[-2]])


def portrait_keypoints(analyzer: bytes | None, picture: Tensor, motion: HeadMotion | Tensor) -> Tensor | None:
    """The portrait's own keypoints in its pixels, 8 2; None where nobody knows them. picture: 3 h w in [-1, 1]."""
    height, width = picture.shape[-2:]
    if isinstance(motion, HeadMotion) and motion.portrait is not None:
        return motion.portrait * motion.portrait.new_tensor([width / motion.width, height / motion.height])
    if analyzer is None:
        return None
    pixels = ((picture + 1) * 127.5).round().clamp(0, 255).byte()
    track = FaceAnalyzer(analyzer).analyze(rearrange(pixels, "c h w -> 1 h w c").numpy())
    return torch.from_numpy(track.head_keypoints[0]) if track.present[0] else None
