"""Motions read from clips: by LivePortrait's network in one square, and from tracked faces of the drawn world, whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.face.crop import Square, crop_square
from svp_portrait.svp_models.face.detection import FaceDetection, build_track
from svp_portrait.svp_models.face.keypoints import five_points_from_68
from svp_portrait.svp_models.face.tracking import FaceTracker
from svp_portrait.svp_models.media.frame_stream import image_stream
from svp_portrait.svp_models.motion.extract import extract_liveportrait_motion, extract_svp_motion, motion_of_track
from svp_portrait.svp_models.motion.face_square import clip_square, video_squares
from svp_portrait.svp_models.motion.keypoints import motion_of_keypoints
from svp_portrait.svp_models.motion.liveportrait import read_motion
from svp_portrait.svp_models.synthetic.clips import make_clip
from svp_portrait.svp_models.synthetic.speakers import speaker

SIDE = 64
FACE = 20  # pixels


class Spots:
    """A backend that finds a face of FACE pixels at a white pixel."""

    name = "spots"

    def detect(self, frames):
        for frame in frames:
            corners = np.argwhere((frame == 255).all(axis=-1))[:, ::-1].astype(np.float32)
            yield [face_at(*corner) for corner in corners]


def face_at(left: float, top: float, size: float = FACE) -> FaceDetection:
    corner = np.array([left, top], np.float32)
    points = corner + np.array([[0, 0], [size, 0], [size, size], [0, size]] * 17, np.float32)
    return FaceDetection(np.concatenate([corner, corner + size]), points[:8], points[:5], points)


@pytest.fixture
def clip():
    """Noise of 7 frames, 100 x 80 pixels; the face moves right and is away in frames 2 and 3."""
    images = 0.8 * torch.rand(7, 80, 100, 3, generator=torch.Generator().manual_seed(5))
    for frame, left in ((0, 40), (1, 41), (4, 44), (5, 45), (6, 46)):
        images[frame, 40, left] = 1
    return images


def test_one_square_holds_the_face_of_a_whole_clip(liveportrait_networks, clip, caplog):
    """Its motion is that of the network on these squares; where the face is away it lies between its neighbours."""
    calls = []
    motion = extract_liveportrait_motion(
        liveportrait_networks, image_stream(clip), 30.0, FaceTracker(Spots()), side=SIDE,
        progress=lambda done, total: calls.append(done / total),
    )  # fmt: skip
    assert "no face in frames 2-3 of 7 of the clip: they are filled in between their neighbours" in caplog.text
    assert calls == sorted(calls) and calls[-1] == 1
    # The mean face is 20 pixels at 43.2, 40: the square of 46 pixels is centred 46 / 8 above its centre.
    square = Square(round(53.2 - 23), round(50 - 46 / 8 - 23), 46)
    crops = np.stack([crop_square(frame.numpy(), square, SIDE) for frame in clip])
    seen = motion_of_keypoints(read_motion(liveportrait_networks, torch.from_numpy(crops).permute(0, 3, 1, 2)), 30.0)
    assert (motion.fps, motion.space, len(motion)) == (30.0, "liveportrait", 7)
    shown = [0, 1, 4, 5, 6]
    for name in ("angles", "shift", "scale", "expression"):
        values, read = getattr(motion, name), getattr(seen, name)
        torch.testing.assert_close(values[shown], read[shown], rtol=1e-5, atol=1e-5)
        low, high = torch.minimum(values[1], values[4]) - 1e-6, torch.maximum(values[1], values[4]) + 1e-6
        assert ((values[2:4] >= low) & (values[2:4] <= high)).all()
    torch.testing.assert_close(motion.face, seen.face)


def test_a_clip_that_is_a_face_crop_already(liveportrait_networks, clip):
    square = clip[:, :, :80]
    motion = extract_liveportrait_motion(liveportrait_networks, image_stream(square), 25.0, whole=True, side=80)
    seen = motion_of_keypoints(read_motion(liveportrait_networks, square.permute(0, 3, 1, 2)), 25.0)
    torch.testing.assert_close(motion.expression, seen.expression, rtol=1e-5, atol=1e-5)
    with pytest.raises(PortraitError, match="100 x 80 pixels, and a face crop is square"):
        extract_liveportrait_motion(liveportrait_networks, image_stream(clip), 25.0, whole=True)


def test_a_square_grows_until_it_holds_every_face():
    track = build_track([face_at(0, 50), face_at(200, 50)], 400, 300)
    (square,) = clip_square(track).squares
    assert square.left <= 0 and square.left + square.side >= 220
    first, second = video_squares(track, reach=0).squares
    assert (first.side, second.side) == (46, 46) and second.left - first.left == 200


@pytest.fixture(scope="module")
def drawn():
    """A clip of the drawn world that blinks, and its true track."""
    clip = make_clip(speaker(2, "test"), "happy", 3, 0, seconds=4.0)
    faces = [
        FaceDetection(
            np.concatenate([points.min(axis=0), points.max(axis=0)]), head, five_points_from_68(points), points,
            state[:3], expression,
        )
        for points, head, state, expression in zip(
            clip.landmarks, clip.head_keypoints, clip.states.pose, clip.states.expression, strict=True
        )
    ]  # fmt: skip
    return clip, build_track(faces, 128, 128)


def test_the_drawn_world_is_read_as_it_was_performed(drawn):
    clip, track = drawn
    motion, states = motion_of_track(track, 25.0), clip.states
    assert motion.space == "svp" and motion.face is None
    np.testing.assert_allclose(motion.expression, states.expression, atol=1e-6)
    np.testing.assert_allclose(motion.angles, states.pose[:, :3], atol=1e-4)
    np.testing.assert_allclose(motion.shift, states.pose[:, 3:5], atol=0.03)
    np.testing.assert_allclose(motion.scale, states.pose[:, 5], atol=0.04)
    assert np.corrcoef(motion.scale, states.pose[:, 5])[0, 1] > 0.95  # and not with the open mouth
    blinks = states.blink.max(axis=1) > 0.9
    assert blinks.any() and motion.lids[blinks].min() > 0.8
    assert motion.lids[states.blink.max(axis=1) == 0].mean() < 0.15
    np.testing.assert_allclose(motion.gaze, states.gaze, atol=0.12)
    assert np.corrcoef(motion.gaze[:, 0], states.gaze[:, 0])[0, 1] > 0.98


def test_what_the_analyser_does_not_detect_is_none_or_refused(drawn):
    _, track = drawn
    motion = motion_of_track(replace(track, landmarks=None, pose=None), 25.0)
    assert motion.lids is None and motion.gaze is None
    assert float((motion.angles - torch.from_numpy(track.pose)).abs().mean()) < 12  # from five points
    images = image_stream(torch.rand(2, 80, 100, 3) * 0.5)
    with pytest.raises(PortraitError, match="no face found in the clip"):
        extract_svp_motion(images, 25.0, FaceTracker(Spots()))
    with pytest.raises(PortraitError, match="no expression: set 'expression' of Load Face Analyzer to deep3d"):
        motion_of_track(replace(track, expression=None), 25.0)
