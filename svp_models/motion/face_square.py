"""The squares that LivePortrait sees: the face of a picture, of every frame of a video, or of a whole clip, as its own crop has it.

The side is SIDE_PER_FACE times the face, from the brows to the chin, and the centre lies RISE sides above that of the face. A
square may reach beyond the picture, whose edge is repeated there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..face.crop import MIN_SIDE, FaceCrop, Square, averaged, crop_square
from ..face.detection import FaceTrack, face_boxes
from ..face.tracking import filled_face_boxes

SIDE_PER_FACE = 2.3
RISE = 0.125  # of the side
REACH = 12  # frames before and after over which the square of a video is averaged


def clip_square(track: FaceTrack) -> FaceCrop:
    """One square for all frames of a clip: around the mean of its faces, and so large that every face lies in it."""
    boxes = face_boxes(track)[track.present]
    low, high = boxes[:, :2], boxes[:, 2:]
    centre, size = ((low + high) / 2).mean(axis=0), float((high - low).max(axis=1).mean())
    place, side = _raised(centre[None], np.array([size]))
    reach = 2 * max(float((place - low).max()), float((high - place).max()))
    return _crop([_square(place[0], max(float(side[0]), reach))], track)


def video_squares(track: FaceTrack, reach: int = REACH) -> FaceCrop:
    """A square for every frame that moves with the face, smooth over `reach` frames before and after."""
    boxes = filled_face_boxes(track)
    low, high = boxes[:, :2], boxes[:, 2:]
    places, sides = _raised(averaged((low + high) / 2, reach), averaged((high - low).max(axis=1), reach))
    return _crop([_square(place, float(side)) for place, side in zip(places, sides, strict=True)], track)


def whole_images(width: int, height: int) -> FaceCrop:
    """Pictures that are crops of a face already."""
    if width != height:
        raise PortraitError(
            f"the pictures have {width} x {height} pixels, and a face crop is square: let the face be found, or cut it out with "
            "Crop Face"
        )
    return FaceCrop((Square(0, 0, width),), width, height)


def face_batches(
    images: Iterable[np.ndarray], crop: FaceCrop, side: int, size: int
) -> Iterator[tuple[list[np.ndarray], Tensor]]:
    """Images h w 3, float32 in [0, 1], up to `size` at a time, and the faces in them: n 3 side side."""
    numbered = enumerate(images)
    while piece := list(islice(numbered, size)):
        faces = np.stack([crop_square(image, crop.at(index), side) for index, image in piece])
        yield [image for _, image in piece], torch.from_numpy(faces).permute(0, 3, 1, 2).contiguous()


def _raised(centres: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres n 2 and sizes n of faces -> centres and sides of their squares."""
    sides = SIDE_PER_FACE * sizes
    return centres - np.stack([np.zeros_like(sides), RISE * sides], axis=1), sides


def _square(centre: np.ndarray, side: float) -> Square:
    return Square(round(float(centre[0] - side / 2)), round(float(centre[1] - side / 2)), round(side))


def _crop(squares: list[Square], track: FaceTrack) -> FaceCrop:
    smallest = min(square.side for square in squares)
    if smallest < MIN_SIDE:
        raise PortraitError(
            f"the face is so small that its square has {smallest} pixels of {track.width} x {track.height}: choose a larger "
            f"picture; the minimum is {MIN_SIDE} pixels"
        )
    return FaceCrop(
        tuple(squares), track.width, track.height, () if track.present.all() else tuple(track.present.tolist())
    )
