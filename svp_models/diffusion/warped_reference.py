"""The portrait warped to the head keypoints of every frame, for models that start from it (`reference_warp`)."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from ..face.keypoints import find_head_keypoints
from ..face.tracking import FaceTracker, track_face_if_any
from ..face.warp import warp_to_keypoints
from ..io.memory_map import IN_MEMORY, FrameArray, ReorderedFrames, Storage, as_tensor, first_equal
from ..io.progress import Progress, in_chunks, shared
from ..io.resampling import interpolate_missing
from ..model import PortraitModel
from ..types import HeadMotion

CHUNK = 16  # frames warped and encoded at a time
LOG = logging.getLogger(__name__)

Encode = Callable[[Tensor], Tensor]


@torch.no_grad()
def warped_latents(
    model: PortraitModel,
    encode: Encode,
    image: Tensor,
    motion: HeadMotion | FrameArray,
    progress: Progress | None = None,
    storage: Storage = IN_MEMORY,
) -> FrameArray | None:
    """Unscaled latents f c h/8 w/8 of the portrait warped to every frame of the motion, or None for models without it.

    image: 3 h w in [-1, 1], as large as the frames; motion: of the frames' aspect, see `fit_motion`; one frame gives one
    latent. encode: n 3 h w in [-1, 1] -> n c h/8 w/8. The portrait's own keypoints are those the motion was fitted to,
    else those the model's face analyser finds; in an image without a face that it knows, the first frame's, with a warning.
    Frames whose keypoints are the same share a latent: a motion that goes back and forth is warped once. progress(done, total)
    is called for every few frames and may raise to stop the work; storage: where the latents go.
    """
    if not model.config.unet.reference_warp:
        return None
    reading, warping = shared(progress, 1, 4)
    targets = target_keypoints(motion, image.shape[-1], image.shape[-2], reading)  # f 8 2
    source = portrait_keypoints(model.face_analyzer, image, motion)
    if source is None:
        LOG.warning("the portrait's head keypoints are not known: those of the motion's first frame stand in for them")
        source = targets[0]
    first = first_equal(points.tobytes() for points in targets.numpy())
    different = sorted(set(first))
    warped = in_chunks(
        lambda points: encode(warp_to_keypoints(image, source, points)).cpu().float(),
        targets[different],
        CHUNK,
        warping,
        storage,
    )
    if len(different) == len(targets):
        return warped
    rows = {frame: row for row, frame in enumerate(different)}
    return ReorderedFrames(warped, [rows[frame] for frame in first])


def target_keypoints(
    motion: HeadMotion | FrameArray, width: int, height: int, progress: Progress | None = None
) -> Tensor:
    """Head keypoints of every frame in pixels of width x height: f 8 2.

    Those of images are read from their colours: a frame on which they cannot all be found is filled in between its
    neighbours, without any such frame all are NaN. progress(frames read, frames in all).
    """
    if isinstance(motion, HeadMotion):
        return motion.keypoints * motion.keypoints.new_tensor([width / motion.width, height / motion.height])
    if isinstance(motion, ReorderedFrames):
        return target_keypoints(motion.frames, width, height, progress)[list(motion.order)]
    points = as_tensor(in_chunks(find_head_keypoints, motion, CHUNK, progress))
    found = points.isfinite().all(-1).all(-1)  # f
    if found.any() and not found.all():
        points = torch.from_numpy(interpolate_missing(points.numpy(), found.numpy())[0])
    return points * points.new_tensor([width / motion.shape[-1], height / motion.shape[-2]])


def portrait_keypoints(
    analyzer: FaceTracker | bytes | None, image: Tensor, motion: HeadMotion | FrameArray
) -> Tensor | None:
    """The portrait's own keypoints in its pixels, 8 2; None where nobody knows them.

    analyzer: what finds faces, see `track_face`, or None; image: 3 h w in [-1, 1].
    """
    height, width = image.shape[-2:]
    if isinstance(motion, HeadMotion) and motion.portrait is not None:
        return motion.portrait * motion.portrait.new_tensor([width / motion.width, height / motion.height])
    if analyzer is None:
        return None
    pixels = ((image + 1) * 127.5).round().clamp(0, 255).byte()
    track = track_face_if_any(analyzer, rearrange(pixels, "c h w -> 1 h w c").numpy(), "the portrait")
    return torch.from_numpy(track.head_keypoints[0]) if track.present[0] else None
