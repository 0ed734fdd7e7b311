"""The square that is cut out of a film around a face: one for a whole clip, around the face's places in all of its frames, or
one for every frame that goes with the face.

Its side is `margin` times the longer side of the box around these places, but not more than the picture's shorter side
unless LEAST_MARGIN demands it; its middle lies a tenth of that box's height above the box's, because hair and forehead are not
in it. It is moved into the picture as far as the whole box stays in it. What is still outside repeats the picture's edge.

Similarities between points of two pictures, and square crops along them; continuous pixels, (0, 0) the top left corner.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..io.progress import Progress
from ..media.frame_stream import FrameStream, picture_stream
from ..media.images import Pictures
from ..optional_deps import cv2, ndimage

LEAST_MARGIN = 1.1
RISE = 0.1
LEAST_SIDE = 8  # pixels of a square that is worth cutting out


@dataclass(frozen=True)
class Square:
    """left, top, side in whole pixels of a film; it may reach outside of the picture."""

    left: int
    top: int
    side: int

    def within(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what a picture of width x height shows of it; right <= left or bottom <= top: nothing."""
        right, bottom = min(self.left + self.side, width), min(self.top + self.side, height)
        return max(self.left, 0), max(self.top, 0), right, bottom


@dataclass(frozen=True)
class FaceCrop:
    """What was cut out of pictures of width x height: one square for all of them, or one for each.

    present: for each picture whether it shows the face; empty if all do. The square of one that does not is a guess.
    """

    squares: tuple[Square, ...]
    width: int
    height: int
    present: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.squares)

    def at(self, frame: int) -> Square:
        return self.squares[frame if len(self.squares) > 1 else 0]

    def shows(self, frame: int) -> bool:
        """Whether the face is in that picture."""
        return not self.present or self.present[frame]


def square_around(boxes: np.ndarray, width: int, height: int, margin: float) -> Square:
    """The square for face boxes n 4 (left, top, right, bottom) in pictures of width x height."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    return _placed(_middles(low, high), float(max(high - low)), low, high, width, height, margin)


def squares_along(boxes: np.ndarray, width: int, height: int, margin: float, reach: int) -> list[Square]:
    """A square for each of the boxes n 4 of a clip's frames.

    Its middle and size are averaged over `reach` frames before and after, those near it counting most (Hann window), so
    that it glides where the box trembles; the ends of the clip are held. The box of the frame is always inside.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    middles = _averaged(_middles(low, high), reach)
    sizes = _averaged((high - low).max(axis=1), reach)
    return [
        _placed(middles[row], float(sizes[row]), low[row], high[row], width, height, margin)
        for row in range(len(boxes))
    ]


def _middles(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Middles of the squares around boxes from `low` to `high`, ... 2 each."""
    middles = (low + high) / 2
    middles[..., 1] -= RISE * (high[..., 1] - low[..., 1])
    return middles


def _averaged(rows: np.ndarray, reach: int) -> np.ndarray:
    weights = np.hanning(2 * reach + 3)[1:-1]
    return ndimage.convolve1d(rows, weights / weights.sum(), axis=0, mode="nearest")


def _placed(
    middle: np.ndarray, size: float, low: np.ndarray, high: np.ndarray, width: int, height: int, margin: float
) -> Square:
    """The square of that middle for a face of that size, moved so that it holds the box from `low` to `high`."""
    side = max(min(margin * size, min(width, height)), LEAST_MARGIN * float(max(high - low)))
    corner = []
    for axis, extent in enumerate((width, height)):
        start = middle[axis] - side / 2
        start = np.clip(start, 0, extent - side) if side <= extent else (extent - side) / 2
        corner.append(np.clip(start, high[axis] - side, low[axis]))
    return Square(round(float(corner[0])), round(float(corner[1])), round(side))


def crop_around(
    boxes: np.ndarray, width: int, height: int, margin: float, reach: int | None, present: np.ndarray | None = None
) -> FaceCrop:
    """Where a face of boxes n 4 is cut out of pictures of width x height: the same square in all of them, or, with a `reach`,
    one that goes with the face, see `squares_along`. present: n bool, pictures without the face have guessed boxes."""
    if reach is None:
        squares = [square_around(boxes, width, height, margin)]
    else:
        squares = squares_along(boxes, width, height, margin, reach)
    least = min(each.side for each in squares)
    if least < LEAST_SIDE:
        raise PortraitError(
            f"the face is so small that its square has {least} pixels of {width} x {height}: choose a larger picture, or a "
            f"margin above {margin:g}; {LEAST_SIDE} pixels are the least"
        )
    for square in squares:
        left, top, right, bottom = square.within(width, height)
        if left >= right or top >= bottom:
            raise PortraitError(
                f"the face's square, {square.side} pixels at {square.left}, {square.top}, lies outside the picture of {width} x "
                f"{height}: give points that are in it"
            )
    missing = present is not None and not present.all()
    return FaceCrop(tuple(squares), width, height, tuple(present.tolist()) if missing else ())


def scaled_crop(crop: FaceCrop, width: int, height: int) -> FaceCrop:
    """The crop in the same pictures scaled as a whole to width x height."""
    if (width, height) == (crop.width, crop.height):
        return crop
    factor = width / crop.width
    if abs(height - factor * crop.height) > 1 + factor:  # rounding, of either size
        raise PortraitError(
            f"the faces were cut out of pictures of {crop.width} x {crop.height}, these have {width} x {height}: connect those "
            "that the faces were cut out of, or the same scaled as a whole"
        )
    squares = (
        Square(round(factor * each.left), round(factor * each.top), max(1, round(factor * each.side)))
        for each in crop.squares
    )
    return FaceCrop(tuple(squares), width, height, crop.present)


def cut_square(frame: np.ndarray, square: Square, size: int) -> np.ndarray:
    """The square of a frame (h w 3, uint8 or float32 in [0, 1]) as size size 3 of the same type, see `resized`."""
    height, width = frame.shape[:2]
    left, top, right, bottom = square.within(width, height)
    part = np.ascontiguousarray(frame[top:bottom, left:right])
    around = (
        top - square.top,
        square.top + square.side - bottom,
        left - square.left,
        square.left + square.side - right,
    )
    if any(around):
        part = cv2.copyMakeBorder(part, *around, borderType=cv2.BORDER_REPLICATE)
    return resized(part, size)


def resized(square: np.ndarray, size: int) -> np.ndarray:
    """A square picture (uint8 or float32 in [0, 1]) with `size` pixels a side: averaged where it shrinks, bicubic where it
    grows, itself where it has that size."""
    side = square.shape[0]
    if side == size:
        return square
    new = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
    return new if new.dtype == np.uint8 else new.clip(0, 1)  # bicubic overshoots


def to_square(points: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Points ... 2 of the film -> of the cut square, float32."""
    return ((points - (square.left, square.top)) * (size / square.side)).astype(np.float32)


def from_square(points: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Points ... 2 of the cut square -> of the film, float64."""
    return points * (square.side / size) + np.array([square.left, square.top], np.float64)


def cut_faces(
    pictures: Tensor | FrameStream,
    crop: FaceCrop,
    size: int = 0,
    progress: Progress | None = None,
    folder: str | None = None,
) -> Tensor:
    """The crop of pictures n h w 3 in [0, 1] -> n size size 3, float32 on the CPU; size 0: as many pixels as the largest of
    its squares has. progress(frames done, frames in all); folder: where faces are that are too many for the memory."""
    stream = picture_stream(pictures) if isinstance(pictures, Tensor) else pictures
    size = size or max(each.side for each in crop.squares)
    faces = Pictures(len(stream), (size, size, 3), folder)
    for index, picture in enumerate(stream.pictures()):
        faces.add(torch.from_numpy(cut_square(picture, crop.at(index), size)))
        if progress is not None:
            progress(min(index + 1, len(stream)), len(stream))
    return faces.tensor()


def fit_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The rotation, scale and shift that bring source nearest to target (least squares): k 2 both, k > 1 -> 2 3 float64.

    No mirroring. Source points that all lie on one spot raise PortraitError.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    centre, goal = source.mean(axis=0), target.mean(axis=0)
    a = (source - centre) @ (1, 1j)
    b = (target - goal) @ (1, 1j)
    spread = float(np.sum(np.abs(a) ** 2))
    if not np.isfinite(spread) or spread <= 1e-12:
        raise PortraitError("the points of a face lie on one spot or are not numbers: choose another picture")
    turn = np.sum(np.conj(a) * b) / spread
    linear = np.array([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return np.column_stack([linear, goal - linear @ centre])


def move(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points ... 2 through an affine map 2 3 -> ... 2, float64."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def inverse(matrix: np.ndarray) -> np.ndarray:
    """The affine map 2 3 that undoes another."""
    return cv2.invertAffineTransform(np.asarray(matrix, np.float64))


def alignment_matrix(box: np.ndarray, side: int, margin: float, angle: float = 0.0) -> np.ndarray:
    """The map 2 3 of a picture onto a square crop of `side` pixels around a box (left, top, right, bottom).

    The crop shows `margin` times the box's longer side, turned back by `angle` (radians, clockwise in the picture).
    """
    left, top, right, bottom = (float(each) for each in box)
    scale = side / (max(right - left, bottom - top, 1e-6) * margin)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    linear = np.array([[cos, sin], [-sin, cos]])
    return np.column_stack([linear, side / 2 - linear @ ((left + right) / 2, (top + bottom) / 2)])


def crop(frame: np.ndarray, matrix: np.ndarray, side: int) -> np.ndarray:
    """A frame (h w 3, uint8) through a similarity 2 3 -> side side 3, uint8; black outside of the frame.

    A frame that shrinks is averaged down first: sampling alone would leave out most of its pixels.
    """
    scale = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    matrix = np.asarray(matrix, np.float64)
    if scale < 1:
        height, width = frame.shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        frame = cv2.resize(frame, small, interpolation=cv2.INTER_AREA)
        matrix = np.column_stack([matrix[:, :2] @ np.diag((width / small[0], height / small[1])), matrix[:, 2]])
    # OpenCV's 0 is the first pixel's centre
    shifted = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ (0.5, 0.5) - 0.5])
    return cv2.warpAffine(frame, shifted, (side, side), flags=cv2.INTER_LINEAR)
