"""Who a face is, in numbers: a descriptor of colours and proportions, for faces that have exact landmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...optional_deps import cv2
from .landmarks import EYE_LEFT, EYE_RIGHT

# Where colours are taken: the mean of some of the 68 landmarks, moved down the face by a multiple of the distance of the
# outer eye corners.
PLACES: dict[str, tuple[tuple[int, ...], float]] = {
    "left cheek": ((2, 31), 0.0),
    "right cheek": ((14, 35), 0.0),
    "nose": ((28, 29), 0.0),
    "forehead": ((EYE_LEFT, EYE_RIGHT), -0.38),
    "hair": ((EYE_LEFT, EYE_RIGHT), -0.85),
    "left brow": ((18, 19, 20), 0.0),
    "right brow": ((23, 24, 25), 0.0),
    "left eye": ((37, 38, 40, 41), 0.0),
    "right eye": ((43, 44, 46, 47), 0.0),
    "moustache": ((33, 51), 0.0),
    "upper lip": ((51, 62), 0.0),
    "lower lip": ((57, 66), 0.0),
    "chin": ((8, 57), 0.0),
}
PATCH = np.stack(np.meshgrid(*2 * [np.linspace(-0.05, 0.05, 5)]), axis=-1).reshape(-1, 2)  # 25 2, eye distances

# Left and right together, so that a turn of the head moves them little.
WIDTHS = ((0, 16), (1, 15), (2, 14), (39, 42), (31, 35))
HEIGHTS = ((27, 27), (31, 35), (39, 42))
COLOURS, PROPORTIONS = slice(0, 3 * len(PLACES)), slice(3 * len(PLACES), 3 * len(PLACES) + len(WIDTHS) + len(HEIGHTS))


def identity_descriptor(frames: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.float64]:
    """What frames n h w 3 with landmarks n 68 2 (pixels) say of whom they show: 47 numbers.

    COLOURS (39, in 0 .. 1) and PROPORTIONS (8, in distances of the outer eye corners) are medians over the frames, so that
    a blink or a turn of the head does not count.
    """
    landmarks = landmarks.astype(np.float64)
    across = landmarks[:, EYE_RIGHT] - landmarks[:, EYE_LEFT]  # n 2, to the head's right
    axes = np.stack([across, np.stack([-across[:, 1], across[:, 0]], axis=-1)], axis=1)  # n 2 2: right, down
    colours = np.median(_colours(frames, landmarks, axes), axis=0)
    middle = landmarks[:, [EYE_LEFT, EYE_RIGHT]].mean(1, keepdims=True)
    points = (landmarks - middle) @ np.linalg.inv(axes)  # n 68 2, eye distances
    widths = [points[:, right, 0] - points[:, left, 0] for left, right in WIDTHS]
    heights = [(points[:, left, 1] + points[:, right, 1]) / 2 for left, right in HEIGHTS]
    return np.concatenate([colours, np.median([*widths, *heights], axis=1)])


def _colours(
    frames: NDArray[np.uint8], landmarks: NDArray[np.floating], axes: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Mean colours of a patch around every place: n (places x 3) in 0 .. 1."""
    centres = np.stack([landmarks[:, points].mean(1) + down * axes[:, 1] for points, down in PLACES.values()], axis=1)
    spots = centres[:, :, None] + PATCH @ axes[:, None]  # n places 25 2
    grid = (spots - 0.5).astype(np.float32)  # the first pixel's centre is at (0.5, 0.5)
    found = [
        cv2.remap(frame.astype(np.float32), patches, np.empty(0), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for frame, patches in zip(frames, grid, strict=True)
    ]
    return np.stack(found).mean(2).reshape(len(frames), -1) / 255
