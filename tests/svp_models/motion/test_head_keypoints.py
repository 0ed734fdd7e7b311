from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from svp_portrait.svp_models.errors import PortraitError
from svp_portrait.svp_models.motion.head_keypoints import (
    EYES_APART,
    HEAD_FRAMES,
    LP_ORIGIN,
    MEAN_HEADS,
    head_keypoints_of_motion,
    lift_head,
    project_head,
)
from svp_portrait.svp_models.motion.keypoints import keypoints_of_motion, transform_keypoints
from svp_portrait.svp_models.motion.mix import resample
from svp_portrait.svp_models.synthetic import geometry
from svp_portrait.svp_models.synthetic.clips import act, neutral_portrait, states_to_motion
from svp_portrait.svp_models.synthetic.renderer import render_clip
from svp_portrait.svp_models.synthetic.speakers import speaker
from svp_portrait.svp_models.types import HeadMotion, Motion

from .motions import still_motion

SIDE = 256


def portrait_of(points: np.ndarray) -> HeadMotion:
    return HeadMotion(torch.as_tensor(points, dtype=torch.float32).view(1, 8, 2), SIDE, SIDE, 25.0)


def drawn_head(angles=(0.0, 0.0, 0.0)) -> np.ndarray:
    frame = HEAD_FRAMES["svp"]
    return project_head(MEAN_HEADS[0], np.array([angles]), frame)[0] * 60 + 128


def errors(points: np.ndarray, wanted: np.ndarray) -> float:
    """Mean distance in pixels."""
    return float(np.linalg.norm(np.asarray(points) - wanted, axis=-1).mean())


@pytest.mark.parametrize(("index", "emotion"), [(0, "neutral"), (1, "happy"), (2, "fear"), (3, "sad")])
def test_the_head_keypoints_of_a_performance_are_those_of_its_pictures(index, emotion):
    """With a portrait of the first frame, and with a frontal one; still keypoints are about 5 pixels away at 256."""
    person = speaker(index, "test")
    states = act(person, emotion, 3, index, 60, 25.0)[2]
    true = render_clip(person.identity, states, SIDE).head_keypoints
    motion = states_to_motion(states, 25.0)
    moved = head_keypoints_of_motion(motion, portrait_of(true[0]))
    assert np.array_equal(moved.keypoints[0], true[0])  # the portrait itself
    assert errors(moved.keypoints, true) < min(1.0, 0.25 * errors(true[0], true))

    frontal = neutral_portrait(person, SIDE).head_keypoints[0]
    rest = still_motion(1)
    joined = Motion(
        *(torch.cat([getattr(rest, name), getattr(motion, name)]) for name in ("angles", "shift", "scale", "expression")),
        25.0, "svp", *(torch.cat([getattr(rest, name), getattr(motion, name)]) for name in ("lids", "gaze")),
    )  # fmt: skip
    moved = head_keypoints_of_motion(joined, portrait_of(frontal))
    assert errors(moved.keypoints[1:], true) < min(1.0, 0.25 * errors(frontal, true))


def test_absolute_turns_to_the_motions_own_angles():
    """The first frame is turned by 20 degrees; a frontal portrait turns with it in absolute mode alone."""
    motion = replace(still_motion(3), angles=torch.tensor([[20.0, 5, -4], [20, 5, -4], [0, 0, 0]]))
    points = drawn_head()
    absolute = head_keypoints_of_motion(motion, portrait_of(points), "absolute").keypoints.numpy()
    assert errors(absolute[0], drawn_head((20, 5, -4))) < 0.01 and errors(absolute[2], points) < 0.01
    relative = head_keypoints_of_motion(motion, portrait_of(points)).keypoints.numpy()
    assert np.array_equal(relative[1], relative[0]) and errors(relative[2], drawn_head((-20, -5, 4))) < 0.01


def test_a_turned_portrait_keeps_its_turn():
    """Angles are added to the portrait's own, which are found from its points."""
    for angles in ((0, 0, 0), (15, -5, 8), (-25, 10, -12)):
        points = drawn_head(angles)
        head = lift_head(points, HEAD_FRAMES["svp"])
        np.testing.assert_allclose(head.angles, angles, atol=1e-3)
        assert head.half_width == pytest.approx(60, rel=1e-3)
        motion = replace(still_motion(2), angles=torch.tensor([[3.0, 2, 1], [13, -2, 6]]))
        moved = head_keypoints_of_motion(motion, portrait_of(points)).keypoints[1]
        assert errors(moved, drawn_head(np.add(angles, (10, -4, 5)))) < 0.01


def test_shift_and_scale_have_closed_form_values():
    """A driver whose face is half_width wide of its picture moves the portrait as far in half widths of the portrait's."""
    motion = replace(still_motion(2), shift=torch.tensor([[0.1, 0.0], [0.147, 0.0235]]), scale=torch.tensor([1.0, 1.2]))
    points = drawn_head()
    moved = head_keypoints_of_motion(motion, portrait_of(points)).keypoints[1].numpy()
    wanted = (points - 128) * 1.2 + 128 + np.array([0.2, 0.1]) * 60  # 0.047 and 0.0235 of 0.235
    np.testing.assert_allclose(moved, wanted, atol=0.02)


def test_pupils_follow_the_gaze_alone():
    motion = replace(still_motion(2), gaze=torch.tensor([[0.0, 0.0], [0.5, -0.5]]))
    points = drawn_head()
    step = head_keypoints_of_motion(motion, portrait_of(points)).keypoints[1].numpy() - points
    assert np.abs(step[[0, 1, 2, 3, 6, 7]]).max() < 0.01
    assert (step[[4, 5], 0] > 3).all() and (step[[4, 5], 1] < -2).all()


def test_liveportraits_motions_turn_as_its_own_points_do():
    """Against x = s (x_c R + exp) + t of a head with its origin where LivePortrait has it, seen without perspective."""
    generator = torch.Generator().manual_seed(0)
    angles = 20 * torch.randn(6, 3, generator=generator)
    angles[0] = 0
    shift = 0.05 * torch.randn(6, 2, generator=generator)
    scale = 1.6 + 0.1 * torch.randn(6, generator=generator)
    motion = Motion(angles, shift, scale, torch.zeros(6, 63), 25.0, "liveportrait")
    frame, unit = HEAD_FRAMES["liveportrait"], 0.271 / EYES_APART  # of a picture 2 wide
    canonical = torch.from_numpy((MEAN_HEADS[1] - LP_ORIGIN) * unit * (1, 1, -1)).float()
    numbers = keypoints_of_motion(motion)
    exp = torch.zeros(1, 1, 3)
    wanted = transform_keypoints(canonical[None], numbers.rotation, exp, numbers.scale, numbers.t)[..., :2]
    pixels = (wanted.numpy() + 1) / 2 * SIDE
    far = replace(frame, camera=1e6)
    HEAD_FRAMES["liveportrait"], near = far, frame
    try:
        moved = head_keypoints_of_motion(motion, portrait_of(pixels[0])).keypoints.numpy()
    finally:
        HEAD_FRAMES["liveportrait"] = near
    np.testing.assert_allclose(moved, pixels, atol=0.05)
    seen = head_keypoints_of_motion(motion, portrait_of(pixels[0])).keypoints.numpy()
    assert 0.1 < errors(seen, pixels) < 3  # perspective is what remains


def test_the_numbers_of_the_drawn_world_are_its_own():
    frame = HEAD_FRAMES["svp"]
    assert np.allclose(frame.turn_pivot, geometry.TURN_PIVOT) and np.allclose(frame.tilt_pivot, geometry.TILT_PIVOT)
    assert (frame.half_width, frame.camera) == (geometry.UNIT, geometry.CAMERA)
    pose = geometry.Pose(12, -7, 9, 0, 0, 1)
    points = geometry.project(MEAN_HEADS[0].astype(np.float32), pose, 1000)
    own = project_head(MEAN_HEADS[0], np.array([[12.0, -7, 9]]), frame)[0] * geometry.UNIT + geometry.CENTRE
    np.testing.assert_allclose(points / 1000, own, atol=1e-5)


def test_errors_name_what_is_wrong():
    points = torch.from_numpy(drawn_head()).float()
    with pytest.raises(PortraitError, match="the mode is 'same': choose one of relative, absolute"):
        head_keypoints_of_motion(still_motion(2), portrait_of(points), "same")
    clip = HeadMotion(points.expand(3, 8, 2), SIDE, SIDE, 25.0)
    with pytest.raises(PortraitError, match="the portrait's keypoints have 3 frames"):
        head_keypoints_of_motion(still_motion(2), clip)
    with pytest.raises(PortraitError, match="lie on one spot"):
        head_keypoints_of_motion(still_motion(2), portrait_of(np.full((8, 2), 7.0)))


def test_frame_rate_and_size_are_kept():
    moved = head_keypoints_of_motion(resample(still_motion(4), 9, 30.0), portrait_of(drawn_head()))
    assert (len(moved), moved.fps, moved.width, moved.height) == (9, 30.0, SIDE, SIDE)
    assert torch.equal(moved.portrait, moved.keypoints[0])
