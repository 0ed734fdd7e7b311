"""A portrait or a video of any size moved by a motion: the face is cropped, driven and pasted back, a few frames at a time."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.liveportrait import LivePortraitNetworks
from ..errors import PortraitError
from ..face.crop import FaceCrop, Square, crop_square, feather_mask, paste_face
from ..face.detection import FaceTrack
from ..face.tracking import FaceTracker, find_face
from ..io.progress import Progress, shared
from ..media.frame_stream import FrameStream
from ..media.images import ImageBuffer
from ..types import Motion
from .face_square import clip_square, face_batches, video_squares, whole_images
from .keypoints import keypoints_of_motion
from .liveportrait import (
    DEFAULTS,
    INPUT_SIDE,
    AnimateOptions,
    animate_still,
    animate_video,
    frames_at_once,
    mouth_ratios,
)
from .mix import resample

LOG = logging.getLogger(__name__)
PASTE_BACK, FACE, WHOLE_IMAGE = FRAMINGS = ("paste back", "face", "whole image")
WHAT = "the portrait"
SEARCH_SHARE = 0.05  # of the time that is spent on looking for faces

ShowFrame = Callable[[Tensor], None]  # called with a finished frame, h w 3 in [0, 1]


@dataclass(frozen=True)
class Framing:
    """Where the face of a portrait is and what comes out.

    kind: 'paste back', the whole picture with the moved face in it; 'face', the moved face alone; 'whole image', the picture is a
    crop of a face already. feather: share of the face's side over which it fades into the picture. analyzer: finds the face;
    not needed for a whole image, unless lips are closed. side: pixels of the face that the networks see.
    """

    kind: str = PASTE_BACK
    feather: float = 0.1
    analyzer: FaceTracker | bytes | None = None
    side: int = INPUT_SIDE


def animate_portrait(
    networks: LivePortraitNetworks,
    portrait: FrameStream,
    motion: Motion,
    options: AnimateOptions = DEFAULTS,
    framing: Framing | None = None,
    folder: str | None = None,
    progress: Progress | None = None,
    show: ShowFrame | None = None,
) -> tuple[Tensor, Tensor, float]:
    """Images n h w 3 in [0, 1], float32 on the CPU, the weight of the moved face in them, n h w, and their frames per second.

    portrait: one picture, which gets as many frames as the motion has, or a video, of which every frame is moved by its own
    frame of the motion. A video of known frame rate keeps it, and the motion is brought to it. The shorter of video and motion
    ends both, but a motion of one frame moves all of the video.
    folder: for frames that are too many for the memory. progress(done, total) may raise to stop.
    """
    framing = framing or Framing()
    searching, rendering = shared(progress, SEARCH_SHARE, 1 - SEARCH_SHARE)
    still = len(portrait) == 1
    fps = motion.fps if still else portrait.fps or motion.fps
    crop, track = find_portrait(portrait, framing, options, searching)
    ratios = mouth_ratios(track) if track is not None and options.closes_lips else None
    length = 1 if len(motion) == 1 else max(1, round(len(motion) / motion.fps * fps))
    driving = keypoints_of_motion(resample(motion, length, fps, "hold"))
    reference = None if motion.reference is None else keypoints_of_motion(motion.reference)
    images: Iterator[np.ndarray]
    if still:
        image = next(portrait.images())
        ((_, face),) = face_batches([image], crop, framing.side, 1)
        images, count = repeat(image), len(driving)
        frames = animate_still(networks, face, driving, options, ratios, reference=reference)
    else:
        images, faces = _in_step(face_batches(portrait.images(), crop, framing.side, frames_at_once(networks)))
        count = len(portrait) if len(driving) == 1 else min(len(portrait), len(driving))
        if len(driving) not in (1, len(portrait)):
            LOG.warning(
                "%s has %d frames at %g fps, the motion %d: the %d that both have come out",
                WHAT, len(portrait), fps, len(driving), count,
            )  # fmt: skip
        frames = animate_video(networks, faces, driving, options, ratios, reference)
    composed = Composer(crop, framing, count, folder)
    # A video may be longer than the motion: its further pictures are left.
    for index, (frame, base) in enumerate(zip(chain.from_iterable(frames), images, strict=False)):
        shown = composed.add(base, frame)
        if show is not None:
            show(shown)
        if rendering is not None:
            rendering(min(index + 1, count), count)
    return *composed.tensors(), fps


def find_portrait(
    portrait: FrameStream, framing: Framing, options: AnimateOptions, progress: Progress | None = None
) -> tuple[FaceCrop, FaceTrack | None]:
    """The squares that are animated, and the face in them where it was looked for."""
    if framing.kind not in FRAMINGS:
        raise PortraitError(f"the framing is {framing.kind!r}: choose one of {', '.join(FRAMINGS)}")
    crop = whole_images(portrait.width, portrait.height) if framing.kind == WHOLE_IMAGE else None
    if crop is not None and not options.closes_lips:
        return crop, None
    track = find_face(framing.analyzer, portrait, WHAT, progress, "they stay as they are")
    if crop is not None:
        return crop, track
    return clip_square(track) if len(track) == 1 else video_squares(track), track


class Composer:
    """Puts moved faces where the framing has them: frames in order, then all of them with the weights of the faces."""

    def __init__(self, crop: FaceCrop, framing: Framing, count: int, folder: str | None) -> None:
        self._crop, self._framing, self._pastes = crop, framing, framing.kind == PASTE_BACK
        side = 2 * framing.side
        self._size = (crop.height, crop.width) if self._pastes else (side, side)
        self._images = ImageBuffer(count, (*self._size, 3), folder)
        moving = self._pastes and len(crop) > 1
        self._masks = ImageBuffer(count if moving else 1, self._size, folder)
        if not moving:
            self._masks.add(torch.from_numpy(self._mask(0)))
        self._moving, self._done = moving, 0

    def add(self, base: np.ndarray, frame: Tensor) -> Tensor:
        """The next frame, h w 3: a picture h w 3 and its moved face, 3 S S."""
        index, self._done = self._done, self._done + 1
        face = frame.permute(1, 2, 0)
        if self._pastes:
            image = torch.from_numpy(base.copy())
            if self._crop.shows(index):
                square = self._crop.at(index)
                paste_face(image, face.numpy(), square, self._weight(square))
        elif self._crop.shows(index):
            image = face
        else:
            image = torch.from_numpy(crop_square(base, self._crop.at(index), self._size[0]))
        self._images.add(image)
        if self._moving:
            self._masks.add(torch.from_numpy(self._mask(index)))
        return image

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Images n h w 3 and masks n h w of all frames."""
        masks = self._masks.tensor()
        return self._images.tensor(), masks if self._moving else masks.expand(self._done, -1, -1)

    def _weight(self, square: Square) -> np.ndarray:
        return feather_mask(square.inner_edges(self._crop.width, self._crop.height), square.side, self._framing.feather)

    def _mask(self, index: int) -> np.ndarray:
        square, mask = self._crop.at(index), np.zeros(self._size, np.float32)
        if not self._pastes:
            return feather_mask(
                square.inner_edges(self._crop.width, self._crop.height), self._size[0], self._framing.feather
            )
        if self._crop.shows(index) and square.overlaps(self._crop.width, self._crop.height):
            left, top, right, bottom = square.within(self._crop.width, self._crop.height)
            rows, columns = slice(top - square.top, bottom - square.top), slice(left - square.left, right - square.left)
            mask[top:bottom, left:right] = self._weight(square)[rows, columns]
        return mask


def _in_step(batches: Iterator[tuple[list[np.ndarray], Tensor]]) -> tuple[Iterator[np.ndarray], Iterator[Tensor]]:
    """The images and the faces of batches; images are read after the faces of their batch, and no more are in memory."""
    waiting: deque[np.ndarray] = deque()

    def faces() -> Iterator[Tensor]:
        for images, batch in batches:
            waiting.extend(images)
            yield batch

    def images() -> Iterator[np.ndarray]:
        while waiting:
            yield waiting.popleft()

    return images(), faces()
