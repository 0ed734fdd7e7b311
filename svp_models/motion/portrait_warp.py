"""A portrait that follows a motion by warping alone: head, lips, lids, brows and gaze; a quick preview."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ..checkpoints.expression_basis import load_expression_basis
from ..checkpoints.portrait_reader import load_portrait_reader
from ..errors import PortraitError
from ..face.expression_warp import Correct
from ..face.keypoints import resample_motion
from ..face.portrait_face import expression_track, read_portrait_face
from ..face.tracking import FaceTracker
from ..io.memory_map import blocks
from ..io.progress import Progress
from ..media.images import ImageBuffer
from ..types import HeadMotion, Motion
from .head_keypoints import head_keypoints_of_motion

CHUNK = 8  # frames at a time
MOST_PIXELS = 2**22  # of such a chunk
SAME_ASPECT = 0.02  # relative difference of two aspects that count as one


@dataclass(frozen=True)
class WarpOptions:
    """fps: of the frames, 0: the motion's. expression: factor on how the face moves, from the portrait's own expression on.
    mouth: paint the inside of a mouth that opens."""

    fps: float = 0.0
    expression: float = 1.0
    mouth: bool = True


@torch.no_grad()
def warp_portrait(
    portrait: np.ndarray,
    motion: Motion,
    analyzer: FaceTracker | bytes | None,
    head_motion: HeadMotion | None = None,
    options: WarpOptions = WarpOptions(),
    progress: Progress | None = None,
    folder: str | None = None,
    dense: Correct | None = None,
) -> tuple[Tensor, float]:
    """Frames n h w 3 in [0, 1] of a portrait (1 h w 3, uint8) that moves, and their rate.

    motion: in the space 'svp'; analyzer: see `read_portrait_face`; head_motion: moves the head instead of the motion's angles, in
    pixels of the portrait or of a picture of its aspect. progress(frames done, in all) may raise to stop; folder: for clips that
    are too large for the memory. dense: corrects the warp, so that background and body stay still (`diffusion.face_inputs.dense_warp`).
    """
    fps = options.fps or motion.fps
    count = max(1, round(len(motion) / motion.fps * fps))
    track = expression_track(motion, count, fps)
    if analyzer is None:
        raise PortraitError(
            "nobody looks for the face of the portrait: connect model (Load Portrait Model) for a drawn one, or face_analyzer (Load "
            "Face Analyzer) for a photograph"
        )
    face = read_portrait_face(analyzer, portrait, reader=load_portrait_reader())
    height, width = portrait.shape[1:3]
    own = HeadMotion(face.keypoints[None], width, height, 1.0)
    head = head_keypoints_of_motion(motion, own) if head_motion is None else head_motion
    targets = _in_portrait(resample_motion(head, count, fps), width, height)
    if targets.portrait is not None:  # the head is where the motion was fitted to
        face = replace(face, keypoints=targets.portrait)
    track = torch.lerp(face.expression.expand_as(track), track, options.expression)
    image = rearrange(torch.from_numpy(portrait[0]), "h w c -> c h w").float() / 127.5 - 1
    basis, frames = load_expression_basis(), ImageBuffer(count, (height, width, 3), folder)
    for block in blocks(count, max(1, min(CHUNK, MOST_PIXELS // (width * height)))):
        warped = face.warp(image, targets.keypoints[block], track[block], basis, options.mouth, dense)
        for frame in (warped + 1) / 2:
            frames.add(rearrange(frame, "c h w -> h w c").clamp(0, 1))
        if progress is not None:
            progress(block.stop, count)
    return frames.tensor(), fps


def _in_portrait(motion: HeadMotion, width: int, height: int) -> HeadMotion:
    """The same in pixels of the portrait."""
    if abs(motion.width * height - motion.height * width) > SAME_ASPECT * motion.width * height:
        raise PortraitError(
            f"the head motion is of a picture of {motion.width} x {motion.height} pixels, the portrait has {width} x {height}: fit it "
            "to this portrait with Retarget Head Motion"
        )
    factor = motion.keypoints.new_tensor([width / motion.width, height / motion.height])
    own = None if motion.portrait is None else motion.portrait * factor
    return replace(motion, keypoints=motion.keypoints * factor, width=width, height=height, portrait=own)
