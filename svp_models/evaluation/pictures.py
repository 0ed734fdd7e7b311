"""Pictures and clips for a report: contact sheets with enlarged mouths and eyes, strips of frames, clips side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, sqrt

import numpy as np

from ..io.files import working_folder
from ..media.writer import VideoWriter
from ..optional_deps import cv2
from ..types import Audio
from .metrics.landmarks import EYES, MOUTH, mouth_opening

SIDE = 192  # pixels of a picture in a sheet
GAP, LINE = 4, 18  # pixels between pictures, of a line of text
PAPER, INK = 250, 25  # brightness
MARGIN = 0.35  # around an enlarged part, of its longer side
CRF = 20  # of clips to look at; nothing is measured on them


def png_bytes(image: np.ndarray) -> bytes:
    """h w 3, uint8 RGB -> PNG."""
    return cv2.imencode(".png", cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR))[1].tobytes()


def resized(image: np.ndarray, side: int = SIDE) -> np.ndarray:
    """h w 3 -> side side 3, the picture in the middle of a square."""
    height, width = image.shape[:2]
    scale = side / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(np.ascontiguousarray(image), shape, interpolation=method)
    square = np.full((side, side, 3), PAPER, np.uint8)
    top, left = (side - shape[1]) // 2, (side - shape[0]) // 2
    square[top : top + shape[1], left : left + shape[0]] = small
    return square


def enlarged(frame: np.ndarray, landmarks: np.ndarray, which: tuple[int, ...]) -> np.ndarray:
    """The part of a frame h w 3 around some of its landmarks 68 2, as a square of SIDE pixels."""
    points = landmarks[list(which)]
    reach = max(4.0, (0.5 + MARGIN) * float(np.ptp(points, axis=0).max()))
    x, y = (float(value) for value in (points.min(0) + points.max(0)) / 2)
    height, width = frame.shape[:2]
    left, right = max(0, round(x - reach)), min(width, round(x + reach))
    top, bottom = max(0, round(y - reach)), min(height, round(y + reach))
    part = frame[top : max(bottom, top + 1), left : max(right, left + 1)]
    return resized(part)


def sheet(rows: Sequence[Mapping[str, np.ndarray]]) -> np.ndarray:
    """Rows of pictures by title (all squares of one size, the titles of the first row above its columns): h w 3."""
    titles = list(rows[0])
    side = rows[0][titles[0]].shape[0]
    height = LINE * 2 + len(rows) * (side + GAP) + GAP
    canvas = np.full((height, len(titles) * (side + GAP) + GAP, 3), PAPER, np.uint8)
    for column, title in enumerate(titles):
        for line, text in enumerate(_two_lines(title, side // 7)):
            place = (GAP + column * (side + GAP), LINE * (line + 1) - 5)
            cv2.putText(canvas, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, (INK,) * 3, 1, cv2.LINE_AA)
        for number, row in enumerate(rows):
            top, left = LINE * 2 + number * (side + GAP), GAP + column * (side + GAP)
            canvas[top : top + side, left : left + side] = row[title]
    return canvas


def _two_lines(text: str, longest: int) -> list[str]:
    """The text cut into at most two lines of about that many letters."""
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > longest and lines[-1] and len(lines) < 2:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def telling_frame(landmarks: np.ndarray) -> int:
    """The frame with the widest mouth: there a poor one shows. n 68 2."""
    return int(np.argmax(mouth_opening(landmarks)))


def contact_row(frames: Mapping[str, np.ndarray], landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """One row of a contact sheet: a frame of every clip (n h w 3), then mouth and eyes of all but the portrait, enlarged."""
    at = telling_frame(landmarks)
    row = {name: resized(images[min(at, len(images) - 1)]) for name, images in frames.items()}
    for part, which in (("mouth", MOUTH), ("eyes", EYES)):
        for name, images in frames.items():
            if name != "portrait":
                row[f"{part}, {name}"] = enlarged(images[min(at, len(images) - 1)], landmarks[at], which)
    return row


def strip_row(frames: Mapping[str, np.ndarray], landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """One frame of every clip, the one with the widest mouth."""
    at = telling_frame(landmarks)
    return {name: resized(images[min(at, len(images) - 1)]) for name, images in frames.items()}


def side_by_side(frames: Mapping[str, np.ndarray], fps: float, audio: Audio | None, side: int = 2 * SIDE) -> bytes:
    """Clips n h w 3 beside and below one another, row by row, as an MP4 (H.264 + AAC) that browsers play.

    side: most pixels of a picture's side; smaller pictures keep their size.
    """
    clips = list(frames.values())
    count, across = min(map(len, clips)), ceil(sqrt(len(clips)))
    side = min(side, max(clips[0].shape[1:3]))
    side += side % 2
    empty = np.full((side, side, 3), PAPER, np.uint8)

    def frame(index: int) -> np.ndarray:
        shown = [resized(clip[index], side) for clip in clips]
        shown += [empty] * (-len(shown) % across)
        return np.concatenate(
            [np.concatenate(shown[at : at + across], axis=1) for at in range(0, len(shown), across)], axis=0
        )

    height, width = frame(0).shape[:2]
    with working_folder() as folder:
        path = folder / "clip.mp4"
        with VideoWriter(path, width, height, fps, audio, CRF) as writer:
            for index in range(count):
                writer.write(frame(index)[None])
        return path.read_bytes()
