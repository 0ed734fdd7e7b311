"""Head keypoints as pictures: what the guider sees."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..io.frames import blocks
from ..io.progress import Progress
from ..libraries import cv2
from ..media.image_buffer import Pictures
from ..values import HeadMotion
from .keypoints import motion_at

POINT_COLORS = (  # RGB, in the order of HEAD_KEYPOINT_NAMES
    (255, 0, 0),
    (255, 128, 0),
    (0, 96, 255),
    (160, 0, 255),
    (255, 255, 0),
    (0, 255, 255),
    (255, 255, 255),
    (0, 255, 0),
)
LINES = ((0, 1), (2, 3), (6, 7), (4, 6), (5, 6), (0, 4), (2, 5))
LINE_BRIGHTNESS = 0.6  # of the mean colour of both ends: the points stand out
POINT_RADIUS = 1 / 48  # of the smaller side of the picture
LINE_WIDTH = 1 / 72
SMOOTH_SIDE = 512  # smaller pictures are drawn larger and averaged down, which keeps fractions of a pixel
SUBPIXEL_BITS = 4
COLOR_REACH = 0.2  # a pixel belongs to a point whose colour is nearer than this (red, green, blue of 0 .. 1)
FAR = 30_000.0  # pixels; what lies further out is drawn towards there


CHUNK = 32  # frames drawn at a time
MOST_PIXELS = 2**24  # of these together

Draw = Callable[[HeadMotion, Sequence[int], int, int], Tensor]  # how a model's keypoints are drawn: see `draw_frames`


def draw_head_keypoints(keypoints: np.ndarray, width: int, height: int, out_width: int, out_height: int) -> np.ndarray:
    """Points and the lines between neighbours on black: n 8 2 in pixels of width x height -> n H W 3, uint8 RGB.

    The picture is scaled to out_width x out_height, thicknesses with its smaller side. Points may lie outside.
    """
    points = np.asarray(keypoints, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (len(POINT_COLORS), 2):
        raise PortraitError(f"the head keypoints have the shape {points.shape}: it must be frames x 8 x 2")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))
    if len(bad):
        raise PortraitError(f"the head keypoints of frame {bad[0]} are not finite numbers: extract or type them again")
    points = points * (out_width / width, out_height / height)
    zoom = math.ceil(SMOOTH_SIDE / min(out_width, out_height))
    return np.stack([_draw(each, out_width, out_height, zoom) for each in points])  # n H W 3


def _draw(points: np.ndarray, width: int, height: int, zoom: int) -> np.ndarray:
    """One frame, h w 3: drawn `zoom` times as large, then averaged."""
    canvas = np.zeros((height * zoom, width * zoom, 3), np.uint8)
    side = min(width, height) * zoom
    # continuous coordinates to OpenCV's, whose 0 is the first pixel's centre
    fixed = np.round((np.clip(points * zoom, -FAR, FAR) - 0.5) * (1 << SUBPIXEL_BITS)).astype(int).tolist()
    thickness = max(1, round(side * LINE_WIDTH))
    for start, end in LINES:
        color = np.mean([POINT_COLORS[start], POINT_COLORS[end]], axis=0) * LINE_BRIGHTNESS
        cv2.line(canvas, fixed[start], fixed[end], color.tolist(), thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    radius = max(1, round(side * POINT_RADIUS * (1 << SUBPIXEL_BITS)))
    for point, color in zip(fixed, POINT_COLORS, strict=True):
        cv2.circle(canvas, point, radius, color, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA) if zoom > 1 else canvas


def find_head_keypoints(pictures: Tensor) -> Tensor:
    """The points back out of drawn pictures: n 3 H W in [0, 1] -> n 8 2 in pixels; NaN in frames that lack one of them."""
    height, width = pictures.shape[-2:]
    colors = torch.tensor(POINT_COLORS) / 255  # 8 3
    place = torch.stack(torch.meshgrid(torch.arange(width) + 0.5, torch.arange(height) + 0.5, indexing="xy"), dim=-1)
    found = []
    for picture in pictures.float().cpu():
        distance = (picture[None] - colors[:, :, None, None]).norm(dim=1)  # 8 H W
        share = (COLOR_REACH - distance).clamp(min=0)
        total = share.sum((1, 2))  # 8
        centres = torch.einsum("khw,hwc->kc", share, place) / total[:, None]
        found.append(centres if bool((total > 0).all()) else torch.full_like(centres, torch.nan))
    return torch.stack(found)


def draw_frames(motion: HeadMotion, indices: Sequence[int], width: int, height: int) -> Tensor:
    """The pictures of some frames of a motion: f 3 height width, float32 in [0, 1]."""
    points = motion.keypoints[list(indices)].cpu().numpy()  # f 8 2
    pictures = draw_head_keypoints(points, motion.width, motion.height, width, height)  # f h w 3
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255  # f 3 h w


def draw_motion(
    motion: HeadMotion,
    width: int,
    height: int,
    frames: int,
    draw: Draw = draw_frames,
    folder: str | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The motion's pictures as IMAGE, frames height width 3: drawn a few at a time, in a file in `folder` where they are too
    many for the memory. progress(frames done, frames in all), which may raise to stop."""
    pictures = Pictures(frames, (height, width, 3), folder)
    moved = motion_at(motion, frames, motion.fps)
    for part in blocks(frames, max(1, min(CHUNK, MOST_PIXELS // (width * height)))):
        for picture in draw(moved, range(part.start, part.stop), width, height):
            pictures.add(picture.permute(1, 2, 0))
        if progress is not None:
            progress(part.stop, frames)
    return pictures.tensor()
