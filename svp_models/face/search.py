"""All drawn faces in pictures of any size, by a network that knows portraits alone.

The network sees 128 pixels a side, takes what it sees for a portrait, and gives points for it whatever it is. So a face counts
only after it was looked at closely, and again in squares beside that: points of a face stay on it, invented ones move with
the square. In clips a face is followed from frame to frame and looked for anew where it gets lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..optional_deps import cv2
from .analyzer import INPUT_SIDE
from .crop import RISE, Square, cut_square, from_square, inverse, move
from .detection import FaceBackend, FaceDetection

LOOKS = 4  # after the first
PORTRAIT = 2.1  # side of the pictures it has learnt from, in faces
LEAST_STEP = 0.6  # of what the look before has seen: a rough place tells little of the size
FILLS = 0.75  # of the picture's longer side: beside a portrait of this size there is no room for another
SEARCHED_SIDES = (1.0, 0.7, 0.5, 0.35)  # of the picture's shorter side, squares that are searched
SEARCHED_STEP = 0.25  # of their side from one to the next, unless there would be too many
MOST_TILES = 200  # squares of one size
LEAST_TILE = 16  # pixels
CANDIDATES = 24  # places of a picture that are looked at closely
SAME = 0.4  # overlap (intersection over union) from which two boxes are of one face
# Squares of the last looks: side and shift, in sides of the portrait. Smaller ones: who stands beside is not in them.
BESIDE = ((0.85, 0.08, -0.06), (0.85, -0.08, 0.06))
STEADY = 0.03  # of the face's size: how far its points may go with these; faces 0.011 at most, others 0.039 at least
PAUSE = 25  # frames between two searches for a face that is not there
SMALL_TURNS = (30, -30)  # degrees clockwise that a face may be turned by: half of that more or less is seen as it is
TURNS = (180, 90, -90, 60, -60, 120, -120, 150, -150)  # and by which it is too much
INPUT_BATCH = 32  # squares a call

Pulse = Callable[[], None]


class PortraitSearch:
    """A face backend that finds with another (`BuiltInBackend`, one face a picture, always a portrait) what it would not.

    pulse: called between calls of the network; it may raise to stop the work.
    """

    def __init__(self, backend: FaceBackend, pulse: Pulse | None = None) -> None:
        self.name, self._backend, self._pulse = backend.name, backend, pulse

    def detect(self, frames: np.ndarray) -> Iterator[list[FaceDetection]]:
        faces: list[FaceDetection] = []
        expected, waited = 1, PAUSE
        for frame in frames:
            faces = self._steady(frame, self._look(frame, [portrait_square(face_box(face), 0) for face in faces]))
            waited += 1
            if len(faces) < expected and waited > PAUSE:
                faces, waited = self.find(frame), 0
                expected = max(1, len(faces))
            elif not faces:
                faces = self.find_whole(frame)
            yield faces

    def find(self, frame: np.ndarray) -> list[FaceDetection]:
        """The faces of a picture, h w 3, wherever they are."""
        faces = self._upright(frame)
        if faces and portrait_square(face_box(faces[0]), 0).side >= FILLS * max(frame.shape[:2]):
            return faces
        tiles = search_tiles(frame.shape[1], frame.shape[0])
        found = self._look(frame, tiles, everyone=True)
        rough = [(face, tile) for face, tile in zip(found, tiles, strict=True) if face is not None]
        likeness = [-_unlike(face, tile) for face, tile in rough]
        rough = distinct(rough, likeness)[:CANDIDATES]
        close = self._closer(frame, [face for face, _ in rough], [tile.side for _, tile in rough])
        faces = faces + self._steady(frame, close)
        apart = distinct([(face, None) for face in faces], [-float(rank) for rank in range(len(faces))])
        return [face for face, _ in apart] or self._tilted(frame)

    def turn_of(self, frame: np.ndarray) -> int | None:
        """Degrees, clockwise, that the face of a picture is turned by, if it is turned too far to be found; else None."""
        return next((turn for turn in TURNS if self._upright(turned(frame, turn)[0])), None)

    def find_whole(self, frame: np.ndarray) -> list[FaceDetection]:
        """The face that a look at the whole picture leads to, if there is one, upright or turned a little."""
        return self._upright(frame) or self._tilted(frame)

    def _tilted(self, frame: np.ndarray) -> list[FaceDetection]:
        for turn in SMALL_TURNS:
            picture, matrix = turned(frame, turn)
            faces = self._upright(picture)
            if faces:
                return [_moved(face, inverse(matrix), turn) for face in faces]
        return []

    def _upright(self, frame: np.ndarray) -> list[FaceDetection]:
        height, width = frame.shape[:2]
        side = max(width, height)
        faces = self._look(frame, [Square((width - side) // 2, (height - side) // 2, side)])
        return self._steady(frame, self._closer(frame, faces, [side] * len(faces)))

    def _closer(self, frame: np.ndarray, faces: Sequence[FaceDetection], sides: Sequence[int]) -> list[FaceDetection]:
        """The faces looked at again, ever closer; sides: of the squares they were seen in."""
        least = np.array(sides, np.float64)
        for _ in range(LOOKS if faces else 0):
            least *= LEAST_STEP
            squares = [portrait_square(face_box(face), side) for face, side in zip(faces, least, strict=True)]
            looked = self._look(frame, squares, everyone=True)
            faces = [new or old for new, old in zip(looked, faces, strict=True)]
        return list(faces)

    def _steady(self, frame: np.ndarray, faces: Sequence[FaceDetection]) -> list[FaceDetection]:
        return [face for face, distance in zip(faces, self._wander(frame, faces), strict=True) if distance <= STEADY]

    def _wander(self, frame: np.ndarray, faces: Sequence[FaceDetection]) -> list[float]:
        """How far the points of the faces go with the square that they are seen in, in sizes of the face; not seen: infinite."""
        squares = []
        for face in faces:
            square = portrait_square(face_box(face), 0)
            for scale, right, down in BESIDE:
                side = scale * square.side
                left, top = (
                    start + (square.side - side) / 2 + shift * square.side
                    for start, shift in ((square.left, right), (square.top, down))
                )
                squares.append(Square(round(left), round(top), max(1, round(side))))
        looked = self._look(frame, squares, everyone=True)
        return [
            max(_apart(face, other) for other in looked[len(BESIDE) * row : len(BESIDE) * (row + 1)])
            for row, face in enumerate(faces)
        ]

    def _look(self, frame: np.ndarray, squares: Sequence[Square], everyone: bool = False) -> list[FaceDetection]:
        """What is seen in squares of a picture, in its pixels. everyone: one for each square, None where nothing is."""
        found: list[FaceDetection | None] = [None] * len(squares)
        inside = [row for row, square in enumerate(squares) if _touches(square, frame)]
        for start in range(0, len(inside), INPUT_BATCH):
            rows = inside[start : start + INPUT_BATCH]
            shown = np.stack([cut_square(frame, squares[row], INPUT_SIDE) for row in rows])
            for row, faces in zip(rows, self._backend.detect(shown), strict=True):
                found[row] = _placed(faces[0], squares[row]) if faces else None
            if self._pulse is not None:
                self._pulse()
        return found if everyone else [face for face in found if face is not None]


def portrait_square(box: np.ndarray, least: float) -> Square:
    """The square that makes a portrait of the face in a box (left, top, right, bottom), of `least` pixels or more."""
    wide, high = box[2:] - box[:2]
    side = max(PORTRAIT * max(wide, high), least)
    left, top = (box[:2] + box[2:]) / 2 - (0, RISE * high) - side / 2
    return Square(round(float(left)), round(float(top)), max(1, round(side)))


def face_box(face: FaceDetection) -> np.ndarray:
    """From the brows to the chin: left, top, right, bottom, float64."""
    return np.concatenate([face.landmarks.min(axis=0), face.landmarks.max(axis=0)]).astype(np.float64)


def search_tiles(width: int, height: int) -> list[Square]:
    """Squares of several sizes all over a picture, not more than MOST_TILES of each."""
    sides = {max(LEAST_TILE, round(share * min(width, height))) for share in SEARCHED_SIDES}
    return [tile for side in sorted(sides, reverse=True) for tile in _tiles(width, height, side)]


def _tiles(width: int, height: int, side: int) -> list[Square]:
    across, down = (max(1, 1 + int(np.ceil((extent - side) / (SEARCHED_STEP * side)))) for extent in (width, height))
    if across * down > MOST_TILES:
        fewer = (MOST_TILES / (across * down)) ** 0.5
        across, down = (max(1, min(MOST_TILES, int(count * fewer))) for count in (across, down))
        across, down = min(across, MOST_TILES // down), min(down, MOST_TILES // across)
    columns, rows = (
        np.linspace(0, max(0, extent - side), count).round().astype(int)
        for extent, count in ((width, across), (height, down))
    )
    return [Square(int(left), int(top), side) for top in rows for left in columns]


def turned(frame: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture turned counterclockwise in the middle of a square that holds it, and the map 2 3 of its pixels to there."""
    height, width = frame.shape[:2]
    side = max(height, width)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 1.0)
    matrix[:, 2] += matrix[:, :2] @ ((side - width) / 2, (side - height) / 2)
    # OpenCV's 0 is the first pixel's centre
    shifted = np.column_stack([matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ (0.5, 0.5) - 0.5])
    return cv2.warpAffine(frame, shifted, (side, side), borderMode=cv2.BORDER_REPLICATE), matrix


def distinct(seen: list, scores: Sequence[float]) -> list:
    """Of (face, anything) those whose boxes are different faces, the highest score first."""
    if not seen:
        return []
    boxes = np.stack([face_box(face) for face, _ in seen])
    corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    least = min(scores) - 1
    order = cv2.dnn.NMSBoxes(corners.tolist(), [float(score) - least for score in scores], 0.0, SAME)
    return [seen[int(row)] for row in np.asarray(order).reshape(-1)]


def _touches(square: Square, frame: np.ndarray) -> bool:
    """Whether anything of the square is in the picture: where nothing is found, it may have wandered off."""
    left, top, right, bottom = square.within(frame.shape[1], frame.shape[0])
    return left < right and top < bottom


def _unlike(face: FaceDetection, tile: Square) -> float:
    """How far a square is from the portrait of the face seen in it, in sides."""
    wanted = portrait_square(face_box(face), 0)
    apart = [wanted.left - tile.left, wanted.top - tile.top, wanted.side - tile.side]
    return float(np.linalg.norm(apart)) / tile.side


def _apart(face: FaceDetection, other: FaceDetection | None) -> float:
    """Mean distance of the points of two looks at a face, in its sizes."""
    if other is None:
        return float("inf")
    box = face_box(face)
    return float(np.linalg.norm(face.landmarks - other.landmarks, axis=1).mean() / max(*(box[2:] - box[:2]), 1e-6))


def _placed(face: FaceDetection, square: Square) -> FaceDetection:
    """A face seen in a square cut out of a picture, in the picture's pixels."""

    def points(values: np.ndarray) -> np.ndarray:
        return from_square(values, square, INPUT_SIDE).astype(np.float32)

    return replace(
        face,
        box=points(face.box.reshape(2, 2)).reshape(4),
        head_keypoints=points(face.head_keypoints),
        five_points=points(face.five_points),
        landmarks=points(face.landmarks),
    )


def _moved(face: FaceDetection, matrix: np.ndarray, turn: float) -> FaceDetection:
    """A face through a similarity 2 3 that turns it clockwise by so many degrees."""
    head, five, landmarks = (
        move(values, matrix).astype(np.float32) for values in (face.head_keypoints, face.five_points, face.landmarks)
    )
    every = np.concatenate([head, landmarks])
    return replace(
        face,
        box=np.concatenate([every.min(axis=0), every.max(axis=0)]),
        head_keypoints=head,
        five_points=five,
        landmarks=landmarks,
        pose=face.pose + np.array([0, 0, turn], np.float32),
    )
