"""What a renderer returns: one picture with its ground truth, and a clip of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RenderedFace:
    """One image and its ground truth; positions in pixels, (0, 0) is the top-left corner of the image.

    image: size x size x 3 uint8 RGB. landmarks: 68 x 2 float32, iBUG order, 0 at the image-left jaw. head_keypoints:
    8 x 2 float32: left edge upper, left edge lower, right edge upper, right edge lower, left pupil, right pupil, nose
    bridge top, nose tip ('left' is the image's). mask: size x size uint8, 255 inside the face's contour.
    """

    image: np.ndarray
    landmarks: np.ndarray
    head_keypoints: np.ndarray
    mask: np.ndarray


@dataclass(frozen=True)
class RenderedClip:
    """The `RenderedFace`s of n frames, stacked: images n h w 3, landmarks n 68 2, head_keypoints n 8 2, masks n h w."""

    images: np.ndarray
    landmarks: np.ndarray
    head_keypoints: np.ndarray
    masks: np.ndarray
