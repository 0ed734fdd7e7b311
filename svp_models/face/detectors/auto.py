"""`auto`: the built-in backend for synthetic faces, the best available backend for photographs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import islice

import numpy as np

from ...errors import PortraitError
from ...media.frame_stream import Frames
from ..crop import PORTRAIT_SCALE, Square, crop_square
from ..detection import FaceBackend, FaceDetection, check_frames
from .built_in import BuiltInBackend

LOG = logging.getLogger(__name__)

SAMPLED_FRAMES, SAMPLE_STEP = 5, 5  # frames from the beginning of a clip that decide, and the distance between them
SHIFT = 0.04  # of the side of a portrait, by which it is shifted
# Inter-ocular distances by which the points of the built-in network move when the image is mirrored and when it is shifted,
# both together. It is stable on what it knows: 0.01 to 0.05 on synthetic faces, 0.09 to 0.3 on photographs.
MAX_INSTABILITY = 0.07
MIRRORED = (2, 3, 0, 1, 5, 4, 6, 7)  # the head keypoints of a mirrored face


class AutoBackend:
    """synthetic: for synthetic faces; photo: for photographs, None where no backend for them is available."""

    name = "auto"

    def __init__(self, synthetic: BuiltInBackend, photo: FaceBackend | None) -> None:
        self.synthetic, self.photo = synthetic, photo

    def detect(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        return self.choose(frames).detect(frames)

    def choose(self, frames: Frames) -> FaceBackend:
        """The backend for these frames, n h w 3 uint8, named in the log: the built-in one if it is stable in half or more of the
        frames in which it sees a face, or if the other one sees none."""
        check_frames(frames)
        if self.photo is None:
            return self.synthetic
        sample = np.stack(list(islice(frames, 0, SAMPLED_FRAMES * SAMPLE_STEP, SAMPLE_STEP)))
        measured = [value for frame in sample if (value := instability(self.synthetic, frame)) is not None]
        synthetic = bool(measured) and float(np.median(measured)) <= MAX_INSTABILITY
        if not synthetic and measured and not any(self.photo.detect(sample)):
            synthetic = True
        chosen = self.synthetic if synthetic else self.photo
        LOG.info("faces are detected by the backend %s", chosen.name)
        return chosen


def instability(backend: FaceBackend, frame: np.ndarray) -> float | None:
    """How far the head keypoints of the largest face of a frame move (inter-ocular distances) when a square around it is mirrored,
    and when it is shifted, both together; None if no face is detected. frame: h w 3, uint8."""
    face = _largest(backend, frame)
    if face is None:
        return None
    left, top, right, bottom = (float(edge) for edge in face.box)
    side = PORTRAIT_SCALE * max(right - left, bottom - top)

    def keypoints(shift: float, mirror: bool) -> np.ndarray | None:
        square = Square(
            round((left + right - side) / 2 + shift), round((top + bottom - side) / 2 + shift), max(1, round(side))
        )
        if not square.overlaps(frame.shape[1], frame.shape[0]):
            return None
        image = crop_square(frame, square, square.side)
        found = _largest(backend, np.ascontiguousarray(image[:, ::-1] if mirror else image))
        if found is None:
            return None
        points = found.head_keypoints[list(MIRRORED)] * (-1, 1) + (square.side, 0) if mirror else found.head_keypoints
        return points + (square.left, square.top)

    straight, mirrored, shifted = keypoints(0, False), keypoints(0, True), keypoints(SHIFT * side, False)
    if straight is None or mirrored is None or shifted is None:
        return float("inf")
    eyes = max(float(np.linalg.norm(straight[5] - straight[4])), 1.0)
    return float(sum(np.linalg.norm(points - straight, axis=1).mean() for points in (mirrored, shifted))) / eyes


def _largest(backend: FaceBackend, frame: np.ndarray) -> FaceDetection | None:
    return max(next(iter(backend.detect(frame[None]))), key=lambda face: face.area, default=None)


def first_available(backends: Mapping[str, Callable[[], FaceBackend]]) -> FaceBackend | None:
    """The first backend that can be opened; the log names it and the reasons against those before it. None is a warning."""
    problems = []
    for name, open_backend in backends.items():
        try:
            backend = open_backend()
        except PortraitError as error:
            problems.append(f"{name}: {error}")
            continue
        skipped = "".join(f"; not by {problem}" for problem in problems)
        LOG.info("photographs are read by the backend %s%s", name, skipped)
        return backend
    LOG.warning(
        "only synthetic faces can be detected, no backend for photographs is available: %s", "; ".join(problems)
    )
    return None
