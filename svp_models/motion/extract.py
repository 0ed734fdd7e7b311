"""The motion of a clip: read by LivePortrait's motion extractor, or from a tracked face with expression coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from ..checkpoints.liveportrait import LivePortraitNetworks
from ..face.affine import fit_affine_camera
from ..face.detection import FaceTrack
from ..face.head_pose import RIGID, RIGID_3D, pose_from_five_points
from ..face.tracking import FaceTracker, expression_from_track, find_face, track_face
from ..io.progress import Progress, shared
from ..io.resampling import interpolate_missing
from ..media.frame_stream import FrameStream
from ..types import SVP, Motion
from .face_square import clip_square, face_batches, whole_images
from .keypoints import KeypointMotion, motion_of_keypoints
from .liveportrait import INPUT_SIDE, mapped, read_motion

WHAT = "the clip"
OUTCOME = "they are filled in between their neighbours"
FRAMES_AT_ONCE = 16
# Points of the eyes among the 68 landmarks, left and right in the image.
CORNERS = ((36, 39), (42, 45))
LIDS = (((37, 41), (38, 40)), ((43, 47), (44, 46)))  # upper and lower
PUPILS = (4, 5)  # of the 8 head keypoints
OPEN_EYE = 90  # percentile of the openness over the clip that counts as open
CLOSED_EYE = 0.1  # of the open eye's openness, below which it is closed
HEAD_ORIGIN = (0.0, 0.2, -0.15)  # in half widths of the face, of RIGID_3D: the point about which drawn heads turn
PORTRAIT_HALF_WIDTH = 0.234  # of the face in a portrait of the synthetic speakers, as a share of its side
GAZE_REACH = (0.57, 0.37)  # of half an eye's width: how far a pupil goes to the side and up or down


def extract_liveportrait_motion(
    networks: LivePortraitNetworks,
    clip: FrameStream,
    fps: float,
    analyzer: FaceTracker | bytes | None = None,
    whole: bool = False,
    progress: Progress | None = None,
    side: int = INPUT_SIDE,
) -> Motion:
    """The motion of the face in a clip, in the space 'liveportrait'.

    The face is seen in one square for the whole clip, so that its shifts are shifts. whole: the frames are a square crop of the
    face already. Frames without the face are interpolated and named in a warning. side: pixels of the square that the networks
    see. progress(done, total) may raise to stop.
    """
    finding, reading = shared(progress, 0 if whole else 1, 1)
    track = None if whole else find_face(analyzer, clip, WHAT, finding, OUTCOME)
    crop = whole_images(clip.width, clip.height) if track is None else clip_square(track)
    parts, count = [], 0
    for images, faces in face_batches(clip.images(), crop, side, FRAMES_AT_ONCE):
        parts.append(mapped(read_motion(networks, faces), Tensor.cpu))
        count += len(images)
        if reading is not None:
            reading(min(count, len(clip)), len(clip))
    present = np.array([crop.shows(frame) for frame in range(count)])
    return motion_of_keypoints(_joined(parts, present), fps)


def extract_svp_motion(
    clip: FrameStream, fps: float, analyzer: FaceTracker | bytes | None, progress: Progress | None = None
) -> Motion:
    """The motion of the face in a clip, in the space 'svp'; its analyser has to read the expression."""
    return motion_of_track(track_face(analyzer, clip, WHAT, progress, fps), fps)


def motion_of_track(track: FaceTrack, fps: float) -> Motion:
    """A tracked face as a motion in the space 'svp'; frames without it are interpolated.

    Shift and scale are those of a rigid head fitted to the 8 head keypoints, which speech does not move: 0 and 1 for a face as a
    portrait of the synthetic speakers has it. Lids and gaze need the 68 landmarks, else they are None.
    """
    present = track.present
    place, scale = _head_places(track)
    pose = track.pose
    if pose is None:
        shown = zip(track.five_points, present, strict=True)
        pose = np.stack([pose_from_five_points(points) if there else np.zeros(3) for points, there in shown])
    lids, gaze = (None, None) if track.landmarks is None else _eyes(track, track.landmarks)
    return Motion(
        angles=_rows(pose, present),
        shift=_rows(place, present),
        scale=_rows(scale, present),
        expression=expression_from_track(track),
        fps=fps,
        space=SVP,
        lids=lids,
        gaze=gaze,
    )


def _joined(parts: Sequence[KeypointMotion], present: np.ndarray) -> KeypointMotion:
    """Consecutive parts of a motion as one. Frames without the face are interpolated; the face at rest is that of the first frame
    that shows it."""
    rows = {item.name: torch.cat([getattr(part, item.name) for part in parts]) for item in fields(KeypointMotion)}
    kp = rows.pop("kp")[int(present.argmax())][None]
    filled = {name: torch.from_numpy(interpolate_missing(stored.numpy(), present)[0]) for name, stored in rows.items()}
    return KeypointMotion(**filled, kp=kp)


def _rows(values: np.ndarray, present: np.ndarray) -> Tensor:
    return torch.from_numpy(interpolate_missing(values, present)[0])


def _head_places(track: FaceTrack) -> tuple[np.ndarray, np.ndarray]:
    """Shift n 2 and scale n of the head, seen by an affine camera, as shares of the picture's shorter side; 0 where absent."""
    side, middle = min(track.width, track.height), np.array([track.width, track.height]) / 2
    place, scale = np.zeros((len(track), 2)), np.zeros(len(track))
    for frame in np.flatnonzero(track.present):
        points = track.head_keypoints[frame, list(RIGID)].astype(np.float64)
        camera = fit_affine_camera(points, np.array(RIGID_3D, np.float64))  # 4 2: x, y, z, origin
        place[frame] = (np.array([*HEAD_ORIGIN, 1.0]) @ camera - middle) / side
        scale[frame] = np.linalg.norm(camera[:3], axis=0).mean() / side / PORTRAIT_HALF_WIDTH
    return place, scale


def _eyes(track: FaceTrack, landmarks: np.ndarray) -> tuple[Tensor, Tensor]:
    """Lids n 2, 0 open to 1 closed, and gaze n 2, -1 to 1, of the 68 landmarks and the pupils."""
    points = interpolate_missing(landmarks, track.present)[0].astype(np.float64)
    pupils = interpolate_missing(track.head_keypoints[:, list(PUPILS)], track.present)[0].astype(np.float64)
    lids, glances = [], []
    for eye, (corners, pairs) in enumerate(zip(CORNERS, LIDS, strict=True)):
        left, right = points[:, corners[0]], points[:, corners[1]]
        across = right - left
        half = np.linalg.norm(across, axis=1) / 2
        gap = np.mean([np.linalg.norm(points[:, upper] - points[:, lower], axis=1) for upper, lower in pairs], axis=0)
        openness = gap / half
        opened = max(float(np.percentile(openness[track.present], OPEN_EYE)), 1e-6)
        lids.append((1 - (openness / opened - CLOSED_EYE) / (1 - CLOSED_EYE)).clip(0, 1))
        offset = pupils[:, eye] - (left + right) / 2
        direction = across / np.maximum(2 * half, 1e-9)[:, None]
        along = (offset * direction).sum(axis=1) / half / GAZE_REACH[0]
        down = (offset * np.stack([-direction[:, 1], direction[:, 0]], axis=1)).sum(axis=1) / half / GAZE_REACH[1]
        glances.append(np.stack([along, down], axis=1))
    gaze = np.mean(glances, axis=0).clip(-1, 1)
    return torch.from_numpy(np.stack(lids, axis=1)).float(), torch.from_numpy(gaze).float()
