"""A model's face analyser applied to a clip, with messages that name the clip."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from .analyzer import FaceAnalyzer, FaceTrack, require_face
from .keypoints import interpolate_missing


def track_face(
    onnx: bytes | None, frames: np.ndarray, what: str, progress: Callable[[int, int], None] | None = None
) -> FaceTrack:
    """The face in frames n h w 3 (uint8), found by the analyser `onnx`; `what` is what a message calls the frames."""
    if onnx is None:
        raise PortraitError(
            f"this model has no face analyser, so {what} cannot be read: load the built-in model for it"
        )
    track = FaceAnalyzer(onnx).analyze(frames, progress)
    require_face(track, what)
    return track


def expression_of(track: FaceTrack) -> Tensor:
    """Expression coefficients of every frame, n 64 float32; frames without a face lie between their neighbours."""
    return torch.from_numpy(interpolate_missing(track.expression, track.present)[0])
