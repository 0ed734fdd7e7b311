"""A portrait's face and the expressions that it is warped to: keypoints, landmarks, its own expression; expression tracks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..errors import PortraitError
from ..io.resampling import interpolate_rows, ping_pong_positions
from ..types import SVP, Motion
from .detectors.built_in import BuiltInBackend
from .expression_warp import Correct, ExpressionBasis, face_points, moved_points, warp_expression
from .mouth_interior import paint_mouths
from .portrait_reader import PortraitReader
from .tracking import FaceTracker, check_track, resolve_tracker, track_face_if_any

EXPRESSION, LIDS, GAZE = 64, 2, 2  # numbers of an expression track


@dataclass(frozen=True)
class PortraitFace:
    """keypoints: 8 2, head keypoints; landmarks: 68 2; both in pixels of the portrait. expression: 68, the portrait's own as a row
    of an expression track."""

    keypoints: Tensor
    landmarks: Tensor
    expression: Tensor

    def scaled(self, factor: Tensor) -> PortraitFace:
        """The same in a picture whose width and height are factor (2) times as large."""
        return PortraitFace(self.keypoints * factor, self.landmarks * factor, self.expression)

    def warp(
        self,
        image: Tensor,
        targets: Tensor,
        track: Tensor,
        basis: ExpressionBasis,
        paint_mouth: bool = False,
        dense: Correct | None = None,
    ) -> Tensor:
        """The portrait 3 h w with its head at keypoints n 8 2 (pixels) and the expressions n 68 -> n 3 h w. paint_mouth: the inside of
        a mouth that opens is painted; dense: corrects the spline."""
        points, moved = self.points(targets, track, basis)
        count = len(targets)
        warped = warp_expression(
            image.expand(count, -1, -1, -1), self.keypoints.expand(count, -1, -1), targets, points, moved, correct=dense
        )
        return paint_mouths(warped, points, moved) if paint_mouth else warped

    def points(self, targets: Tensor, track: Tensor, basis: ExpressionBasis) -> tuple[Tensor, Tensor]:
        """The points of an ExpressionBasis in the portrait and in the frames: n 70 2 both."""
        sources = self.keypoints.expand(len(targets), -1, -1)
        points = face_points(self.landmarks[None], self.keypoints[None]).expand(len(targets), -1, -1)
        own = self.expression.expand(len(targets), -1)
        return points, moved_points(basis, points, sources, targets, own, track)


def read_portrait_face(
    analyzer: FaceTracker | bytes | None,
    image: np.ndarray,
    what: str = "the portrait",
    reader: PortraitReader | None = None,
) -> PortraitFace:
    """The face of an image 1 h w 3 (uint8), see `track_face`; a detector without 68 landmarks raises PortraitError.

    Only the built-in analyser reads an expression as the synthetic speakers have it: any other face counts as relaxed. reader: looks
    closer at a face that it finds; without one, lids and gaze are not read.
    """
    tracker = resolve_tracker(analyzer, image, what)
    track = track_face_if_any(tracker, image, what)
    check_track(track, what)
    if track.landmarks is None:
        raise PortraitError(
            f"this face analyser finds no 68 landmarks in {what}: set the detector of Load Face Analyzer to mediapipe"
        )
    expression = torch.zeros(EXPRESSION + LIDS + GAZE)
    if isinstance(tracker.backend, BuiltInBackend) and track.expression is not None and not tracker.expression_network:
        if reader is not None:
            return _closer(reader, image[0], track.landmarks)
        expression[: track.expression.shape[1]] = torch.from_numpy(track.expression[0])
    return PortraitFace(
        torch.from_numpy(track.head_keypoints[0]).float(), torch.from_numpy(track.landmarks[0]).float(), expression
    )


def _closer(reader: PortraitReader, image: np.ndarray, landmarks: np.ndarray) -> PortraitFace:
    reading = reader.read([image], landmarks[:1])
    keypoints, points = (torch.from_numpy(value[0]) for value in (reading.head_keypoints, reading.landmarks))
    return PortraitFace(keypoints, points, reading.track()[0])


def expression_track(motion: Motion, frames: int, fps: float) -> Tensor:
    """A motion in the space 'svp' as what the denoiser's expression tokens are made of: frames x 68, expression, lids and gaze.

    A motion that is too short goes back and forth; without lids and gaze the eyes are open and look ahead.
    """
    if motion.space != SVP or motion.expression.shape[1] != EXPRESSION:
        raise PortraitError(
            f"the motion has {motion.expression.shape[1]} numbers in the space {motion.space}, this model reads {EXPRESSION} in "
            f"{SVP}: connect a motion of synthetic speakers or of Deep3DFaceRecon"
        )
    count = len(motion)
    lids = torch.zeros(count, LIDS) if motion.lids is None else motion.lids
    gaze = torch.zeros(count, GAZE) if motion.gaze is None else motion.gaze
    rows = torch.cat([motion.expression, lids, gaze], dim=1)  # n 68
    positions = torch.arange(frames, dtype=torch.float64) * (motion.fps / fps)
    return interpolate_rows(rows.double(), ping_pong_positions(positions, count)).float()
