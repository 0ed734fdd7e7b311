"""The motion of a clip in LivePortrait's space, read with its motion extractor, which lies in a models folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from ..checkpoints.liveportrait import find_motion_extractor
from ..checkpoints.model_zoo import missing_file_error
from ..io.resampling import interpolate_missing
from ..motion.keypoints import motion_from_network, motion_of_keypoints
from ..networks.liveportrait.motion_extractor import MotionExtractor
from ..types import LIVEPORTRAIT
from .schema import FPS, ClipMotion

FACES_AT_ONCE = 16


def clip_motion(extractor: MotionExtractor, faces: np.ndarray, interpolated: np.ndarray) -> ClipMotion:
    """The motion of faces n S S 3, uint8. interpolated: n bool, frames without a face, which lie between their neighbours."""
    outputs = []
    for chunk in np.array_split(faces, math.ceil(len(faces) / FACES_AT_ONCE)):
        images = torch.from_numpy(chunk).permute(0, 3, 1, 2).float() / 255
        with torch.no_grad():
            outputs.append(extractor(images))
    rows = {name: torch.cat([part[name] for part in outputs]) for name in outputs[0]}
    motion = motion_of_keypoints(motion_from_network(rows), FPS)
    present = ~np.asarray(interpolated, bool)
    names = ("angles", "shift", "scale", "expression")
    filled = {name: interpolate_missing(getattr(motion, name).numpy(), present)[0] for name in names}
    face = rows["kp"][int(present.argmax())].unflatten(0, (-1, 3))
    return ClipMotion(**filled, face=face.float().numpy())


def load_extractor(models: Sequence[Path]) -> MotionExtractor:
    """LivePortrait's, from `liveportrait` in a models folder: published files of any format, or the single file."""
    for root in models:
        if (extractor := find_motion_extractor(root / LIVEPORTRAIT)) is not None:
            return extractor
    raise missing_file_error(LIVEPORTRAIT, [root / LIVEPORTRAIT for root in models])
