"""Where the face is in some frames, as far as the head keypoints tell: the box in which attention runs in every step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..io.memory_map import FrameArray
from ..networks.foreground import Box
from ..types import HeadMotion

WHOLE: Box = (0.0, 1.0, 0.0, 1.0)
# How far a face reaches beyond the box of its keypoints, up, down and to the sides, as shares of the box's height and width.
# The eight of a head are at the edges of a face, between brows and mouth; V-Express draws the pupils and the tip of the nose.
BEYOND = {"head8": (0.6, 1.4, 0.05), "vexpress3": (1.2, 2.4, 0.6)}
DRAWN = 0.1  # brightness of a drawn pixel, of 1


def face_box(motion: HeadMotion | FrameArray, index: Sequence[int], keypoints: str) -> Box:
    """The box that the faces of these frames lie in; the whole picture where nothing is drawn.

    motion: as ClipInputs has it, one frame stands for all; keypoints: what images of keypoints show, as ModelConfig has it.
    """
    frames = [0] * len(index) if len(motion) == 1 else list(index)
    if isinstance(motion, HeadMotion):
        found = motion.keypoints[frames].flatten(0, 1) / torch.tensor([motion.width, motion.height])  # n 2
        beyond = BEYOND["head8"]
    else:
        found, beyond = _drawn(motion[frames]), BEYOND[keypoints]
    if not len(found):
        return WHOLE
    (left, top), (right, bottom) = found.amin(0).tolist(), found.amax(0).tolist()
    up, down, aside = beyond[0] * (bottom - top), beyond[1] * (bottom - top), beyond[2] * (right - left)
    sides = [min(max(side, 0.0), 1.0) for side in (top - up, bottom + down, left - aside, right + aside)]
    if sides[0] >= sides[1] or sides[2] >= sides[3]:
        return WHOLE  # all of it is outside of the picture
    return sides[0], sides[1], sides[2], sides[3]


def _drawn(images: Tensor) -> Tensor:
    """x and y of the drawn pixels of f 3 h w in [0, 1], as shares of the picture: n 2."""
    height, width = images.shape[-2:]
    cells = (images.amax((0, 1)) > DRAWN).nonzero().flip(1)  # n 2, x first
    return (cells + 0.5) / torch.tensor([width, height])
