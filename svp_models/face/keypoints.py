"""The 8 head keypoints: their names, where they come from, filling of gaps, motion at another length and rate."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..libraries import interpolate
from ..values import HeadMotion

if TYPE_CHECKING:
    from .analyzer import FaceTrack

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
