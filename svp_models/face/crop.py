"""Square crops around a face: one square for a whole clip, or one for every frame that moves with the face; and pasting back.

The side of a square is `margin` times the longer side of the box around the face, but at most the shorter side of the image
unless MIN_MARGIN demands more. Its centre lies a tenth of the box height above the centre of the box, because hair and forehead
are not in the box. The square is moved into the image as long as the whole box stays in it. What is still outside repeats the
edge of the image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..io.progress import Progress
from ..media.frame_stream import FrameStream, image_stream
from ..media.images import ImageBuffer
from ..optional_deps import cv2, ndimage

MIN_MARGIN = 1.1
CENTRE_RISE = 0.1  # of the box height
PORTRAIT_SCALE = 2.1  # side of the portraits that the built-in networks learned from, in sizes of the face
MIN_SIDE = 8  # pixels of a square that is worth cropping

Edges = tuple[bool, bool, bool, bool]  # left, top, right, bottom: whether the image continues beyond the edge


@dataclass(frozen=True)
class Square:
    """left, top, side in whole pixels of an image; it may reach outside of the image."""

    left: int
    top: int
    side: int

    def within(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of its part inside an image of width x height; right <= left or bottom <= top: nothing."""
        right, bottom = min(self.left + self.side, width), min(self.top + self.side, height)
        return max(self.left, 0), max(self.top, 0), right, bottom

    def overlaps(self, width: int, height: int) -> bool:
        """Whether any part of it is inside an image of width x height."""
        left, top, right, bottom = self.within(width, height)
        return left < right and top < bottom

    def inner_edges(self, width: int, height: int) -> Edges:
        """Which of its edges lie inside the image. There is no seam to hide at the others."""
        right, bottom = self.left + self.side, self.top + self.side
        return self.left > 0, self.top > 0, right < width, bottom < height


@dataclass(frozen=True)
class FaceCrop:
    """The squares cropped from images of width x height: one square for all images, or one for each.

    present: for each image whether it shows the face; empty if all do. The square of an image without the face is a guess.
    """

    squares: tuple[Square, ...]
    width: int
    height: int
    present: tuple[bool, ...] = ()

    def __len__(self) -> int:
        return len(self.squares)

    def at(self, frame: int) -> Square:
        """The square of a frame."""
        return self.squares[frame if len(self.squares) > 1 else 0]

    def shows(self, frame: int) -> bool:
        """Whether the frame shows the face."""
        return not self.present or self.present[frame]


def square_around(boxes: np.ndarray, width: int, height: int, margin: float) -> Square:
    """The square for face boxes n 4 (left, top, right, bottom) in images of width x height."""
    box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    return _place_square(_centres(box), float(max(box[2:] - box[:2])), box, (width, height), margin)


def squares_along(boxes: np.ndarray, width: int, height: int, margin: float, reach: int) -> list[Square]:
    """A square for each of the boxes n 4 of the frames of a clip.

    Its centre and size are averaged over `reach` frames before and after (Hann window), so that it moves smoothly where the
    box jitters; the ends of the clip repeat. The box of the frame is always inside.
    """
    centres = averaged(_centres(boxes), reach)
    sizes = averaged((boxes[:, 2:] - boxes[:, :2]).max(axis=1), reach)
    return [
        _place_square(centre, float(size), box, (width, height), margin)
        for centre, size, box in zip(centres, sizes, boxes, strict=True)
    ]


def _centres(boxes: np.ndarray) -> np.ndarray:
    """Boxes ... 4 -> centres of their squares, ... 2."""
    low, high = boxes[..., :2], boxes[..., 2:]
    centres = (low + high) / 2
    centres[..., 1] -= CENTRE_RISE * (high[..., 1] - low[..., 1])
    return centres


def averaged(rows: np.ndarray, reach: int) -> np.ndarray:
    """Rows n k, each the weighted mean of those up to `reach` before and after; the ends are repeated."""
    weights = np.hanning(2 * reach + 3)[1:-1]
    return ndimage.convolve1d(rows, weights / weights.sum(), axis=0, mode="nearest")


def _place_square(
    centre: np.ndarray, size: float, box: np.ndarray, image_size: tuple[int, int], margin: float
) -> Square:
    """The square of that centre for a face of that size, moved so that it contains the box."""
    low, high = box[:2], box[2:]
    side = max(min(margin * size, *image_size), MIN_MARGIN * float(max(high - low)))
    corner = []
    for axis, extent in enumerate(image_size):
        start = centre[axis] - side / 2
        start = np.clip(start, 0, extent - side) if side <= extent else (extent - side) / 2
        corner.append(np.clip(start, high[axis] - side, low[axis]))
    return Square(round(float(corner[0])), round(float(corner[1])), round(side))


def portrait_square(box: np.ndarray, min_side: float = 0.0) -> Square:
    """The square that makes a portrait of a face box (left, top, right, bottom) wherever it lies, of `min_side` pixels or more."""
    side = max(PORTRAIT_SCALE * max(box[2:] - box[:2]), min_side)
    left, top = _centres(np.asarray(box, np.float64)) - side / 2
    return Square(round(float(left)), round(float(top)), max(1, round(side)))


def crop_around(
    boxes: np.ndarray, width: int, height: int, margin: float, reach: int | None, present: np.ndarray | None = None
) -> FaceCrop:
    """The crop of a face with boxes n 4 in images of width x height: the same square in all of them, or with a `reach` one
    that moves with the face, see `squares_along`. present: n bool; the boxes of images without the face are guesses."""
    if reach is None:
        squares = [square_around(boxes, width, height, margin)]
    else:
        squares = squares_along(boxes, width, height, margin, reach)
    smallest = min(square.side for square in squares)
    if smallest < MIN_SIDE:
        raise PortraitError(
            f"the face is so small that its square has {smallest} pixels of {width} x {height}: choose a larger image, or a "
            f"margin above {margin:g}; the minimum is {MIN_SIDE} pixels"
        )
    for square in squares:
        if not square.overlaps(width, height):
            raise PortraitError(
                f"the square of the face, {square.side} pixels at {square.left}, {square.top}, lies outside the image of {width} x "
                f"{height}: give points that are in it"
            )
    shown = () if present is None or present.all() else tuple(present.tolist())
    return FaceCrop(tuple(squares), width, height, shown)


def scale_crop(crop: FaceCrop, width: int, height: int) -> FaceCrop:
    """The crop in the same images scaled as a whole to width x height."""
    if (width, height) == (crop.width, crop.height):
        return crop
    factor = width / crop.width
    if abs(height - factor * crop.height) > 1 + factor:  # rounding, of either size
        raise PortraitError(
            f"the faces were cropped from images of {crop.width} x {crop.height}, these have {width} x {height}: connect the "
            "images that the faces were cropped from, or the same scaled as a whole"
        )
    squares = (
        Square(round(factor * square.left), round(factor * square.top), max(1, round(factor * square.side)))
        for square in crop.squares
    )
    return FaceCrop(tuple(squares), width, height, crop.present)


def crop_square(frame: np.ndarray, square: Square, size: int) -> np.ndarray:
    """The square of a frame (h w 3, uint8 or float32 in [0, 1]) as size size 3 of the same type, see `resize_square`."""
    height, width = frame.shape[:2]
    left, top, right, bottom = square.within(width, height)
    part = np.ascontiguousarray(frame[top:bottom, left:right])
    margins = (
        top - square.top,
        square.top + square.side - bottom,
        left - square.left,
        square.left + square.side - right,
    )
    if any(margins):
        part = cv2.copyMakeBorder(part, *margins, borderType=cv2.BORDER_REPLICATE)
    return resize_square(part, size)


def resize_square(square: np.ndarray, size: int) -> np.ndarray:
    """A square image (uint8 or float32 in [0, 1]) with `size` pixels a side: averaged where it shrinks, bicubic where it
    grows, itself where it has that size."""
    side = square.shape[0]
    if side == size:
        return square
    resized = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_CUBIC)
    return resized if resized.dtype == np.uint8 else resized.clip(0, 1)  # bicubic overshoots


def to_square(points: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Points ... 2 of the whole image -> of the cropped square, float32."""
    return ((points - (square.left, square.top)) * (size / square.side)).astype(np.float32)


def from_square(points: np.ndarray, square: Square, size: int) -> np.ndarray:
    """Points ... 2 of the cropped square -> of the whole image, float64."""
    return points * (square.side / size) + np.array([square.left, square.top], np.float64)


def letterbox(frame: np.ndarray, size: int) -> np.ndarray:
    """A frame (h w 3, uint8) made square by repeating its edges on both sides, then resized: size size 3, uint8."""
    height, width = frame.shape[:2]
    side = max(width, height)
    left, top = _letterbox_margins(width, height)
    square = cv2.copyMakeBorder(
        frame, top, side - height - top, left, side - width - left, borderType=cv2.BORDER_REPLICATE
    )
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)


def from_letterbox(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Fractions of the square that `letterbox` makes of a frame -> pixels of that frame: n k 2 both, float32."""
    return (points * max(width, height) - _letterbox_margins(width, height)).astype(np.float32)


def _letterbox_margins(width: int, height: int) -> tuple[int, int]:
    """Pixels that the square adds left of and above the frame."""
    side = max(width, height)
    return (side - width) // 2, (side - height) // 2


def crop_faces(
    images: Tensor | FrameStream,
    crop: FaceCrop,
    size: int = 0,
    progress: Progress | None = None,
    folder: str | None = None,
) -> Tensor:
    """The crop of images n h w 3 in [0, 1] -> n size size 3, float32 on the CPU; size 0: that of the largest square.

    progress(frames done, frames in all); folder: for faces that are too many for the memory.
    """
    stream = image_stream(images) if isinstance(images, Tensor) else images
    size = size or max(square.side for square in crop.squares)
    faces = ImageBuffer(len(stream), (size, size, 3), folder)
    for index, image in enumerate(stream.images()):
        faces.add(torch.from_numpy(crop_square(image, crop.at(index), size)))
        if progress is not None:
            progress(min(index + 1, len(stream)), len(stream))
    return faces.tensor()


def feather_mask(edges: Edges, size: int, feather: float) -> np.ndarray:
    """The weight of a pasted face, size size, float32: 1 inside, falling to 0 towards the inner edges.

    feather: part of the side over which it falls, 0 to 0.5. With the distance d of the centre of a pixel from an edge, in
    sides, and t = d / feather it is t^2 (3 - 2 t), and the product of that for columns and rows.
    """
    near = (np.arange(size, dtype=np.float32) + 0.5) / size
    distances = (
        np.minimum(near if edges[axis] else 1, near[::-1] if edges[axis + 2] else 1) * np.ones(size, np.float32)
        for axis in (0, 1)
    )
    along, down = (np.clip(distance / max(feather, 0.5 / size), 0, 1) for distance in distances)
    return np.outer(down * down * (3 - 2 * down), along * along * (3 - 2 * along)).astype(np.float32)


def feather_masks(crop: FaceCrop, count: int, size: int, feather: float) -> Tensor:
    """`feather_mask` of each of `count` cropped faces: count size size; one mask expanded to `count` where all are the same.
    The mask of an image without the face is 0."""
    edges = [square.inner_edges(crop.width, crop.height) for square in crop.squares]
    known = {inner: torch.from_numpy(feather_mask(inner, size, feather)) for inner in set(edges)}
    if len(known) == 1:
        masks = known[edges[0]].expand(count, size, size)
    else:
        masks = torch.stack([known[inner] for inner in edges])
    return masks * torch.tensor(crop.present)[:, None, None] if crop.present else masks


def paste_faces(
    images: Tensor | FrameStream,
    faces: Tensor,
    crop: FaceCrop,
    feather: float,
    masks: Tensor | None = None,
    progress: Progress | None = None,
    folder: str | None = None,
) -> Tensor:
    """Images n h w 3 with the faces m s s 3 (any s) pasted into the squares of the crop, on the CPU, in the type of the images.

    As many come out as there are of the longer of both; one image or one face is used for all. masks: k s s in [0, 1] of any
    s, multiplied with the feather. Where the weight is 0, outside of the squares, and in images that did not show the face,
    every value stays exactly the same. The images may be those of the crop scaled as a whole. progress(frames done, frames in
    all); folder: for images that are too many for the memory.
    """
    _check_square("faces", faces.shape[1:3])
    if masks is not None:
        _check_square("masks", masks.shape[1:3])
    others = {"faces": len(faces), "squares of the crop": len(crop)}
    others |= {} if masks is None else {"masks": len(masks)}
    others |= {"images of the crop": len(crop.present)} if crop.present else {}
    from_file = isinstance(images, FrameStream) and len(images) > 1
    expected = max(others.values())
    # The header of a video may be wrong about its length: the frames that are read count.
    count = _common_count({"images": expected if from_file and expected > 1 else len(images)} | others)
    height, width = images.shape[1:3]
    crop = scale_crop(crop, width, height)
    dtype = images.dtype if isinstance(images, Tensor) else torch.float32
    pasted, done = ImageBuffer(count, (height, width, 3), folder, dtype), 0
    for index, image in enumerate(_copies(images, count)):
        done = index + 1
        if expected > 1 and done > count:
            break
        if crop.shows(index):
            square = crop.at(index)
            weight = feather_mask(square.inner_edges(width, height), square.side, feather)
            if masks is not None:
                weight = weight * _resize_mask(_row(masks, index).cpu().float().numpy(), square.side)
            paste_face(image, _row(faces, index).cpu().float().numpy(), square, weight)
        pasted.add(image)
        if progress is not None:
            progress(min(done, count), count)
    if expected > 1 and done != count:
        _common_count({"images": done} | others)
    return pasted.tensor()


def _copies(images: Tensor | FrameStream, count: int) -> Iterator[Tensor]:
    """A copy of every image; one image is repeated."""
    if isinstance(images, FrameStream):
        frames = images.images() if len(images) != 1 else repeat(next(images.images()), count)
        yield from (torch.from_numpy(frame.copy()) for frame in frames)
    else:
        yield from (_row(images, index).cpu().clone() for index in range(count))


def _row(values: Tensor, index: int) -> Tensor:
    return values[index if len(values) > 1 else 0]


def paste_face(image: Tensor, face: np.ndarray, square: Square, weight: np.ndarray) -> None:
    """Blends a face s s 3 into an image h w 3, in place; the part of the square outside of the image is left out."""
    height, width = image.shape[:2]
    if not square.overlaps(width, height):
        return
    left, top, right, bottom = square.within(width, height)
    rows, columns = slice(top - square.top, bottom - square.top), slice(left - square.left, right - square.left)
    new = torch.from_numpy(resize_square(np.ascontiguousarray(face), square.side).clip(0, 1)[rows, columns])
    part = image[top:bottom, left:right]
    part.copy_(torch.lerp(part.float(), new, torch.from_numpy(weight[rows, columns])[..., None]))  # exact at 0 and at 1


def _resize_mask(mask: np.ndarray, side: int) -> np.ndarray:
    if len(mask) == side:
        return mask.clip(0, 1)
    kind = cv2.INTER_AREA if len(mask) > side else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(mask), (side, side), interpolation=kind).clip(0, 1)


def _check_square(what: str, size: Sequence[int]) -> None:
    if size[0] != size[1] or not size[0]:
        raise PortraitError(
            f"the {what} have {size[1]} x {size[0]} pixels, and only squares fit where squares were cropped: scale them without "
            "changing their aspect, or generate them as high as wide"
        )


def _common_count(counts: dict[str, int]) -> int:
    """The number of images that come out; of each kind there must be that many, or one for all."""
    count = max(counts["images"], counts["faces"])
    if any(number not in (1, count) for number in counts.values()) or min(counts.values()) < 1:
        listed = ", ".join(f"{number} {name}" for name, number in counts.items())
        raise PortraitError(
            f"there are {listed}, and each must be 1 or {count}: shorten the longer ones with ImageFromBatch, or use one for all"
        )
    return count
