"""Metrics as free functions on frames, landmarks, style codes and descriptors of identity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from einops import rearrange
from kornia.metrics import ssim
from numpy.typing import NDArray

from ..optional_deps import cv2

# 68-point landmarks: the inner lips' middle, and the outer eye corners that give the face's scale.
INNER_LIP_TOP, INNER_LIP_BOTTOM = 62, 66
EYE_LEFT, EYE_RIGHT = 36, 45


def psnr(generated: NDArray[np.uint8], true: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB over all pixels of n h w 3 frames; infinite for equal frames."""
    error = np.square(generated.astype(np.float64) - true).mean()
    return float(10 * np.log10(255**2 / error)) if error else float("inf")


def mean_ssim(generated: NDArray[np.uint8], true: NDArray[np.uint8]) -> float:
    """Structural similarity (Wang et al. 2004: 11 x 11 Gaussian window, sigma 1.5), mean over n h w 3 frames and channels."""

    def planes(frames: NDArray[np.uint8]) -> torch.Tensor:
        return rearrange(torch.from_numpy(frames), "n h w c -> n c h w").float() / 255

    return float(ssim(planes(generated), planes(true), 11, padding="valid").mean())


def mouth_opening(landmarks: NDArray[np.floating]) -> NDArray[np.floating]:
    """Distance of the inner lips over that of the outer eye corners, per frame: n x 68 x 2 -> n."""
    lips = np.linalg.norm(landmarks[:, INNER_LIP_TOP] - landmarks[:, INNER_LIP_BOTTOM], axis=-1)
    return lips / np.linalg.norm(landmarks[:, EYE_LEFT] - landmarks[:, EYE_RIGHT], axis=-1)


def correlation(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Pearson correlation of two series; 0 when they are shorter than two or one of them is constant."""
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def lagged_correlation(generated: NDArray[np.floating], true: NDArray[np.floating], reach: int) -> NDArray[np.floating]:
    """Correlation at lags -reach .. reach: 2 reach + 1 values. Lag k > 0 compares generated[i + k] with true[i]: k frames late."""
    values = []
    for lag in range(-reach, reach + 1):
        late, early = generated[max(0, lag) :], true[max(0, -lag) :]
        length = min(len(late), len(early))
        values.append(correlation(late[:length], early[:length]))
    return np.array(values)


def keypoint_error(measured: NDArray[np.floating], true: NDArray[np.floating], width: int) -> float:
    """Mean distance of points (n x k x 2, pixels) as a fraction of the image width."""
    return float(np.linalg.norm(measured - true, axis=-1).mean() / width)


def cosine(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Cosine of the angle between two vectors; 0 if one of them is zero."""
    length = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / length if length else 0.0


def share_of_way(moved: NDArray[np.floating], way: NDArray[np.floating]) -> float:
    """How far displacements (n x d) have gone along their ways (n x d): 0 not at all, 1 to the end, negative backwards.

    One number for all, sum(moved way) / sum(way way), in which long ways count more than short ones; 0 without any way.
    """
    length = float(np.square(way).sum())
    return float((moved * way).sum()) / length if length else 0.0


def largest_change(rows: NDArray[np.floating]) -> float:
    """Largest distance of neighbouring rows, n x d; 0 for a single row."""
    return float(np.linalg.norm(np.diff(rows, axis=0), axis=-1).max(initial=0))


def clustering_strength(
    codes: NDArray[np.floating], identities: Sequence[str], emotions: Sequence[str]
) -> dict[str, float]:
    """How well the emotions of a person part in style space (eq. 8): d_inter / d_intra by emotion, mean over people.

    codes: n x d style codes (the priors' means). Categories are the emotions of one identity; d_intra is the mean distance of
    an emotion's codes from their centre, d_inter the mean distance of that centre from those of the person's other emotions.
    People with a single emotion, and emotions with a single code, say nothing and are left out.
    """
    found: dict[str, list[float]] = {}
    names = np.array([f"{who}\n{mood}" for who, mood in zip(identities, emotions, strict=True)])
    for who in dict.fromkeys(identities):
        moods = list(dict.fromkeys(mood for name, mood in zip(identities, emotions, strict=True) if name == who))
        groups = {mood: codes[names == f"{who}\n{mood}"] for mood in moods}
        centres = {mood: group.mean(0) for mood, group in groups.items()}
        for mood, group in groups.items():
            others = [np.linalg.norm(centre - centres[mood]) for name, centre in centres.items() if name != mood]
            intra = float(np.linalg.norm(group - centres[mood], axis=-1).mean())
            if others and len(group) > 1 and intra > 0:
                found.setdefault(mood, []).append(float(np.mean(others)) / intra)
    return {mood: float(np.mean(values)) for mood, values in found.items()}


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
