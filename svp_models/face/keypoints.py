"""The 8 head keypoints and the three of V-Express: from face meshes, over time, typed by hand, drawn as the guider sees them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..io.memory_map import blocks
from ..io.progress import Progress
from ..io.resampling import interpolate_missing, interpolate_rows, neighbours, ping_pong_positions
from ..media.images import ImageBuffer
from ..optional_deps import cv2
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
# 478-point mesh -> the 68 points of the iBUG markup, and the five points
MESH_68 = (
    127, 234, 93, 132, 58, 136, 150, 176, 152, 400, 379, 365, 288, 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    168, 6, 195, 4, 98, 97, 2, 326, 327,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip
MESH_FIVE_POINTS = (468, 473, 4, 61, 291)
VEXPRESS_POINTS = (4, 5, 7)  # of the 8 head keypoints: both pupils and the bottom of the bridge, the tip of the nose
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
POINT_LINE = re.compile(rf"^(?:.*:)?\s*\(?\s*({NUMBER})\s*[,;\s]\s*({NUMBER})\s*\)?\s*,?$")

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
POINT_RADIUS = 1 / 48  # of the smaller side of the image
LINE_WIDTH = 1 / 72
MIN_DRAWN_SIDE = 512  # smaller images are drawn larger and averaged down, which keeps fractions of a pixel
SUBPIXEL_BITS = 4
MAX_COLOR_DISTANCE = 0.2  # a pixel belongs to a point whose colour is nearer than this (red, green, blue in 0 .. 1)
MAX_COORDINATE = 30_000.0  # pixels; points further out are drawn towards there
VEXPRESS_COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255))  # RGB
VEXPRESS_LIMBS = ((0, 2), (1, 2))  # in the colour of the first point
VEXPRESS_LIMB_BRIGHTNESS = 0.6
VEXPRESS_LIMB_WIDTH = 4  # half axis of the ellipse, pixels at any size of the image
VEXPRESS_RADIUS = 4
CHUNK_FRAMES = 32  # frames drawn at a time
MAX_CHUNK_PIXELS = 2**24

Draw = Callable[
    [HeadMotion, Sequence[int], int, int], Tensor
]  # draws the keypoints for a model: see `draw_head_frames`


def head_keypoints_from_mesh(mesh: np.ndarray) -> np.ndarray:
    """The 8 points of a face mesh: ... 478 3 (x, y in pixels, z) -> ... 8 2, float32 pixels."""
    if mesh.shape[-2] != 478 or mesh.shape[-1] < 2:
        raise PortraitError(f"the face mesh has the shape {tuple(mesh.shape)}: it must be 478 x 3, with the irises")
    return np.asarray(mesh[..., HEAD_KEYPOINT_MESH_INDICES, :2], dtype=np.float32)


def five_points_from_68(landmarks: np.ndarray) -> np.ndarray:
    """... 68 2 (iBUG markup) -> ... 5 2: the means of the six points of the eyes, nose tip, mouth corners."""
    eyes = [landmarks[..., start : start + 6, :].mean(axis=-2, keepdims=True) for start in (36, 42)]
    return np.concatenate([*eyes, landmarks[..., (30, 48, 54), :]], axis=-2)


def vexpress_keypoints(head_keypoints: Tensor) -> Tensor:
    """The three keypoints of V-Express (left eye, right eye, nose) among the 8 head keypoints: ... 8 2 -> ... 3 2."""
    return head_keypoints[..., list(VEXPRESS_POINTS), :]


def motion_from_track(track: FaceTrack, fps: float) -> HeadMotion:
    """The head motion of analysed frames; frames without a face are filled in and listed in `interpolated`. A track
    without any face raises PortraitError."""
    points, filled = interpolate_missing(track.head_keypoints, track.present)
    return HeadMotion(torch.from_numpy(points), track.width, track.height, float(fps), filled)


def resample_motion(motion: HeadMotion, frames: int, fps: float) -> HeadMotion:
    """The motion as `frames` frames at `fps`: linear between the stored frames, at the same times.

    A motion shorter than the clip continues backwards and then forwards again (ping-pong), so that the head keeps moving
    and never jumps; a single frame is repeated.
    """
    count = len(motion)
    if count == 0:
        raise PortraitError("the head motion has 0 frames: extract it from a clip that shows a face")
    if frames < 1 or fps <= 0:
        raise PortraitError(f"{frames} frames at {fps} fps were asked for: both must be above 0")
    positions = torch.arange(frames, dtype=torch.float64) * (motion.fps / fps)  # in stored frames
    positions = (positions * 1e6).round() / 1e6  # equal rates must hit the stored frames themselves
    positions = ping_pong_positions(positions, count)
    points = interpolate_rows(motion.keypoints.double(), positions).float()  # frames 8 2
    below, above, weight = neighbours(positions, count)
    missing = torch.zeros(count, dtype=torch.bool)
    missing[list(motion.interpolated)] = True
    affected = (missing[below] & (weight < 1)) | (missing[above] & (weight > 0))
    filled = tuple(affected.nonzero().flatten().tolist())
    return HeadMotion(points, motion.width, motion.height, float(fps), filled, motion.portrait)


def parse_keypoints(text: str, width: int, height: int) -> Tensor:
    """Eight typed points -> 8 x 2 float32 in pixels of a `width` x `height` image, ordered as HEAD_KEYPOINT_NAMES.

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


def draw_head_keypoints(keypoints: np.ndarray, width: int, height: int, out_width: int, out_height: int) -> np.ndarray:
    """Points and the lines between neighbours on black: n 8 2 in pixels of width x height -> n H W 3, uint8 RGB.

    The image is scaled to out_width x out_height, thicknesses with the smaller side. Points may lie outside.
    """
    points = np.asarray(keypoints, dtype=np.float64)
    if points.ndim != 3 or points.shape[1:] != (len(POINT_COLORS), 2):
        raise PortraitError(f"the head keypoints have the shape {points.shape}: it must be frames x 8 x 2")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))
    if len(bad):
        raise PortraitError(f"the head keypoints of frame {bad[0]} are not finite numbers: extract or type them again")
    points = points * (out_width / width, out_height / height)
    zoom = math.ceil(MIN_DRAWN_SIDE / min(out_width, out_height))
    return np.stack([_draw_head(frame, out_width, out_height, zoom) for frame in points])  # n H W 3


def _draw_head(points: np.ndarray, width: int, height: int, zoom: int) -> np.ndarray:
    """One frame, h w 3: drawn `zoom` times as large, then averaged."""
    canvas = np.zeros((height * zoom, width * zoom, 3), np.uint8)
    side = min(width, height) * zoom
    # OpenCV's 0 is the centre of the first pixel.
    fixed = (
        np.round((np.clip(points * zoom, -MAX_COORDINATE, MAX_COORDINATE) - 0.5) * (1 << SUBPIXEL_BITS))
        .astype(int)
        .tolist()
    )
    thickness = max(1, round(side * LINE_WIDTH))
    for start, end in LINES:
        color = np.mean([POINT_COLORS[start], POINT_COLORS[end]], axis=0) * LINE_BRIGHTNESS
        cv2.line(canvas, fixed[start], fixed[end], color.tolist(), thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    radius = max(1, round(side * POINT_RADIUS * (1 << SUBPIXEL_BITS)))
    for point, color in zip(fixed, POINT_COLORS, strict=True):
        cv2.circle(canvas, point, radius, color, cv2.FILLED, cv2.LINE_AA, SUBPIXEL_BITS)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA) if zoom > 1 else canvas


def draw_head_batch(points: Tensor, width: int, height: int) -> Tensor:
    """Points n 8 2 in pixels of width x height -> n 3 height width in [0, 1], on their device.

    The images of `draw_head_keypoints` up to their antialiasing: a pixel is covered as far as its centre lies inside a shape.
    """
    side = min(width, height)
    lines = [torch.arange(count, device=points.device, dtype=points.dtype) + 0.5 for count in (height, width)]
    pixels = torch.stack(torch.meshgrid(*lines, indexing="ij")[::-1], dim=-1)  # H W 2
    colors = points.new_tensor(POINT_COLORS) / 255
    canvas = points.new_zeros(len(points), 3, height, width)

    def paint(distance: Tensor, color: Tensor) -> None:
        cover = (0.5 - distance).clamp(0, 1)[:, None]  # n 1 H W
        canvas.mul_(1 - cover).add_(cover * color[:, None, None])

    for start, end in LINES:
        first, along = points[:, start, None, None], (points[:, end] - points[:, start])[:, None, None]  # n 1 1 2
        share = ((pixels - first) * along).sum(-1) / along.square().sum(-1).clamp(min=1e-6)
        foot = first + share.clamp(0, 1)[..., None] * along
        paint((pixels - foot).norm(dim=-1) - side * LINE_WIDTH / 2, (colors[start] + colors[end]) / 2 * LINE_BRIGHTNESS)
    for index, color in enumerate(colors):
        paint((pixels - points[:, index, None, None]).norm(dim=-1) - side * POINT_RADIUS, color)
    return canvas


def find_head_keypoints(images: Tensor) -> Tensor:
    """The points back out of drawn images: n 3 H W in [0, 1] -> n 8 2 in pixels; NaN in frames that lack one of them."""
    height, width = images.shape[-2:]
    colors = torch.tensor(POINT_COLORS) / 255  # 8 3
    columns, rows = torch.arange(width) + 0.5, torch.arange(height) + 0.5
    coordinates = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)  # H W 2
    found = []
    for image in images.float().cpu():
        distance = (image[None] - colors[:, :, None, None]).norm(dim=1)  # 8 H W
        weight = (MAX_COLOR_DISTANCE - distance).clamp(min=0)
        total = weight.sum((1, 2))  # 8
        centres = torch.einsum("khw,hwc->kc", weight, coordinates) / total[:, None]
        found.append(centres if bool((total > 0).all()) else torch.full_like(centres, torch.nan))
    return torch.stack(found)


def draw_head_frames(motion: HeadMotion, indices: Sequence[int], width: int, height: int) -> Tensor:
    """The drawn keypoints of some frames of a motion: f 3 height width, float32 in [0, 1]."""
    points = motion.keypoints[list(indices)].cpu().numpy()  # f 8 2
    images = draw_head_keypoints(points, motion.width, motion.height, width, height)  # f h w 3
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255  # f 3 h w


def draw_motion(
    motion: HeadMotion,
    width: int,
    height: int,
    frames: int,
    draw: Draw = draw_head_frames,
    folder: str | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """The drawn motion as IMAGE, frames height width 3: a few frames at a time, in a file in `folder` where they are too
    many for the memory. progress(frames done, frames in all) may raise to stop."""
    images = ImageBuffer(frames, (height, width, 3), folder)
    resampled = resample_motion(motion, frames, motion.fps)
    for block in blocks(frames, max(1, min(CHUNK_FRAMES, MAX_CHUNK_PIXELS // (width * height)))):
        for image in draw(resampled, range(block.start, block.stop), width, height):
            images.add(image.permute(1, 2, 0))
        if progress is not None:
            progress(block.stop, frames)
    return images.tensor()


def draw_vexpress_keypoints(keypoints: Tensor | np.ndarray, width: int, height: int) -> np.ndarray:
    """n 3 2, in pixels of the image -> n height width 3, uint8 RGB on black; points may lie outside.

    Every pixel is as V-Express draws it, whose guider was trained on such images: ellipses of whole pixels and degrees.
    """
    points = np.asarray(keypoints, dtype=np.float32)
    if points.ndim != 3 or points.shape[1:] != (3, 2):
        raise PortraitError(f"the keypoints have the shape {points.shape}: it must be frames x 3 x 2")
    bad = np.flatnonzero(~np.isfinite(points).all(axis=(1, 2)))
    if len(bad):
        raise PortraitError(f"the keypoints of frame {bad[0]} are not finite numbers: extract or type them again")
    return np.stack(
        [_draw_vexpress(frame, width, height) for frame in points.clip(-MAX_COORDINATE, MAX_COORDINATE)]
    )  # n height width 3


def _draw_vexpress(points: np.ndarray, width: int, height: int) -> np.ndarray:
    canvas = np.zeros((height, width, 3), np.uint8)
    for start, end in VEXPRESS_LIMBS:
        across, down = points[start] - points[end]
        length = float(np.sqrt(across**2 + down**2))
        angle = int(math.degrees(math.atan2(down, across)))
        centre = tuple(int(value) for value in points[[start, end]].mean(axis=0))
        ellipse = cv2.ellipse2Poly(centre, (int(length / 2), VEXPRESS_LIMB_WIDTH), angle, 0, 360, 1)
        cv2.fillConvexPoly(
            canvas, np.asarray(ellipse), [int(value * VEXPRESS_LIMB_BRIGHTNESS) for value in VEXPRESS_COLORS[start]]
        )
    for point, color in zip(points, VEXPRESS_COLORS, strict=True):
        cv2.circle(canvas, (int(point[0]), int(point[1])), VEXPRESS_RADIUS, color, cv2.FILLED)
    return canvas


def draw_vexpress_frames(motion: HeadMotion, indices: Sequence[int], width: int, height: int) -> Tensor:
    """The drawn keypoints of some frames of a head motion for the guider of V-Express: f 3 height width, float32 in [0, 1]."""
    points = vexpress_keypoints(motion.keypoints[list(indices)]).cpu() * torch.tensor(
        [width / motion.width, height / motion.height]
    )
    return torch.from_numpy(draw_vexpress_keypoints(points, width, height)).permute(0, 3, 1, 2).float() / 255
