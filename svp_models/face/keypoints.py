"""The 8 head keypoints: their names, where they come from, filling of gaps, motion at another length and rate.

Head keypoints as pictures: what the guider sees.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..io.memory_map import blocks
from ..io.progress import Progress
from ..media.images import Pictures
from ..optional_deps import cv2, interpolate
from ..types import HeadMotion
from .detection import FaceTrack

HEAD_KEYPOINT_NAMES = (
    "left edge upper",
    "left edge lower",
    "right edge upper",
    "right edge lower",
    "left pupil",
    "right pupil",
    "bridge top",
    "bridge bottom",
)
HEAD_KEYPOINT_MESH_INDICES = (127, 132, 356, 361, 468, 473, 168, 4)  # of the 478 points of a MediaPipe face mesh
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
POINT_LINE = re.compile(rf"^(?:.*:)?\s*\(?\s*({NUMBER})\s*[,;\s]\s*({NUMBER})\s*\)?\s*,?$")


def head_keypoints_from_mesh(mesh: np.ndarray) -> np.ndarray:
    """The 8 points of a face mesh: ... 478 3 (x, y in pixels, z) -> ... 8 2, float32 pixels."""
    if mesh.shape[-2] != 478 or mesh.shape[-1] < 2:
        raise PortraitError(f"the face mesh has the shape {tuple(mesh.shape)}: it must be 478 x 3, with the irises")
    return np.asarray(mesh[..., HEAD_KEYPOINT_MESH_INDICES, :2], dtype=np.float32)


def interpolate_missing(points: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """Fill frames without a face: a smooth curve between the neighbours in time, held before the first and after the last.

    The curve (PCHIP, monotone cubic) goes on as the points moved and never leaves the span between its two ends, however
    long the gap. points: n rows of any shape, present: n bool. Returns the rows as float32 and the filled frames' indices.
    """
    present = np.asarray(present, dtype=bool)
    known = np.flatnonzero(present)
    if len(known) == 0:
        raise PortraitError(
            f"none of the {len(present)} frames shows a face: choose another clip or type the keypoints"
        )
    missing = np.flatnonzero(~present)
    filled = np.array(points, dtype=np.float64)
    if len(known) > 1:
        filled[missing] = interpolate.PchipInterpolator(known, filled[known])(missing.clip(known[0], known[-1]))
    else:
        filled[missing] = filled[known]
    return filled.astype(np.float32), tuple(missing.tolist())


def motion_from_track(track: FaceTrack, fps: float) -> HeadMotion:
    """The head motion of analysed frames; frames without a face are filled in and listed in `interpolated`. A track
    without any face raises PortraitError."""
    points, filled = interpolate_missing(track.head_keypoints, track.present)
    return HeadMotion(torch.from_numpy(points), track.width, track.height, float(fps), filled)


def frame_ranges(indices: Iterable[int]) -> str:
    """Frame numbers for a message: (3, 4, 5, 9) -> `3-5, 9`."""
    runs: list[list[int]] = []
    for index in sorted(indices):
        if runs and index == runs[-1][1] + 1:
            runs[-1][1] = index
        else:
            runs.append([index, index])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)


def motion_at(motion: HeadMotion, frames: int, fps: float) -> HeadMotion:
    """The motion as `frames` frames at `fps`: linear between the stored frames, at the same times.

    A motion shorter than the clip goes on backwards and then forwards again (ping-pong), so that the head keeps moving
    and never jumps; a single frame is held.
    """
    count = len(motion)
    if count == 0:
        raise PortraitError("the head motion has 0 frames: extract it from a clip that shows a face")
    if frames < 1 or fps <= 0:
        raise PortraitError(f"{frames} frames at {fps} fps were asked for: both must be above 0")
    position = torch.arange(frames, dtype=torch.float64) * (motion.fps / fps)  # in stored frames
    position = (position * 1e6).round() / 1e6  # equal rates must hit the stored frames themselves
    if count > 1:
        period = 2 * (count - 1)
        position = position % period
        position = torch.minimum(position, period - position)
    else:
        position = torch.zeros_like(position)
    low = position.floor().long().clamp(max=max(0, count - 2))
    high = (low + 1).clamp(max=count - 1)
    share = position - low
    points = torch.lerp(motion.keypoints[low].double(), motion.keypoints[high].double(), share[:, None, None])
    missing = torch.zeros(count, dtype=torch.bool)
    missing[list(motion.interpolated)] = True
    touched = (missing[low] & (share < 1)) | (missing[high] & (share > 0))
    filled = tuple(touched.nonzero().flatten().tolist())
    return HeadMotion(points.float(), motion.width, motion.height, float(fps), filled, motion.portrait)  # frames 8 2


def manual_keypoints(text: str, width: int, height: int) -> Tensor:
    """Eight typed points -> 8 x 2 float32 in pixels of a `width` x `height` picture, ordered as HEAD_KEYPOINT_NAMES.

    Either one `x, y` a line (a name and a colon before it, empty lines and `# comments` are allowed) or a JSON list
    `[[x, y], ...]`. Numbers are pixels, or fractions of width and height when none of them is above 1.
    """
    points = _json_points(text) if text.lstrip().startswith("[") else _line_points(text)
    if len(points) != len(HEAD_KEYPOINT_NAMES):
        names = ", ".join(HEAD_KEYPOINT_NAMES)
        raise PortraitError(
            f"{len(points)} keypoints were typed: {len(HEAD_KEYPOINT_NAMES)} are needed, in order: {names}"
        )
    keypoints = torch.tensor(points, dtype=torch.float32)  # 8 2
    if bool((keypoints <= 1).all()):
        keypoints = keypoints * torch.tensor([width, height], dtype=torch.float32)
    if bool((keypoints == keypoints[0]).all()):
        raise PortraitError("all 8 keypoints lie on one spot: type the points of the face")
    return keypoints


def _line_points(text: str) -> list[tuple[float, float]]:
    points = []
    for number, line in enumerate(text.splitlines(), start=1):
        content = line.split("#")[0].strip()
        if not content:
            continue
        match = POINT_LINE.match(content)
        if match is None:
            raise PortraitError(
                f"keypoints, line {number}: {line.strip()!r} is not 'x, y': write two numbers, like 120, 96.5"
            )
        points.append((float(match[1]), float(match[2])))
    return points


def _json_points(text: str) -> list[tuple[float, float]]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise PortraitError(
            f"keypoints, line {error.lineno}: not valid JSON ({error.msg}): write [[x, y], ...]"
        ) from error
    points = []
    for number, entry in enumerate(entries, start=1):
        numbers = isinstance(entry, list) and len(entry) == 2 and all(type(value) in (int, float) for value in entry)
        if not numbers or not all(math.isfinite(value) for value in entry):
            raise PortraitError(f"keypoints, point {number}: {json.dumps(entry)} is not [x, y]: write two numbers")
        points.append((float(entry[0]), float(entry[1])))
    return points


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
