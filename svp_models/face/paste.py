"""Faces put back where they were cut out: each resized to its square and blended in, nothing else of the picture touched."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..io.progress import Progress
from ..media.frame_stream import FrameStream
from ..media.images import Pictures
from ..optional_deps import cv2
from .crop import FaceCrop, Square, resized, scaled_crop

Edges = tuple[bool, bool, bool, bool]  # left, top, right, bottom: whether the picture goes on beyond it


def inner_edges(square: Square, width: int, height: int) -> Edges:
    """Which edges of the square lie inside of the picture. There is no seam to hide at the others."""
    right, bottom = square.left + square.side, square.top + square.side
    return square.left > 0, square.top > 0, right < width, bottom < height


def feathered(edges: Edges, size: int, feather: float) -> np.ndarray:
    """How much of a face goes back, size size, float32: 1 inside, falling to 0 towards the inner edges.

    feather: share of the side over which it falls, 0 to 0.5. With the distance d of a pixel's middle from an edge, in sides,
    and t = d / feather it is t^2 (3 - 2 t), and the product of that for columns and rows.
    """
    near = (np.arange(size, dtype=np.float32) + 0.5) / size
    columns, rows = (
        np.minimum(near if edges[axis] else 1, near[::-1] if edges[axis + 2] else 1) * np.ones(size, np.float32)
        for axis in (0, 1)
    )
    along, down = (np.clip(each / max(feather, 0.5 / size), 0, 1) for each in (columns, rows))
    return np.outer(down * down * (3 - 2 * down), along * along * (3 - 2 * along)).astype(np.float32)


def feather_masks(crop: FaceCrop, count: int, size: int, feather: float) -> Tensor:
    """`feathered` of every one of `count` cut faces: count size size; one mask seen `count` times where all are the same. Of
    pictures without the face it is 0."""
    edges = [inner_edges(each, crop.width, crop.height) for each in crop.squares]
    known = {each: torch.from_numpy(feathered(each, size, feather)) for each in set(edges)}
    if len(known) == 1:
        masks = known[edges[0]].expand(count, size, size)
    else:
        masks = torch.stack([known[each] for each in edges])
    return masks * torch.tensor(crop.present)[:, None, None] if crop.present else masks


def paste_faces(
    pictures: Tensor | FrameStream,
    faces: Tensor,
    crop: FaceCrop,
    feather: float,
    masks: Tensor | None = None,
    progress: Progress | None = None,
    folder: str | None = None,
) -> Tensor:
    """Pictures n h w 3 with the faces m s s 3 (any s) in the squares of the crop: as many as there are of the longer, on the
    CPU, of the pictures' type. What is one is used for all.

    masks: k s s in [0, 1] of any s, how much of each face goes back beside the feather; where it is 0, outside of the
    squares, and in pictures that did not show the face, every value stays exactly what it was. The pictures may be those of
    the crop scaled as a whole. progress(frames done, frames in all); folder: where pictures are that are too many for the
    memory.
    """
    _check_square("faces", faces.shape[1:3])
    if masks is not None:
        _check_square("masks", masks.shape[1:3])
    others = {"faces": len(faces), "squares of the crop": len(crop)}
    others |= {} if masks is None else {"masks": len(masks)}
    others |= {"pictures of the crop": len(crop.present)} if crop.present else {}
    from_file = isinstance(pictures, FrameStream) and len(pictures) > 1
    expected = max(others.values())
    # The header of a video may be wrong about its length: what is read counts.
    count = _common_count({"pictures": expected if from_file and expected > 1 else len(pictures)} | others)
    height, width = pictures.shape[1:3]
    crop = scaled_crop(crop, width, height)
    dtype = pictures.dtype if isinstance(pictures, Tensor) else torch.float32
    pasted, done = Pictures(count, (height, width, 3), folder, dtype), 0
    for index, picture in enumerate(_wholes(pictures, count)):
        done = index + 1
        if expected > 1 and done > count:
            break
        if crop.shows(index):
            square = crop.at(index)
            weight = feathered(inner_edges(square, width, height), square.side, feather)
            if masks is not None:
                weight = weight * _resized_mask(_of(masks, index).cpu().float().numpy(), square.side)
            _paste(picture, _of(faces, index).cpu().float().numpy(), square, weight)
        pasted.add(picture)
        if progress is not None:
            progress(min(done, count), count)
    if expected > 1 and done != count:
        _common_count({"pictures": done} | others)
    return pasted.tensor()


def _wholes(pictures: Tensor | FrameStream, count: int) -> Iterator[Tensor]:
    """A copy of every picture; a single one again and again."""
    if isinstance(pictures, FrameStream):
        single = next(pictures.pictures()) if len(pictures) == 1 else None
        every = pictures.pictures() if single is None else repeat(single, count)
        yield from (torch.from_numpy(picture.copy()) for picture in every)
    else:
        yield from (_of(pictures, index).cpu().clone() for index in range(count))


def _of(values: Tensor, index: int) -> Tensor:
    return values[index if len(values) > 1 else 0]


def _paste(picture: Tensor, face: np.ndarray, square: Square, weight: np.ndarray) -> None:
    """Blends a face s s 3 into a picture h w 3, in place; what of the square is outside of the picture is left out."""
    height, width = picture.shape[:2]
    left, top, right, bottom = square.within(width, height)
    if right <= left or bottom <= top:
        return
    rows, columns = slice(top - square.top, bottom - square.top), slice(left - square.left, right - square.left)
    new = torch.from_numpy(resized(np.ascontiguousarray(face), square.side).clip(0, 1)[rows, columns])
    part = picture[top:bottom, left:right]
    part.copy_(torch.lerp(part.float(), new, torch.from_numpy(weight[rows, columns])[..., None]))  # exact at 0 and at 1


def _resized_mask(mask: np.ndarray, side: int) -> np.ndarray:
    if len(mask) == side:
        return mask.clip(0, 1)
    kind = cv2.INTER_AREA if len(mask) > side else cv2.INTER_LINEAR
    return cv2.resize(np.ascontiguousarray(mask), (side, side), interpolation=kind).clip(0, 1)


def _check_square(what: str, size: tuple[int, int]) -> None:
    if size[0] != size[1] or not size[0]:
        raise PortraitError(
            f"the {what} have {size[1]} x {size[0]} pixels, and only squares fit where squares were cut out: scale them without "
            "changing their aspect, or let the model make them as high as wide"
        )


def _common_count(counts: dict[str, int]) -> int:
    """How many pictures come out; of each kind there must be so many, or one for all."""
    count = max(counts["pictures"], counts["faces"])
    if any(number not in (1, count) for number in counts.values()) or min(counts.values()) < 1:
        listed = ", ".join(f"{number} {name}" for name, number in counts.items())
        raise PortraitError(
            f"there are {listed}, and each must be 1 or {count}: cut what is longer with ImageFromBatch, or use one for all"
        )
    return count
