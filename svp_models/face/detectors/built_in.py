"""`built-in`: the small ONNX network of a portrait model, which detects synthetic faces; and its search of whole images.

The network sees 128 pixels a side, takes every image for a portrait of one face, and always predicts points. So in the search a
face counts only after a closer look, and another look at shifted squares: the points of a face stay on it, invented points move
with the square. In clips a face is tracked from frame to frame and searched for again where it is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...errors import PortraitError
from ...io.progress import Progress
from ...media.frame_stream import Frames
from ...optional_deps import cv2, onnxruntime
from ..affine import invert_affine, transform_points, warp_image
from ..crop import Square, crop_square, from_letterbox, from_square, letterbox, portrait_square
from ..detection import (
    FaceBackend,
    FaceDetection,
    FaceTrack,
    boxes_around,
    check_frames,
    concatenate_tracks,
    given,
)
from ..keypoints import five_points_from_68

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

INPUT_SIZE = 128  # pixels of the square that the network sees
BATCH_SIZE = 32  # frames or squares per call
MIN_PRESENCE = 0.5  # probability
OUTPUTS = {"landmarks": (68, 2), "head_keypoints": (8, 2), "expression": (64,), "pose": (3,), "present": ()}

LOOKS = 4  # after the first
MIN_STEP = 0.6  # of the square of the look before: a rough position says little about the size
FILLING = 0.75  # of the longer side of the image: beside a portrait of this size there is no room for another
SEARCH_SIDES = (1.0, 0.7, 0.5, 0.35)  # of the shorter side of the image, squares that are searched
SEARCH_STEP = 0.25  # of their side from one to the next, unless there would be too many
MAX_TILES = 200  # squares of one size
MIN_TILE = 16  # pixels
MAX_CANDIDATES = 24  # positions in an image that get a closer look
SAME_FACE_IOU = 0.4  # from which two boxes are of one face
# Squares of the last looks: side and shift, in sides of the portrait. Smaller ones: a second person beside is not in them.
SHIFTED = ((0.85, 0.08, -0.06), (0.85, -0.08, 0.06))
MAX_SHIFT = 0.03  # of the face size: how far its points may move with these; faces 0.011 at most, others 0.039 at least
SEARCH_INTERVAL = 25  # frames between two searches for a face that is not there
SMALL_TILTS = (
    30,
    -30,
)  # degrees clockwise that a face may be tilted by: half of that more or less is detected as it is
LARGE_TILTS = (180, 90, -90, 60, -60, 120, -120, 150, -150)  # and by which it is tilted too far

Pulse = Callable[[], None]


def open_session(
    model: bytes | str, what: str, cure: str, providers: Sequence[str], threads: int = 0
) -> InferenceSession:
    """An ONNX session of a model: its path or its content. providers: best first; those that are not available are left out.

    what, cure: for the message about a model that cannot be used. threads: 0 for one per core.
    """
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors are raised anyway
    if threads:
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    available = ort.get_available_providers()
    try:
        return ort.InferenceSession(model, options, providers=[name for name in providers if name in available])
    except _load_errors() as error:
        raise PortraitError(f"{what} is no usable ONNX model: {cure}") from error


def _load_errors() -> tuple[type[Exception], ...]:
    """The exceptions for a model that onnxruntime cannot use."""
    from onnxruntime.capi import onnxruntime_pybind11_state as errors

    names = "Fail InvalidArgument InvalidGraph InvalidProtobuf NotImplemented NoSuchFile RuntimeException"
    return (OSError, *(getattr(errors, name) for name in names.split()))


class FaceAnalyzer:
    """The network as an onnxruntime session.

    Its input `image` is n 3 128 128, float32 RGB in [0, 1]; its outputs are `landmarks` (n 68 2) and `head_keypoints`
    (n 8 2) as fractions of that square, `expression` (n 64), `pose` (n 3 or more: values after the three angles are
    ignored) and `present` (n, probability).
    """

    def __init__(self, onnx: bytes, threads: int = 1) -> None:
        what = f"the face analyser ({len(onnx)} bytes)"
        self._session = open_session(onnx, what, "use a complete model file", ["CPUExecutionProvider"], threads)
        missing = set(OUTPUTS) - {output.name for output in self._session.get_outputs()}
        inputs = [value.name for value in self._session.get_inputs()]
        if missing or inputs != ["image"]:
            raise PortraitError(
                f"the face analyser has the inputs {inputs} and lacks the outputs {sorted(missing)}: "
                f"it must map 'image' to {', '.join(OUTPUTS)}"
            )

    def analyze(self, frames: Frames, progress: Progress | None = None) -> FaceTrack:
        """Detect the face in the frames of one clip: n h w 3, uint8 RGB. progress(frames done, frames in all)."""
        tracks: list[FaceTrack] = []
        done = 0
        for track in self.batches(frames):
            tracks.append(track)
            done += len(track)
            if progress is not None:
                progress(min(done, len(frames)), len(frames))
        return concatenate_tracks(tracks)

    def batches(self, frames: Frames) -> Iterator[FaceTrack]:
        """The same, BATCH_SIZE frames at a time; only one full-size frame is in memory."""
        check_frames(frames)
        height, width = frames.shape[1:3]
        batch: list[np.ndarray] = []
        for frame in frames:
            batch.append(letterbox(frame, INPUT_SIZE))  # 128 128 3
            if len(batch) == BATCH_SIZE:
                yield self._predict(batch, width, height)
                batch = []
        if batch:
            yield self._predict(batch, width, height)

    def _predict(self, batch: list[np.ndarray], width: int, height: int) -> FaceTrack:
        image = np.stack(batch).transpose(0, 3, 1, 2).astype(np.float32) / 255  # b 3 128 128
        results: dict[str, np.ndarray] = {}
        for name, value in zip(OUTPUTS, self._session.run(list(OUTPUTS), {"image": image}), strict=True):
            rows = np.asarray(value, np.float32)
            rows = rows[:, : OUTPUTS[name][0]] if name == "pose" else rows
            results[name] = rows.reshape(len(batch), *OUTPUTS[name])
        landmarks = from_letterbox(results["landmarks"], width, height)  # b 68 2
        head_keypoints = from_letterbox(results["head_keypoints"], width, height)  # b 8 2
        return FaceTrack(
            boxes=boxes_around(np.concatenate([landmarks, head_keypoints], axis=1)),  # b 4
            landmarks=landmarks,
            head_keypoints=head_keypoints,
            expression=results["expression"],
            pose=results["pose"],
            present=results["present"] >= MIN_PRESENCE,
            width=width,
            height=height,
            five_points=five_points_from_68(landmarks),
        )


class BuiltInBackend:
    """onnx: the `face_analyzer` of a model. Detects everything, the expression too."""

    name = "built-in"

    def __init__(self, onnx: bytes) -> None:
        self._analyzer = FaceAnalyzer(onnx)

    def detect(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        for track in self._analyzer.batches(frames):
            for row in range(len(track)):
                face = FaceDetection(
                    box=track.boxes[row],
                    head_keypoints=track.head_keypoints[row],
                    five_points=track.five_points[row],
                    landmarks=given(track.landmarks, "landmarks")[row],
                    pose=given(track.pose, "head pose")[row],
                    expression=given(track.expression, "expression")[row],
                )
                yield [face] if track.present[row] else []


class PortraitSearch:
    """A face backend that searches whole images with another one (`BuiltInBackend`, which knows portraits of one face alone).

    pulse: called between calls of the network; it may raise to stop.
    """

    def __init__(self, backend: FaceBackend, pulse: Pulse | None = None) -> None:
        self.name, self._backend, self._pulse = backend.name, backend, pulse

    def detect(self, frames: Frames) -> Iterator[list[FaceDetection]]:
        faces: list[FaceDetection] = []
        expected, waited = 1, SEARCH_INTERVAL
        for frame in frames:
            squares = [portrait_square(face_box(face)) for face in faces]
            faces = self._confirmed(frame, [face for face in self._look(frame, squares) if face is not None])
            waited += 1
            if len(faces) < expected and waited > SEARCH_INTERVAL:
                faces, waited = self.find(frame), 0
                expected = max(1, len(faces))
            elif not faces:
                faces = self.find_whole(frame)
            yield faces

    def find(self, frame: np.ndarray) -> list[FaceDetection]:
        """All faces of an image, h w 3."""
        faces = self._find_upright(frame)
        if faces and portrait_square(face_box(faces[0])).side >= FILLING * max(frame.shape[:2]):
            return faces
        tiles = search_tiles(frame.shape[1], frame.shape[0])
        found = [(face, tile) for face, tile in zip(self._look(frame, tiles), tiles, strict=True) if face is not None]
        order = distinct_faces([face for face, _ in found], [-_mismatch(face, tile) for face, tile in found])
        candidates = [found[index] for index in order[:MAX_CANDIDATES]]
        refined = self._refine(frame, [face for face, _ in candidates], [tile.side for _, tile in candidates])
        faces = faces + self._confirmed(frame, refined)
        order = distinct_faces(faces, [-float(rank) for rank in range(len(faces))])
        return [faces[index] for index in order] or self._find_tilted(frame)

    def find_whole(self, frame: np.ndarray) -> list[FaceDetection]:
        """The face that a look at the whole image leads to, if there is one, upright or tilted a little."""
        return self._find_upright(frame) or self._find_tilted(frame)

    def tilt_of(self, frame: np.ndarray) -> int | None:
        """Degrees, clockwise, that the face of an image is tilted by, if it is tilted too far to be detected; else None."""
        return next((tilt for tilt in LARGE_TILTS if self._find_upright(rotate_image(frame, tilt)[0])), None)

    def _find_tilted(self, frame: np.ndarray) -> list[FaceDetection]:
        for tilt in SMALL_TILTS:
            image, matrix = rotate_image(frame, tilt)
            faces = self._find_upright(image)
            if faces:
                return [_rotated_face(face, invert_affine(matrix), tilt) for face in faces]
        return []

    def _find_upright(self, frame: np.ndarray) -> list[FaceDetection]:
        height, width = frame.shape[:2]
        side = max(width, height)
        whole = Square((width - side) // 2, (height - side) // 2, side)
        faces = [face for face in self._look(frame, [whole]) if face is not None]
        return self._confirmed(frame, self._refine(frame, faces, [side] * len(faces)))

    def _refine(self, frame: np.ndarray, faces: Sequence[FaceDetection], sides: Sequence[int]) -> list[FaceDetection]:
        """The faces detected again in ever closer squares; sides: of the squares they were detected in."""
        min_sides = np.array(sides, np.float64)
        for _ in range(LOOKS if faces else 0):
            min_sides *= MIN_STEP
            squares = [portrait_square(face_box(face), side) for face, side in zip(faces, min_sides, strict=True)]
            looked = self._look(frame, squares)
            faces = [new or old for new, old in zip(looked, faces, strict=True)]
        return list(faces)

    def _confirmed(self, frame: np.ndarray, faces: Sequence[FaceDetection]) -> list[FaceDetection]:
        """The faces whose points stay in place when the square around them is shifted."""
        squares = []
        for face in faces:
            square = portrait_square(face_box(face))
            for scale, right, down in SHIFTED:
                side = scale * square.side
                left, top = (
                    start + (square.side - side) / 2 + shift * square.side
                    for start, shift in ((square.left, right), (square.top, down))
                )
                squares.append(Square(round(left), round(top), max(1, round(side))))
        looked = self._look(frame, squares)
        count = len(SHIFTED)
        shifts = [
            max(_distance(face, other) for other in looked[count * i : count * (i + 1)]) for i, face in enumerate(faces)
        ]
        return [face for face, shift in zip(faces, shifts, strict=True) if shift <= MAX_SHIFT]

    def _look(self, frame: np.ndarray, squares: Sequence[Square]) -> list[FaceDetection | None]:
        """The face detected in each square of an image, in pixels of the image; None where there is none."""
        found: list[FaceDetection | None] = [None] * len(squares)
        # Where nothing is detected, a square may have moved out of the image.
        inside = [row for row, square in enumerate(squares) if square.overlaps(frame.shape[1], frame.shape[0])]
        for start in range(0, len(inside), BATCH_SIZE):
            rows = inside[start : start + BATCH_SIZE]
            crops = np.stack([crop_square(frame, squares[row], INPUT_SIZE) for row in rows])
            for row, faces in zip(rows, self._backend.detect(crops), strict=True):
                found[row] = _face_from_square(faces[0], squares[row]) if faces else None
            if self._pulse is not None:
                self._pulse()
        return found


def face_box(face: FaceDetection) -> np.ndarray:
    """From the brows to the chin: left, top, right, bottom, float64."""
    return boxes_around(given(face.landmarks, "landmarks")).astype(np.float64)


def search_tiles(width: int, height: int) -> list[Square]:
    """Squares of several sizes all over an image, not more than MAX_TILES of each."""
    sides = {max(MIN_TILE, round(fraction * min(width, height))) for fraction in SEARCH_SIDES}
    return [tile for side in sorted(sides, reverse=True) for tile in _tiles(width, height, side)]


def _tiles(width: int, height: int, side: int) -> list[Square]:
    across, down = (max(1, 1 + int(np.ceil((extent - side) / (SEARCH_STEP * side)))) for extent in (width, height))
    if across * down > MAX_TILES:
        fewer = (MAX_TILES / (across * down)) ** 0.5
        across, down = (max(1, min(MAX_TILES, int(count * fewer))) for count in (across, down))
        across, down = min(across, MAX_TILES // down), min(down, MAX_TILES // across)
    columns, rows = (
        np.linspace(0, max(0, extent - side), count).round().astype(int)
        for extent, count in ((width, across), (height, down))
    )
    return [Square(int(left), int(top), side) for top in rows for left in columns]


def rotate_image(frame: np.ndarray, degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """An image rotated counterclockwise in the centre of a square that holds it, and the map 2 3 of its pixels to there."""
    height, width = frame.shape[:2]
    side = max(height, width)
    matrix = cv2.getRotationMatrix2D((side / 2, side / 2), degrees, 1.0)
    matrix[:, 2] += matrix[:, :2] @ ((side - width) / 2, (side - height) / 2)
    return warp_image(frame, matrix, (side, side), replicate=True), matrix


def distinct_faces(faces: Sequence[FaceDetection], scores: Sequence[float]) -> list[int]:
    """The indices of the faces without the overlapping ones of lower score, the highest score first."""
    if not faces:
        return []
    boxes = np.stack([face_box(face) for face in faces])
    corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    lowest = min(scores) - 1
    order = cv2.dnn.NMSBoxes(corners.tolist(), [float(score) - lowest for score in scores], 0.0, SAME_FACE_IOU)
    return [int(index) for index in np.asarray(order).reshape(-1)]


def _mismatch(face: FaceDetection, tile: Square) -> float:
    """How far a square is from the portrait of the face detected in it, in sides."""
    wanted = portrait_square(face_box(face))
    difference = [wanted.left - tile.left, wanted.top - tile.top, wanted.side - tile.side]
    return float(np.linalg.norm(difference)) / tile.side


def _distance(face: FaceDetection, other: FaceDetection | None) -> float:
    """Mean distance of the landmarks of two detections of a face, in sizes of the face; infinite without the other."""
    if other is None:
        return float("inf")
    box = face_box(face)
    apart = given(face.landmarks, "landmarks") - given(other.landmarks, "landmarks")
    return float(np.linalg.norm(apart, axis=1).mean() / max(*(box[2:] - box[:2]), 1e-6))


def _face_from_square(face: FaceDetection, square: Square) -> FaceDetection:
    """A face detected in a crop of an image, in pixels of the image."""
    return face.map_points(lambda points: from_square(points, square, INPUT_SIZE).astype(np.float32))


def _rotated_face(face: FaceDetection, matrix: np.ndarray, tilt: float) -> FaceDetection:
    """A face through a similarity 2 3 that turns it clockwise by so many degrees."""
    moved = face.map_points(lambda points: transform_points(points, matrix).astype(np.float32))
    return replace(
        moved,
        box=boxes_around(np.concatenate([moved.head_keypoints, given(moved.landmarks, "landmarks")])),
        pose=given(face.pose, "head pose") + np.array([0, 0, tilt], np.float32),
    )
