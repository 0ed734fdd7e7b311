"""Metrics of pixels, per frame: noise, structure, sharpness, flicker, colour; of the whole picture or of a region of the face.

Frames are n x h x w x 3, uint8 RGB; masks n x h x w, bool. What is per frame does not depend on how a clip was cut into parts.
"""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray

from ...optional_deps import cv2, kornia_metrics
from .landmarks import BROWS, EYES, MOUTH, eye_distance

Frames = NDArray[np.uint8]
Masks = NDArray[np.bool_]

PEAK = 255.0
SSIM_WINDOW = 11  # pixels, Gaussian of sigma 1.5
GREY = np.array([0.299, 0.587, 0.114])  # BT.601
# Regions of the face: the landmarks they contain, and how far they reach beyond them, in distances of the outer eye corners.
REGIONS = {"mouth": (MOUTH, 0.1), "eyes": (EYES, 0.08), "brows": (BROWS, 0.06)}
REST = "rest"  # of the picture


def psnr(generated: Frames, true: Frames) -> float:
    """Peak signal-to-noise ratio in dB over all pixels of n h w 3 frames; infinite for equal frames."""
    return psnr_of_errors(squared_errors(generated, true))


def psnr_of_errors(errors: NDArray[np.floating]) -> float:
    """PSNR in dB of squared errors (of 255^2) of frames: their mean counts, NaN are left out; infinite without any error."""
    error = float(np.nanmean(errors)) if not np.isnan(errors).all() else float("nan")
    return float("inf") if error == 0 else float(10 * np.log10(PEAK**2 / error))


def squared_errors(generated: Frames, true: Frames, masks: Masks | None = None) -> NDArray[np.float64]:
    """Mean squared error per frame, of 255^2: n; NaN where a mask is empty."""
    return masked_means(error_maps(generated, true), masks)


def error_maps(generated: Frames, true: Frames) -> NDArray[np.float32]:
    """Squared error of every pixel, mean over channels, of 255^2: n h w."""
    return np.square(generated.astype(np.float32) - true).mean(-1)


def masked_means(values: NDArray[np.floating], masks: Masks | None) -> NDArray[np.float64]:
    """Means over the pixels of n x h x w per frame, inside the masks; NaN where a mask is empty."""
    if masks is None:
        return values.mean((1, 2), dtype=np.float64)
    counts = masks.sum((1, 2))
    sums = np.where(masks, values, 0).sum((1, 2), dtype=np.float64)
    return np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)


def mean_ssim(generated: Frames, true: Frames) -> float:
    """Structural similarity (Wang et al. 2004: 11 x 11 Gaussian window, sigma 1.5), mean over n h w 3 frames and channels."""
    return float(kornia_metrics.ssim(_planes(generated), _planes(true), SSIM_WINDOW, padding="valid").mean())


def ssim_per_frame(generated: Frames, true: Frames) -> NDArray[np.float64]:
    """`mean_ssim` of every frame: n."""
    values = kornia_metrics.ssim(_planes(generated), _planes(true), SSIM_WINDOW, padding="valid")
    return values.double().mean((1, 2, 3)).numpy()


def ssim_maps(generated: Frames, true: Frames) -> NDArray[np.float32]:
    """Structural similarity around every pixel, mean over channels: n h w. Towards the border the pictures are continued."""
    return kornia_metrics.ssim(_planes(generated), _planes(true), SSIM_WINDOW, padding="same").mean(1).numpy()


def _planes(frames: Frames) -> torch.Tensor:
    return rearrange(torch.from_numpy(np.ascontiguousarray(frames)), "n h w c -> n c h w").float() / PEAK


def region_masks(landmarks: NDArray[np.floating], height: int, width: int) -> dict[str, Masks]:
    """Masks of mouth, eyes, brows and the rest of the picture from the true landmarks, n x 68 x 2: name -> n h w.

    A region is the box around its landmarks, upright in the picture, grown by its margin; brows end where eyes begin.
    """
    y, x = np.mgrid[:height, :width] + 0.5
    masks = {}
    for name, (indices, margin) in REGIONS.items():
        points = landmarks[:, list(indices)]
        reach = (margin * eye_distance(landmarks))[:, None]
        low, high = points.min(1) - reach, points.max(1) + reach  # n 2
        inside = (x >= low[:, :1, None]) & (x <= high[:, :1, None]) & (y >= low[:, 1:, None]) & (y <= high[:, 1:, None])
        masks[name] = inside
    masks["brows"] &= ~masks["eyes"]
    masks[REST] = ~(masks["mouth"] | masks["eyes"] | masks["brows"])
    return masks


def laplacian(frames: Frames) -> NDArray[np.float32]:
    """The Laplacian of the brightness: n h w 3 -> n h w."""
    return np.stack([cv2.Laplacian((frame @ GREY).astype(np.float32), cv2.CV_32F) for frame in frames])


def laplacian_variance(frames: Frames, masks: Masks | None = None) -> NDArray[np.float64]:
    """Variance of the Laplacian of the brightness per frame, a measure of sharpness (Pech-Pacheco et al. 2000): n; NaN where a
    mask is empty."""
    return variances(laplacian(frames), masks)


def variances(values: NDArray[np.floating], masks: Masks | None = None) -> NDArray[np.float64]:
    """Variances over the pixels of n x h x w per frame, inside the masks; NaN where a mask is empty."""
    return masked_means(np.square(values), masks) - np.square(masked_means(values, masks))


def sharpness(generated: NDArray[np.floating], true: NDArray[np.floating]) -> float:
    """`laplacian_variance` of generated frames over that of the true ones, both n: 1 is as sharp, 0 flat; NaN are left out."""
    whole = float(np.nansum(true))
    return float(np.nansum(generated)) / whole if whole else float("nan")


def still_changes(generated: Frames, true: Frames, tolerance: int = 0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Changes of generated frames where the true ones stand still, for every frame but the first: their sum of 255 over pixels,
    and how many pixels stand still: n - 1 each.

    A pixel stands still where no channel of truth changes by more than `tolerance` of 255.
    """
    moved = np.abs(np.diff(true.astype(np.int16), axis=0)).max(-1)  # n-1 h w
    change = np.abs(np.diff(generated.astype(np.int16), axis=0)).mean(-1)
    still = moved <= tolerance
    return np.where(still, change, 0).sum((1, 2), dtype=np.float64), still.sum((1, 2))


def still_flicker(generated: Frames, true: Frames, tolerance: int = 0) -> float:
    """Mean absolute change between neighbouring frames where truth stands still, of 255; NaN where nothing does."""
    sums, counts = still_changes(generated, true, tolerance)
    return float(sums.sum() / counts.sum()) if counts.sum() else float("nan")


def frame_roughness(frames: Frames) -> NDArray[np.float64]:
    """How abruptly pictures change, per frame: mean of |x[i - 1] - 2 x[i] + x[i + 1]| over pixels, of 255; 0 at both ends: n."""
    rough = np.zeros(len(frames))
    for index in range(1, len(frames) - 1):
        before, here, after = (frames[index + step].astype(np.int16) for step in (-1, 0, 1))
        rough[index] = np.abs(before - 2 * here + after).mean(dtype=np.float64)
    return rough


def mean_colours(frames: Frames) -> NDArray[np.float64]:
    """Mean colour of every frame, of 255: n 3."""
    return frames.mean((1, 2), dtype=np.float64)


def colour_drift(generated: NDArray[np.floating], true: NDArray[np.floating]) -> float:
    """How far colours wander from the first to the last quarter of a clip beyond what truth does: a distance in RGB, of 255.

    generated, true: `mean_colours`, n x 3.
    """
    quarter = max(1, len(true) // 4)
    ways = [colours[-quarter:].mean(0) - colours[:quarter].mean(0) for colours in (generated, true)]
    return float(np.linalg.norm(ways[0] - ways[1]))
