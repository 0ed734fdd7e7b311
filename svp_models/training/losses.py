"""Losses of the training phases as free functions, and the face regions that they weight."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from ..optional_deps import kornia_metrics

EYES_AND_MOUTH = list(range(17, 27)) + list(range(36, 68))  # of 68 landmarks, brows included
MOUTH = list(range(48, 68))


def inverse_distance_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Eq. 6's similarity 1 / (||s_i - s_j||_2 + 1): n x d and m x d -> n x m in (0, 1]."""
    squared = (first[:, None] - second[None]).square().sum(-1)
    return 1 / ((squared + 1e-8).sqrt() + 1)


def info_nce(codes: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """InfoNCE (eq. 7) over a batch of style codes n x d with integer labels n.

    Every pair of equal labels is one positive, compared with all codes of other labels; codes of the anchor's own label are
    not negatives. Anchors without a positive are left out; a batch without any positive raises ValueError.
    """
    logits = inverse_distance_similarity(codes, codes) / temperature
    same = labels[:, None] == labels[None]
    positive = same & ~torch.eye(len(codes), dtype=torch.bool, device=codes.device)
    if not positive.any():
        raise ValueError(f"no two of the {len(codes)} codes share a label: InfoNCE needs positives")
    negatives = logits.masked_fill(same, float("-inf")).logsumexp(1, keepdim=True)  # n 1
    return (torch.logaddexp(logits, negatives) - logits)[positive].mean()


def image_loss(generated: Tensor, target: Tensor, weight: Tensor, ssim_weight: float) -> Tensor:
    """Weighted L1 of pixels and of their gradients, plus ssim_weight x (1 - SSIM). Images n x 3 x h x w in [-1, 1], weight
    n x 1 x h x w."""
    error = generated - target
    pixels = (weight * error.abs()).mean()
    gradient_x = (weight[..., 1:] * error.diff(dim=-1).abs()).mean()
    gradient_y = (weight[..., 1:, :] * error.diff(dim=-2).abs()).mean()
    structure = 1 - kornia_metrics.ssim((generated + 1) / 2, (target + 1) / 2, 7, padding="valid").mean()
    return pixels + gradient_x + gradient_y + ssim_weight * structure


def face_region_weight(landmarks: Tensor, size: int, face: float, mouth: float, margin: float) -> Tensor:
    """1 everywhere, plus `face` in the box around eyes, brows and mouth, plus `mouth` in the mouth's box, see region_weight.

    landmarks: n x 68 x 2 as fractions of the frame -> n x 1 x size x size.
    """
    mouth_weight = region_weight(landmarks[:, MOUTH], size, mouth, margin)
    return mouth_weight + region_weight(landmarks[:, EYES_AND_MOUTH], size, face, margin) - 1


def region_weight(points: Tensor, size: int, extra: float, margin: float) -> Tensor:
    """1 everywhere and 1 + extra in the bounding box of the points, which is grown by `margin` of the frame's width.

    points: n x k x 2 as fractions of the frame -> n x 1 x size x size.
    """
    low, high = points.amin(1) - margin, points.amax(1) + margin  # n 2
    centre = (torch.arange(size) + 0.5) / size
    inside_x = (centre >= low[:, :1]) & (centre <= high[:, :1])  # n size
    inside_y = (centre >= low[:, 1:]) & (centre <= high[:, 1:])
    inside = rearrange(inside_y, "n y -> n 1 y 1") & rearrange(inside_x, "n x -> n 1 1 x")
    return 1 + extra * inside.float()
